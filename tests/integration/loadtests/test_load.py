"""A load test measures, judges, and leaves nothing."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
from celery import Celery
from sqlalchemy import Engine, func, select, update

from app import db, schema
from app.models import Base, OutboxEntry
from app.redis_url import RedisUrl
from app.routing import QUEUES
from scripts.live.deployment import REPOSITORY, WORKER_IS_READY, Deployment
from scripts.live.ports import free_port
from scripts.live.processes import Process
from scripts.live.redis_server import RedisServer
from tests.integration.loadtests.conftest import Locust

pytestmark = pytest.mark.timeout(240)

SHORT = ("-u", "24", "-r", "50", "-t", "6s", "--backlog", "30")
BUSY = ("-u", "25", "-r", "50", "-t", "8s", "--patience", "5")


@pytest.fixture
def engine(live: Deployment) -> Engine:
    made = db.create_database_engine(live.database_url)
    schema.prepare(made)
    return made


def test_time_in_queue_and_run_time_of_each_queue_are_locusts_own_figures(
    live: Deployment, locust: Locust
) -> None:
    live.start_worker()
    done = locust.run(*SHORT, f"--objectives={locust.patient}")
    assert done.status == 0, done.output
    measured = {key for key, row in done.figures.items() if int(row["Request Count"])}
    expected = {(kind, spec.name) for kind in ("in queue", "run") for spec in QUEUES}
    assert expected <= measured, done.output
    for kind, name in expected:
        assert f'"name": "{name}"' in done.report
        assert f'"method": "{kind}"' in done.report
    table = done.output.partition("Time in queue and run time by queue")[2]
    rows = table.splitlines()[2 : 2 + len(QUEUES)]
    assert [line.split()[0] for line in rows] == [spec.name for spec in QUEUES]
    assert "in queue p50  in queue p95  in queue p99  run p50  run p95  run p99" in table
    assert "all objectives were kept" in table
    assert locust.waiting() == 0, "it takes back what nobody has begun"


def test_it_says_what_it_will_send_and_where_before_it_sends_anything(
    live: Deployment, locust: Locust
) -> None:
    live.start_worker()
    done = locust.run("-u", "1", "-t", "2s", "BookLessons", f"--objectives={locust.patient}")
    said = done.output.partition("Ramping to")[0]
    assert f"load test of {live.redis_url}, and of nothing else" in said
    assert "BookLessons: books a lesson: one message for bookings" in said
    assert "FloodCache" not in said
    assert "set DATABASE_URL to the deployment's database" in said


def test_urgency_that_is_turned_round_is_exit_status_1_and_names_bookings(
    live: Deployment, locust: Locust, tmp_path: Path
) -> None:
    copy = tmp_path / "turned-round"
    for name in ("app", "loadtests", "pyproject.toml"):
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    routing = copy / "app" / "routing.py"
    right = "    return MOST_URGENT - urgency\n"
    assert routing.read_text().count(right) == 1
    routing.write_text(routing.read_text().replace(right, "    return urgency\n"))
    worker = live.processes.start(
        Process(
            [sys.executable, *"-m celery -A app.tasks worker -c 1 --loglevel=INFO".split()],  # noqa: SIM905
            log=live.log_folder / "turned-round.out",
            env=live.environment,
            cwd=copy,
        )
    )
    worker.wait_for_line(WORKER_IS_READY, timeout=60)
    done = locust.run(*BUSY, cwd=copy)
    assert done.status == 1, done.output
    (missed,) = re.findall(r"^objectives missed: (.*)$", done.output, re.MULTILINE)
    assert "bookings" in missed.split(", ")
    assert re.search(r"^bookings: p95 in queue is .* s, the objective 1 s$", done.output, re.M)


def test_a_test_with_a_master_and_a_worker_counts_what_the_worker_measured(
    live: Deployment, locust: Locust
) -> None:
    live.start_worker()
    port = str(free_port())
    worker = locust.start("--worker", f"--master-port={port}")
    done = locust.run(
        *("--master", "--expect-workers=1", f"--master-bind-port={port}"),
        "--master-bind-host=127.0.0.1",
        *SHORT,
        f"--objectives={locust.patient}",
    )
    assert done.status == 0, done.output
    assert worker.wait(30) == 0, worker.log_text()
    for spec in QUEUES:
        in_queue = int(done.figures["in queue", spec.name]["Request Count"])
        assert in_queue >= 1
    # The last figures come with the worker's end, not with its reports every few seconds.
    acts = int(done.figures["act", "user: book"]["Request Count"])
    cancelled = int(done.figures["act", "user: cancel"]["Request Count"])
    assert int(done.figures["in queue", "bookings"]["Request Count"]) == acts + cancelled
    assert locust.waiting() == 0


def test_a_worker_without_the_masters_database_ends_it_and_says_so(
    live: Deployment, locust: Locust, engine: Engine
) -> None:
    live.start_worker()
    port = str(free_port())
    worker = locust.start("--worker", f"--master-port={port}")
    done = locust.run(
        *("--master", "--expect-workers=1", f"--master-bind-port={port}"),
        *("--master-bind-host=127.0.0.1", "-u", "4", "-t", "20s"),
        DATABASE_URL=live.database_url,
    )
    worker.wait(30)
    assert done.status == 2, done.output
    said = "DATABASE_URL is set where the master runs, and not where this worker does"
    assert f"a worker cannot start: {said}" in done.output
    assert locust.waiting() == 0
    engine.dispose()


def rows(engine: Engine) -> dict[str, int]:
    with db.reading(engine) as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }


def test_with_a_database_it_books_for_real_and_nothing_of_it_stays(
    live: Deployment, locust: Locust, engine: Engine
) -> None:
    before = rows(engine)
    live.start_worker()
    live.start_beat()
    done = locust.run(*BUSY, f"--objectives={locust.patient}", DATABASE_URL=live.database_url)
    assert done.status == 0, done.output
    assert "all of it through the services" in done.output
    mails = live.mailbox.messages()
    assert mails, "workers send what was booked"
    assert all(".loadtest.invalid" in str(mail["To"]) for mail in mails)
    # Beat's own work goes on meanwhile.
    after = rows(engine)
    beats = {"outbox_entries", "beat_entries", "beat_definitions"}
    assert {name: after[name] for name in after if name not in beats} == {
        name: before[name] for name in before if name not in beats
    }
    with db.reading(engine) as session:
        tasks = set(session.scalars(select(Base.metadata.tables["outbox_entries"].c.task)))
    assert not {task for task in tasks if "email" in task or "notifications" in task}
    engine.dispose()


def test_what_one_left_that_was_killed_is_taken_away_by_a_command(
    live: Deployment, locust: Locust, engine: Engine
) -> None:
    before = rows(engine)
    worker = live.start_worker()
    killed = locust.start(
        *("--headless", f"--host={live.redis_url}", "-u", "25", "-r", "50"),
        DATABASE_URL=live.database_url,
    )
    killed.wait_for_line("in queue  bookings", timeout=60)
    killed.kill()
    worker.kill()
    assert rows(engine)["bookings"], "it was killed while it booked"

    def clean(status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "loadtests", "clean", f"--host={live.redis_url}"],
            cwd=REPOSITORY,
            env=live.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == status, done.stderr
        return done.stdout

    assert "which may be under way: if not, say this again after " in clean(status=1)
    with engine.begin() as connection:
        connection.execute(update(OutboxEntry).values(created_at=datetime(2026, 1, 1, tzinfo=UTC)))
    assert clean().startswith("removed what load test ")
    assert rows(engine) == before
    assert clean() == "no load test left anything\n"
    engine.dispose()


def test_workers_that_send_no_events_are_told_to_for_as_long_as_it_lasts(
    live: Deployment, locust: Locust
) -> None:
    live.start_worker("worker.send_task_events=no")
    app = Celery("test", broker=RedisUrl.parse(live.redis_url).for_celery())
    done = locust.run("-u", "2", "-t", "3s", "BookLessons", f"--objectives={locust.patient}")
    assert done.status == 0, done.output
    assert "told to send events of their tasks until the end: worker@" in done.output
    assert int(done.figures["in queue", "bookings"]["Request Count"]) > 0
    (reply,) = app.control.disable_events(reply=True, timeout=5)
    assert "already disabled" in str(reply)


def test_ctrl_c_ends_it_with_its_figures_and_leaves_nothing(
    live: Deployment, locust: Locust
) -> None:
    live.start_worker()
    process = locust.start(
        *("--headless", f"--host={live.redis_url}", "-u", "25", "-r", "50", "--patience=2"),
        f"--objectives={locust.patient}",
    )
    process.wait_for_line("All users spawned", timeout=60)
    process.wait_for_line("in queue  bookings", timeout=60)
    process.signal(signal.SIGINT)
    done = locust.end(process)
    assert done.status == 0, done.output
    assert "all objectives were kept" in done.output
    assert locust.waiting() == 0


def test_ctrl_c_before_the_load_begins_is_one_line(locust: Locust) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        host = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        process = locust.start("--headless", f"--host={host}", "-u", "25")
        asking, _ = silent.accept()
        with asking:
            process.signal(signal.SIGINT)
            done = locust.end(process)
    assert done.status == 130
    assert done.output.splitlines()[-1] == "interrupted before the load began"
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--host is missing: name the Redis"),
        (["--host=redis://127.0.0.1:1/0"], "--host: no Redis answers at redis://127.0.0.1:1/0"),
        (["--host=amqp://localhost"], "--host: not a Redis URL: it must begin with one of"),
        (["--host=rediss://{address}"], "--host: {address} speaks no TLS, for example --host "),
        (["--host=sentinel://{address}"], "--host: "),
        (["--host={url}"], "no worker answers on {url}: start one"),
        (["--host={url}", "--objectives=nowhere.toml"], "--objectives nowhere.toml: cannot be "),
    ],
    ids=["no host", "no Redis", "no Redis URL", "no TLS", "no sentinel", "no worker", "no file"],
)
def test_bad_input_is_one_line_and_exit_status_2(
    live: Deployment, locust: Locust, arguments: list[str], said: str
) -> None:
    ((host, port),) = RedisUrl.parse(live.redis_url).addresses
    words = {"url": live.redis_url, "address": f"{host}:{port}"}
    process = locust.start("--headless", *(each.format(**words) for each in arguments))
    done = locust.end(process)
    assert done.status == 2, done.output
    assert "Traceback" not in done.output
    lines = [line for line in done.output.splitlines() if not re.match(r"\[\d{4}-", line)]
    (line,) = lines
    assert line.startswith(said.format(**words))


def test_a_queue_that_no_worker_takes_from_is_named(live: Deployment, locust: Locust) -> None:
    live.start_worker(queues=["email", "notifications", "celery"])
    done = locust.run("-u", "1", "-t", "2s", "BookLessons", "FloodCache")
    assert done.status == 2, done.output
    assert f"no worker on {live.redis_url} takes from bookings, cache: start one" in done.output
    assert locust.waiting() == 0


@pytest.fixture
def other_database(tmp_path: Path) -> Iterator[Engine]:
    """Of a deployment that has not the Redis of the workers."""
    made = db.create_database_engine(f"sqlite:///{tmp_path}/other.db")
    schema.prepare(made)
    yield made
    made.dispose()


def test_the_database_of_another_deployment_is_refused(
    live: Deployment, locust: Locust, other_database: Engine
) -> None:
    live.start_worker()
    done = locust.run("-u", "1", "-t", "2s", DATABASE_URL=str(other_database.url))
    assert done.status == 2, done.output
    assert "DATABASE_URL: no worker of --host did within" in done.output
    assert sum(rows(other_database).values()) == 0


def test_ctrl_c_while_it_asks_whose_database_it_is_leaves_no_row(
    live: Deployment, locust: Locust, other_database: Engine
) -> None:
    live.start_worker()
    words = ("--headless", f"--host={live.redis_url}", "-u", "1")
    process = locust.start(*words, DATABASE_URL=str(other_database.url))
    deadline = time.monotonic() + 60
    while not rows(other_database)["outbox_entries"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.signal(signal.SIGINT)
    done = locust.end(process)
    assert done.status == 130, done.output
    assert sum(rows(other_database).values()) == 0


def test_the_objectives_of_somebody_else_are_judged_by(
    live: Deployment, locust: Locust, tmp_path: Path
) -> None:
    strict = tmp_path / "strict.toml"
    strict.write_text("[email]\nin_queue = { p50 = 0.000001 }\n")
    live.start_worker()
    done = locust.run("-u", "4", "-r", "9", "-t", "4s", "BookLessons", f"--objectives={strict}")
    assert done.status == 1, done.output
    assert re.search(r"^email: p50 in queue is .* s, the objective 1e-06 s$", done.output, re.M)


def test_a_shape_is_chosen_by_its_name(live: Deployment, locust: Locust) -> None:
    live.start_worker()
    shape = ("--shape=flood", "-u", "25", "-r", "50", "-t", "12s", "--backlog=5")
    done = locust.run(*shape, f"--objectives={locust.patient}")
    assert done.status == 0, done.output
    users = [json.loads(each) for each in re.findall(r"All users spawned: (\{.*?\})", done.output)]
    people = {"BookLessons", "CancelLessons", "CheckHealth", "ResetPasswords"}
    before, under, after = users
    assert {name for name, number in before.items() if number} == people
    assert {name: under[name] for name in people} == {name: before[name] for name in people}
    assert min(under.values()) > 0
    assert after == before


def test_what_was_not_heard_while_the_connection_was_cut_is_no_silent_gap(
    live: Deployment, locust: Locust
) -> None:
    live.start_worker()
    process = locust.start(
        *("--headless", f"--host={live.redis_url}", "-u", "20", "-r", "50", "-t", "8s"),
        *("BookLessons", f"--objectives={locust.patient}"),
    )
    process.wait_for_line("All users spawned", timeout=60)
    with redis.Redis.from_url(live.redis_url) as client:
        for _ in range(3):
            time.sleep(1)
            client.client_kill_filter(_type="pubsub")
    done = locust.end(process)
    assert "events are not heard for a moment" in done.output
    assert "Traceback" not in done.output
    missed = "taken, but no worker told of a start" in done.output
    assert done.status == (1 if missed else 0), done.output
    assert locust.waiting() == 0


def test_a_redis_that_dies_under_it_is_no_success(own_redis: RedisServer, tmp_path: Path) -> None:
    with Deployment(redis_url=own_redis.url, folder=tmp_path / "live") as live:
        live.start_worker()
        locust = Locust(live, tmp_path / "locust")
        process = locust.start(
            *("--headless", f"--host={live.redis_url}", "-u", "20", "-r", "50", "-t", "6s"),
            *("BookLessons", "FloodCache", f"--objectives={locust.patient}", "--patience=3"),
        )
        process.wait_for_line("All users spawned", timeout=60)
        own_redis.kill()
        done = locust.end(process)
    assert done.status == 1, done.output
    assert "the end of this load test was not measured" in done.output
    assert "Traceback" not in done.output
