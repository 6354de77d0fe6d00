"""No name, address or token leaves the database, but in the mail itself.

People with marked names book lessons, mails are refused with the address in the server's
words, tasks fail with a person in their hands; then all the rest is searched.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from email.message import EmailMessage as Message
from threading import Thread
from typing import Any

import pytest
import redis
from sqlalchemy import ColumnElement, func, select

from app import clock, db, entropy, outbox
from app.models import EmailMessage, EmailState, OutboxEntry, OutboxState, PasswordReset, User
from app.services import bookings, password_resets
from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from scripts.live.ports import free_port
from tests.builders import a_service, a_student, an_instructor
from tests.integration.observing.watching import ANSWER, Watched
from tests.integration.starting.shell import Shell

MARK = "zqxmark"
"""In every name and address; it occurs nowhere else."""
REFUSED, BUSY = f"refused.{MARK}@people.example", f"busy.{MARK}@people.example"
ALSO_RUN = (
    "app.tasks.analytics.generate_daily",
    "app.tasks.bookings.send_due_reminders",
    "app.tasks.cache.update_availability",
    "app.tasks.health.health_check",
)
HEARD_ALL = "the last word"


@contextmanager
def eavesdropping(url: str) -> Iterator[list[str]]:
    """Every command that anybody gives to a Redis server; complete at the end."""
    heard: list[str] = []

    def listen() -> None:
        for command in monitor.listen():
            heard.append(command["command"])
            if HEARD_ALL in heard[-1]:
                return

    with redis.Redis.from_url(url, socket_timeout=None) as client, client.monitor() as monitor:
        listener = Thread(target=listen, daemon=True)
        listener.start()
        try:
            yield heard
        finally:
            with redis.Redis.from_url(url) as other:
                other.echo(HEARD_ALL)
            listener.join(ANSWER)
        assert not listener.is_alive()


def kept_in(url: str) -> str:
    """Each key of a Redis database, with all that it holds."""
    with redis.Redis.from_url(url) as client:
        readers: dict[bytes, Any] = {
            b"string": client.get,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"hash": client.hgetall,
            b"set": client.smembers,
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
            b"none": lambda key: None,  # taken since it was named
        }
        return "\n".join(
            f"{key!r} {readers[client.type(key)](key)!r}" for key in client.scan_iter()
        )


def texts_of_rows() -> str:
    """What outbox entries and mails keep of what went wrong."""
    with db.reading() as session:
        entries = session.execute(
            select(OutboxEntry.key, OutboxEntry.args, OutboxEntry.kwargs, OutboxEntry.errors)
        )
        errors = session.scalars(select(EmailMessage.error))
        return "\n".join([*(json.dumps(list(entry)) for entry in entries), *map(str, errors)])


@pytest.fixture
def bench(live: Deployment) -> Iterator[JobBench]:
    live.environment["LOG_FORMAT"] = "json"
    with job_bench(live) as made:
        live.app = "tests.integration.privacy.clumsy"
        yield made


def book_with_marked_people(now: datetime) -> int:
    """Confirmed lessons of three students in three days; the last student's id."""
    with db.transaction() as session:
        teacher = an_instructor(session, name=f"Bob {MARK}", email=f"bob.{MARK}@people.example")
        service = a_service(session, instructor=teacher, name=f"Guitar {MARK}")
        students = [
            a_student(session, name=f"Ada {MARK}", email=address)
            for address in (f"ada.{MARK}@people.example", REFUSED, BUSY)
        ]
        for number, student in enumerate(students):
            lesson = bookings.book(
                session,
                student_id=student.id,
                service_id=service.id,
                starts_at=now + timedelta(days=3, hours=2 * number),
                now=now,
            )
            bookings.confirm(session, lesson.id, now=now)
        return students[-1].id


def forget_a_password() -> str:
    """Ask for a reset; the token that its mail will have."""
    with db.transaction() as session:
        password_resets.request(
            session, f"ada.{MARK}@people.example", now=clock.utcnow(), rng=entropy.rng()
        )
        token = session.scalars(select(PasswordReset.token)).one()
        assert token is not None
        return token


def text_of(mail: Message) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def mails(state: EmailState) -> int:
    with db.reading() as session:
        chosen = select(func.count()).where(EmailMessage.state == state)
        return session.scalar(chosen) or 0


def dead_letters() -> int:
    return entries(OutboxState.DEAD)


def still_to_run() -> int:
    return entries(OutboxState.PENDING, OutboxEntry.task.in_(ALSO_RUN))


def entries(state: OutboxState, *conditions: ColumnElement[bool]) -> int:
    with db.reading() as session:
        chosen = select(func.count()).where(OutboxEntry.state == state, *conditions)
        return session.scalar(chosen) or 0


@pytest.mark.timeout(240)
def test_nothing_but_the_mails_tells_who_somebody_is(bench: JobBench) -> None:
    live = bench.live
    watched = Watched(bench, port=free_port(), beat_port=free_port())
    live.mail.reject(550, f"5.1.1 <{REFUSED}> is unknown", match=lambda to: to == REFUSED)
    live.mail.reject(450, f"<{BUSY}> is busy", match=lambda to: to == BUSY, times=1)
    now = clock.utcnow().replace(minute=0, second=0, microsecond=0)
    with eavesdropping(live.redis_url) as commands:
        somebody = book_with_marked_people(now)
        token = forget_a_password()
        kept = kept_in(live.redis_url)
        watched.start_worker("--loglevel=DEBUG")
        watched.start_beat()
        with db.transaction() as session:
            for task in ("clumsy.trip", "clumsy.double"):
                outbox.enqueue(session, task, somebody, unchecked=True)
            for task in ALSO_RUN:
                outbox.enqueue(session, task)
        bench.wait_until(lambda: mails(EmailState.FAILED) == 1, timeout=60)
        bench.wait_until(lambda: mails(EmailState.SENT) >= 6, timeout=60)
        bench.wait_until(lambda: dead_letters() == 3, timeout=60)
        bench.wait_until(lambda: still_to_run() == 0, timeout=60)
        kept += kept_in(live.redis_url)
        pages = watched.page() + watched.page(watched.beat_port)
    printed = Shell(live).together(
        "python -m app.admin deadletters list",
        "python -m app.admin deadletters list --json",
        "python -m app.admin outbox status",
        "python -m app.admin outbox list --state done --json",
        "python -m app.admin mails list",
        "python -m app.admin mails list --json",
        "python -m app.admin mails show 1",
    )
    live.processes.stop()

    searched = {
        "commands to Redis": "\n".join(commands),
        "keys of Redis": kept,
        "metrics": pages,
        "rows": texts_of_rows(),
        "what commands print": "\n".join(done.stdout + done.stderr for done in printed),
        **{str(file): file.read_text() for file in live.log_folder.rglob("*") if file.is_file()},
    }
    with db.reading() as session:
        people = session.scalars(select(User.email)).all()
    assert all(MARK in address for address in people)
    arrived = "".join(text_of(mail) for mail in live.mailbox.messages())
    assert MARK in arrived, "the mails have them"
    assert token in arrived, "the mails have them"
    for word, where in (("deliver", "commands to Redis"), ("ValueError", "rows")):
        assert word in searched[where], f"{where} was not searched"
    assert {
        where: lines
        for where, text in searched.items()
        if (lines := [line for line in text.splitlines() if MARK in line or token in line])
    } == {}
