"""Celery beat as this project's scheduler and pump."""

import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from celery.beat import Scheduler
from sqlalchemy.exc import SQLAlchemyError

from app import clock, db, entropy
from app.domain.backoff import backoff_delay
from app.outbox import BrokerUnavailableError
from app.outbox.broker import Broker
from app.outbox.pump import Pump
from app.outbox.schedule import (
    SIGN_EVERY,
    ClockOffError,
    PeriodicEntry,
    Seen,
    Watch,
    advance,
    confirm_clock,
    in_force,
    is_known,
    may_replace,
    next_step,
    remembered,
    sign,
    watch,
)
from app.settings import load_settings
from app.tasks import metrics, timetable
from app.tasks.broker import RedisBroker

logger = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 30.0
"""After failing ticks beat waits longer and longer, up to this."""


class OutboxScheduler(Scheduler):
    """Enqueues due entries through the outbox, and pumps it.

    Keeps nothing that a kill could lose: what was due last stands in the database, and is
    advanced in the transaction that enqueues the run. Any number of beats may run.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Beat makes a second, lazy one for its banner: nothing is touched here.
        self._broker: Broker | None = None
        self._pump: Pump | None = None
        self._failures = 0
        self._clock_is_off = False
        self._entries: dict[str, tuple[Any, PeriodicEntry]] = {}
        self._watches: dict[str, Watch] = {}
        self._failing: dict[str, type[Exception]] = {}
        self._signed_at: datetime | None = None
        super().__init__(*args, **kwargs)
        self._interval = load_settings().pump_interval_seconds

    def install_default_entries(self, data: Any) -> None:
        """None: Redis expires results itself, and only the result backend would know that.

        Importing it takes a moment in which a SIGTERM would end beat with a traceback.
        """

    def tick(self, *_args: Any, **_kwargs: Any) -> float:
        """One round; returns the seconds until the next. Waits out an outage, raises nothing."""
        try:
            self.enqueue_due()
            done = self.pump.run()
        except (SQLAlchemyError, BrokerUnavailableError) as error:
            return self._pause(error)
        except Exception as error:
            # One bad row or message must not end beat, which would meet it at every start.
            logger.exception("beat met what it does not know")
            return self._pause(error)
        self._failures = 0
        metrics.RESENT.inc(done.resent)
        return 0.0 if done.more else self._interval

    def _pause(self, error: Exception) -> float:
        pause = backoff_delay(
            self._failures, base=self._interval, cap=LONGEST_PAUSE_SECONDS, rng=entropy.rng()
        )
        self._failures += 1
        logger.error("beat cannot work, again in %.1f s: %s", pause, error)
        return pause

    def enqueue_due(self) -> int:
        """Enqueue every entry that is due; returns how many runs.

        None while this machine's clock is far off the broker's. Raises database errors and
        ``BrokerUnavailableError``.
        """
        # Read before the time is: however long this process hangs in between, what another
        # beat remembers meanwhile is never ahead of ``now``.
        with db.reading_tables() as connection:
            seen = remembered(connection)
        broker_now = self.broker.now()
        now = self._confirmed_now(broker_now)
        if now is None:
            return 0
        enqueued = 0
        signs: list[tuple[PeriodicEntry, datetime | None]] = []
        sign_now = (
            self._signed_at is None or not timedelta(0) <= broker_now - self._signed_at < SIGN_EVERY
        )
        for name in sorted(self.schedule):
            entry, before = None, seen.get(name)
            try:
                entry = self._periodic(name)
                runs = self._enqueue(entry, before, now, broker_now)
            except SQLAlchemyError:
                raise
            except Exception as error:
                # The others, and the pump, must not wait for somebody to mend this one.
                self._note_failure(name, error)
                if entry is not None and before is not None and in_force(entry, before):
                    signs.append((entry, None))
                continue
            self._note_success(name)
            if runs is None:
                continue  # another beat was first: what is in force is read in the next tick
            enqueued += runs
            signs.append((entry, now))
            # What is in force must soon be known to have been.
            sign_now |= before is None or (
                name not in self._watches and not in_force(entry, before)
            )
        if sign_now:
            self._sign(signs, broker_now)
        return enqueued

    def _sign(
        self, signs: list[tuple[PeriodicEntry, datetime | None]], broker_now: datetime
    ) -> None:
        with db.transaction(brief=True) as session:
            sign(session, signs, at=broker_now, host=socket.gethostname())
        self._signed_at = broker_now

    def _note_failure(self, name: str, error: Exception) -> None:
        if self._failing.get(name) is not type(error):
            logger.exception("beat entry %s cannot be enqueued", name)
        self._failing[name] = type(error)

    def _note_success(self, name: str) -> None:
        if self._failing.pop(name, None) is not None:
            logger.info("beat entry %s can be enqueued again", name)

    def _confirmed_now(self, broker_now: datetime) -> datetime | None:
        """The present instant; ``None`` where the broker's clock says that it is another one.

        A beat whose clock is ahead would fire early what another one, which is right, would
        take for a mistake and fire again.
        """
        now = clock.utcnow()
        try:
            confirm_clock(now, broker_now=broker_now)
        except ClockOffError as error:
            if not self._clock_is_off:
                logger.error("beat fires nothing: %s", error)
            self._clock_is_off = True
            return None
        if self._clock_is_off:
            logger.info("beat fires again: its clock agrees with Redis's")
        self._clock_is_off = False
        return now

    def _enqueue(
        self, entry: PeriodicEntry, seen: Seen | None, now: datetime, broker_now: datetime
    ) -> int | None:
        """How many runs were enqueued; ``None`` where another beat was first."""
        replaces = seen is not None and not in_force(entry, seen)
        if seen is not None and replaces and not self._may_replace(entry, seen, broker_now):
            return 0
        self._watches.pop(entry.name, None)
        step = next_step(entry, seen, now)
        if step is None:
            return 0  # most ticks end here, without a write transaction
        if step.runs:
            entry = timetable.evaluated(entry)
        with db.transaction(brief=True) as session:
            runs = advance(session, entry, seen, step)
        if runs is not None and seen is not None and replaces:
            logger.warning(
                "beat entry %s: the definition %s replaces %s",
                entry.name,
                entry.description,
                seen.description or "one of a beat of an older version",
            )
        if runs:
            logger.info("due: %s (%s)", entry.name, entry.task)
        return runs

    def _may_replace(self, entry: PeriodicEntry, seen: Seen, broker_now: datetime) -> bool:
        """Whether this beat's definition takes the place of the one that is in force.

        At once where no beat has ever had it: it was deployed. One that was replaced before
        waits until no beat keeps the newer one.
        """
        with db.reading_tables() as connection:
            if not is_known(connection, entry):
                return True
        before = self._watches.get(entry.name)
        watched = self._watches[entry.name] = watch(seen, before, broker_now)
        if before is None or before.of != watched.of:
            logger.warning(
                "beat entry %s: another definition is in force, %s; that of this beat, %s, waits "
                "until no beat keeps the other one: stop the beat that is wrong",
                entry.name,
                seen.description or "of a beat of an older version",
                entry.description,
            )
        return may_replace(seen, watched)

    @property
    def broker(self) -> Broker:
        if self._broker is None:
            self._broker = RedisBroker(self.app, timeout=load_settings().publish_timeout_seconds)
        return self._broker

    @property
    def pump(self) -> Pump:
        if self._pump is None:
            settings = load_settings()
            self._pump = Pump(
                db.briefly(db.engine()),
                self.broker,
                margin=timedelta(seconds=settings.resend_margin_seconds),
                max_publishes=settings.max_publishes,
            )
        return self._pump

    @property
    def info(self) -> str:
        return "    . db -> beat_entries, outbox_entries"

    def _periodic(self, name: str) -> PeriodicEntry:
        given = self.schedule[name]
        known = self._entries.get(name)
        if known is None or known[0] is not given:
            entry = timetable.periodic(name, given, self.app)
            entry = replace(entry, next_due=_remembering(entry.next_due))
            known = self._entries[name] = (given, entry)
        return known[1]


def _remembering(next_due: Callable[[datetime], datetime]) -> Callable[[datetime], datetime]:
    """The same, but quick where it is asked what it was asked last: at most ticks."""
    return lru_cache(maxsize=1)(next_due)
