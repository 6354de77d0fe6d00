"""Passwords in the settings' URLs are in nothing that the deployment tells of itself."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest

from app import clock, db, outbox
from app.models import EmailKind
from app.tasks.startup import CANNOT, TRY_AGAIN
from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from scripts.live.ports import HOST, free_port
from scripts.live.processes import Process
from scripts.live.redis_server import RedisServer
from tests.builders import a_lesson, a_mail
from tests.integration.observing.watching import Watched
from tests.integration.starting.shell import READY, Shell

ANSWER = 60.0  # seconds
REDIS_SECRET, MAIL_SECRET, DATABASE_SECRET = "zqxredis", "zqxmail", "zqxdatabase"
FLOWER_SECRET = "zqxflower"
SECRET = re.compile("zqx[a-z]+")
INSPECT = ("conf", "report", "stats", "active", "registered", "query_task x")


@pytest.fixture
def bench(
    own_redis: RedisServer, tmp_path: Path, show_logs: Callable[[Callable[[], Any]], None]
) -> Iterator[JobBench]:
    """A deployment whose Redis and mail server want passwords."""
    with own_redis.client() as client:
        client.config_set("requirepass", REDIS_SECRET)
    url = own_redis.url.replace("//", f"//:{REDIS_SECRET}@")
    with Deployment(redis_url=url, folder=tmp_path / "live") as deployment:
        show_logs(deployment.logs)
        mail = deployment.mail.url.replace("//", f"//somebody:{MAIL_SECRET}@")
        deployment.environment["SMTP_URL"] = mail
        with job_bench(deployment) as made:
            deployment.app = "app.tasks"
            yield made


def get(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection(HOST, port, timeout=ANSWER)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def listening(process: Process) -> set[tuple[str, int]]:
    """Where a process and its children take connections."""
    members = [psutil.Process(process.pid), *process.descendants()]
    return {
        tuple(connection.laddr)
        for member in members
        for connection in member.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }


def found(told: dict[str, str]) -> dict[str, list[str]]:
    return {
        where: lines
        for where, text in told.items()
        if (lines := [line for line in text.splitlines() if SECRET.search(line)])
    }


@pytest.mark.timeout(240)
def test_no_password_is_told_and_only_the_loopback_is_listened_on(bench: JobBench) -> None:
    live, shell = bench.live, Shell(bench.live)
    watched = Watched(bench, port=free_port(), beat_port=free_port())
    worker = watched.start_worker("--loglevel=DEBUG")
    beat = watched.start_beat()
    port = free_port(5555)
    flower = shell.start(f"celery -A app.tasks flower --port={port}", name="flower")
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=clock.utcnow() + timedelta(days=4))
        mail = a_mail(session, about=lesson, kind=EmailKind.BOOKING_CONFIRMATION)
        outbox.enqueue(session, "app.tasks.email.deliver", [mail.id])
        outbox.enqueue(session, "app.tasks.health.health_check")
    worker.wait_for_line(r"app.tasks.email.deliver\S+ (retry|raised)", timeout=ANSWER)
    flower.wait_for_line("Visit me at", timeout=READY)
    bench.wait_until(lambda: "worker@" in get(port, "/workers")[1], timeout=READY)

    assert listening(worker) == {(HOST, watched.port)}
    assert listening(beat) == {(HOST, watched.beat_port)}
    assert listening(flower) == {(HOST, port)}

    name = re.search(r"worker@[\w.-]+", get(port, "/workers")[1])
    assert name is not None
    pages = ("/", "/workers", f"/worker/{name[0]}", "/tasks", "/broker", "/metrics", "/api/workers")
    errors = ("/task/unknown", "/worker/unknown", "/no-such-page")
    printed = shell.together(
        *(f"celery -A app.tasks inspect {what}" for what in INSPECT),
        "celery -A app.tasks report",
        "python -m app.tasks.health --json",
    )
    told = {
        **{f"flower {path}": get(port, path)[1] for path in (*pages, *errors)},
        **{" ".join(map(str, done.args)): done.stdout + done.stderr for done in printed},
        "metrics": watched.page() + watched.page(watched.beat_port),
        **live.logs(),
        **{str(file): file.read_text() for file in live.log_folder.rglob("*.log")},
    }
    for where, word in (("celery -A app.tasks inspect conf", "broker_url"), ("metrics", "outbox")):
        assert word in told[where], f"{where} was not searched"
    assert found(told) == {}


@pytest.mark.timeout(240)
def test_what_refuses_to_start_tells_no_password(bench: JobBench) -> None:
    shell = Shell(bench.live)
    database = f"postgresql+psycopg://app:{DATABASE_SECRET}@{HOST}:{free_port()}/marketplace"
    refused = {
        "a database that is away": {"DATABASE_URL": database},
        "a database that is none": {"DATABASE_URL": f"mysql://app:{DATABASE_SECRET}@{HOST}/x"},
        "a wrong password": {"REDIS_URL": bench.live.redis_url.replace("zqxredis", "zqxwrong")},
        "a port that is none": {"REDIS_URL": f"redis://:{REDIS_SECRET}@{HOST}:x/0"},
        "a scheme that is none": {"SMTP_URL": f"smpt://somebody:{MAIL_SECRET}@{HOST}:25"},
    }
    for what, environment in refused.items():
        done = shell.together("celery -A app.tasks worker", **environment)
        status = TRY_AGAIN if what == "a database that is away" else CANNOT
        assert {one.returncode for one in done} == {status}, what
        assert found({what: "".join(one.stdout + one.stderr for one in done)}) == {}


@pytest.mark.timeout(240)
def test_a_redis_that_goes_away_is_told_of_without_its_password(
    bench: JobBench, own_redis: RedisServer
) -> None:
    worker, beat = bench.live.start_worker("--loglevel=DEBUG"), bench.live.start_beat()
    own_redis.stop()
    worker.wait_for_line("(?i)connection to broker lost|cannot connect", timeout=ANSWER)
    beat.wait_for_line("(?i)unavailable|Redis", timeout=ANSWER)
    call = Shell(bench.live).run("python -m app.tasks.health")
    assert call.returncode == 1
    assert found({**bench.live.logs(), "health": call.stdout + call.stderr}) == {}


@pytest.mark.timeout(240)
def test_behind_a_login_flower_shows_nothing_but_its_metrics_and_that_it_lives(
    bench: JobBench,
) -> None:
    """Its /metrics and /healthcheck stay open by Flower's design: docs and SECURITY.md say so."""
    port = free_port(5555)
    flower = Shell(bench.live).start(
        f"celery -A app.tasks flower --port={port}",
        name="flower",
        FLOWER_BASIC_AUTH=f"somebody:{FLOWER_SECRET}",
    )
    flower.wait_for_line("Visit me at", timeout=READY)
    closed = ("/", "/workers", "/tasks", "/broker", "/task/x", "/api/workers", "/api/tasks")
    assert {get(port, path)[0] for path in closed} == {401}
    for path in ("/metrics", "/healthcheck"):
        status, text = get(port, path)
        assert status == 200
        assert "redis://" not in text
    assert found(bench.live.logs()) == {}
