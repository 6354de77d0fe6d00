"""Celery beat as this project's scheduler and pump."""

import logging
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
from app.outbox.pump import Pump
from app.outbox.schedule import PeriodicEntry, Seen, advance, next_step, remembered
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
        self._pump: Pump | None = None
        self._failures = 0
        self._entries: dict[str, tuple[Any, PeriodicEntry]] = {}
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
        """Enqueue every entry that is due; returns how many runs. Raises database errors."""
        now = clock.utcnow()
        with db.reading() as session:
            seen = remembered(session)
        enqueued = 0
        for name in sorted(self.schedule):
            try:
                enqueued += self._enqueue(name, seen.get(name), now)
            except SQLAlchemyError:
                raise
            except Exception:
                # The others, and the pump, must not wait for somebody to mend this one.
                logger.exception("beat entry %s cannot be enqueued", name)
        return enqueued

    def _enqueue(self, name: str, seen: Seen | None, now: datetime) -> int:
        entry = self._periodic(name)
        step = next_step(entry, seen, now)
        if step is None:
            return 0  # most ticks end here, without a write transaction
        if step.runs:
            entry = timetable.evaluated(entry)
        with db.transaction() as session:
            runs = advance(session, entry, seen, step)
        if runs:
            logger.info("due: %s (%s)", name, entry.task)
        return runs

    @property
    def pump(self) -> Pump:
        if self._pump is None:
            settings = load_settings()
            self._pump = Pump(
                db.engine(),
                RedisBroker(self.app, timeout=settings.publish_timeout_seconds),
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
