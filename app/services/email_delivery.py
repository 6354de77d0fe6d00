"""Getting planned mails to the mail server, each of them once.

A mail is claimed with a lease before it is sent, and marked after; no transaction is open
while the server is spoken to. Where a worker dies in between, or the server's answer or our
commit is lost, the lease stays. Whoever takes the mail over when it has run out counts it as
uncertain: it may go out twice, under the same Message-ID. In no other way is a mail doubled.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from jinja2 import TemplateError
from sqlalchemy import select

from app import db, outbox
from app.adapters.mailer import (
    MailConnection,
    Mailer,
    MailFateUnknownError,
    MailRefusedError,
    MailRefusesUsError,
    MailServerUnavailableError,
    MailTemporarilyRefusedError,
)
from app.adapters.mailers import sender_address
from app.db import Tables
from app.domain.errors import TransientError
from app.models import EmailMessage, EmailState
from app.services import email_claims, email_letters
from app.services.email import DELIVER
from app.services.email_claims import Claim, Claimable
from app.services.email_letters import Letter
from app.services.email_rendering import render
from app.services.errors import MissingRowError
from app.settings import Settings

logger = logging.getLogger(__name__)

WAITS_BEFORE_MESSAGE = 3
"""Of the waits that a lease has room for, MAIL, RCPT and DATA come before the message."""

# What a template, a name or a date that nobody thought of may raise. One such mail must not
# take the rest of its chunk with it.
_RENDERING_FAULTS = (TemplateError, ValueError, TypeError, LookupError, OverflowError)


class _UnwritableError(MailRefusedError):
    """The mail's own fault, and no server has refused it."""


@dataclass(frozen=True)
class DeliverySummary:
    sent: int
    failed: int
    """Will never be accepted; each has a dead letter of its own."""
    cancelled: int
    """Had become pointless, or unwanted."""
    skipped: int
    """Were finished before, or are held by another worker."""
    left: tuple[int, ...]
    """Still to be sent, because of ``error`` or because the time was up."""
    error: TransientError | None
    """Why mails are left; ``None`` where only the time was up."""
    retry_after: float | None
    """Seconds until the first lease ends, where mails are held by somebody, or their fate
    is unknown."""
    claimed: TransientError | None = None
    """Why mails stay claimed for ``retry_after``."""


class MailClaimedError(TransientError):
    """Another delivery holds the claim of a mail, or has died with it."""


@dataclass(frozen=True)
class _Sending:
    """A mail in hand."""

    claim: Claim
    last_moment: datetime
    """The latest instant to begin with the message itself: later the lease might end before
    the server's answer."""
    letter: Letter


def deliver(
    email_ids: Sequence[int],
    *,
    mailer: Mailer,
    settings: Settings,
    clock: Callable[[], datetime],
    include_failed: bool = False,
) -> DeliverySummary:
    """Send those of the mails that wait, over as few connections as possible.

    Opens transactions of its own; raises nothing for what a mail server does. Not done
    where ``left`` holds ids or ``retry_after`` is set: then it is to be called again.
    ``include_failed`` sends failed mails too.
    """
    chosen = list(dict.fromkeys(email_ids))
    with db.tables() as tables:
        delivery = _Delivery(tables, mailer, settings, clock, include_failed)
        delivery.run(chosen)
        summary = delivery.summary(chosen)
    if delivery.had_secrets:
        db.discard_deleted()
    return summary


class _Delivery:
    def __init__(
        self,
        tables: Tables,
        mailer: Mailer,
        settings: Settings,
        clock: Callable[[], datetime],
        include_failed: bool,
    ) -> None:
        self._tables = tables
        self._mailer = mailer
        self._settings = settings
        self._clock = clock
        self._include_failed = include_failed
        self._lease = timedelta(seconds=settings.mail_lease_seconds)
        self._before_message = timedelta(
            seconds=WAITS_BEFORE_MESSAGE * settings.smtp_timeout_seconds
        )
        # No mail is begun that the task's time limit could interrupt.
        self._ends = clock() + timedelta(
            seconds=max(1, settings.task_soft_time_limit_seconds - settings.mail_lease_seconds)
        )
        self._sender = sender_address(settings)
        self._zone = ZoneInfo(settings.celery_timezone)
        self._waiting: deque[Claimable] = deque()
        self._accepted: Claim | None = None
        self._error: TransientError | None = None
        self._unknown: MailFateUnknownError | None = None
        self._sent = self._failed = self._cancelled = 0
        self.had_secrets = False
        """Whether a mail with a token was in hand: the row's token is deleted with it."""

    def run(self, email_ids: Sequence[int]) -> None:
        self._waiting = deque(
            self._tables.run(
                lambda connection: email_claims.all_claimable(
                    connection, email_ids, now=self._clock(), include_failed=self._include_failed
                )
            )
        )
        usable = True
        while self._waiting and usable and self._clock() < self._ends:
            try:
                with self._mailer.open() as connection:
                    usable = self._send_over(connection)
            except MailServerUnavailableError as error:
                self._error = error
                return

    def summary(self, email_ids: Sequence[int]) -> DeliverySummary:
        now = self._clock()
        # A failed mail that was to be sent again has its turn still before it; one that has
        # failed in this run has not.
        not_tried = (EmailMessage.state == EmailState.FAILED) & EmailMessage.id.in_(
            [mail.email_id for mail in self._waiting]
        )
        with db.reading() as session:
            open_mails = session.execute(
                select(EmailMessage.id, EmailMessage.state, EmailMessage.leased_until)
                .where(
                    EmailMessage.id.in_(email_ids),
                    EmailMessage.state.in_([EmailState.QUEUED, EmailState.SENDING]) | not_tried,
                )
                .order_by(EmailMessage.id)
            ).all()
        left = tuple(row.id for row in open_mails if row.state is not EmailState.SENDING)
        leases = [row.leased_until for row in open_mails if row.state is EmailState.SENDING]
        settled = self._sent + self._failed + self._cancelled
        if isinstance(self._error, MailRefusesUsError) and left:
            logger.error("the mail server refuses us, no mail goes out: %s", self._error)
        return DeliverySummary(
            sent=self._sent,
            failed=self._failed,
            cancelled=self._cancelled,
            skipped=len(email_ids) - settled - len(left),
            left=left,
            error=self._error if left else None,
            retry_after=max(0.0, (min(leases) - now).total_seconds()) if leases else None,
            claimed=(
                self._unknown or MailClaimedError("another delivery holds the claim of a mail")
            )
            if leases
            else None,
        )

    def _send_over(self, connection: MailConnection) -> bool:
        """Send what waits, until nothing does or the connection is of no more use.

        Whether another connection is worth a try: one that broke before it was of any use
        is not, since the next would hardly be better.
        """
        useful = False
        try:
            while (sending := self._next()) is not None:
                claim = sending.claim
                try:
                    withheld = not self._send(connection, sending)
                except _UnwritableError as error:
                    self._fail(claim, str(error))
                    return True
                except MailServerUnavailableError as error:
                    self._put_back(claim, error)
                    return useful
                except MailFateUnknownError as error:
                    # It stays leased: who takes it over will know that it is uncertain.
                    logger.warning("mail %s: fate unknown: %s", claim.email_id, error)
                    self._unknown = error
                    return useful
                if withheld:
                    slow = f"{self._mailer.place}: too slow for the lease"
                    self._put_back(claim, MailServerUnavailableError(slow))
                    return useful
                useful = True
        finally:
            self._mark_accepted()
        return False

    def _send(self, connection: MailConnection, sending: _Sending) -> bool:
        """Whether the server has answered, if only with a refusal; else it was withheld."""
        claim, letter = sending.claim, sending.letter
        try:
            accepted = connection.send(
                lambda: self._write(letter),
                sender=self._sender,
                recipient=letter.reader_address,
                proceed=lambda ahead: self._may_proceed(sending, ahead),
            )
        except _UnwritableError:
            raise
        except MailRefusedError as error:
            self._fail(claim, str(error))
        except MailTemporarilyRefusedError as error:
            self._put_back(claim, error)
        else:
            if not accepted:
                return False
            self._accepted = claim
        return True

    def _write(self, letter: Letter) -> bytes:
        try:
            return render(letter, settings=self._settings, now=self._clock())
        except _RENDERING_FAULTS as error:
            raise _UnwritableError(f"cannot be written: {type(error).__name__}") from error

    def _next(self) -> _Sending | None:
        """The next mail to be sent, claimed; ``None`` where there is none."""
        while (claim := self._claim_next()) is not None:
            try:
                letter = self._read(claim)
            except Exception as error:
                # It has not been begun, and whoever takes it over should not doubt that.
                self._put_back(claim, TransientError(type(error).__name__))
                raise
            if letter is not None:
                return _Sending(
                    claim, last_moment=claim.since + self._before_message, letter=letter
                )
        return None

    def _claim_next(self) -> Claim | None:
        """Mark the mail that was just accepted and claim the next one, in one statement: where
        there is one write lock for all, it is held for no longer."""
        if self._accepted is not None and self._accepted.carries_secret:
            self._mark_accepted()
        while self._waiting and (now := self._clock()) < self._ends:
            claim = self._tables.run(
                partial(
                    email_claims.claim,
                    mail=self._waiting.popleft(),
                    now=now,
                    lease=self._lease,
                    include_failed=self._include_failed,
                    accepted=self._accepted,
                )
            )
            self._count_accepted()
            if claim is not None:
                self.had_secrets |= claim.carries_secret
                return claim
        return None

    def _read(self, claim: Claim) -> Letter | None:
        """What is to be sent; ``None`` where it is not to be, and the mail is closed."""
        if claim.takeovers > self._settings.max_deliveries and not self._include_failed:
            # Each takeover may have been another copy in the reader's mailbox.
            self._fail(
                claim, f"nobody knows whether it was sent: taken over {claim.takeovers} times"
            )
            return None
        try:
            letter = self._tables.run(
                lambda connection: email_letters.read(
                    connection, claim.email_id, claim.kind, now=claim.since, zone=self._zone
                )
            )
        except MissingRowError as error:
            self._fail(claim, str(error))
            return None
        if letter is None:
            with db.transaction() as session:
                email_claims.cancel(session.connection(), claim)
            self._cancelled += 1
        return letter

    def _may_proceed(self, sending: _Sending, ahead: float) -> bool:
        if self._clock() + timedelta(seconds=ahead) > sending.last_moment:
            return False
        return self._tables.run(lambda connection: email_claims.is_held(connection, sending.claim))

    def _mark_accepted(self) -> None:
        if self._accepted is None:
            return
        with db.transaction() as session:
            email_claims.mark_sent(session.connection(), self._accepted, now=self._clock())
        self._count_accepted()

    def _count_accepted(self) -> None:
        self._sent += self._accepted is not None
        self._accepted = None

    def _put_back(self, claim: Claim, error: TransientError) -> None:
        """Queue a mail again that was certainly not accepted."""
        self._error = error
        with db.transaction() as session:
            email_claims.put_back(session.connection(), claim, str(error))

    def _fail(self, claim: Claim, error: str) -> None:
        with db.transaction() as session:
            if email_claims.close_failed(session, claim, error, now=self._clock()):
                outbox.bury_new(session, DELIVER, [claim.email_id], True, error=error)
                self._failed += 1
