"""Days of any Celery app on virtual time, and what its owners want to know of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from itertools import combinations
from random import Random
from typing import Any, TextIO
from zoneinfo import ZoneInfo

from celery import Celery

from simulations.any_app.outcome import AppOutcome, AppPlan, Hour
from simulations.any_app.service_times import ServiceTimes
from simulations.any_app.twin import names_of, queues_of, signals_muted, twin_of, warnings_of
from simulations.engine import Deployment, WorkerGroup
from simulations.engine.clock import wall_seconds
from simulations.engine.faults import ENGINE_FAULTS, schedule
from simulations.engine.figures import ENDS, Figures, percentile
from simulations.engine.trace import Observer

WARM_UP = timedelta(minutes=1)
DAY = timedelta(days=1)
STRIDE = timedelta(minutes=30)


class _Hours:
    """An observer: depths and slots by the hour, and entries that are due together."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._depth: Counter[str] = Counter()
        self._at_work: dict[str, set[str]] = defaultdict(set)
        self._hours: dict[str, Hour] = {}
        self._due: dict[datetime, set[str]] = defaultdict(set)

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event in ("published", "redelivered", "duplicated"):
            self._depth[fields["queue"]] += 1
        elif event in ("received", "discarded"):
            self._depth[fields["queue"]] -= 1
        elif event == "started":
            self._at_work[fields["worker"]].add(fields["id"])
        elif event in ENDS:
            self._at_work[fields["worker"]].discard(fields["id"])
        elif event in ("killed", "exited"):
            self._at_work.pop(fields.get("worker", ""), None)
        elif event == "beat":
            self._due[now.replace(microsecond=0)].add(fields["entry"])
            return
        elif event == "emptied":
            self._depth.clear()
        self._note(now)

    def _note(self, now: datetime) -> None:
        name = f"{now.astimezone(self._zone):%Y-%m-%d %H:00 %Z}"
        hour = self._hours.get(name) or Hour(name)
        waiting = max(0, sum(self._depth.values()))
        queue, most = max(self._depth.items(), key=lambda pair: pair[1], default=("", 0))
        self._hours[name] = Hour(
            name,
            max(hour.deepest, waiting),
            queue if waiting > hour.deepest and most > 0 else hour.queue,
            max(hour.busiest, sum(map(len, self._at_work.values()))),
        )

    @property
    def hours(self) -> list[Hour]:
        return list(self._hours.values())

    def together(self) -> dict[str, int]:
        pairs: Counter[str] = Counter()
        for names in self._due.values():
            for first, second in combinations(sorted(names), 2):
                pairs[f"{first} + {second}"] += 1
        return dict(pairs.most_common())


def span_of(theirs: Celery, plan: AppPlan) -> tuple[datetime, datetime, ZoneInfo]:
    """When the days begin and end, and where."""
    zone = ZoneInfo(str(theirs.timezone))
    start, end = (_midnight(plan.day + timedelta(days=days), zone) for days in (0, plan.days))
    return start, end, zone


def replay(
    theirs: Celery,
    plan: AppPlan,
    times: ServiceTimes,
    *,
    trace_into: TextIO | None = None,
    observers: Sequence[Observer] = (),
    progress: Callable[[datetime, int], None] | None = None,
) -> AppOutcome:
    """Replay the days of ``plan``. Nothing of the app's is contacted, no body is run.

    ``progress`` is told the virtual instant and the events so far, every half an hour of it.
    Raises ``NotEmptyError`` and redis-py's errors for a ``broker_url``.
    """
    began = wall_seconds()
    rng = Random(f"{plan.seed}:service times")
    twin = twin_of(theirs, times, rng)
    tasks = names_of(theirs)
    queues = queues_of(twin, tasks)
    warnings = warnings_of(theirs, queues)
    start, end, zone = span_of(twin, plan)
    figures, hours = Figures(start=start, end=end), _Hours(zone)
    with ExitStack() as stack:
        stack.enter_context(signals_muted())
        deployment = stack.enter_context(
            Deployment(
                twin,
                start=start - WARM_UP,
                seed=plan.seed,
                workers=[WorkerGroup(plan.workers, plan.concurrency, queues)],
                beats=plan.beats,
                broker_url=plan.broker_url,
                trace_into=trace_into,
            )
        )
        deployment.trace.observe(figures.see)
        deployment.trace.observe(hours.see)
        for observer in observers:
            deployment.trace.observe(observer)
        _load(deployment, twin, times, start=start, days=plan.days)
        schedule(deployment, deployment, plan.faults, ENGINE_FAULTS, day=plan.day, zone=zone)
        while deployment.now < end:
            deployment.run_until(min(end, deployment.now + STRIDE))
            if progress is not None:
                progress(deployment.now, deployment.trace.lines)
        of_queues = figures.queues()
        for queue, each in of_queues.items():
            each["wait_max"] = percentile(figures.waits[queue], 1.0)
        return AppOutcome(
            plan=plan,
            timezone=zone.key,
            slots=plan.workers * plan.concurrency,
            trace_hash=deployment.trace.hash,
            events=deployment.trace.lines,
            wall_seconds=wall_seconds() - began,
            beat={name: figures.beat[name] for name in sorted(twin.conf.beat_schedule or {})},
            tasks={name: dict(each) for name, each in sorted(figures.tasks.items())},
            queues=of_queues,
            hours=hours.hours,
            together=hours.together(),
            left=sum(
                max(0, counts["runs"] - sum(counts[end] for end in ENDS))
                for counts in figures.tasks.values()
            )
            + max(0, sum(figures.depth.values())),
            sometimes=_sometimes(deployment, plan),
            warnings=warnings,
        )


def _sometimes(deployment: Deployment, plan: AppPlan) -> dict[str, int]:
    counts = deployment.trace.counts
    found = {
        "a task retried": counts["retried"],
        "a task failed": counts["failed"],
        "a message redelivered": counts["redelivered"],
        "a message in its queue twice": counts["duplicated"],
        "a process killed": counts["killed"],
        "a pool's child lost": counts["lost"],
    }
    kinds = Counter(fault.kind for fault in plan.faults)
    return {**found, **{f"fault: {kind}": number for kind, number in kinds.items()}}


def changing_days(theirs: Celery, after: date) -> dict[str, dict[str, int]]:
    """Runs of each beat entry on a plain day, and on the next two on which the clocks change.

    Beat alone, for a day each; nobody takes its messages. Empty in a zone without changes.
    """
    twin = twin_of(theirs, ServiceTimes(), Random(0))
    zone = ZoneInfo(str(twin.timezone))
    found: dict[str, dict[str, int]] = {}
    days = [after + timedelta(days=number) for number in range(366)]
    plain = next(day for day in days if _hours_of(day, zone) == 24)
    changing = [day for day in days if _hours_of(day, zone) != 24][:2]
    for day in [plain, *changing] if changing else []:
        start, end = _midnight(day, zone), _midnight(day + timedelta(days=1), zone)
        figures = Figures(start=start, end=end)
        with (
            signals_muted(),
            Deployment(twin, start=start - WARM_UP, workers=[WorkerGroup(0)]) as deployment,
        ):
            deployment.trace.observe(figures.see)
            deployment.run_until(end)
        found[f"{day.isoformat()} ({_hours_of(day, zone)} h)"] = {
            name: figures.beat[name] for name in sorted(twin.conf.beat_schedule or {})
        }
    return found


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _hours_of(day: date, zone: ZoneInfo) -> float:
    length = _midnight(day + timedelta(days=1), zone) - _midnight(day, zone)
    hours = length / timedelta(hours=1)
    return int(hours) if hours.is_integer() else hours


def _load(
    deployment: Deployment, twin: Celery, times: ServiceTimes, *, start: datetime, days: int
) -> None:
    """What comes beside beat: at instants that are drawn evenly over the days."""
    for name, each in sorted(times.tasks.items()):
        rng = deployment.rng(f"load {name}")
        instants: Sequence[datetime] = sorted(
            start + rng.random() * days * DAY for _ in range(each.per_day * days)
        )
        for instant in instants:
            deployment.call_at(instant, partial(_send, twin, name))


def _send(twin: Celery, name: str) -> None:
    # As their own code would: with the task's options, by their routes.
    twin.tasks[name].apply_async(retry=False)
