"""Workers, beat and Flower of a deployment are ready when they are handed over."""

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from celery import Celery

from scripts.live.deployment import REPOSITORY, Deployment
from scripts.live.ports import free_port
from scripts.live.processes import is_running, wait_until_gone

APP = "tests.integration.live.throwaway"


@pytest.fixture
def deployment_of_throwaway(
    broker_url: str, tmp_path: Path, show_logs: Callable[[object], None]
) -> Iterator[Deployment]:
    with Deployment(redis_url=broker_url, folder=tmp_path / "deployment", app=APP) as deployment:
        show_logs(deployment.logs)
        yield deployment


@pytest.fixture
def call(broker_url: str) -> Iterator[Callable[..., object]]:
    """Publish a task by name."""
    with Celery(broker=broker_url, set_as_current=False) as producer:
        yield lambda name, *args: producer.send_task(name, args)


def test_its_environment_points_at_itself(deployment_of_throwaway: Deployment) -> None:
    live = deployment_of_throwaway
    shows = live.run([sys.executable, "-c", "import os; print(dict(os.environ))"], name="env")
    assert shows.wait(timeout=10) == 0
    for value in (live.redis_url, f"sqlite:///{live.database}", live.mail.url, "US/Eastern"):
        assert repr(value) in shows.log_text()
    assert live.database.is_absolute()


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_that_is_handed_over_runs_tasks_and_stops_clean(
    pool: str, deployment_of_throwaway: Deployment, call: Callable[..., object]
) -> None:
    worker = deployment_of_throwaway.start_worker(pool=pool)
    call("say", "hello")
    worker.wait_for_line("said hello")
    assert worker.terminate() == 0


def test_a_killed_worker_takes_its_busy_children_along(
    deployment_of_throwaway: Deployment, call: Callable[..., object]
) -> None:
    worker = deployment_of_throwaway.start_worker(concurrency=1)
    call("dawdle", 60)
    child = int(worker.wait_for_line(r"dawdling in (\d+)")[1])
    assert child in {process.pid for process in worker.descendants()}
    assert worker.kill() == -signal.SIGKILL
    assert not is_running(child)


def test_a_beat_that_is_handed_over_ticks(
    deployment_of_throwaway: Deployment, tmp_path: Path
) -> None:
    worker = deployment_of_throwaway.start_worker(pool="solo", queues=["celery"])
    deployment_of_throwaway.start_beat(f"--schedule={tmp_path / 'schedule'}")
    worker.wait_for_line("said from beat")


def test_a_flower_that_is_handed_over_answers_on_this_machine_only(
    deployment_of_throwaway: Deployment,
) -> None:
    flower = deployment_of_throwaway.start_flower(free_port())
    listening = [c for c in psutil.Process(flower.pid).net_connections() if c.status == "LISTEN"]
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}


def test_a_process_that_cannot_start_says_why(deployment_of_throwaway: Deployment) -> None:
    with pytest.raises(RuntimeError, match="No such option"):
        deployment_of_throwaway.start_worker("--nonsense")


def test_nothing_is_left_of_a_deployment(redis_url: str) -> None:
    with Deployment(redis_url=redis_url, app=APP) as live:
        worker = live.start_worker(concurrency=1)
        pids = [worker.pid, *(process.pid for process in worker.descendants())]
    assert len(pids) > 1
    assert not any(map(is_running, pids))
    assert not live.folder.exists()


# Slow on purpose: a real interpreter with a real server and worker, killed without a chance.
def test_a_deployment_dies_with_whoever_started_it(tmp_path: Path) -> None:
    source = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from scripts.live.deployment import Deployment
        from scripts.live.redis_server import RedisServer
        folder = Path({str(tmp_path)!r})
        with RedisServer(folder=folder / "redis") as redis:
            with Deployment(redis_url=redis.url, folder=folder, app={APP!r}) as live:
                worker = live.start_worker(concurrency=1)
                print(redis.process.pid, worker.pid, worker.descendants()[0].pid, flush=True)
                time.sleep(60)
        """
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    with starter:
        assert starter.stdout is not None
        pids = [int(pid) for pid in starter.stdout.readline().split()]
        assert all(map(is_running, pids))
        starter.kill()
    assert len(pids) == 3
    for pid in pids:
        wait_until_gone(pid)
