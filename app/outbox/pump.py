"""What beat does for the outbox at each tick: publish what is due, resend what is gone."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app import clock
from app.models import OutboxEntry
from app.outbox.broker import Broker, NoStamp
from app.outbox.guard import Delivery, bury
from app.outbox.publish import BATCH, publish_again, publish_unpublished

logger = logging.getLogger(__name__)

HOOK_GRACE = timedelta(seconds=2)
"""The process that committed an entry has this long to publish it itself."""

INCONCLUSIVE_FOR = timedelta(hours=1)
"""Where a list's oldest message tells nothing, an entry is resent after this long all the same."""

Stamped = tuple[str, datetime]


@dataclass(frozen=True)
class PumpRound:
    """What one round did; ``more`` says that another one has work at once."""

    published: int = 0
    resent: int = 0
    buried: int = 0
    more: bool = False


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
        settled = OutboxEntry.created_at <= clock.utcnow() - HOOK_GRACE
        published = publish_unpublished(
            self._bind, self._broker, settled | (OutboxEntry.due_at > OutboxEntry.created_at)
        )
        suspects = set(self._missing())
        gone = sorted(suspects & self._suspects, key=lambda pair: pair[1])[:BATCH]
        self._suspects = suspects
        if not gone:
            return PumpRound(published=published, more=published == BATCH)
        buried = self._bury_hopeless(gone)
        resent = publish_again(self._bind, self._broker, gone)
        if resent:
            logger.warning("%d messages were gone from the broker and are resent", resent)
        return PumpRound(
            published=published,
            resent=resent,
            buried=buried,
            more=published == BATCH or len(gone) == BATCH,
        )

    def _missing(self) -> Sequence[Stamped]:
        """Pending entries whose message is not in its list and not held by a worker."""
        published = (OutboxEntry.pending(), OutboxEntry.published_at.is_not(None))
        with Session(self._bind.execution_options(reads_only=True)) as session:
            rows = session.execute(
                select(OutboxEntry.queue, OutboxEntry.priority).where(*published).distinct()
            )
            lists = [(queue, priority) for queue, priority in rows]
        if not lists:
            return ()
        now = self._broker.now()
        oldest = self._broker.oldest(lists)
        missing: list[Stamped] = []
        with Session(self._bind.execution_options(reads_only=True)) as session:
            for (queue, priority), stamp in zip(lists, oldest, strict=True):
                if stamp is NoStamp.EMPTY:
                    left_before = now - self._margin
                elif stamp is NoStamp.FOREIGN:
                    left_before = now - INCONCLUSIVE_FOR
                else:
                    left_before = stamp - self._margin
                rows = session.execute(
                    select(OutboxEntry.id, OutboxEntry.published_at)
                    .where(
                        *published,
                        OutboxEntry.queue == queue,
                        OutboxEntry.priority == priority,
                        OutboxEntry.published_at < left_before,
                    )
                    .order_by(OutboxEntry.published_at)
                    .limit(2 * BATCH)
                )
                missing += [(row.id, cast(datetime, row.published_at)) for row in rows]
        if not missing:
            return ()
        held = self._broker.held()
        return [pair for pair in missing if pair[0] not in held]

    def _bury_hopeless(self, gone: Sequence[Stamped]) -> int:
        """Make dead letters of entries that were published too often in one try."""
        with Session(self._bind) as session, session.begin():
            hopeless = session.execute(
                select(OutboxEntry.id, OutboxEntry.task, OutboxEntry.tries).where(
                    OutboxEntry.id.in_([entry_id for entry_id, _ in gone]),
                    OutboxEntry.publishes >= self._max_publishes,
                )
            ).all()
            for entry_id, task, tries in hopeless:
                bury(
                    session,
                    Delivery(entry_id, task, tries=tries),
                    error=f"the message was gone from the broker {self._max_publishes} times",
                    now=clock.utcnow(),
                )
        return len(hopeless)
