"""What beat does for the outbox at each tick: publish what is due, resend what is gone."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast

from sqlalchemy import Engine, Select, bindparam, func, select
from sqlalchemy.orm import Session

from app import clock, db
from app.models import OUTBOX_ENTRIES, OutboxEntry
from app.outbox import figures
from app.outbox.broker import Broker, NoStamp
from app.outbox.guard import Delivery, bury
from app.outbox.publish import BATCH, IN_ORDER, publish_again, publish_unpublished

logger = logging.getLogger(__name__)

HOOK_GRACE = timedelta(seconds=2)
"""The process that committed an entry has this long to publish it itself."""

INCONCLUSIVE_FOR = timedelta(hours=1)
"""Where a list's oldest message tells nothing, an entry is resent after this long all the same."""

Stamped = tuple[str, datetime]

_entries = OUTBOX_ENTRIES.c
_SETTLED = (_entries.created_at <= bindparam("settled_by")) | (
    _entries.due_at > _entries.created_at
)
_WAITING = OutboxEntry.unpublished() & _SETTLED
_UNPUBLISHED = (
    select(_entries.id)
    .where(_WAITING, _entries.due_at <= bindparam("now"))
    # Without an order PostgreSQL reads the table from its beginning until it meets one.
    .order_by(*IN_ORDER)
    .limit(1)
)
_WITH_BROKER = (OutboxEntry.pending(), _entries.published_at.is_not(None))


def _lists() -> Select[*tuple[Any, ...]]:
    """Each queue that has entries with the broker, with each priority and its oldest stamp.

    One step into the index for each, however many entries there are: PostgreSQL would read
    them all for a DISTINCT (its wiki, "Loose indexscan").
    """
    first = select(func.min(_entries.queue).label("queue")).where(*_WITH_BROKER)
    queues = first.cte("queues", recursive=True)
    following = select(func.min(_entries.queue)).where(
        *_WITH_BROKER, _entries.queue > queues.c.queue
    )
    queues = queues.union_all(
        select(following.scalar_subquery()).where(queues.c.queue.is_not(None))
    )
    priorities = figures.priorities()
    oldest = select(func.min(_entries.published_at)).where(
        *_WITH_BROKER,
        _entries.queue == queues.c.queue,
        _entries.priority == priorities.c.priority,
    )
    return select(
        queues.c.queue, priorities.c.priority, oldest.scalar_subquery().label("oldest")
    ).select_from(queues.join(priorities, queues.c.queue.is_not(None)))


_LISTS = _lists()
_LEFT_LIST = (
    select(_entries.id, _entries.published_at)
    .where(
        *_WITH_BROKER,
        _entries.queue == bindparam("of_queue"),
        _entries.priority == bindparam("of_priority"),
        _entries.published_at < bindparam("left_before"),
    )
    .order_by(_entries.published_at)
    .limit(bindparam("at_most"))
)


class PublishedList(NamedTuple):
    """A list of the broker that should hold messages of ours."""

    queue: str
    priority: int
    oldest: datetime
    """When the first of its pending entries was published."""


@dataclass(frozen=True)
class PumpRound:
    """What one round did; ``more`` says that another one has work at once."""

    published: int = 0
    resent: int = 0
    buried: int = 0
    more: bool = False


def _is_unpublished(session: Session, now: datetime) -> bool:
    """Whether the relay has an entry to publish."""
    settled = {"now": now, "settled_by": now - HOOK_GRACE}
    return session.scalar(_UNPUBLISHED, settled) is not None


class Pump:
    """Publishes due entries, and resends those whose message is gone from the broker.

    Any number of pumps may run: each publication is one conditional update. A message is
    taken for gone when it is neither in its list nor held by a worker. That it is not in
    its list follows from one look at the list's oldest message, since lists are first in,
    first out: whatever was published a margin before that one has left. It must look gone
    in two rounds running, because a message between two places is seen in neither.
    """

    def __init__(self, bind: Engine, broker: Broker, *, margin: timedelta, max_publishes: int):
        self._bind = bind
        self._broker = broker
        self._margin = margin
        self._max_publishes = max_publishes
        self._suspects: set[Stamped] = set()

    def run(self) -> PumpRound:
        """One round. Raises ``BrokerUnavailableError`` or a database error; both leave
        every entry as it was or published."""
        now = self._broker.now()  # an outage is noticed also where there is nothing to publish
        unpublished, lists = self._look(now)
        published = self._publish(now) if unpublished else 0
        # Asked again, and not told by a full batch: one may have had an entry that was refused.
        more = published > 0 and self._is_more(now)
        suspects = self._missing(lists, now)
        gone = [each for each in suspects if each in self._suspects][:BATCH]
        self._suspects = set(suspects)
        if not gone:
            return PumpRound(published=published, more=more)
        buried = self._bury_hopeless(gone)
        resent = publish_again(self._bind, self._broker, gone)
        if resent:
            logger.warning("%d messages were gone from the broker and are resent", resent)
        return PumpRound(
            published=published,
            resent=resent,
            buried=buried,
            more=more or len(gone) == BATCH,
        )

    def _look(self, now: datetime) -> tuple[bool, list[PublishedList]]:
        """Whether anything is to be published, and which lists have messages of ours.

        Only read: most rounds find nothing, and need not stand in line for the write lock.
        """
        with db.reading(self._bind) as session:
            unpublished = _is_unpublished(session, now)
            lists = [
                PublishedList(queue, priority, oldest)
                for queue, priority, oldest in session.execute(_LISTS)
                if oldest is not None
            ]
        return unpublished, lists

    def _is_more(self, now: datetime) -> bool:
        with db.reading(self._bind) as session:
            return _is_unpublished(session, now)

    def _publish(self, now: datetime) -> int:
        return publish_unpublished(
            self._bind, self._broker, _WAITING, apart=True, now=now, settled_by=now - HOOK_GRACE
        )

    def _missing(self, lists: Sequence[PublishedList], now: datetime) -> Sequence[Stamped]:
        """Pending entries whose message is not in its list and not held by a worker.

        The most urgent first, and of each list those that were published first.
        """
        if not lists:
            return ()
        oldest = self._broker.oldest([(each.queue, each.priority) for each in lists])
        passed: list[dict[str, Any]] = []
        in_order = sorted(zip(lists, oldest, strict=True), key=lambda pair: pair[0].priority)
        for each, stamp in in_order:
            if stamp is NoStamp.EMPTY:
                left_before = now - self._margin
            elif stamp is NoStamp.FOREIGN:
                left_before = now - INCONCLUSIVE_FOR
            else:
                left_before = stamp - self._margin
            if each.oldest < left_before:
                of_list = {"of_queue": each.queue, "of_priority": each.priority}
                passed.append(of_list | {"left_before": left_before})
        if not passed:
            return ()
        held = self._broker.held()
        # However many are held, each list shows what it has lost behind them.
        at_most = 2 * BATCH + len(held)
        missing: list[Stamped] = []
        with db.reading(self._bind) as session:
            for left in passed:
                rows = session.execute(_LEFT_LIST, left | {"at_most": at_most})
                missing += [
                    (row.id, cast(datetime, row.published_at)) for row in rows if row.id not in held
                ]
        return missing

    def _bury_hopeless(self, gone: Sequence[Stamped]) -> int:
        """Make dead letters of entries that were published too often in one try."""
        with Session(self._bind) as session, session.begin():
            hopeless = session.execute(
                select(OutboxEntry.id, OutboxEntry.task, OutboxEntry.tries)
                .where(
                    OutboxEntry.id.in_([entry_id for entry_id, _ in gone]),
                    OutboxEntry.publishes >= self._max_publishes,
                )
                # One whose row a running task holds is not without hope.
                .with_for_update(skip_locked=True)
            ).all()
            for entry_id, task, tries in hopeless:
                bury(
                    session,
                    Delivery(entry_id, task, tries=tries),
                    error=f"the message was gone from the broker {self._max_publishes} times",
                    now=clock.utcnow(),
                )
        return len(hopeless)
