"""The one way from the outbox to the broker.

First a conditional update says in the entry that it is published, and that commits; then
the message goes out with the same stamp. Who changed no row pushes nothing, so an entry
is pushed once however many publishers see it. A crash in between leaves an entry whose
message is gone, which the pump finds.

The stamp is the broker's clock, not the publisher's: the pump compares stamps to tell
what waits from what is gone, and publishers' clocks differ.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from time import monotonic
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Executable,
    bindparam,
    case,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import clock, db, entropy, routing
from app.domain.backoff import backoff_delay
from app.models import OUTBOX_ENTRIES, OutboxEntry
from app.outbox import guard
from app.outbox.broker import Broker, BrokerUnavailableError, OutboxMessage
from app.settings import load_settings

logger = logging.getLogger(__name__)

BATCH = 500
"""Entries in one statement and one pipeline."""

MOST_REFUSED = 8
"""A broker that refuses this many entries in a row, and takes none, is itself at fault."""
RETRY_BASE_SECONDS, RETRY_CAP_SECONDS = 2.0, 600.0
"""An entry that cannot be published is tried again after these."""

_broker: Broker | None = None
_paused_until = float("-inf")


def attach(broker: Broker | None) -> Broker | None:
    """Let this process publish its entries right after their commit; return the old broker.

    Where none is attached, the pump publishes them within seconds.
    """
    global _broker, _paused_until
    replaced, _broker = _broker, broker
    _paused_until = float("-inf")
    return replaced


def attached() -> Broker | None:
    """The broker to which this process publishes."""
    return _broker


def after_commit(bind: Engine, entry_ids: Sequence[str]) -> None:
    """Publish entries that were just committed, if the broker answers; never raise.

    After a failure this process leaves publishing to the pump for a while, so that a
    hung broker costs one caller its timeout, not every caller.
    """
    global _paused_until
    if _broker is None or monotonic() < _paused_until:
        return
    try:
        for start in range(0, len(entry_ids), BATCH):
            chosen = entry_ids[start : start + BATCH]
            publish_unpublished(bind, _broker, _BY_ID, chosen_ids=chosen)
    except Exception as error:
        # The caller's work is committed: whatever goes wrong here, the pump makes good.
        _paused_until = monotonic() + load_settings().publish_pause_seconds
        logger.warning("not published after the commit, the pump will: %s", error)


_entries = OUTBOX_ENTRIES.c
IN_ORDER = (_entries.priority, _entries.due_at, _entries.id)
"""The order of publication, which is that of the index of unpublished entries."""
_BY_ID = _entries.id.in_(bindparam("chosen_ids", expanding=True))


def publish_unpublished(
    bind: Engine,
    broker: Broker,
    chosen: ColumnElement[bool],
    *,
    now: datetime | None = None,
    apart: bool = False,
    **values: Any,
) -> int:
    """Publish up to ``BATCH`` entries among ``chosen`` that wait unpublished and are due ``now``.

    Where ``now`` is left out it is this machine's: it planned what it publishes. ``values``
    are those of the parameters in ``chosen``: a condition that is a constant has its statement
    built once. With ``apart``, one entry that cannot be published keeps no other from it: the
    batch is halved until that entry is found, and it is rescheduled. Returns how many were
    published. Raises ``BrokerUnavailableError``; then they are unpublished again.
    """
    return _publish(
        bind, broker, _of_unpublished(chosen), apart=apart, now=now or clock.utcnow(), **values
    )


@lru_cache(maxsize=8)
def _of_unpublished(chosen: ColumnElement[bool]) -> Executable:
    locked = (
        select(_entries.id)
        .where(
            chosen,
            OutboxEntry.pending(),
            _entries.published_at.is_(None),
            _entries.due_at <= bindparam("now"),
        )
        .order_by(*IN_ORDER)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
        # Not a subquery: PostgreSQL may run that once for each row, and lock more each time.
        .cte("locked")
    )
    # By the id alone: with more conditions PostgreSQL may read all that meets them instead. None
    # of them can become false, for a locked row is read again, and on SQLite nobody else writes.
    return _publishing(_entries.id.in_(select(locked.c.id)))


def _publishing(*conditions: ColumnElement[bool], count_up_to: int | None = None) -> Executable:
    counted = _entries.publishes + 1
    if count_up_to is not None:
        counted = case((_entries.publishes < count_up_to, counted), else_=_entries.publishes)
    return (
        update(OUTBOX_ENTRIES)
        .where(*conditions)
        .values(
            published_at=bindparam("stamp"),
            publishes=counted,
            resent=_entries.resent + bindparam("resends"),
        )
        .returning(OUTBOX_ENTRIES)
    )


def publish_again(
    bind: Engine,
    broker: Broker,
    gone: Sequence[tuple[str, datetime]],
    *,
    count_up_to: int | None = None,
) -> int:
    """Publish entries whose message is gone, where nobody else did since it was seen.

    ``gone`` holds (id, ``published_at``) pairs. Waits for no other transaction: an entry whose
    row a running task holds is left for the next time. An entry that was published
    ``count_up_to`` times in its try is published without being counted. Returns how many; raises
    ``BrokerUnavailableError``.
    """
    seen = (
        # Ids first: of pairs alone SQLite reads the whole table, PostgreSQL all that is pending.
        _entries.id.in_([entry_id for entry_id, _ in gone]),
        tuple_(_entries.id, _entries.published_at).in_(gone),
        OutboxEntry.pending(),
    )
    free = select(_entries.id).where(*seen).with_for_update(skip_locked=True).cte("free")
    chosen = _publishing(_entries.id.in_(select(free.c.id)), *seen, count_up_to=count_up_to)
    return _publish(bind, broker, chosen, resends=1)


def _publish(
    bind: Engine,
    broker: Broker,
    statement: Executable,
    *,
    resends: int = 0,
    apart: bool = False,
    **values: Any,
) -> int:
    # Asked before the update, so that an outage leaves the entries as they are.
    published_at = broker.now()
    taken_at = monotonic()
    with bind.begin() as connection:
        rows = connection.execute(
            statement, {"stamp": published_at, "resends": resends, **values}
        ).all()
        entries = _routable(connection, rows)
        messages = [
            OutboxMessage(
                id=entry.id,
                task=entry.task,
                args=entry.args,
                kwargs=entry.kwargs,
                queue=entry.queue,
                priority=entry.priority,
                tries=entry.tries,
                published_at=published_at,
                due_instant=entry.due_instant or entry.due_at,
                trace_id=entry.trace_id,
            )
            for entry in entries
        ]
    if not messages:
        return 0
    # A message in its list lies there in the order of its stamp, give or take less than
    # the resend margin; else it could look gone while it waits.
    if monotonic() - taken_at > load_settings().resend_margin_seconds / 2:
        _unpublish(bind, messages)
        raise BrokerUnavailableError("the database took too long: the stamp is out of date")
    try:
        _check_readable(messages)
        broker.push(messages)
    except Exception as error:
        _unpublish(bind, messages)
        if not apart:
            raise
        broker.check_writable()  # raises in an outage
        return _publish_apart(bind, broker, messages, error)
    return len(messages)


def _publish_apart(
    bind: Engine, broker: Broker, batch: Sequence[OutboxMessage], error: Exception
) -> int:
    """Publish a batch whose push raised ``error`` in halves; reschedule what fails alone.

    Returns how many were published. Raises ``BrokerUnavailableError`` where the broker took
    none, or takes none any more: then it is the fault of no entry.
    """
    published, parts = 0, [batch]
    refused: list[tuple[OutboxMessage, Exception]] = []
    while parts and (published or len(refused) < MOST_REFUSED):
        part = parts.pop()
        if part is not batch:
            try:
                chosen = [message.id for message in part]
                published += publish_unpublished(bind, broker, _BY_ID, chosen_ids=chosen)
                continue
            except SQLAlchemyError:
                raise  # no message's fault
            except Exception as failure:
                broker.check_writable()  # an outage that begins now is not this entry's fault
                error = failure
        if len(part) > 1:
            middle = len(part) // 2
            parts += part[middle:], part[:middle]
        else:
            refused.append((part[0], error))
    if isinstance(error, BrokerUnavailableError) and not published:
        raise error
    for message, why in refused:
        _reschedule(bind, message, why)
    return published


def _reschedule(bind: Engine, message: OutboxMessage, why: Exception) -> None:
    delay = backoff_delay(
        message.tries, base=RETRY_BASE_SECONDS, cap=RETRY_CAP_SECONDS, rng=entropy.rng()
    )
    now = clock.utcnow()
    with Session(bind) as session, session.begin():
        guard.postpone(
            session,
            guard.Delivery(message.id, message.task, tries=message.tries),
            limit=load_settings().unknown_task_retries,
            due_at=now + timedelta(seconds=delay),
            error=f"cannot be published: {type(why).__name__}: {why}",
            now=now,
        )
    # Without the error's text, which may quote the arguments.
    logger.error("cannot be published: %s[%s]: %s", message.task, message.id, type(why).__name__)


def _routable(connection: Connection, rows: Iterable[Any]) -> list[Any]:
    """The entries in the order of publication, without those that have no queue.

    A queue that was taken out of the table would fail its whole batch, again and again.
    """
    entries = []
    for entry in sorted(rows, key=lambda entry: (entry.priority, entry.due_at, entry.id)):
        if routing.is_queue(entry.queue):
            entries.append(entry)
        else:
            with Session(connection) as session:
                guard.mark_dead(
                    session.get_one(OutboxEntry, entry.id),
                    error=f"there is no queue {entry.queue}",
                    now=clock.utcnow(),
                )
                session.flush()
    return entries


def _check_readable(messages: Iterable[OutboxMessage]) -> None:
    for message in messages:
        if db.TOO_DEEP in (message.args, message.kwargs):
            raise ValueError(f"the arguments are {db.TOO_DEEP}")


def _unpublish(bind: Engine, messages: Sequence[OutboxMessage]) -> None:
    # What arrived all the same runs once: the guard does not ask for published_at.
    with Session(bind) as session, session.begin():
        session.execute(
            update(OutboxEntry)
            .where(
                OutboxEntry.id.in_([message.id for message in messages]),
                OutboxEntry.published_at == messages[0].published_at,
                OutboxEntry.pending(),
            )
            .values(published_at=None, publishes=OutboxEntry.publishes - 1)
            .execution_options(synchronize_session=False)
        )
