from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any
from unittest.mock import MagicMock

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery
from celery.worker.request import create_request_cls
from kombu.message import Message
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app import db, entropy, outbox
from app.models import OutboxEntry
from app.outbox import PUBLISHED_AT_HEADER
from app.outbox.broker import OutboxMessage
from app.tasks import BaseTask, celery_app
from app.tasks.counted_request import CountedRequest
from tests.fakes import FakeBroker, FakeClock

Body = Callable[..., Any]
WAITED = timedelta(seconds=3)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    return FakeClock.install(monkeypatch, datetime(2026, 7, 1, 12, tzinfo=UTC))


@pytest.fixture
def broker(now: FakeClock, database: Engine) -> Iterator[FakeBroker]:
    fake = FakeBroker(now)
    attached_before = outbox.attach(fake)
    random_before = entropy.use(Random(1))
    yield fake
    entropy.use(random_before)
    outbox.attach(attached_before)


# Never the same twice: Celery's registry may still know a body of an earlier test.
_names = (f"app.tasks.bench.body_{number}" for number in count())


class Bench:
    """Makes tasks out of bodies, and plans their runs."""

    def __init__(self, app: Celery, broker: FakeBroker) -> None:
        self.app = app
        self.broker = broker

    def task(self, body: Body, **options: Any) -> Any:
        # Not shared: every Celery app of this process would register it too.
        return self.app.task(
            base=BaseTask,
            bind=True,
            name=next(_names),
            ignore_result=True,
            shared=False,
            **options,
        )(body)

    def enqueue(self, task: Any, *args: Any) -> OutboxMessage:
        with db.transaction() as session:
            outbox.enqueue(session, task.name, *args)
        return self.broker.pushed[-1]


@pytest.fixture
def bench(broker: FakeBroker) -> Iterator[Bench]:
    yield Bench(celery_app, broker)
    # Only its own: what a test has imported is never registered again.
    for name in [name for name in celery_app.tasks if name.startswith("app.tasks.bench.")]:
        del celery_app.tasks[name]


def entry(entry_id: str) -> OutboxEntry:
    with db.reading() as session:
        return session.scalars(select(OutboxEntry).where(OutboxEntry.id == entry_id)).one()


def add_mark(session: Session) -> None:
    """An effect that is counted without a unique key: one more entry of a task of its own."""
    outbox.enqueue(session, "app.tasks.bench.mark", unchecked=True)


def marks() -> int:
    with db.reading() as session:
        rows = session.scalars(
            select(OutboxEntry).where(OutboxEntry.task == "app.tasks.bench.mark")
        )
        return len(list(rows))


def a_request(
    task: Any,
    now: FakeClock,
    *,
    queue: str = "email",
    stamped: bool = True,
    task_id: str = "an-id",
    eventer: Any = None,
) -> Any:
    """A message of ``task`` as a worker's main process sees it, published ``WAITED`` ago."""
    stamp = {PUBLISHED_AT_HEADER: (now.now - WAITED).isoformat()} if stamped else {}
    message = Message(
        body=b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]',
        content_type="application/json",
        content_encoding="utf-8",
        headers={"id": task_id, "task": task.name, "ignore_result": True, **stamp},
        delivery_info={"exchange": "", "routing_key": queue},
        delivery_tag="a-tag",
    )
    made = create_request_cls(CountedRequest, task, MagicMock(), "host", None, app=celery_app)
    return made(message, app=celery_app, task=task, hostname="host", eventer=eventer)


def failure(error: BaseException) -> ExceptionInfo:
    try:
        raise error
    except BaseException:
        return ExceptionInfo()
