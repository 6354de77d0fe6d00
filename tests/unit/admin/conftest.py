"""Commands typed in the test's process, on a database of their own."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from app import db, outbox
from app.admin.__main__ import main
from app.models import OutboxEntry
from app.outbox import guard
from app.outbox.guard import Delivery
from app.tasks.testing import without_broker
from tests.fakes import FakeClock

TASK = "app.tasks.email.send_booking_confirmation"


@dataclass(frozen=True)
class Answer:
    """What a command left on the terminal."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def is_one_line_of_refusal(self) -> bool:
        return self.status == 2 and self.out == "" and self.err.count("\n") == 1


Admin = Callable[..., Answer]


@pytest.fixture
def admin(capsys: pytest.CaptureFixture[str]) -> Admin:
    def run(*words: str) -> Answer:
        status = main(words)
        captured = capsys.readouterr()
        return Answer(status, captured.out, captured.err)

    return run


@pytest.fixture(autouse=True)
def _no_redis() -> Iterator[None]:
    """Nothing is published, and nobody asks a real Redis."""
    with without_broker():
        yield


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    return FakeClock.install(monkeypatch, datetime(2026, 7, 1, 12, tzinfo=UTC))


def planned(*args: Any, task: str = TASK, at: datetime | None = None) -> str:
    with db.transaction() as session:
        return outbox.enqueue(session, task, *args, at=at, unchecked=True)


def dead(now: FakeClock, *args: Any, task: str = TASK, error: str = "ValueError: no") -> str:
    entry_id = planned(*args, task=task)
    with db.transaction() as session:
        guard.bury(
            session, Delivery(entry_id, task), error=error, now=now.now, traceback="line 1\nline 2"
        )
    return entry_id


def done(now: FakeClock) -> str:
    entry_id = planned()
    with db.transaction() as session:
        guard.mark_done(session, Delivery(entry_id, TASK), now=now.now)
    return entry_id


def failing(
    now: FakeClock,
    *args: Any,
    task: str = TASK,
    error: str = "ConnectionError: refused",
    wait: timedelta = timedelta(minutes=5),
    attempts: int = 1,
) -> str:
    """An entry whose attempts have failed so far; the next one is due after ``wait``."""
    entry_id = planned(*args, task=task)
    with db.transaction() as session:
        for tries in range(attempts):
            attempt = Delivery(entry_id, task, tries=tries)
            guard.put_back(session, attempt, due_at=now.now + wait, error=error, now=now.now)
    return entry_id


def publish(entry_id: str, now: FakeClock) -> None:
    """Note in the entry that it was published now."""
    with db.transaction() as session:
        session.execute(
            update(OutboxEntry).where(OutboxEntry.id == entry_id).values(published_at=now.now)
        )


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts the operator at a terminal, with the line that is typed there."""

    def type_in(line: str) -> None:
        terminal = io.StringIO(line)
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", terminal)

    return type_in
