"""Workers that lose their database, while beat and Redis work on: an outage is nobody's fault."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from time import sleep
from urllib.request import urlopen

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from sqlalchemy import URL

from app.models import OutboxEntry, OutboxState
from scripts.live import jobs
from scripts.live.deployment import REPOSITORY
from scripts.live.forwarder import Forwarder
from scripts.live.job_bench import JobBench
from scripts.live.ports import free_port
from scripts.live.processes import Process

JOBS = 200
LONG = 30.0
"""Seconds of an outage: a message that was lost is republished several times meanwhile."""
SOON = {
    "VISIBILITY_TIMEOUT_SECONDS": "3",
    "LEASE_INTERVAL_SECONDS": "1",
    "RESEND_MARGIN_SECONDS": "2.5",
    "PUBLISH_TIMEOUT_SECONDS": "1",
    "PUMP_INTERVAL_SECONDS": "0.5",
    "MAX_PUBLISHES": "3",
}
AWAY = "takes no messages until it does"


@pytest.fixture
def forwarder(migrated: URL) -> Iterator[Forwarder]:
    with Forwarder(migrated.port or 5432) as made:
        yield made


def through(migrated: URL, forwarder: Forwarder) -> dict[str, str]:
    url = migrated.set(host="127.0.0.1", port=forwarder.port)
    return {"DATABASE_URL": url.render_as_string(hide_password=False)}


def lines(process: Process, text: str) -> int:
    return process.log.read_text().count(text)


def assert_each_ran_once(bench: JobBench, count: int = JOBS) -> None:
    bench.wait_until(lambda: bench.states() == {OutboxState.DONE: count}, timeout=90)
    sleep(1)  # a second effect would come late
    assert jobs.effects() == {f"job-{number}": 1 for number in range(count)}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_workers_that_lose_the_database_take_no_message_until_it_is_back(
    bench: JobBench, migrated: URL, forwarder: Forwarder, pool: str
) -> None:
    bench.live.environment |= SOON
    given = through(migrated, forwarder)
    workers = [
        bench.live.start_worker(name=name, pool=pool, environment=given) for name in ("one", "two")
    ]
    bench.live.start_beat()
    bench.enqueue_many("work", 2, 0.0)
    bench.wait_for_effects(2, timeout=30)
    forwarder.cut()
    bench.enqueue_many("effect", JOBS - 2, first=2)
    sleep(LONG)
    assert bench.states()[OutboxState.DEAD] == 0
    assert bench.total(OutboxEntry.publishes) == JOBS, "nothing was lost, so nothing came again"
    assert all(worker.alive for worker in workers), "the watchdog leaves an outage alone"
    forwarder.open()
    assert_each_ran_once(bench)
    for worker in workers:
        assert lines(worker, AWAY) == 1
        worker.wait_for_line("the database answers again", timeout=20)


class Role:
    """A user of the database who is not its superuser: the server may refuse them alone."""

    NAME = "outage_worker"

    def __init__(self, database: URL, stack: ExitStack) -> None:
        self._stack = stack
        self.database = database.set(username=self.NAME, password="right")
        self._admin = stack.enter_context(psycopg.connect(_conninfo(database), autocommit=True))
        self._forget()
        self._run(
            "CREATE ROLE {role} LOGIN PASSWORD 'right' IN ROLE {owner}", owner=database.username
        )
        stack.callback(self._forget)

    def _forget(self) -> None:
        self._end_connections()
        self._run("DROP ROLE IF EXISTS {role}")

    def _run(self, statement: str, **names: str | None) -> None:
        quoted = {name: Identifier(value or "") for name, value in names.items()}
        self._admin.execute(SQL(statement).format(role=Identifier(self.NAME), **quoted))

    def _end_connections(self) -> None:
        self._admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [self.NAME]
        )

    def change_password(self) -> Callable[[], None]:
        """Refuse this user; what is returned lets them in again."""
        self._run("ALTER ROLE {role} PASSWORD 'another'")
        self._end_connections()
        return lambda: self._run("ALTER ROLE {role} PASSWORD 'right'")

    def use_up_connections(self) -> Callable[[], None]:
        """Leave the server no free connection but those that it keeps for superusers."""
        self._end_connections()
        taken = self._stack.enter_context(ExitStack())
        with suppress(psycopg.OperationalError):
            while True:
                taken.enter_context(psycopg.connect(_conninfo(self.database)))
        return taken.close


def _conninfo(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def role(migrated: URL) -> Iterator[Role]:
    with ExitStack() as stack:
        yield Role(migrated, stack)


def outage_seconds(port: int) -> float:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        told = re.search(
            r"^worker_database_outage_seconds (\S+)", page.read().decode(), re.MULTILINE
        )
    assert told is not None
    return float(told[1])


def health(bench: JobBench) -> str:
    return subprocess.run(
        [sys.executable, "-m", "app.tasks.health"],
        cwd=REPOSITORY,
        env=bench.live.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout


@pytest.mark.timeout(240)
@pytest.mark.parametrize("trouble", [Role.change_password, Role.use_up_connections])
def test_a_worker_that_the_database_refuses_leaves_the_work_to_the_others(
    bench: JobBench, role: Role, trouble: Callable[[Role], Callable[[], None]]
) -> None:
    bench.live.environment |= SOON
    port = free_port()
    url = role.database.render_as_string(hide_password=False)
    wrong = bench.live.start_worker(
        name="wrong", environment={"DATABASE_URL": url, "METRICS_PORT": str(port)}
    )
    right = bench.live.start_worker(name="right")
    bench.live.start_beat()
    mend = trouble(role)
    bench.enqueue_many("effect", JOBS)
    assert_each_ran_once(bench)
    wrong.wait_for_line(AWAY, timeout=30)
    assert lines(wrong, AWAY) == 1
    assert wrong.alive
    assert outage_seconds(port) > 0
    assert re.search(r"^wrong@\S+ has taken no messages for \d+ s", health(bench), re.MULTILINE)
    mend()
    wrong.wait_for_line("the database answers again", timeout=30)
    assert outage_seconds(port) == 0
    assert "taken no messages" not in health(bench)
    right.terminate()
    bench.enqueue("effect", f"job-{JOBS}")
    assert_each_ran_once(bench, JOBS + 1)
