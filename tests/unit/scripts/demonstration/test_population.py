"""People who book lessons, on a database and a clock of their own."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random

import pytest
from sqlalchemy import Engine, delete, select

from app import db, outbox
from app.domain import reminders
from app.models import Booking, BookingStatus
from scripts.demonstration import people
from scripts.demonstration.people import People
from scripts.demonstration.population import Population
from tests.builders import NOON
from tests.fakes import FakeClock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    return FakeClock.install(monkeypatch, NOON + timedelta(seconds=20))


@pytest.fixture(autouse=True)
def _no_broker() -> Iterator[None]:
    attached_before = outbox.attach(None)
    yield
    outbox.attach(attached_before)


def live(
    now: FakeClock, *, seconds: int, seed: int = 1, residents: People | None = None
) -> list[tuple[str, str]]:
    """Let people book for so long; what was said of it."""
    said: list[tuple[str, str]] = []
    population = Population(
        residents or people.move_in(), rng=Random(seed), say=lambda *line: said.append(line)
    )
    population.bring_history()
    for tick in range(seconds * 10):
        population.step(tick / 10)
        now.advance(seconds=0.1)
    return said


def lessons() -> list[Booking]:
    with db.reading() as session:
        return list(session.scalars(select(Booking)))


def due(instant: datetime) -> set[tuple[object, int]]:
    return {
        (kind, lesson.id)
        for lesson in lessons()
        if lesson.status is BookingStatus.CONFIRMED
        and (
            kind := reminders.due_kind(
                lesson.starts_at, confirmed_at=lesson.confirmed_at, now=instant
            )
        )
    }


def test_forty_seconds_see_lessons_booked_confirmed_and_cancelled(
    database: Engine, now: FakeClock
) -> None:
    said = live(now, seconds=40)
    statuses = [lesson.status for lesson in lessons()]
    assert statuses.count(BookingStatus.CONFIRMED) >= 20
    assert statuses.count(BookingStatus.CANCELLED) >= 2
    assert {"booked", "confirmed", "cancelled"} <= {what for what, _ in said}


def test_reminders_of_both_kinds_are_due_at_once_and_more_within_the_minute(
    database: Engine, now: FakeClock
) -> None:
    live(now, seconds=0)
    kinds = [kind for kind, _ in due(now.now)]
    assert all(kinds.count(kind) >= 3 for kind in reminders.LEADS)
    soon = due(now.now + timedelta(seconds=60)) - due(now.now)
    assert {kind for kind, _ in soon} == set(reminders.LEADS)


def test_the_same_seed_gives_the_same_decisions(database: Engine, now: FakeClock) -> None:
    residents = people.move_in()
    began = now.now
    said = []
    for _ in range(2):
        now.now = began
        said.append(live(now, seconds=10, seed=7, residents=residents))
        with db.transaction() as session:
            session.execute(delete(Booking))
    assert renumbered(said[0]) == renumbered(said[1])


def renumbered(said: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """With lessons numbered as they come up: a database need not use an id again."""
    numbers: dict[str, str] = {}

    def number(lesson: re.Match[str]) -> str:
        return numbers.setdefault(lesson[0], f"lesson {len(numbers)}")

    return [(what, re.sub(r"lesson \d+", number, details)) for what, details in said]
