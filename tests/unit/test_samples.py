"""Every sample of Python that a page prints runs as it is printed."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import _state, states
from sqlalchemy import Engine, select

from app import clock, db, outbox
from app.models import BookingStatus, OutboxEntry, OutboxState
from app.tasks import celery_app
from app.tasks.testing import drain, without_broker
from tests.builders import a_lesson, a_service, a_student

ROOT = Path(__file__).parents[2]
README_TASK = "app.tasks.module.task_name"


def samples(page: str) -> list[str]:
    fences = re.findall(r"^( *)```python\n(.*?)^ *```", (ROOT / page).read_text(), re.DOTALL | re.M)
    return [textwrap.dedent(code) for _, code in fences]


PAGES = [
    str(page.relative_to(ROOT))
    for page in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
]
ALL = [(page, number) for page in PAGES for number in range(len(samples(page)))]
ELSEWHERE = {
    ("docs/load-testing.md", 0): "loadtests/bookings.py",
    ("docs/simulation.md", 1): "tests/unit/test_samples.py",
    ("docs/simulation.md", 2): "tests/unit/test_samples.py",
    ("docs/testing.md", 0): "tests/unit/tasks/test_testing.py",
    ("docs/testing.md", 1): "tests/integration/cluster/test_routing.py",
}
"""Samples that begin as a part of that file does, or whose page that test runs."""


@pytest.fixture(autouse=True)
def _own_tasks() -> Iterator[None]:
    """Samples register tasks by names that a real one may have: put the registry back."""
    before, finalizers = dict(celery_app.tasks), set(_state._on_app_finalizers)
    for name in (README_TASK, "app.tasks.bookings.send_due_reminders"):
        celery_app.tasks.pop(name, None)
    with without_broker():
        yield
    celery_app.tasks.clear()
    celery_app.tasks.update(before)
    # Celery gives a task to every app that is made later.
    _state._on_app_finalizers.intersection_update(finalizers)


def run(page: str, number: int, **given: Any) -> dict[str, Any]:
    """The names that the sample leaves, with those that its page says are the reader's."""
    given["__name__"] = "sample"
    exec(compile(samples(page)[number], f"{page} {number}", "exec"), given)  # noqa: S102
    return given


def readmes_task() -> None:
    task = run("README.md", 0)["my_task"]
    assert task.name == README_TASK
    assert task(1, 2) == {"status": "success", "result": 3}


def readmes_retry() -> None:
    task = run("README.md", 1)["my_task"]
    assert task(1, 2) == {"status": "success", "result": 3}
    with db.transaction() as session:
        entry_id = outbox.enqueue(session, task.name, 1, "a mistake")
    for tries, seconds in enumerate((60, 120, 240)):
        [ran] = drain(retries=tries)
        assert ran.state == states.RETRY
        with db.reading() as session:
            wait = session.get_one(OutboxEntry, entry_id).due_at - clock.utcnow()
        assert timedelta(seconds=seconds - 10) < wait <= timedelta(seconds=seconds)
    [ran] = drain(retries=3, failures=True)
    assert ran.state == states.FAILURE


def readmes_effect() -> None:
    task = run("README.md", 2)["send_due_reminders"]
    with db.transaction() as session:
        outbox.enqueue(session, task.name)
    [ran] = drain()
    assert (ran.task, ran.state) == ("app.tasks.bookings.send_due_reminders", states.SUCCESS)
    assert isinstance(ran.result, dict)


def readmes_plan() -> None:
    with db.transaction() as session:
        student, service = a_student(session).id, a_service(session).id
    starts_at = clock.utcnow().replace(minute=0, second=0, microsecond=0) + timedelta(days=7)
    run("README.md", 3)["book_a_lesson"](student, service, starts_at)
    with db.reading() as session:
        planned = {(each.key, each.state) for each in session.scalars(select(OutboxEntry))}
    confirmation, reminder = (None, OutboxState.PENDING), ("reminder:42", OutboxState.CANCELLED)
    assert {confirmation, reminder} <= planned


def following_a_request() -> None:
    with db.transaction() as session:
        soon = clock.utcnow() + timedelta(days=7)
        lesson = a_lesson(session, starts_at=soon, status=BookingStatus.PENDING)
    run("docs/logs.md", 0, traceparent_trace_id="a" * 32, booking_id=lesson.id)
    with db.reading() as session:
        assert set(session.scalars(select(OutboxEntry.trace_id))) == {"a" * 32}


THEIR_APP = """
from datetime import timedelta

from celery import Celery

app = Celery("proj", broker="redis://nowhere.invalid", set_as_current=False)
app.conf.beat_schedule = {"work": {"task": "work", "schedule": timedelta(minutes=1)}}


@app.task(name="work", ignore_result=True)
def work():
    pass


def send_a_thousand():
    for _ in range(1000):
        work.delay()
"""


def simulations_page() -> None:
    """All of the page's samples together, as files of another team's folder."""
    folder = Path.cwd()
    (folder / "proj").mkdir()
    (folder / "proj" / "celery.py").write_text(THEIR_APP)
    beat, conftest, storm = samples("docs/simulation.md")
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_theirs.py").write_text(f"{beat}\n{storm}")
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = . {ROOT}\n")
    plain = ["-p", "no:randomly", "-p", "no:celery", "-p", "no:cacheprovider", "--strict-markers"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plain, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in ended.stdout, ended.stdout + ended.stderr


CHECKS: dict[tuple[str, int], Callable[[], None]] = {
    ("README.md", 0): readmes_task,
    ("README.md", 1): readmes_retry,
    ("README.md", 2): readmes_effect,
    ("README.md", 3): readmes_plan,
    ("docs/logs.md", 0): following_a_request,
    ("docs/simulation.md", 0): simulations_page,
}


def test_every_sample_is_looked_at() -> None:
    # What CONTRIBUTING prints are parts of a task, not whole samples.
    shown = [sample for sample in ALL if sample[0] != "CONTRIBUTING.md"]
    assert sorted(shown) == sorted([*CHECKS, *ELSEWHERE]), "add it to CHECKS"


@pytest.mark.parametrize(("page", "number"), ALL)
def test_a_sample_is_python(page: str, number: int) -> None:
    compile(samples(page)[number], page, "exec")


@pytest.mark.parametrize(("page", "number"), list(CHECKS))
def test_a_sample_runs_as_it_is_printed(
    page: str, number: int, database: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    monkeypatch.chdir(folder)
    CHECKS[page, number]()


@pytest.mark.parametrize(("page", "number"), list(ELSEWHERE))
def test_a_sample_of_a_file_is_in_it(page: str, number: int) -> None:
    text = (ROOT / ELSEWHERE[page, number]).read_text()
    assert Path(page).name in text or samples(page)[number][:50] in text
