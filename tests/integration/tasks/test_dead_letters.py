"""Whatever fails for good is one dead letter, the worker lives on, and a retry runs it once."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from sqlalchemy import select

from app import db, outbox
from app.models import OutboxEntry, OutboxState
from app.outbox import PUBLISHED_AT_HEADER
from scripts.live import jobs
from scripts.live.deployment import REPOSITORY
from scripts.live.job_bench import JobBench
from tests.integration.tasks import failing_jobs

JOB, SHORT_JOB, LATE_JOB = "failing.job", "failing.short_job", "failing.late_job"
ANSWER = 40.0  # seconds
TRIES = 2
SECRET = "ann.lee-17"

Raw = dict[str, Any]

KILLER, STUCK = "kills its worker", "is stuck"
FAULTS = {
    "transient": "TransientError",
    "permanent": "ValueError",
    KILLER: "WorkerLostError",
    STUCK: "TimeLimitExceeded",
}
"""What a body does, and what its dead letter's last error says."""


def body(text: str) -> Callable[[Raw], None]:
    def put(raw: Raw) -> None:
        raw["body"] = base64.b64encode(text.encode()).decode()

    return put


def header(name: str, value: Any) -> Callable[[Raw], None]:
    def put(raw: Raw) -> None:
        raw["headers"][name] = value

    return put


def content_type(value: str) -> Callable[[Raw], None]:
    def put(raw: Raw) -> None:
        raw["content-type"] = value

    return put


def no_headers(raw: Raw) -> None:
    outbox_header = raw["headers"].pop(PUBLISHED_AT_HEADER, None)
    raw["headers"] = {"id": raw["headers"]["id"]}
    if outbox_header is not None:
        raw["headers"][PUBLISHED_AT_HEADER] = outbox_header


BROKEN = {
    "bad JSON": body("[[1"),
    "no three parts": body("5"),
    "an object": body('{"a": 1}'),
    "two parts": body("[[], {}]"),
    "an unknown content type": content_type("application/x-unheard-of"),
    "compressed, but not": header("compression", "application/x-gzip"),
    "an ETA that is none": header("eta", "next week"),
    "an ETA that no clock shows": header("eta", "0001-01-01T00:00:00+14:00"),
    "time limits that are none": header("timelimit", 5),
    "no task": no_headers,
}
"""What is wrong with a message; its arguments are right."""

KEEPS_ARGUMENTS = (
    "an ETA that is none",
    "an ETA that no clock shows",
    "time limits that are none",
)


class Lists:
    """The broker's lists, whose messages a test breaks as no publisher of ours would."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)

    def close(self) -> None:
        self._client.close()

    def change(self, message_id: str, *changes: Callable[[Raw], None]) -> None:
        for key in self._client.scan_iter("celery*", _type="list"):
            for position, raw in enumerate(self._client.lrange(key, 0, -1)):
                message = json.loads(raw)
                if message["headers"]["id"] == message_id:
                    for change in changes:
                        change(message)
                    self._client.lset(key, position, json.dumps(message))
                    return
        raise AssertionError(f"{message_id} is in no list")


def letters(bench: JobBench) -> dict[str, OutboxEntry]:
    with db.reading() as session:
        dead = session.scalars(select(OutboxEntry).where(OutboxEntry.state == OutboxState.DEAD))
        return {entry.id: entry for entry in dead}


def wait_for_letters(bench: JobBench, expected: dict[str, str]) -> dict[str, OutboxEntry]:
    """The dead letters, when there are as many as expected: names by id."""
    with suppress(TimeoutError):
        bench.wait_until(lambda: len(letters(bench)) >= len(expected), timeout=ANSWER)
    dead = letters(bench)
    missing = {name for entry_id, name in expected.items() if entry_id not in dead}
    assert (missing, len(dead)) == (set(), len(expected)), jobs.starts()
    return dead


def enqueue(task: str, *args: Any) -> str:
    with db.transaction() as session:
        return outbox.enqueue(session, task, *args, unchecked=True)


@pytest.fixture
def lists(bench: JobBench) -> Any:
    made = Lists(bench.live.redis_url)
    yield made
    made.close()


@pytest.fixture
def healed(bench: JobBench, tmp_path: Path) -> Path:
    """A file: where it exists, no job fails any more."""
    bench.live.app = failing_jobs.__name__
    bench.live.environment.update(
        {
            failing_jobs.HEALED: str(tmp_path / "healed"),
            "MAX_DELIVERIES": str(TRIES),
            "UNKNOWN_TASK_RETRIES": str(TRIES - 1),
            "PUMP_INTERVAL_SECONDS": "0.2",
        }
    )
    return tmp_path / "healed"


def retry(bench: JobBench, *ids: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.admin", "deadletters", "retry", *ids, "--json"],
        cwd=REPOSITORY,
        env=bench.live.environment,
        capture_output=True,
        text=True,
        timeout=ANSWER,
        check=True,
    )
    assert sorted(json.loads(done.stdout)["retried"]) == sorted(ids)


@pytest.mark.timeout(180)
def test_each_kind_of_failure_is_one_dead_letter_that_a_retry_runs_once(
    bench: JobBench, lists: Lists, healed: Path
) -> None:
    by_id = {enqueue(SHORT_JOB if fault == STUCK else JOB, fault, fault): fault for fault in FAULTS}
    by_id |= {enqueue(JOB, name, "none"): name for name in BROKEN}
    by_id[enqueue(LATE_JOB, "unknown")] = "unknown"
    for entry_id, name in by_id.items():
        if name in BROKEN:
            lists.change(entry_id, BROKEN[name])
    wrong = enqueue(JOB)
    by_id[wrong] = "wrong"

    worker = bench.live.start_worker(name="old")
    bench.live.start_beat()
    dead = wait_for_letters(bench, by_id)
    bench.enqueue("work", "after")
    bench.wait_for_effects(1, timeout=ANSWER)

    tries = {by_id[entry_id]: len(entry.errors) for entry_id, entry in dead.items()}
    several = {"transient", KILLER, "unknown"}
    said = [entry.errors for entry in dead.values()]
    assert tries == {name: TRIES if name in several else 1 for name in tries}, said
    assert "TypeError" in dead[wrong].errors[-1]["error"]
    del by_id[wrong]
    for entry_id, name in by_id.items():
        entry, last = dead[entry_id], dead[entry_id].errors[-1]
        assert entry.args[:1] == [name]
        assert all(error["at"] for error in entry.errors)
        if name in FAULTS:
            assert FAULTS[name] in last["error"]
            assert ("traceback" in last) is (name not in (KILLER, STUCK))  # ended from outside
        else:
            assert (LATE_JOB if name == "unknown" else "refused: ") in last["error"]

    healed.touch()
    assert worker.terminate() == 0
    bench.live.start_worker("--include=tests.integration.tasks.late_jobs", name="new")
    retry(bench, *by_id, wrong)
    bench.wait_for_effects(len(by_id) + 1, timeout=ANSWER)
    bench.wait_until(lambda: set(letters(bench)) == {wrong}, timeout=ANSWER)
    assert jobs.effects() == dict.fromkeys([*by_id.values(), "after"], 1)
    assert len(letters(bench)[wrong].errors) == 2
    assert {bench.entry(entry_id).state for entry_id in by_id} == {OutboxState.DONE}


@pytest.mark.timeout(180)
def test_a_broken_message_of_somebody_else_is_one_dead_letter_that_never_runs_by_mistake(
    bench: JobBench, lists: Lists, healed: Path
) -> None:
    healed.touch()
    names = {str(uuid4()): name for name in BROKEN}
    for message_id, name in names.items():
        task = failing_jobs.celery_app.tasks[JOB]
        task.apply_async((name, SECRET), task_id=message_id, ignore_result=True)
        lists.change(message_id, BROKEN[name])
    nobodys = failing_jobs.job.apply_async(("no id", SECRET), ignore_result=True)
    lists.change(nobodys.id, no_headers, header("id", None))

    worker = bench.live.start_worker()
    bench.live.start_beat()
    with suppress(TimeoutError):
        bench.wait_until(lambda: len(letters(bench)) > len(names), timeout=ANSWER)
    dead = letters(bench)
    assert set(names) < set(dead)
    assert len(dead) == len(names) + 1
    runs_well = {entry_id for entry_id, name in names.items() if name in KEEPS_ARGUMENTS}
    assert {entry_id for entry_id, entry in dead.items() if entry.args} == runs_well
    assert {str(entry.args) for entry in dead.values() if entry.args} == {
        str([name, SECRET]) for name in KEEPS_ARGUMENTS
    }
    kept = str([[entry.kwargs, entry.errors] for entry in dead.values()])
    assert SECRET not in kept + worker.log_text()

    unreadable = {i for i, name in names.items() if dead[i].task == JOB} - runs_well
    retry(bench, *runs_well, *unreadable)
    bench.wait_until(
        lambda: all(len(bench.entry(entry_id).errors) == 2 for entry_id in unreadable),
        timeout=ANSWER,
    )
    bench.wait_for_effects(len(runs_well), timeout=ANSWER)
    assert jobs.effects() == dict.fromkeys(KEEPS_ARGUMENTS, 1)
    for entry_id in unreadable:
        assert bench.entry(entry_id).state is OutboxState.DEAD
        assert "TypeError" in bench.entry(entry_id).errors[-1]["error"]
