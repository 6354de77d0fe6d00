"""Nothing that the broker or the result backend holds is run: JSON alone is read."""

import ast
import base64
import json
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis

from app.tasks import celery_app
from scripts.live import jobs
from scripts.live.deployment import REPOSITORY
from scripts.live.job_bench import JobBench
from tests.integration.poison.conftest import bench, lists  # noqa: F401 - fixtures
from tests.integration.poison.raw_messages import Envelope, Lists, envelope, headers
from tests.integration.poison.test_poison import wait_for_letters

ANSWER = 60.0  # seconds
PICKLES = ("application/x-python-serialize", "pickle", "application/x-pickle")
RUN_WHAT_THEY_READ = {
    "pickle",
    "cPickle",
    "dill",
    "marshal",
    "shelve",
    "yaml",
}


class MakesAFile:
    """Loading its pickle makes a file: what an attacker would write into Redis."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._file,)


def a_pickle(file: Path) -> bytes:
    data = pickle.dumps(MakesAFile(file))
    assert not file.exists()
    return data


def test_the_pickle_of_these_tests_does_its_work(tmp_path: Path) -> None:
    pickle.loads(a_pickle(tmp_path / "file"))  # noqa: S301 - ours
    assert (tmp_path / "file").exists()


@pytest.mark.timeout(240)
def test_a_pickle_in_a_queue_is_a_dead_letter_that_nobody_loads(
    bench: JobBench,  # noqa: F811
    lists: Lists,  # noqa: F811
    tmp_path: Path,
) -> None:
    made = tmp_path / "made"
    data = a_pickle(made)
    items: list[bytes | Envelope] = [
        *(envelope(raw=data) | {"content-type": kind, "content-encoding": "binary"}
          for kind in PICKLES),
        envelope(raw=data) | {"content-type": None, "content-encoding": "binary"},
        envelope(raw=data, head=headers(compression="application/x-gzip")),
        envelope(raw=data),
        data,
        base64.b64encode(data),
    ]  # fmt: skip
    bench.live.start_worker()
    lists.push(items)
    dead = wait_for_letters(bench, len(items))
    assert len(dead) == len(items)
    assert not made.exists()
    assert jobs.effects() == {}


@pytest.mark.timeout(240)
def test_a_pickle_for_the_remote_control_ends_no_worker_and_is_not_loaded(
    bench: JobBench,  # noqa: F811
    tmp_path: Path,
) -> None:
    made = tmp_path / "made"
    worker = bench.live.start_worker()
    with redis.Redis.from_url(bench.live.redis_url) as client:
        database = client.connection_pool.connection_kwargs["db"]
        for kind in PICKLES:
            item = envelope(raw=a_pickle(made), head={}) | {"content-type": kind}
            tell = partial(client.publish, f"/{database}.celery.pidbox", json.dumps(item))
            # The worker listens a moment after it says that it is ready.
            bench.wait_until(lambda tell=tell: tell() > 0, timeout=ANSWER)
    bench.enqueue("effect", "after")
    bench.wait_for_effects(1, timeout=ANSWER)
    assert worker.alive
    assert not made.exists()


def test_a_pickle_as_result_is_not_loaded(broker_url: str, tmp_path: Path) -> None:
    made, task_id = tmp_path / "made", str(uuid4())
    with redis.Redis.from_url(broker_url) as client:
        client.set(f"celery-task-meta-{task_id}", a_pickle(made))
    asked = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "app.tasks", "result", task_id],
        cwd=REPOSITORY,
        env={"REDIS_URL": broker_url, "PATH": "", "LOG_DIR": ""},
        capture_output=True,
        timeout=ANSWER,
        check=False,
    )
    assert asked.returncode != 0
    assert not made.exists()


def test_only_json_is_written_and_read() -> None:
    conf = celery_app.conf
    assert (conf.accept_content, conf.result_accept_content) == (["json"], ["json"])
    written = {conf.task_serializer, conf.result_serializer, conf.event_serializer}
    assert written == {"json"}
    assert {task.serializer for task in celery_app.tasks.values()} == {"json"}


def test_no_code_of_the_app_runs_what_it_reads() -> None:
    used: dict[str, set[str]] = {}
    for file in sorted((REPOSITORY / "app").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0]}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = {node.func.id} & {"eval", "exec", "compile", "__import__"}
            if bad := names & (RUN_WHAT_THEY_READ | {"eval", "exec", "compile", "__import__"}):
                used[str(file)] = bad
    assert used == {}
