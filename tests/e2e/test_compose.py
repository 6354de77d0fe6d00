"""Everything in containers, as a person brings it up."""

import ast
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import redis

from app.routing import WORKER_GROUPS
from scripts.live.compose import Compose, leftovers
from scripts.live.ports import HOST
from tests.e2e.conftest import UP_TAKES_SECONDS

pytestmark = pytest.mark.timeout(UP_TAKES_SECONDS)

BOOK = Path(__file__).with_name("book_a_lesson.py").read_text()
SOON_SECONDS = 60


def celery(compose: Compose, *arguments: str) -> str:
    return compose.run(
        "exec", "-T", "celery_worker", "celery", "-A", "app.tasks", *arguments
    ).stdout


def test_as_many_run_as_were_asked_for(deployment: Compose) -> None:
    assert len(deployment.containers("celery_worker")) == 3
    assert len(deployment.containers("celery_beat")) == 2
    assert len(deployment.containers("celery_worker_bulk")) == 1


def test_the_deployment_finds_itself_healthy(deployment: Compose) -> None:
    said = deployment.run("exec", "-T", "celery_worker", "python", "-m", "app.tasks.health")
    assert said.stdout.startswith("healthy")


def test_a_lesson_that_is_booked_in_it_is_confirmed_by_mail(deployment: Compose) -> None:
    readers = {"ada@people.example", "bob@people.example"}
    # From the container of a process that publishes nothing: beat and workers do the rest.
    assert deployment.python("flower", BOOK, *sorted(readers)) == "confirmed\n"
    deadline = time.monotonic() + SOON_SECONDS
    while len(mails := mails_to(readers, deployment)) < 2 and time.monotonic() < deadline:
        time.sleep(1)
    assert sorted(mail["To"][0]["Address"] for mail in mails) == sorted(readers)
    assert all("Piano" in mail["Subject"] for mail in mails)


def mails_to(readers: set[str], deployment: Compose) -> list[dict[str, Any]]:
    """Other tests of the same deployment have readers of their own."""
    return [mail for mail in deployment.mails() if mail["To"][0]["Address"] in readers]


def test_each_worker_takes_from_the_queues_of_its_group(deployment: Compose) -> None:
    found = json.loads(celery(deployment, "inspect", "active_queues", "--json"))
    taken = sorted(tuple(queue["name"] for queue in queues) for queues in found.values())
    every, bulk = (group.queues for group in WORKER_GROUPS)
    assert taken == sorted([every, every, every, bulk])


def test_every_worker_says_what_it_is_doing(deployment: Compose) -> None:
    assert len(json.loads(celery(deployment, "inspect", "active", "--json"))) == 4


def test_a_task_that_is_called_by_hand_runs(deployment: Compose) -> None:
    name = "app.tasks.health.health_check"
    task_id = celery(deployment, "call", name, "--args=[]").strip()
    assert ast.literal_eval(celery(deployment, "result", task_id))["healthy"] is True


def test_the_workers_logs_are_lines_of_json(deployment: Compose) -> None:
    said = deployment.run("logs", "--no-color", "celery_worker").stdout
    lines = [line.partition("| ")[2] for line in said.splitlines()]
    events = [json.loads(line)["event"] for line in lines if line.startswith("{")]
    assert sum(bool(re.search(r"celery@\w+ ready", event)) for event in events) == 3


def test_flower_is_open_to_this_machine(deployment: Compose) -> None:
    url = f"http://{HOST}:{deployment.ports['FLOWER_PORT']}/"
    with urlopen(url, timeout=30) as answer:
        assert "Flower" in answer.read().decode()


def test_redis_serves_the_readme_s_url(deployment: Compose) -> None:
    with redis.Redis(host=HOST, port=deployment.ports["REDIS_PORT"]) as client:
        assert client.config_get("appendonly", "appendfsync", "maxmemory-policy") == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        }
        assert int(client.config_get("maxmemory")["maxmemory"]) > 0


def test_nothing_listens_beyond_this_machine(deployment: Compose) -> None:
    published = [
        binding["HostIp"]
        for container in deployment.containers()
        for bindings in container["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    ]
    assert published
    assert set(published) == {HOST}


def test_redis_alone_needs_nothing_else_and_leaves_nothing(compose_is_here: None) -> None:
    with Compose() as compose:
        compose.up("redis")
        compose.wait_until_healthy()
        assert len(compose.containers()) == 1
        assert leftovers(compose.project)
    assert leftovers(compose.project) == []


def test_a_failure_leaves_nothing(compose_is_here: None) -> None:
    compose = Compose(environment={"REDIS_MAXMEMORY": "not-a-size"})
    with pytest.raises(TimeoutError, match="redis"), compose:
        compose.up("redis")
        compose.wait_until_healthy(timeout=10)
    assert leftovers(compose.project) == []


def test_ctrl_c_leaves_nothing(compose_is_here: None, tmp_path: Path) -> None:
    program = (
        "from scripts.live.compose import Compose\n"
        "with Compose() as compose:\n"
        "    print(compose.project, flush=True)\n"
        "    compose.up('redis')\n"
        "    print('up', flush=True)\n"
        "    __import__('time').sleep(600)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        project = process.stdout.readline().strip()
        assert process.stdout.readline() == "up\n"
        assert leftovers(project)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
    assert leftovers(project) == []
