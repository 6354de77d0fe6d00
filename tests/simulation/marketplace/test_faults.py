"""Faults of the marketplace: two of one kind are over when both are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from app.adapters.mailer import MailServerUnavailableError, MailTemporarilyRefusedError
from simulations.engine.worker import WorkerProcess
from simulations.marketplace.database import Database
from simulations.marketplace.faults import FAULTS
from simulations.marketplace.mail import MailProvider


class Loop:
    """Time that is only counted."""

    active: object = None

    def __init__(self) -> None:
        self.slept = 0.0

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def checkpoint(self) -> None: ...


@pytest.fixture
def stage() -> Iterator[Any]:
    loop: Any = Loop()
    trace: Any = SimpleNamespace(emit=lambda *_args, **_fields: None)
    engine = create_engine("sqlite://")
    yield SimpleNamespace(
        loop=loop,
        provider=MailProvider(loop, trace, Random(1)),
        database=Database(engine, loop),
    )
    engine.dispose()


def begin(stage: Any, name: str) -> Callable[[], None]:
    """Let a fault begin; what is returned ends it."""
    kind = next(kind for kind in FAULTS if kind.name == name)
    end = kind.begin(stage, Random(1))
    assert end is not None
    return end


def send(stage: Any) -> tuple[bool, float]:
    """Whether the server refused a mail for now, and after how many seconds."""
    before = stage.loop.slept
    try:
        with stage.provider.open() as connection:
            connection.send(
                lambda: b"Message-ID: <a@b>\n",
                sender="from@people.example",
                recipient="to@people.example",
                proceed=lambda _: True,
            )
    except MailTemporarilyRefusedError:
        return True, stage.loop.slept - before
    return False, stage.loop.slept - before


def test_a_mail_server_is_down_until_the_last_outage_is_over(stage: Any) -> None:
    first, second = begin(stage, "smtp-down"), begin(stage, "smtp-down")
    first()
    with pytest.raises(MailServerUnavailableError):
        send(stage)
    second()
    assert send(stage)[0] is False


def test_a_mail_server_can_be_slow_and_busy_and_slow_no_more(stage: Any) -> None:
    begin(stage, "smtp-busy")
    end_slow = begin(stage, "smtp-slow")
    slow = [send(stage) for _ in range(20)]
    end_slow()
    fast = [send(stage) for _ in range(20)]
    assert {refused for refused, _ in slow} == {refused for refused, _ in fast} == {True, False}
    assert max(seconds for _, seconds in fast) < 4 < min(seconds for _, seconds in slow)


def test_workers_do_not_reach_the_database_until_the_last_cut_is_over(stage: Any) -> None:
    worker: Any = WorkerProcess.__new__(WorkerProcess)
    first, second = begin(stage, "workers-lose-database"), begin(stage, "workers-lose-database")
    first()
    with stage.database.engine.connect():
        pass  # neither beat nor people are cut off
    stage.loop.active = worker
    with pytest.raises(OperationalError, match="connection failed"):
        stage.database.engine.connect()
    second()
    with stage.database.engine.connect() as connection:
        stage.database.cuts.append(0.0)
        with pytest.raises(OperationalError, match="the connection is lost"):
            connection.exec_driver_sql("SELECT 1")
    assert stage.database.refused == 2


def test_a_database_is_locked_until_the_last_one_lets_go(stage: Any) -> None:
    first, second = begin(stage, "database-locked"), begin(stage, "database-locked")
    first()
    assert stage.database.locked
    second()
    assert not stage.database.locked
