from pathlib import Path

import pytest

from app.routing import QUEUES
from loadtests import _objectives
from loadtests._errors import LoadTestError
from loadtests._ledger import Measure
from loadtests._objectives import DEFAULT_FILE, Objective, load, misses


class Measured:
    """Seconds for any percentile of some queues."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = seconds

    def percentile(self, measure: Measure, queue: str, part: float) -> float | None:
        return self.seconds.get(queue)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


def test_the_projects_own_name_every_queue() -> None:
    in_queue = {each.queue for each in load(DEFAULT_FILE) if each.measure is Measure.IN_QUEUE}
    missing = sorted({spec.name for spec in QUEUES} - in_queue)
    assert missing == [], f"add in_queue for {missing} to loadtests/objectives.toml"


def test_the_projects_own_are_no_looser_for_the_more_urgent_queue() -> None:
    p95 = {
        each.queue: each.seconds
        for each in load(DEFAULT_FILE)
        if (each.measure, each.part) == (Measure.IN_QUEUE, 0.95)
    }
    by_urgency = sorted(QUEUES, key=lambda spec: spec.urgency, reverse=True)
    allowed = [p95[spec.name] for spec in by_urgency if spec.name in p95]
    assert len(allowed) > 1
    assert allowed == sorted(allowed)


def test_a_file_says_what_it_says(file: Path) -> None:
    file.write_text('[email]\nin_queue = { p95 = 2, "p99.9" = 5.5 }\nrun = { p50 = 1 }\n')
    assert load(file) == (
        Objective("email", Measure.IN_QUEUE, 0.95, 2.0),
        Objective("email", Measure.IN_QUEUE, 0.999, 5.5),
        Objective("email", Measure.RUN, 0.5, 1.0),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[emial]\nrun = { p99 = 1 }", "[emial]: there is no such queue, only bookings, email"),
        ("[email]\nwait = { p99 = 1 }", "[email] wait: there are only in_queue and run"),
        ("[email]\nrun = { max = 1 }", "[email] run: 'max' is no percentile as p95 is"),
        ("[email]\nrun = { p100 = 1 }", "[email] run: 'p100' is no percentile as p95 is"),
        ("[email]\nrun = { p99 = 0 }", "[email] run.p99: 0 is no number of seconds above 0"),
        ("[email]\nrun = { p99 = true }", "[email] run.p99: True is no number of seconds above 0"),
        ("[email]\nrun = { p99 = nan }", "[email] run.p99: nan is no number of seconds above 0"),
        ("[email]\nrun = { p99 = inf }", "[email] run.p99: inf is no number of seconds above 0"),
        (f"[email]\nrun = {{ p99 = 1{'0' * 400} }}", "[email] run.p99: 10000"),
        (f"[email]\nrun = {{ p99 = 1{'0' * 5000} }}", "no TOML: "),
        (f"email = {'[' * 5000}{']' * 5000}", "nested too deep"),
        ("[email]\nrun = 1", "[email] run: 1 is no table, as { p99 = 1 } is"),
        ("email = 1", "[email]: 1 is no table, as { p99 = 1 } is"),
        ("", "it has none; for example [bookings] and in_queue = { p99 = 1 }"),
        ("[email", "no TOML: "),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_place(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(LoadTestError) as refused:
        load(file)
    assert str(refused.value).startswith(f"--objectives {file}: {said}")
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_one_line(file: Path) -> None:
    with pytest.raises(LoadTestError, match="cannot be read"):
        load(file)


def test_what_took_longer_is_a_miss_and_what_was_not_measured_is_none() -> None:
    slow = Objective("bookings", Measure.IN_QUEUE, 0.99, 1.0)
    kept = Objective("email", Measure.IN_QUEUE, 0.99, 5.0)
    unmeasured = Objective("cache", Measure.RUN, 0.99, 5.0)
    (missed,) = misses([slow, kept, unmeasured], Measured(bookings=7.25, email=5.0))
    assert missed.objective is slow
    assert str(missed) == "bookings: p99 in queue is 7.25 s, the objective 1 s"
    assert _objectives.by_queue([missed]) == {"bookings": [missed]}
