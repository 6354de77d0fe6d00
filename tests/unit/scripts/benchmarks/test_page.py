"""The page that one run writes."""

from datetime import UTC, datetime

from scripts.bench_all import CHAPTERS, page
from scripts.benchmarks.command import Benchmark
from scripts.benchmarks.series import Series

MACHINE = {
    "processor": "Some CPU",
    "cores": 2,
    "memory_gb": 8.0,
    "system": "Linux 6",
    "python": "3.12.1",
    "load_before": 0.1,
    "commit": "abc+",
    "versions": {"celery": "5.7.0"},
}


def written(*failed: str, rounds: int = 3) -> str:
    series = Series("ours", "mails/s", [10.0, 30.0, 20.0], {"ratio_to_fastest_peer": 3.0}, {"n": 5})
    storm = Benchmark(
        "storm",
        "A storm",
        [series],
        {"n": 5, "rounds": rounds},
        "20 mails a second",
        ["Be careful."],
    )
    told = {**storm.as_json(), "machine": MACHINE}
    return page(
        [(CHAPTERS[0], [told])],
        on=MACHINE,
        at=datetime(2026, 11, 25, 7, 0, tzinfo=UTC),
        seconds=600,
        words={"storm": "--n 5"},
        failed=failed,
    )


def test_a_table_has_the_median_the_spread_and_the_ratio() -> None:
    assert "| variant | mails/s | least | most | ratio to fastest peer | n |" in written()
    assert "| ours | 20.0 | 10.0 | 30.0 | 3.00 | 5 |" in written()


def test_the_machine_the_versions_and_the_commit_stand_above_the_figures() -> None:
    head = written().partition("## A storm")[0]
    for said in ("Some CPU, 2 cores", "Python 3.12.1, celery 5.7.0", "commit abc+", "10 minutes"):
        assert said in head


def test_each_chapter_says_how_it_is_run_alone_and_what_it_is_not() -> None:
    assert "python -m scripts.bench_storm --n 5" in written()
    assert "- Be careful." in written()


def test_too_few_rounds_are_no_figure_to_rely_on_and_the_page_says_so() -> None:
    assert "- 3 rounds of each." in written()
    assert "no figure to rely on" not in written()
    assert "- **1 of at least 3 rounds: no figure to rely on.**" in written(rounds=1)


def test_what_could_not_be_measured_is_named() -> None:
    assert "Not measured" not in written()
    assert "Not measured in this run, for they ended in an error: drain, growth." in written(
        "drain", "growth"
    )
