"""The report of a replay of any Celery app."""

from __future__ import annotations

from datetime import datetime

from simulations.any_app.outcome import TOLD, AppOutcome
from simulations.report.page import Figure, Page, Table, Verdict, fault_table
from simulations.report.timeline import Timeline

MORE_THAN_HOURLY = 24
"""Runs on a plain day: such an entry has more on a longer one, and fewer on a shorter one."""
MOST_TOLD = 4
WAITS = ("published", "max_depth", "wait_p50", "wait_p99", "wait_max")


def page_of(outcome: AppOutcome, timeline: Timeline, *, days_end: datetime) -> Page:
    """What became of the replay, for a person to read."""
    plan, peak = outcome.plan, outcome.peak
    days = "a day" if plan.days == 1 else f"{plan.days} days"
    slots = outcome.slots
    runs = sum(each.get("runs", 0) for each in outcome.tasks.values())
    busiest = max((hour.busiest for hour in outcome.hours), default=0)
    return Page(
        title=f"{plan.app}: {days} from {plan.day:%A} {plan.day.day} {plan.day:%B %Y}",
        subtitle=(
            f"Its schedule, routes, limits and retries on virtual time, {outcome.timezone}, seed "
            f"{plan.seed}. No body of its tasks was run, and nothing of it was contacted."
        ),
        verdict=_verdict(outcome),
        figures=(
            Figure(f"{outcome.events:,}", "events"),
            Figure(
                f"{outcome.wall_seconds:,.1f} s",
                f"of wall time, {outcome.events / outcome.wall_seconds:,.0f} events a second",
                id="wall-time",
            ),
            Figure(f"{runs:,}", "runs of tasks"),
            Figure(f"{sum(outcome.beat.values()):,}", "runs of beat entries"),
            Figure(peak.begins, "the hour of the deepest backlog", id="peak"),
            Figure(f"{peak.deepest:,}", "messages waited at once in it"),
            Figure(
                f"{busiest} of {slots}",
                "slots in use at most",
            ),
            Figure(f"{outcome.left:,}", "tasks still to be done at the end"),
        ),
        command=plan.command,
        trace_hash=outcome.trace_hash,
        timeline=timeline,
        slots=slots,
        days_end=days_end,
        notes=tuple(change.what for change in timeline.axis.changes),
        tables=(
            *fault_table(timeline),
            Table(
                "queues",
                "Queues",
                ("queue", "published", "deepest", "waited p50, s", "p99, s", "longest, s"),
                tuple(
                    (name, *(each[key] for key in WAITS)) for name, each in outcome.queues.items()
                ),
                note=f"With {slots} slots: {plan.workers} × {plan.concurrency}.",
            ),
            _changing_days(outcome),
            Table(
                "together",
                "Entries due at the same instant",
                ("entries", "times"),
                tuple(outcome.together.items()),
                note="They wait for each other where there are fewer slots than entries."
                if outcome.together
                else "No two of them are.",
            ),
            Table(
                "tasks",
                "Tasks",
                ("task", *TOLD),
                tuple(
                    (name, *(counts.get(end, 0) for end in TOLD))
                    for name, counts in outcome.tasks.items()
                ),
            ),
            Table(
                "sometimes", "What went wrong", ("what", "times"), tuple(outcome.sometimes.items())
            ),
        ),
    )


def _verdict(outcome: AppOutcome) -> Verdict:
    peak = outcome.peak
    lines = []
    if peak.deepest:
        lines.append(
            f"{peak.deepest:,} messages waited at once, most of them in {peak.queue}; "
            f"{peak.busiest} of {outcome.slots} slots were in use."
        )
    slowest = max(outcome.queues, key=lambda queue: outcome.queues[queue]["wait_p99"], default=None)
    if slowest is not None:
        wait = outcome.queues[slowest]
        lines.append(
            f"One message in a hundred waited longer than {wait['wait_p99']:,.3g} s in {slowest}, "
            f"where waits were longest; the longest there was {wait['wait_max']:,.3g} s."
        )
    lines += [f"Warning: {each}." for each in outcome.warnings]
    lines += _changes(outcome)
    if outcome.left:
        left = "1 task was" if outcome.left == 1 else f"{outcome.left:,} tasks were"
        lines.append(f"At the end {left} still to be done.")
    # What is at work when the days end says nothing: something may be due at that instant.
    if outcome.left > outcome.slots:
        return Verdict(
            False,
            f"{outcome.slots} slots did not get it all done",
            tuple(lines),
        )
    headline = (
        f"The backlog is deepest from {peak.begins}" if peak.deepest else "Nothing ever waits"
    )
    return Verdict(None, headline, tuple(lines))


def _changes(outcome: AppOutcome) -> list[str]:
    """What the days on which the clocks change do to entries."""
    found = []
    plain, *changing = outcome.changing_days.items() or [("", {})]
    for day, runs in changing:
        hours = float(day.partition("(")[2].removesuffix(" h)"))
        told = []
        for name, number in runs.items():
            often = plain[1][name] > MORE_THAN_HOURLY
            paced = round(plain[1][name] * hours / 24) if often else plain[1][name]
            if number != paced:
                told.append(f"{name} runs {number:,} times, where its pace asks for {paced:,}")
        kept = "every entry keeps its pace"
        found.append(f"On {day} the clocks change: {'; '.join(told[:MOST_TOLD]) or kept}.")
    return found


def _changing_days(outcome: AppOutcome) -> Table:
    changing = outcome.changing_days
    return Table(
        "beat",
        "Beat entries",
        ("entry", "runs in these days", *changing),
        tuple(
            (name, runs, *(day[name] for day in changing.values()))
            for name, runs in outcome.beat.items()
        ),
        note="And on a plain day beside the next ones on which the clocks change."
        if changing
        else f"In {outcome.timezone} the clocks do not change.",
    )
