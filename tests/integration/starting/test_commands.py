"""The README's commands against one running worker, as they are typed."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.client import HTTPConnection
from typing import Any

import psutil
import pytest
from sqlalchemy import func, select

from app import clock, db, outbox
from app.models import BookingStatus, EmailKind, OutboxEntry, OutboxState
from app.routing import QUEUES
from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from scripts.live.ports import HOST, free_port
from scripts.live.processes import Process
from tests.builders import a_lesson, a_mail
from tests.integration.starting.shell import READY, Shell

ANSWER = 30.0  # seconds
HEALTH_CHECK = "app.tasks.health.health_check"
README_TASK = "app.tasks.module.task_name"


@pytest.fixture(scope="module")
def deployment(
    module_broker_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("commands")
    with Deployment(redis_url=module_broker_url, folder=folder) as made:
        yield made


@pytest.fixture(scope="module")
def shell(deployment: Deployment) -> Shell:
    return Shell(deployment)


@pytest.fixture(scope="module")
def bench(deployment: Deployment) -> Iterator[JobBench]:
    with job_bench(deployment) as made:
        yield made


@pytest.fixture(scope="module")
def worker(shell: Shell, bench: JobBench) -> Process:
    readme = "--include=tests.integration.starting.readme_tasks"
    return shell.start_worker(f"celery -A app.tasks worker --loglevel=info {readme}", name="worker")


@pytest.fixture(autouse=True)
def _show_logs(deployment: Deployment, show_logs: Callable[[Any], None]) -> None:
    show_logs(deployment.logs)


def call(task: str, *args: Any) -> str:
    return f"celery -A app.tasks call {task} --args='{json.dumps(args)}'"


def called(answer: str) -> str:
    """The task id that ``celery call`` prints."""
    found = re.search(r"^[0-9a-f-]{36}$", answer, re.MULTILINE)
    assert found, answer
    return found[0]


def succeeded(worker: Process, task_id: str) -> re.Match[str]:
    """What the worker says of the end of a task."""
    return worker.wait_for_line(rf"\[{task_id}\] succeeded in .*", timeout=ANSWER)


def finish(bench: JobBench) -> None:
    """Wait until nothing is left to do that is due."""
    due = select(func.count()).where(OutboxEntry.pending(), OutboxEntry.due_at <= clock.utcnow())

    def pending() -> int:
        with db.reading() as session:
            return session.scalar(due) or 0

    bench.wait_until(lambda: pending() == 0, timeout=ANSWER)


def mails_since(deployment: Deployment, before: int) -> list[str]:
    """The readers of all mails but the first ``before``."""
    arrived = deployment.mailbox.messages()[before:]
    return sorted(address.addr_spec for message in arrived for address in message["To"].addresses)


def test_inspect_active_answers(worker: Process, shell: Shell) -> None:
    answer = shell.answer("celery -A app.tasks inspect active")
    assert "OK" in answer
    assert "1 node online." in answer


def test_inspect_active_queues_names_all_seven(worker: Process, shell: Shell) -> None:
    answer = shell.answer("celery -A app.tasks inspect active_queues")
    assert set(re.findall(r"\* {'name': '(\w+)'", answer)) == {spec.name for spec in QUEUES}


def test_the_health_command_counts_the_workers(worker: Process, shell: Shell) -> None:
    told = json.loads(shell.run("python -m app.tasks.health --json").stdout)
    assert told["workers"] == 1


def test_the_health_command_fails_where_no_worker_listens_on_that_redis(shell: Shell) -> None:
    server, _, database = shell.live.environment["REDIS_URL"].rpartition("/")
    elsewhere = f"{server}/{(int(database) + 1) % 16}"
    done = shell.run("python -m app.tasks.health", REDIS_URL=elsewhere)
    assert done.returncode == 1
    assert "no worker answers within 3 s: does one run?" in done.stdout


def test_each_call_of_the_health_check_runs_it(worker: Process, shell: Shell) -> None:
    line = "celery -A app.tasks call app.tasks.health.health_check --args='[]'"
    for done in shell.together(line, line):
        assert "'database': 'ok'" in succeeded(worker, called(done.stdout))[0]


@pytest.mark.parametrize(
    ("task", "status"),
    [
        ("send_booking_confirmation", BookingStatus.CONFIRMED),
        ("send_booking_cancellation", BookingStatus.CANCELLED),
    ],
)
def test_two_calls_for_one_booking_send_one_mail_to_each_side_for_mails_are_keyed(
    task: str,
    status: BookingStatus,
    worker: Process,
    shell: Shell,
    bench: JobBench,
    deployment: Deployment,
) -> None:
    before = len(deployment.mailbox)
    with db.transaction() as session:
        starts_at = clock.utcnow() + timedelta(days=3)
        lesson = a_lesson(session, starts_at=starts_at, status=status)
        sides = sorted([lesson.student.email, lesson.instructor.email])
    line = call(f"app.tasks.email.{task}", lesson.id)
    for done in shell.together(line, line):
        succeeded(worker, called(done.stdout))
    deployment.mailbox.wait_for(before + 2, timeout=ANSWER)
    finish(bench)
    assert mails_since(deployment, before) == sides


def test_two_calls_of_deliver_send_a_waiting_mail_once_for_each_has_its_claim(
    worker: Process, shell: Shell, bench: JobBench, deployment: Deployment
) -> None:
    before = len(deployment.mailbox)
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=clock.utcnow() + timedelta(days=4))
        mail = a_mail(session, about=lesson, kind=EmailKind.BOOKING_CONFIRMATION)
        reader = lesson.student.email
    line = call("app.tasks.email.deliver", [mail.id])
    for done in shell.together(line, line):
        worker.wait_for_line(rf"\[{called(done.stdout)}\] (succeeded|retry)", timeout=ANSWER)
    deployment.mailbox.wait_for(before + 1, timeout=ANSWER)
    assert mails_since(deployment, before) == [reader]


def test_two_calls_for_due_reminders_send_each_once_for_mails_are_keyed(
    worker: Process, shell: Shell, bench: JobBench, deployment: Deployment
) -> None:
    before = len(deployment.mailbox)
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=clock.utcnow() + timedelta(minutes=40))
        sides = sorted([lesson.student.email, lesson.instructor.email])
    line = call("app.tasks.bookings.send_due_reminders")
    for done in shell.together(line, line):
        succeeded(worker, called(done.stdout))
    deployment.mailbox.wait_for(before + 2, timeout=ANSWER)
    finish(bench)
    assert mails_since(deployment, before) == sides


def test_the_readmes_task_runs_from_the_outbox_and_by_call(
    worker: Process, shell: Shell, bench: JobBench
) -> None:
    with db.transaction() as session:
        planned = outbox.enqueue(session, README_TASK, 6, 3, unchecked=True)
    by_call = called(shell.answer(call(README_TASK, 8, 2)))
    assert "'result': 2.0" in succeeded(worker, planned)[0]
    assert "'result': 4.0" in succeeded(worker, by_call)[0]
    assert bench.entry(planned).state is OutboxState.DONE


def test_the_readmes_retry_waits_its_countdown_from_the_outbox_and_by_call(
    worker: Process, shell: Shell, bench: JobBench
) -> None:
    with db.transaction() as session:
        planned = outbox.enqueue(session, README_TASK, 6, 0, unchecked=True)
    by_call = called(shell.answer(call(README_TASK, 8, 0)))
    for task_id in (planned, by_call):
        worker.wait_for_line(rf"\[{task_id}\] retry: .*ZeroDivisionError", timeout=ANSWER)
    entry = bench.entry(planned)
    assert entry.tries == 1
    assert timedelta(seconds=60) <= entry.due_at - entry.created_at < timedelta(seconds=90)
    shell.answer(f"celery -A app.tasks control revoke {by_call}")


@pytest.fixture(scope="module")
def flower_port() -> int:
    return free_port(5555)


@pytest.fixture(scope="module")
def flower(worker: Process, shell: Shell, bench: JobBench, flower_port: int) -> Process:
    """A Flower that has heard from the worker."""
    flower = shell.start(f"celery -A app.tasks flower --port={flower_port}", name="flower")
    flower.wait_for_line("Visit me at", timeout=READY)
    bench.wait_until(lambda: "celery@" in page(flower_port, "/workers"), timeout=READY)
    return flower


def test_flower_listens_on_the_loopback_only(flower: Process, flower_port: int) -> None:
    listening = [
        connection.laddr
        for connection in psutil.Process(flower.pid).net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == [(HOST, flower_port)]


def test_flower_shows_a_task_with_its_state(
    flower: Process, worker: Process, bench: JobBench, flower_port: int
) -> None:
    with db.transaction() as session:
        task_id = outbox.enqueue(session, HEALTH_CHECK)
    succeeded(worker, task_id)
    path = f"/task/{task_id}"
    bench.wait_until(lambda: "SUCCESS" in page(flower_port, path), timeout=ANSWER)
    assert HEALTH_CHECK in page(flower_port, path)


def page(port: int, path: str) -> str:
    """What Flower answers, also that it does not know something yet."""
    connection = HTTPConnection(HOST, port, timeout=ANSWER)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()
