"""Work that fails and retries under a real worker: reported, and forgotten when it is over."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from time import monotonic, sleep
from typing import Any

import pytest
from sqlalchemy import select

from app import clock, db, outbox
from app.models import EmailMessage
from app.services import email
from app.services.email import DELIVER
from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from scripts.live.ports import HOST
from tests.builders import a_lesson
from tests.integration.starting.shell import Shell

LIMIT = 4.0  # seconds
WITHIN = 60.0  # seconds after the limit
FIRST_FIRING = 120.0  # seconds; beat fires the first entry at a full minute


@pytest.fixture
def bench(live: Deployment) -> Iterator[JobBench]:
    live.environment["HEALTH_RETRYING_SECONDS"] = str(LIMIT)
    with job_bench(live) as made:
        yield made


@pytest.fixture
def shell(live: Deployment) -> Shell:
    return Shell(live)


def health(shell: Shell) -> tuple[int, dict[str, Any]]:
    """The exit status and what the command prints."""
    done = shell.run("python -m app.tasks.health --json")
    return done.returncode, json.loads(done.stdout)


def wait_for_health(
    shell: Shell, satisfied: Callable[[int, dict[str, Any]], bool], *, timeout: float
) -> dict[str, Any]:
    """Repeat the command until it has the answer that is waited for."""
    deadline = monotonic() + timeout
    while not satisfied(*(answer := health(shell))):
        assert monotonic() < deadline, answer
        sleep(0.5)
    return answer[1]


def confirm_a_lesson() -> None:
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=clock.utcnow() + timedelta(days=2))
        assert email.queue_confirmation(session, lesson.id, now=clock.utcnow())


@pytest.mark.timeout(420)
def test_a_mail_server_that_is_down_is_reported_and_forgotten_when_it_is_back(
    bench: JobBench, shell: Shell
) -> None:
    live = bench.live
    live.start_worker(concurrency=2)
    live.start_beat()
    wait_for_health(shell, lambda status, _: status == 0, timeout=FIRST_FIRING)

    live.mail.stop()
    began = monotonic()
    confirm_a_lesson()
    found = wait_for_health(shell, lambda status, _: status == 1, timeout=LIMIT + WITHIN)
    assert monotonic() - began < LIMIT + WITHIN
    (problem,) = found["problems"]
    refused = f"MailServerUnavailableError: {HOST}:{live.mail.port}: Connection refused"
    assert problem.startswith(f"1 entry of {DELIVER} has been retrying for ")
    assert refused in problem
    assert found["retrying"][DELIVER]["error"] == refused
    said = shell.run("python -m app.admin outbox status").stdout
    assert said.startswith("1 entry has failed and is retried, the oldest for ")

    live.mail.start()
    retry = f"python -m app.admin outbox retry --all --task {DELIVER}"

    def mails_arrived() -> bool:
        shell.answer(retry)  # an attempt that was under way puts the next one off
        return len(live.mailbox) == 2

    bench.wait_until(mails_arrived, timeout=60)
    wait_for_health(shell, lambda status, _: status == 0, timeout=WITHIN)
    with db.reading() as session:
        ids = session.scalars(select(EmailMessage.id)).all()
    shown = shell.answer(f"python -m app.admin mails show {ids[0]}")
    assert shown.startswith(f"{ids[0]}: sent once\n")
    assert refused in shown


@pytest.mark.timeout(300)
def test_entries_of_a_renamed_task_are_reported_until_they_are_cancelled(
    bench: JobBench, shell: Shell
) -> None:
    renamed = "app.tasks.email.renamed"
    bench.live.start_worker(concurrency=1)
    bench.live.start_beat()
    with db.transaction() as session:
        for _ in range(30):
            outbox.enqueue(session, renamed, unchecked=True)

    def of_task(_: int, found: dict[str, Any]) -> list[str]:
        return [problem for problem in found["problems"] if renamed in problem]

    found = wait_for_health(shell, lambda *answer: bool(of_task(*answer)), timeout=LIMIT + WITHIN)
    (problem,) = of_task(1, found)
    assert problem.startswith(f"30 entries of {renamed} have been retrying, the oldest for ")
    assert f"no worker that took it knows the task {renamed}" in problem
    listed = json.loads(
        shell.answer(f"python -m app.admin outbox list --state retrying --task {renamed} --json")
    )
    assert len(listed) == 30
    shell.answer(f"python -m app.admin outbox cancel --all --task {renamed} --yes")
    assert of_task(*health(shell)) == []


@pytest.mark.timeout(180)
def test_a_mail_whose_fate_was_unknown_says_with_which_server_it_was(
    live: Deployment, shell: Shell
) -> None:
    live.environment |= {"MAIL_LEASE_SECONDS": "5", "SMTP_TIMEOUT_SECONDS": "1"}
    with job_bench(live) as bench:
        live.start_worker(concurrency=1)
        live.start_beat()
        live.mail.drop_after_data()
        confirm_a_lesson()
        bench.wait_until(lambda: len(live.mailbox) == 3, timeout=60)

        def doubled() -> list[dict[str, Any]]:
            listed = json.loads(shell.answer("python -m app.admin mails list --duplicated --json"))
            return [mail for mail in listed if mail["state"] == "sent"]

        bench.wait_until(lambda: len(doubled()) == 1, timeout=30)
        (mail,) = doubled()
        assert (mail["claims"], mail["uncertain"]) == (2, 1)
        shown = shell.answer(f"python -m app.admin mails show {mail['id']}")
        assert "possibly duplicated: its fate was unknown once, last on 20" in shown.splitlines()[0]
        assert f"MailFateUnknownError: {HOST}:{live.mail.port}: " in shown
        arrived = [message["Message-ID"] for message in live.mailbox.messages()]
        assert arrived.count(mail["message_id"]) == 2
