"""One replay: a marketplace, its deployment, some days, and what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from typing import Any, TextIO, TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy import func, select

from app import db
from app.models import EmailMessage, OutboxEntry, OutboxState
from app.settings import load_settings
from app.tasks import celery_app
from app.tasks.startup import TRY_AGAIN
from simulations.engine import Deployment, ServiceTime, WorkerGroup
from simulations.engine.clock import wall_seconds
from simulations.engine.faults import schedule
from simulations.engine.figures import Figures
from simulations.marketplace import faults
from simulations.marketplace.database import Database, migrated_database
from simulations.marketplace.invariants import (
    INVARIANTS,
    BrokenInvariantError,
    EveryMailArrives,
    Invariant,
)
from simulations.marketplace.mail import MailProvider
from simulations.marketplace.outcome import Outcome
from simulations.marketplace.people import Calendar, People, keep_sessions, live_before, move_in
from simulations.marketplace.plan import Plan
from simulations.marketplace.population import Population, Storm
from simulations.marketplace.seams import QuietBeat, seams, settings_in_force
from simulations.marketplace.slot_cache import MemorySlotCache
from simulations.marketplace.timetable import entries

STRIDE = timedelta(minutes=30)
InvariantT = TypeVar("InvariantT", bound=Invariant)

WARM_UP = timedelta(minutes=1)
"""Beat starts so long before the first day: an entry that it sees for the first time is not
due at that very instant."""
CALM = timedelta(hours=3, seconds=30)
"""What failed drains within this: a mail is tried again after half an hour at most."""


class Replay:
    """A context manager: inside, ``run`` replays the plan."""

    deployment: Deployment
    database: Database
    provider: MailProvider
    slots: MemorySlotCache
    population: Population
    people: People

    def __init__(self, plan: Plan, *, trace_into: TextIO | None = None) -> None:
        self.plan = plan
        self.zone = ZoneInfo(load_settings().celery_timezone)
        self.start = self._midnight(plan.day)
        self.midnight = self.end = self._midnight(plan.day + timedelta(days=plan.days))
        if plan.hours is not None:
            last = self._midnight(plan.day + timedelta(days=plan.days - 1))
            self.end = min(self.midnight, last + timedelta(hours=plan.hours))
        self.began = wall_seconds()
        self.deployment_start = self.start - WARM_UP
        self.figures = Figures(start=self.start, end=self.end)
        self.invariants: list[Invariant] = []
        self.planted: set[str] = set()
        self._injected: Counter[str] = Counter()
        self._stopped_by_clock = 0
        self._trace_into = trace_into
        self._stack = ExitStack()

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time(), self.zone).astimezone(UTC)

    def __enter__(self) -> Replay:
        plan = self.plan
        with ExitStack() as stack:
            stack.enter_context(settings_in_force())
            times = _ServiceTimes(Random(f"{plan.seed}:service times"))
            quiet: list[QuietBeat] = []
            deployment = self.deployment = Deployment(
                celery_app,
                start=self.deployment_start,
                seed=plan.seed,
                workers=[WorkerGroup(plan.workers, plan.concurrency)],
                beats=plan.beats,
                broker_url=plan.broker_url,
                service_times=times,
                beat_quiet_until=lambda: quiet[0](),
                skip_quiet_ticks=plan.skip_quiet_ticks,
                trace_into=self._trace_into,
            )
            self.database = stack.enter_context(migrated_database(lambda: deployment.loop))
            quiet.append(QuietBeat(lambda: deployment, self.database))
            self.provider = MailProvider(
                deployment.loop, deployment.trace, deployment.rng("mail provider")
            )
            self.slots = MemorySlotCache()
            stack.enter_context(deployment)
            stack.enter_context(seams(deployment, self.provider, self.slots))
            self._populate()
            self.invariants = [each(self) for each in INVARIANTS]
            deployment.trace.observe(self.figures.see)
            deployment.trace.observe(self._see)
            for invariant in self.invariants:
                deployment.trace.observe(invariant.see)
                stack.callback(invariant.close)
            schedule(deployment, self, plan.faults, faults.FAULTS, day=plan.day, zone=self.zone)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _populate(self) -> None:
        plan, deployment = self.plan, self.deployment
        rng = deployment.rng("people")
        calendar = Calendar()
        with db.transaction() as session:
            people = self.people = move_in(
                session, rng, students=max(20, plan.bookings), instructors=plan.teachers
            )
            agreed = live_before(
                session,
                people,
                calendar,
                rng,
                start=self.start,
                days=plan.days,
                lessons=plan.bookings // 4,
            )
            keep_sessions(session, people, rng, start=self.start, days=plan.days)
        self.population = Population(deployment, people, calendar, end=self.end)
        storm = None
        if plan.storm is not None:
            at, number = plan.storm
            storm = Storm(datetime.combine(plan.day, at, self.zone).astimezone(UTC), number)
        self.population.plan(
            start=self.start,
            until=self.midnight,
            zone=self.zone,
            number=plan.bookings * plan.days,
            agreed=agreed,
            storm=storm,
        )

    def run(self, *, progress: Callable[[datetime], None] | None = None) -> Outcome:
        """Replay the days and the calm after them; a broken invariant ends it.

        ``progress`` is told the virtual instant every half an hour of it.
        """
        try:
            self._run(progress)
        except BrokenInvariantError as error:
            return self._outcome(error)
        return self._outcome(None)

    def _run(self, progress: Callable[[datetime], None] | None) -> None:
        until = self.end + CALM
        while self.deployment.now < until:
            self.deployment.run_until(min(until, self.deployment.now + STRIDE))
            if progress is not None:
                progress(self.deployment.now)
        for invariant in self.invariants:
            invariant.conclude()
            if self.deployment.loop.stop_for is not None:
                raise self.deployment.loop.stop_for

    def _outcome(self, broken: BrokenInvariantError | None) -> Outcome:
        trace = self.deployment.trace
        owed, _ = self._named(EveryMailArrives).owed()
        accepted = self.provider.accepted
        return Outcome(
            plan=self.plan,
            timezone=self.zone.key,
            trace_hash=trace.hash,
            events=trace.lines,
            wall_seconds=wall_seconds() - self.began,
            beat={name: self.figures.beat[name] for name in entries()},
            tasks={name: dict(counts) for name, counts in sorted(self.figures.tasks.items())},
            queues=self.figures.queues(),
            mails={
                "expected": len(owed),
                "delivered": len(owed & accepted.keys()),
                "besides": len(accepted.keys() - owed),
                "doubled": sum(copies - 1 for copies in accepted.values()),
            },
            people=dict(sorted(self.population.acts.items())),
            sometimes=self._sometimes(),
            broken=broken,
        )

    def _see(self, _now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event == "fault" and fields["phase"] == "begin":
            self._injected[fields["fault"].partition("@")[0]] += 1
        elif event == "exited" and fields["status"] == TRY_AGAIN:
            worker = self.deployment.workers[fields["worker"]]
            self._stopped_by_clock += bool(worker.has_consumed and worker.clock_error)

    def _named(self, kind: type[InvariantT]) -> InvariantT:
        return next(each for each in self.invariants if isinstance(each, kind))

    def _sometimes(self) -> dict[str, int]:
        """What a run that proves anything has had at least once, sooner or later."""
        counts, acts = self.deployment.trace.counts, self.population.acts
        with db.reading() as session:
            resent, uncertain = (
                session.scalar(select(func.coalesce(func.sum(column), 0))) or 0
                for column in (OutboxEntry.resent, EmailMessage.uncertain)
            )
            set_aside = session.scalar(
                select(func.count()).where(
                    OutboxEntry.id.in_(self.planted), OutboxEntry.state == OutboxState.DEAD
                )
            )
        reminders = sum(key.startswith("reminder") for key in self.provider.accepted)
        found = {
            faults.DATABASE_LOST: self.database.refused,
            faults.CLOCK_STEPPED: self._stopped_by_clock,
            faults.MUTEX_ORPHANED: counts["orphaned"],
            faults.ENTRY_SET_ASIDE: set_aside or 0,
            "a task retried": counts["retried"],
            "a message redelivered": counts["redelivered"],
            "a message in its queue twice": counts["duplicated"],
            "a message resent by the pump": resent,
            "a mail's fate uncertain": uncertain,
            "a mail doubled": sum(copies - 1 for copies in self.provider.accepted.values()),
            "a process killed": counts["killed"],
            "a pool's child lost": counts["lost"],
            "a reminder sent": reminders,
            "a lesson cancelled": acts["cancelled"],
            "a person told to try again": acts["told that the database is busy"],
        }
        return found | {f"fault: {kind}": times for kind, times in self._injected.items()}


class _ServiceTimes:
    """A few milliseconds before the body and after it, drawn anew for each run."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def __call__(self, _task: str) -> ServiceTime:
        return ServiceTime(before=self._draw(), after=self._draw())

    def _draw(self) -> float:
        return round(min(2.0, self._rng.lognormvariate(-4.6, 0.8)), 6)
