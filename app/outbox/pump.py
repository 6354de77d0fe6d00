"""What beat does for the outbox at each tick: publish what is due, resend what is gone."""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Engine, Select, bindparam, case, func, literal_column, select
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

QUICK_PUBLISHES = 3
"""This many losses of an entry's message in one try are republished without an extra wait."""
LONGEST_WAIT = timedelta(minutes=10)
"""After those, each wait is twice as long as the one before, up to this."""
_STEPS = 12

FLOW_WINDOW = timedelta(minutes=5)
"""An entry dies only if, of the messages published within this time after it, more ran than
were lost."""

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
_LONG_GONE = case(
    *(
        (
            _entries.publishes <= QUICK_PUBLISHES + step,
            bindparam(f"before_{step}", type_=_entries.published_at.type),
        )
        for step in range(_STEPS)
    ),
    else_=bindparam(f"before_{_STEPS}", type_=_entries.published_at.type),
)
_LEFT_LIST = (
    select(_entries.id, _entries.published_at, _entries.publishes)
    .where(
        *_WITH_BROKER,
        _entries.queue == bindparam("of_queue"),
        _entries.priority == bindparam("of_priority"),
        _entries.published_at < bindparam("left_before"),
        _entries.published_at < _LONG_GONE,
    )
    .order_by(_entries.published_at)
    .limit(bindparam("at_most"))
)


_RUN = (
    select(_entries.id)
    .where(
        _entries.finished_at > bindparam("since"),
        _entries.finished_at <= bindparam("until"),
        _entries.state == literal_column("'done'"),
        _entries.published_at >= bindparam("since"),
        _entries.publishes == literal_column("1"),
    )
    .limit(bindparam("at_most"))
)
_FLOWED = select(func.count()).select_from(_RUN.subquery())


class Missing(NamedTuple):
    """A pending entry whose message is neither in its list nor held by a worker."""

    id: str
    published_at: datetime
    publishes: int


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
        self._suspects: set[Missing] = set()
        self._losses: deque[tuple[datetime, int]] = deque()

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
        others_flow = self._others_flow(gone, now)
        buried = self._bury_hopeless(gone) if others_flow else 0
        resent = publish_again(
            self._bind,
            self._broker,
            [(lost.id, lost.published_at) for lost in gone],
            count_up_to=None if others_flow else self._max_publishes // 2,
        )
        # Not all that are gone: one whose row is locked is seen again in each round.
        self._losses.append((now, resent + buried))
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

    def _missing(self, lists: Sequence[PublishedList], now: datetime) -> Sequence[Missing]:
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
        waits = self._waits(now)
        missing: list[Missing] = []
        with db.reading(self._bind) as session:
            for left in passed:
                rows = session.execute(_LEFT_LIST, left | waits | {"at_most": at_most})
                missing += [Missing(*row) for row in rows if row.id not in held]
        return missing

    def _waits(self, now: datetime) -> dict[str, datetime]:
        """The instants before which an entry was published that is to be published again now."""
        longest = max(self._margin, LONGEST_WAIT)
        return {
            f"before_{step}": now - min(longest, self._margin * 2**step)
            for step in range(_STEPS + 1)
        }

    def _others_flow(self, gone: Sequence[Missing], now: datetime) -> bool:
        """Whether more of the messages that were published after ``gone`` were run than lost.

        Only asked where it decides: in an outage, which is nobody's fault, the count of an
        entry's publications stops at half of what makes a dead letter.
        """
        while self._losses and self._losses[0][0] < now - FLOW_WINDOW:
            self._losses.popleft()
        stamps = [lost.published_at for lost in gone if lost.publishes >= self._max_publishes // 2]
        if not stamps:
            return True
        lost = len(gone) + sum(number for _, number in self._losses)
        since = max(stamps)
        window = {"since": since, "until": since + FLOW_WINDOW, "at_most": lost + 1}
        with db.reading(self._bind) as session:
            return (session.scalar(_FLOWED, window) or 0) > lost

    def _bury_hopeless(self, gone: Sequence[Missing]) -> int:
        """Make dead letters of entries whose message was lost too often while others were run."""
        hopeless_ids = [lost.id for lost in gone if lost.publishes >= self._max_publishes]
        if not hopeless_ids:
            return 0
        with Session(self._bind) as session, session.begin():
            hopeless = session.execute(
                select(OutboxEntry.id, OutboxEntry.task, OutboxEntry.tries)
                .where(
                    OutboxEntry.id.in_(hopeless_ids),
                    OutboxEntry.publishes >= self._max_publishes,
                )
                # One whose row a running task holds is not without hope.
                .with_for_update(skip_locked=True)
            ).all()
            for entry_id, task, tries in hopeless:
                bury(
                    session,
                    Delivery(entry_id, task, tries=tries),
                    error=f"the message was gone from the broker {self._max_publishes} times, "
                    "while others were run",
                    now=clock.utcnow(),
                )
        return len(hopeless)
