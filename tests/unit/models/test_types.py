"""Instants in the database: aware, in UTC, or refused."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session

from app.models import BeatEntry, Role, User

INSTANT = datetime(2026, 11, 1, 5, 30, 0, 123456, tzinfo=UTC)


def remember(engine: Engine, last_due: datetime) -> None:
    with Session(engine) as session, session.begin():
        session.add(BeatEntry(name="entry", schedule_hash="hash", last_due=last_due))


def remembered(engine: Engine) -> datetime:
    with Session(engine) as session:
        return session.scalars(select(BeatEntry.last_due)).one()


def test_a_naive_datetime_is_refused(database: Engine) -> None:
    with pytest.raises(StatementError, match="is naive: pass an aware datetime"):
        remember(database, INSTANT.replace(tzinfo=None))


def test_a_naive_datetime_is_refused_in_a_condition_too(database: Engine) -> None:
    with Session(database) as session, pytest.raises(StatementError, match="is naive"):
        session.scalars(select(BeatEntry).where(BeatEntry.last_due < datetime(2026, 1, 1)))  # noqa: DTZ001


@pytest.mark.parametrize(
    "zone",
    [UTC, ZoneInfo("US/Eastern"), ZoneInfo("Asia/Kathmandu"), timezone(timedelta(hours=-11))],
    ids=str,
)
def test_an_instant_of_any_zone_comes_back_as_the_same_one_in_utc(
    database: Engine, zone: ZoneInfo
) -> None:
    remember(database, INSTANT.astimezone(zone))
    assert remembered(database) == INSTANT
    assert remembered(database).tzinfo is UTC


@pytest.mark.parametrize("fold", [0, 1])
def test_both_passes_of_the_repeated_hour_are_told_apart(database: Engine, fold: int) -> None:
    in_the_repeated_hour = datetime(2026, 11, 1, 1, 30, fold=fold, tzinfo=ZoneInfo("US/Eastern"))
    remember(database, in_the_repeated_hour)
    assert remembered(database) == datetime(2026, 11, 1, 5 + fold, 30, tzinfo=UTC)


def test_instants_are_compared_as_instants_whatever_their_zone(database: Engine) -> None:
    remember(database, INSTANT)
    just_after = (INSTANT + timedelta(microseconds=1)).astimezone(ZoneInfo("Pacific/Kiritimati"))
    with Session(database) as session:
        assert session.scalars(select(BeatEntry).where(BeatEntry.last_due < just_after)).all()
        assert not session.scalars(select(BeatEntry).where(BeatEntry.last_due > just_after)).all()


def test_an_enum_is_kept_as_its_value_and_others_are_refused(database: Engine) -> None:
    with Session(database) as session, session.begin():
        session.add(User(role=Role.STUDENT, email="a@b.example", name="Ada", time_zone="UTC"))
    with database.connect() as connection:
        assert connection.scalar(text("SELECT role FROM users")) == "student"
        with pytest.raises(IntegrityError, match="role_known"):
            connection.execute(text("UPDATE users SET role = 'owner'"))
