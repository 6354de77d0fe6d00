"""The base class of every task."""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timedelta
from socket import gaierror
from typing import Any, ClassVar, cast

from celery import Task
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry
from celery.result import AsyncResult
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from typing_extensions import ParamSpec, TypeVar

from app import clock, db, entropy, routing
from app.domain.backoff import backoff_delay
from app.domain.errors import TransientError
from app.outbox import DUE_INSTANT_HEADER, PUBLISHED_AT_HEADER, BrokerUnavailableError, guard
from app.outbox.guard import AlreadyDoneError, Delivery
from app.settings import load_settings
from app.tasks import attempts, registration, retries
from app.tasks.attempts import AttemptError, Becomes, How, NotRecordedError, RowLockedError
from app.tasks.retries import PlannedRetry, RetryFromEntry

logger = logging.getLogger(__name__)

# The defaults let a body say ``self: BaseTask``.
P = ParamSpec("P", default=...)
R_co = TypeVar("R_co", covariant=True, default=Any)

SKIPPED = {"status": "skipped", "reason": "already done"}
DEAD = {"status": "dead", "reason": "redelivered too often"}


class BaseTask(Task[P, R_co]):
    """A task whose work is in the outbox, or came by ``celery call`` or a stock producer.

    * ``with self.transaction() as session:`` runs an effect exactly once, however often
      the message is delivered. At most once in a run; a body that never enters it may run
      more than once.
    * An error of ``transient_errors`` that leaves the body is retried with backoff and
      jitter, up to ``max_retries`` times. ``raise self.retry(exc=exc, countdown=seconds)``
      works as in Celery.
    * Any other error, and one retry too many, makes a dead letter. ``app.tasks.attempts``
      has the table of all the ways in which an attempt ends.
    """

    Request = "app.tasks.counted_request:CountedRequest"

    max_retries: int | None = 5
    retry_base: ClassVar[float] = 2.0
    """Seconds: the first retry waits between half of it and all of it."""
    retry_cap: ClassVar[float] = 600.0
    """Seconds: no retry waits longer."""
    transient_errors: ClassVar[tuple[type[Exception], ...]] = (
        TransientError,
        ConnectionError,
        TimeoutError,
        gaierror,
        OperationalError,
        InterfaceError,
        PoolTimeoutError,
        BrokerError,
        BrokerUnavailableError,
        RedisConnectionError,
        RedisTimeoutError,
    )

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Refuse a task that could not run as it says. Raises ``RegistrationError``."""
        registration.check(cls, app)

    def apply_async(self, *args: Any, **options: Any) -> AsyncResult[R_co]:
        """Publish a run past the outbox, as Celery does.

        Raises ``ValueError`` for a time limit that no worker could keep.
        """
        registration.check_limits(self.name, options)
        return super().apply_async(*args, **options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        if self.request.called_directly:
            return super().__call__(*args, **kwargs)
        self.request.update(guarded=False, planned_retry=None, not_to_retry=None, ended_by=None)
        with self._bookkeeping():
            refusal = self._refusal()
        if refusal is not None:
            return cast(R_co, refusal)
        try:
            with self._idle_within_limits():
                result = self.run(*args, **kwargs)
        except BaseException as error:
            attempts.leave_to_the_process(error, self.request)
            if isinstance(error, NotRecordedError):
                raise
            if db.is_unreachable(error):
                raise self._not_recorded(error) from error
            # An error that self.retry() raised instead of a retry is final, also a transient one.
            final = error is self.request.get("not_to_retry")
            how = attempts.how_raised(error, () if final else self.transient_errors)
            self._end(how, error)
            return cast(R_co, SKIPPED)
        unfinished = attempts.unfinished(result)
        planned = self.request.get("planned_retry")
        if unfinished is not None:
            self._end(How.UNFINISHED, unfinished)
        elif planned is not None:
            self._put_back(planned)
        else:
            self._end(How.RETURNED)
        return result

    def _end(self, how: How, error: Any = None) -> None:
        """Record in the entry how the attempt ended, and raise what Celery is to report."""
        match attempts.ENDS[how]:
            case Becomes.COMPLETED:
                if not self.request.get("guarded"):
                    self._close()
                if error is not None:
                    raise error
            case Becomes.RESCHEDULED:
                self._reschedule(error)
            case Becomes.REQUEUED:
                self._requeue(error)
            case Becomes.FAILED:
                self._fail(error)

    def _reschedule(self, error: BaseException) -> None:
        try:
            if isinstance(error, RetryFromEntry):
                raise error
            if isinstance(error, Retry):
                if getattr(error, "sig", None) is None:
                    # Made by the body itself: nothing has planned or published it yet.
                    self.retry(exc=error.exc, **retries.wait_of(error))
                raise error
            self.retry(exc=attempts.presentable(error))
        except RetryFromEntry as retry:
            self._put_back(retry)
            raise
        except (Retry, NotRecordedError):
            raise
        except Exception as final:
            self._fail(final)

    def _requeue(self, error: BaseException) -> None:
        lost = AttemptError(attempts.text_of(error))
        if not self._from_outbox:
            limit = self.max_retries
            try:
                super().retry(
                    exc=lost,
                    countdown=self.backoff(self.request.retries),
                    max_retries=load_settings().max_deliveries if limit is None else limit,
                )
            except Retry:
                raise
            except Exception as final:
                self._fail(final)
        with self._bookkeeping():
            due_at = self._return_to_entry(self._delivery, str(lost))
        if due_at is not None:
            raise RetryFromEntry(exc=lost, when=due_at)
        self._fail(lost)

    def _fail(self, error: BaseException) -> None:
        text = attempts.text_of(error)
        if isinstance(error, Reject):
            # Celery calls no hook of the task for it.
            unrecorded = self.bury(self._delivery, text)
            if unrecorded is not None:
                raise unrecorded
            raise Reject(text, requeue=False)
        self.request.update(ended_by=text)
        shown = attempts.presentable(error)
        if shown is error:
            raise error
        raise shown from None

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A transaction that first marks this run done, then holds the effect.

        Where another delivery was first, the body ends here and the task is skipped. What
        takes several transactions uses ``db.transaction()`` for the others, with a key for
        each item, and this one last.
        """
        if self.request.get("guarded"):
            raise RuntimeError(
                f"{self.name} entered self.transaction() twice: its first one has marked the run "
                "done; use db.transaction() for the earlier ones"
            )
        with db.transaction() as session:
            if not self.request.called_directly:
                guard.mark_done(session, self._delivery, now=clock.utcnow())
            yield session
        self.request.update(guarded=True)

    @property
    def due_at(self) -> datetime:
        """The instant that this run stands for (UTC), the same in every attempt.

        The due instant of the beat entry that planned it, else when the work was first due;
        now, for a message that did not come from the outbox. It may lie hours back: it says
        which day a report is about, ``clock.utcnow()`` whether something is still of use.
        """
        carried = self.request.get(DUE_INSTANT_HEADER)
        return clock.utcnow() if carried is None else datetime.fromisoformat(carried)

    @property
    def urgency(self) -> int | None:
        """That of the message (0 to 9), for work that this run leaves to another one.

        ``None`` where it came without one: then the queue's is right.
        """
        priority = (self.request.delivery_info or {}).get("priority")
        return None if priority is None else routing.urgency_of(priority)

    def backoff(self, retries: int) -> float:
        """Seconds to wait before retry number ``retries`` (0-based)."""
        return backoff_delay(retries, base=self.retry_base, cap=self.retry_cap, rng=entropy.rng())

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: Exception | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Run the task again later; as Celery's, but safe where the broker is away.

        For work of the outbox the next attempt is written into its entry, and published when
        it is due. ``countdown`` (seconds) or ``eta`` (aware) says when; without them the
        backoff does. Raises ``Retry``; ``exc`` itself, or
        ``MaxRetriesExceededError``, after ``max_retries`` retries; ``exc`` at once where a
        retry is pointless: an ``AssertionError``, or the end of the body by its guard;
        ``NotRecordedError`` where ``exc`` says that the database cannot be reached; and
        ``TypeError`` or ``ValueError`` for arguments that are refused (``check_call``).
        """
        if isinstance(exc, AlreadyDoneError | AssertionError | Retry | Ignore | Reject):
            raise exc
        if exc is not None and db.is_unreachable(exc):
            raise self._not_recorded(exc) from exc
        retries.check_call(self.name, args, kwargs, exc, eta, countdown)
        exc = None if exc is None else attempts.presentable(exc)
        # An error that is raised instead of a retry may be transient, but is not retried.
        self.request.update(not_to_retry=exc)
        tries = self.request.retries
        if countdown is None and eta is None:
            countdown = self.backoff(tries)
        due_at = retries.due_at(self.name, eta, countdown)
        if not self._from_outbox:
            return super().retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)
        if options:
            raise TypeError(f"an outbox task keeps its queue and options: {sorted(options)}")
        limit = self.max_retries if max_retries is None else max_retries
        if limit is not None and tries >= limit:
            raise exc or MaxRetriesExceededError(f"{self.name} failed {tries + 1} times")
        retry = RetryFromEntry(exc=exc, when=due_at)
        retry.planned = PlannedRetry(
            due_at=due_at,
            error=attempts.text_of(exc) if exc else "the task asked for a retry",
            args=None if args is None else list(args),
            kwargs=None if kwargs is None else dict(kwargs),
        )
        if throw:
            raise retry
        # Written when the body has ended: it may hold the row's lock now.
        self.request.update(planned_retry=retry, not_to_retry=None)
        return retry

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Make a dead letter, unless the body was ended from outside.

        Also called in the worker's main process, for a hard time limit.
        """
        # The error that left the body: Celery may have replaced it by one that can be pickled.
        text = self.request.get("ended_by") or attempts.text_of(exc)
        traceback = str(einfo.traceback) if einfo else None
        if self.request.get("ended_outside"):
            return  # the request records it, when the body's process is dead
        unrecorded = self.bury(self._delivery, text, traceback=traceback)
        if unrecorded is not None and einfo:
            einfo.exception = unrecorded  # what the worker's main process is given

    def record_end(self, how: How, delivery: Delivery, error: str) -> None:
        """Record an end that the body's own process could not record.

        Called in the worker's main process, for an end that either requeues the entry (within
        ``MAX_DELIVERIES``) or fails it. Waits for ``db.BRIEF_WAIT`` at most for the entry's
        row. Raises database errors.
        """
        if attempts.ENDS[how] is Becomes.REQUEUED:
            self._return_to_entry(delivery, error, brief=True)
        else:
            self.record_failure(delivery, error)

    def record_failure(self, delivery: Delivery, error: str) -> None:
        """Make a dead letter of ``delivery``, as ``record_end`` does."""
        with db.transaction(brief=True) as session:
            guard.bury(session, delivery, error=error, now=clock.utcnow())

    def bury(
        self, delivery: Delivery, error: str, *, traceback: str | None = None
    ) -> NotRecordedError | None:
        """Make a dead letter of ``delivery``, whose last attempt ended with ``error``.

        Raises nothing. Returns an error to raise instead where the database does not answer.
        """
        try:
            with db.transaction() as session:
                guard.bury(session, delivery, error=error, now=clock.utcnow(), traceback=traceback)
        except db.OUTAGE_ERRORS as failure:
            return self._not_recorded(failure)
        except Exception:
            logger.exception("no dead letter for %s[%s]", self.name, delivery.id)
        return None

    def _return_to_entry(
        self, delivery: Delivery, error: str, *, brief: bool = False
    ) -> datetime | None:
        """Requeue ``delivery`` and return when it is due; ``None`` at ``MAX_DELIVERIES``."""
        now = clock.utcnow()
        due_at = now + timedelta(seconds=self.backoff(delivery.tries))
        with db.transaction(brief=brief) as session:
            requeued = guard.lose(
                session,
                delivery,
                limit=load_settings().max_deliveries,
                due_at=due_at,
                error=error,
                now=now,
            )
        return due_at if requeued else None

    @property
    def _from_outbox(self) -> bool:
        return self.request.get(PUBLISHED_AT_HEADER) is not None

    @property
    def _delivery(self) -> Delivery:
        request = self.request
        return Delivery(
            id=str(request.id),
            task=self.name,
            args=list(request.args or ()),
            kwargs=dict(request.kwargs or {}),
            from_outbox=self._from_outbox,
            tries=request.retries,
        )

    @property
    def _redelivered(self) -> bool:
        return bool((self.request.delivery_info or {}).get("redelivered"))

    def _idle_within_limits(self) -> AbstractContextManager[None]:
        """Keep the database from ending a session that is idle no longer than the body may run."""
        hard_limit = (self.request.timelimit or (None,))[0] or self.time_limit or 0
        if hard_limit <= load_settings().task_time_limit_seconds:
            return nullcontext()
        return db.idle_for(hard_limit)

    def _refusal(self) -> dict[str, str] | None:
        """Why the body must not run at all; ``None`` where it may."""
        # A message without an entry may have got one at an earlier delivery.
        if self._from_outbox or self._redelivered:
            with db.reading_tables() as connection:
                if not guard.is_pending(connection, self._delivery):
                    return SKIPPED
        if not self._redelivered:
            return None
        limit = load_settings().max_deliveries
        now = clock.utcnow()
        with db.transaction() as session:
            deliveries = guard.count_redelivery(session, self._delivery, now=now)
            if deliveries < limit:
                return None
            error = f"redelivered {deliveries} times without an end: does it kill its worker?"
            guard.bury(session, self._delivery, error=error, now=now)
        return DEAD

    def _put_back(self, retry: RetryFromEntry) -> None:
        planned = retry.planned
        with self._bookkeeping(), db.transaction() as session:
            guard.put_back(
                session,
                self._delivery,
                due_at=planned.due_at,
                error=planned.error,
                now=clock.utcnow(),
                args=planned.args,
                kwargs=planned.kwargs,
            )

    def _close(self) -> None:
        # A stock producer's message gets an entry when it is delivered again; at its first
        # delivery there is none to close.
        if not (self._from_outbox or self._redelivered or self.request.retries):
            return
        with self._bookkeeping(), db.transaction() as session:
            guard.close(session, self._delivery, now=clock.utcnow())

    @contextmanager
    def _bookkeeping(self) -> Iterator[None]:
        """Keep an outage of the entries' database from failing the task, or counting as a try.

        The worker gives the message back. It takes no other one before the database answers.
        """
        try:
            yield
        except db.OUTAGE_ERRORS as error:
            raise self._not_recorded(error) from error

    def _not_recorded(self, error: BaseException) -> NotRecordedError:
        why, is_locked = db.reason(error), db.is_lock_timeout(error)
        what = "left for later" if is_locked else "given back"
        logger.warning("%s, not recorded: %s[%s]: %s", what, self.name, self.request.id, why)
        return RowLockedError(why) if is_locked else NotRecordedError(why)
