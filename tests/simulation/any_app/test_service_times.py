"""The file of service times."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from simulations.any_app.service_times import ServiceTimesError, TaskTimes, read


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "times.toml"
    path.write_text(text)
    return path


def test_a_tasks_table_stands_on_the_default(tmp_path: Path) -> None:
    text = (
        "[default]\nseconds = 0.5\nfailure_rate = 0.1\n"
        '["a.b"]\nseconds = {lognormal = [1, 20.0]}\n["a.c"]\nper_day = 7\n'
    )
    times = read(written(tmp_path, text), {"a.b", "a.c", "a.d"})
    assert times.of("a.b") == TaskTimes(1.0, 20.0, 0.1, 0)
    assert times.of("a.c") == TaskTimes(0.5, None, 0.1, 7)
    assert times.of("a.d") == TaskTimes(0.5, None, 0.1, 0)


def test_no_drawn_time_is_longer_than_a_week() -> None:
    rng = Random(1)
    widest = TaskTimes(median=1e-6, p99=604_800)
    assert max(widest.draw(rng) for _ in range(20_000)) == 604_800


def test_a_lognormal_has_its_median_and_its_p99() -> None:
    rng = Random(1)
    drawn = sorted(TaskTimes(median=2.0, p99=30.0).draw(rng) for _ in range(20_000))
    assert drawn[10_000] == pytest.approx(2.0, rel=0.05)
    assert drawn[19_800] == pytest.approx(30.0, rel=0.1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seconds", "is no TOML"),
        ('["a.x"]\nseconds = 1', "the app has no task 'a.x'"),
        ('["a.b"]\nminutes = 1', "has no 'minutes', only seconds, failure_rate and per_day"),
        ('["a.b"]\nseconds = "long"', "seconds is a number, or a median and a p99"),
        ('["a.b"]\nseconds = {lognormal = [5, 1]}', "seconds is a number, or a median and a p99"),
        *(
            (f'["a.b"]\nseconds = {wrong}', "seconds is a number, or a median and a p99")
            for wrong in (
                *("inf", "nan", "-1", "true", "1e7", f"1{'0' * 400}"),
                *("{lognormal = [1, inf]}", "{lognormal = [nan, nan]}", "{lognormal = [true, 2]}"),
                *("{lognormal = [1e-300, 1]}", f"{{lognormal = [1, 1{'0' * 400}]}}"),
            )
        ),
        *(
            (f'["a.b"]\nper_day = {wrong}', "[a.b] per_day is a number of runs from 0 to 5,000,000")
            for wrong in ("1000000000000", "-1", "inf", "true")
        ),
        (
            '["a.b"]\nper_day = 2000000\n["a.c"]\nper_day = 1000000',
            "makes 6,000,000 runs in --days 2",
        ),
        *(
            (f'["a.b"]\nfailure_rate = {wrong}', "[a.b] failure_rate is a share from 0 to 1")
            for wrong in ("nan", "inf", "true")
        ),
        (f'["a.b"]\nseconds = {"[" * 5000}{"]" * 5000}', "is nested too deep"),
        (f'["a.b"]\nseconds = {"{a = " * 5000}1{"}" * 5000}', "is nested too deep"),
        (f'["a.b"]\nper_day = 1{"0" * 5000}', "is no TOML"),
        ('["a.b"]\nfailure_rate = 2', "failure_rate is a share from 0 to 1, not 2"),
        ('["a.b"]\nper_day = 1.5', "per_day is a number of runs from 0 to 5,000,000, not 1.5"),
        ("[default]\nper_day = 5", "[default] takes no per_day"),
        ("default = 5", "[default] is no table"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ServiceTimesError) as error:
        read(written(tmp_path, text), {"a.b", "a.c"}, days=2)
    assert said in str(error.value)
    assert "times.toml" in str(error.value)
