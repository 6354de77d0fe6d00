"""What the table of capacity is made of."""

import json

from scripts.bench_capacity import Day, Run, busiest, row, runs

NOON = 1_782_907_200  # 2026-07-01 12:00 UTC, a multiple of five minutes


def line(event: str, second: int, task_id: str, worker: str = "worker1") -> str:
    at = f"2026-07-01T12:00:{second:02}.000000+00:00"
    return json.dumps({"t": at, "event": event, "id": task_id, "worker": worker})


def test_a_run_lasts_from_its_start_to_its_end() -> None:
    trace = [line("started", 1, "a"), line("acked", 2, "a"), line("succeeded", 4, "a")]
    assert runs(trace) == [Run(NOON + 1, NOON + 4)]


def test_two_workers_that_have_the_same_task_are_two_runs() -> None:
    trace = [
        line("started", 1, "a"),
        line("started", 2, "a", "worker2"),
        line("failed", 5, "a", "worker2"),
        line("succeeded", 6, "a"),
    ]
    assert [run.seconds for run in runs(trace)] == [3, 5]


def test_an_end_without_a_start_is_no_run() -> None:
    assert runs([line("lost", 1, "a")]) == []


def test_the_busiest_span_has_the_most_seconds_of_work() -> None:
    found = [Run(NOON, NOON + 4), Run(NOON + 299, NOON + 305), Run(NOON + 300, NOON + 307)]
    assert busiest(found) == 10
    assert busiest([]) == 0


def test_a_row_says_how_busy_the_slots_were() -> None:
    waits = {"wait_p50": 0.1, "wait_p99": 2.0, "max_depth": 1200}
    figures = {"queues": {"bookings": waits, "email": waits}}
    found = [Run(NOON, NOON + 150)]
    assert row(Day(2000, 1, 2, storm=50), figures, found) == (
        "| 2,000 + 50 in 5 min | 1 × 2 | 1 | 150 | 25% | 0.10 | 2.00 | 0.10 | 2.00 | 1,200 |"
    )
