"""Tasks that could not run as they say are refused when they are registered."""

import functools
import math
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.tasks import BaseTask, celery_app
from app.tasks.registration import RegistrationError, limits_in_force
from tests.unit.tasks.conftest import Bench

SOFT, HARD = celery_app.conf.task_soft_time_limit, celery_app.conf.task_time_limit


async def coroutine(self: BaseTask) -> None: ...


def generator(self: BaseTask) -> Iterator[int]:
    yield 1


async def async_generator(self: BaseTask) -> AsyncIterator[int]:
    yield 1


def body(self: BaseTask) -> None: ...


def decorated(of: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(of)
    def wrapper(*args: Any) -> Any:
        return of(*args)

    return wrapper


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (coroutine, "a worker does not await an async def"),
        (generator, "a worker does not iterate a generator"),
        (async_generator, "a worker does not iterate a generator"),
        (decorated(coroutine), "a worker does not await an async def"),
    ],
)
def test_a_body_that_nobody_would_run_is_refused(bench: Bench, refused: Any, why: str) -> None:
    with pytest.raises(RegistrationError) as error:
        bench.task(refused)
    assert str(error.value).startswith("task app.tasks.bench.")
    assert f"({__file__}:" in str(error.value)
    assert why in str(error.value)


@pytest.mark.parametrize("command", ["app.admin", "app.tasks.health", "celery"])
def test_a_command_of_ours_ends_in_one_line(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", command])
    with pytest.raises(SystemExit) as ended:
        bench.task(coroutine)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("task app.tasks.bench.")
    assert said.count("\n") == 1


def test_a_coroutine_that_a_decorator_runs_is_accepted(bench: Bench) -> None:
    def run(self: BaseTask) -> str:
        import asyncio

        asyncio.run(asyncio.sleep(0))
        return "ran"

    assert bench.task(run)() == "ran"


@pytest.mark.parametrize("name", ["time_limit", "soft_time_limit"])
@pytest.mark.parametrize("limit", [-1, 0, math.nan, math.inf, "5"])
def test_a_limit_that_is_not_a_number_of_seconds_is_refused(
    bench: Bench, name: str, limit: Any
) -> None:
    with pytest.raises(RegistrationError, match="is not a number of seconds above 0"):
        bench.task(body, **{name: limit})


@pytest.mark.parametrize(
    "limits",
    [
        {"time_limit": 3, "soft_time_limit": 3},
        {"time_limit": 3, "soft_time_limit": 4},
        {"soft_time_limit": HARD},
    ],
    ids=str,
)
def test_a_soft_limit_that_is_not_below_the_hard_one_is_refused(
    bench: Bench, limits: dict[str, float]
) -> None:
    with pytest.raises(RegistrationError, match="is not below its hard one"):
        bench.task(body, **limits)


def test_a_hard_limit_alone_lowers_the_soft_one(bench: Bench) -> None:
    task = bench.task(body, time_limit=3)
    assert (task.time_limit, task.soft_time_limit) == (3, pytest.approx(2.7))


@pytest.mark.parametrize("limits", [{}, {"time_limit": HARD + 1}, {"soft_time_limit": 1}], ids=str)
def test_limits_that_fit_stay_as_they_are(bench: Bench, limits: dict[str, float]) -> None:
    task = bench.task(body, **limits)
    assert task.soft_time_limit == limits.get("soft_time_limit", SOFT)


POOL = {"timeout": HARD, "soft_timeout": SOFT}


@pytest.mark.parametrize(
    ("of_message", "of_task", "in_force", "hard"),
    [
        ((None, None), {}, (None, None), HARD),
        ((3, None), {}, (3, 2.7), 3),
        ((3, None), {"soft_time_limit": 5, "time_limit": 9}, (3, 2.7), 3),
        ((3, 4), {}, (3, 2.7), 3),
        ((None, HARD), {}, (HARD, HARD * 0.9), HARD),
        ((3, 1), {}, (3, 1), 3),
        ((HARD + 1, None), {}, (HARD + 1, None), HARD + 1),
    ],
)
def test_a_messages_hard_limit_is_kept_and_lowers_the_soft_one(
    bench: Bench, of_message: Any, of_task: dict[str, float], in_force: Any, hard: float
) -> None:
    task = bench.task(body, **of_task)
    found, hard_limit = limits_in_force(of_message, task, POOL)
    assert (found, hard_limit) == (pytest.approx(in_force) if found[0] else in_force, hard)


@pytest.mark.parametrize("name", ["time_limit", "soft_time_limit"])
@pytest.mark.parametrize("limit", [-1, 0, math.nan, math.inf, "5"])
def test_a_call_with_a_limit_that_is_none_is_refused(bench: Bench, name: str, limit: Any) -> None:
    task = bench.task(body)
    with pytest.raises(ValueError, match=f"{name}=.* is not a number of seconds above 0"):
        task.apply_async(**{name: limit})


def test_a_worker_says_in_a_line_which_task_it_cannot_register(tmp_path: Path) -> None:
    (tmp_path / "wrong_tasks.py").write_text(
        "from app.tasks import BaseTask, celery_app\n\n\n"
        "@celery_app.task(base=BaseTask, bind=True, name='wrong.one')\n"
        "async def one(self): ...\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "wrong_tasks:celery_app", "worker", "--pool=solo"],
        cwd=Path(__file__).parents[3],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(tmp_path),
            "LOG_DIR": "",
            "DATABASE_URL": f"sqlite:///{tmp_path / 'a.db'}",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert line.startswith("task wrong.one (")
    assert "wrong_tasks.py:4)" in line
