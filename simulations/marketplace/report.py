"""The report of a marketplace's replay."""

from __future__ import annotations

from datetime import timedelta

from simulations.marketplace.invariants import INVARIANTS
from simulations.marketplace.outcome import ENDS, HELD, Outcome
from simulations.marketplace.replay import CALM, Replay
from simulations.report.page import Figure, Invariant, Page, Table, Verdict, fault_table
from simulations.report.timeline import Timeline


def page_of(replay: Replay, outcome: Outcome, timeline: Timeline) -> Page:
    """What became of ``replay``, for a person to read."""
    plan = outcome.plan
    days = "a day" if plan.days == 1 else f"{plan.days} days"
    broken = outcome.broken
    calm = f"{CALM // timedelta(hours=1)} hours"
    faults = fault_table(timeline)
    return Page(
        title=f"{days.capitalize()} from {plan.day:%A} {plan.day.day} {plan.day:%B %Y}",
        subtitle=(
            f"A marketplace of {plan.teachers:,} instructors with {plan.bookings:,} bookings a "
            f"day, {_number(plan.workers, 'worker')} of {_number(plan.concurrency, 'slot')}, "
            f"{_number(plan.beats, 'beat')}, {outcome.timezone}, seed {plan.seed}."
        ),
        verdict=_verdict(outcome, timeline),
        figures=(
            Figure(f"{outcome.events:,}", "events"),
            Figure(
                f"{outcome.wall_seconds:,.1f} s",
                f"of wall time, {outcome.events_per_second:,.0f} events a second",
                id="wall-time",
            ),
            Figure(
                f"{sum(each.get('runs', 0) for each in outcome.tasks.values()):,}", "runs of tasks"
            ),
            Figure(f"{sum(outcome.beat.values()):,}", "runs of beat entries"),
            Figure(
                f"{outcome.mails['delivered']:,} of {outcome.mails['expected']:,}",
                "mails owed that were delivered",
            ),
            Figure(f"{outcome.mails['doubled']:,}", "mails doubled"),
            Figure(
                f"{max((each['max_depth'] for each in outcome.queues.values()), default=0):,}",
                "messages in the deepest queue",
            ),
            Figure(
                f"{max((each['wait_p99'] for each in outcome.queues.values()), default=0):,.3g} s",
                "longest p99 of a queue's waits",
            ),
        ),
        command=plan.command,
        trace_hash=outcome.trace_hash,
        timeline=timeline,
        slots=plan.workers * plan.concurrency,
        days_end=replay.end,
        broken_at=None if broken is None else broken.at,
        notes=(
            *(change.what for change in timeline.axis.changes),
            *(
                (f"Grey: the calm after the days, {calm} in which all drains.",)
                if not broken
                else ()
            ),
            *(("Amber: while a fault lasts; dotted: when one struck.",) if faults else ()),
            *(("The red line: here the invariant broke.",) if broken else ()),
        ),
        invariants=tuple(
            Invariant(
                each.name,
                each.sentence,
                outcome.invariants[each.name],
                _state(each.name, outcome),
            )
            for each in INVARIANTS
        ),
        tables=(
            *faults,
            Table(
                "beat",
                "Beat entries",
                ("entry", "runs"),
                tuple(outcome.beat.items()),
                note="Runs whose due instants lie in the days.",
            ),
            Table(
                "queues",
                "Queues",
                ("queue", "published", "deepest", "waited p50, s", "p99, s"),
                tuple(
                    (name, each["published"], each["max_depth"], each["wait_p50"], each["wait_p99"])
                    for name, each in outcome.queues.items()
                ),
            ),
            Table(
                "tasks",
                "Tasks",
                ("task", *ENDS),
                tuple(
                    (name.removeprefix("app.tasks."), *(counts.get(end, 0) for end in ENDS))
                    for name, counts in outcome.tasks.items()
                ),
            ),
            Table(
                "sometimes",
                "What happened at all",
                ("what", "times"),
                tuple(outcome.sometimes.items()),
                note="A run in which no message was redelivered says nothing about redelivery.",
            ),
            Table("people", "What people did", ("what", "times"), tuple(outcome.people.items())),
        ),
    )


def _verdict(outcome: Outcome, timeline: Timeline) -> Verdict:
    broken = outcome.broken
    if broken is None:
        return Verdict(
            True,
            f"All {len(outcome.invariants)} invariants hold",
            (
                f"{outcome.mails['delivered']:,} mails that were owed have arrived, each once."
                if not outcome.mails["doubled"]
                else f"{outcome.mails['delivered']:,} mails that were owed have arrived, and "
                f"{outcome.mails['doubled']:,} of them once more, as the server's answer was lost.",
            ),
        )
    sentence = next(each.sentence for each in INVARIANTS if each.name == broken.name)
    lines = [
        f"It says: {sentence}",
        f"But {broken.what}.",
        f"Seen at {timeline.axis.label(broken.at)} ({broken.at.isoformat()}).",
    ]
    if outcome.fewest is not None:
        lines.append(f"With the fewest faults: {outcome.fewest.command}")
    return Verdict(False, f"Broken: {broken.name}", tuple(lines), tuple(broken.lines))


def _state(name: str, outcome: Outcome) -> str:
    if outcome.invariants[name] == HELD:
        return "held"
    return "broken" if outcome.broken is not None and outcome.broken.name == name else "unknown"


def _number(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
