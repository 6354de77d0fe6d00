from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.outbox import PUBLISHED_AT_HEADER
from loadtests._ledger import Ledger, Measure

TRACE = "0123456789abcdef0123456789abcdef"
PUBLISHED = datetime(2026, 7, 1, 12, tzinfo=UTC)


class Records(list[tuple[Measure, str, float | None, str | None]]):
    def __call__(
        self, measure: Measure, queue: str, seconds: float | None, error: str | None
    ) -> None:
        self.append((measure, queue, None if seconds is None else round(seconds, 6), error))


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def ledger(records: Records) -> Ledger:
    made = Ledger(TRACE, records)
    made.expect(["a", "b"], "email", published_at=PUBLISHED)
    return made


def event(type: str, uuid: str, after: float, **fields: Any) -> dict[str, Any]:
    stamp = (PUBLISHED + timedelta(seconds=after)).timestamp()
    return {"type": type, "uuid": uuid, "timestamp": stamp, **fields}


def stamped(trace_id: str = TRACE) -> dict[str, str]:
    return {
        "queue": "email",
        PUBLISHED_AT_HEADER: PUBLISHED.isoformat(),
        "trace_id": trace_id,
    }


def test_a_wait_ends_at_the_workers_stamp_and_a_run_takes_what_its_process_measured(
    ledger: Ledger, records: Records
) -> None:
    ledger.hear(event("task-started", "a", 1.5, **stamped()))
    ledger.hear(event("task-succeeded", "a", 9.0, runtime=0.25))
    assert records == [
        (Measure.IN_QUEUE, "email", 1.5, None),
        (Measure.RUN, "email", 0.25, None),
    ]
    assert (ledger.waiting, ledger.running) == ({"email": 1}, {})


def test_a_failed_run_is_measured_from_stamp_to_stamp_and_says_why(
    ledger: Ledger, records: Records
) -> None:
    ledger.hear(event("task-started", "a", 1.0, **stamped()))
    ledger.hear(event("task-failed", "a", 3.0, exception="ValueError()"))
    assert records[-1] == (Measure.RUN, "email", 2.0, "ValueError()")


def test_a_retry_is_no_failure(ledger: Ledger, records: Records) -> None:
    ledger.hear(event("task-started", "a", 1.0, **stamped()))
    ledger.hear(event("task-retried", "a", 3.0, exception="TransientError()"))
    assert records[-1] == (Measure.RUN, "email", 2.0, None)


def test_work_that_a_worker_planned_for_this_load_is_measured_by_its_trace(
    ledger: Ledger, records: Records
) -> None:
    ledger.hear(event("task-started", "planned by a worker", 2.0, **stamped()))
    assert records == [(Measure.IN_QUEUE, "email", 2.0, None)]


def test_others_work_is_not_measured(ledger: Ledger, records: Records) -> None:
    ledger.hear(event("task-started", "c", 2.0, **stamped("f" * 32)))
    ledger.hear(event("task-started", "d", 2.0))
    ledger.hear(event("task-succeeded", "c", 3.0, runtime=1.0))
    assert records == []


def test_workers_of_an_older_version_are_measured_by_what_was_published(
    ledger: Ledger, records: Records
) -> None:
    ledger.hear(event("task-started", "a", 2.0))
    assert records == [(Measure.IN_QUEUE, "email", 2.0, None)]


def test_a_clock_that_is_behind_is_told_and_no_wait_is_negative(
    ledger: Ledger, records: Records
) -> None:
    ledger.hear(event("task-started", "a", -0.5, **stamped()))
    assert records == [(Measure.IN_QUEUE, "email", 0.0, None)]
    assert ledger.most_negative_wait == -0.5


def test_what_never_started_has_waited_at_least_its_age(ledger: Ledger, records: Records) -> None:
    ledger.never_started([("a", "email", PUBLISHED)], now=PUBLISHED + timedelta(seconds=60))
    assert records == [(Measure.IN_QUEUE, "email", 60.0, None)]
    assert ledger.waiting == {"email": 1}


def test_a_message_that_was_taken_without_a_word_is_a_failure(
    ledger: Ledger, records: Records
) -> None:
    ledger.hear(event("task-started", "a", 1.0, **stamped()))
    assert ledger.lose_sight("gone") == {"email": 1}
    assert records[1:] == [(Measure.IN_QUEUE, "email", None, "gone")]
    assert ledger.lose_sight("gone") == {}, "it is told once"


def test_a_message_that_nobody_published_is_another_failure(
    ledger: Ledger, records: Records
) -> None:
    ledger.forget(["a", "b"])
    ledger.expect(["c"], "cache", published_at=None)
    assert ledger.lose_sight("gone") == {"cache": 1}
    assert records == [(Measure.IN_QUEUE, "cache", None, "planned, and not published")]


def test_a_message_that_could_not_be_published_is_forgotten(ledger: Ledger) -> None:
    ledger.forget(["a"])
    assert ledger.published == {"email": 1}
    assert ledger.still_waiting(["a", "b"]) == {"b"}


def test_only_what_was_published_and_still_waits_has_an_age(ledger: Ledger) -> None:
    ledger.expect(["planned"], "cache", published_at=None)
    ledger.hear(event("task-started", "a", 1.0, **stamped()))
    assert ledger.published_of(["a", "b", "planned", "unknown"]) == [("b", "email", PUBLISHED)]


def test_an_expected_message_counts_once_it_is_published(ledger: Ledger) -> None:
    ledger.expect(["c"], "cache", published_at=None)
    assert ledger.published["cache"] == 0
    ledger.expect(["c"], "cache", published_at=PUBLISHED)
    ledger.expect(["c"], "cache", published_at=PUBLISHED)
    assert ledger.published["cache"] == 1
