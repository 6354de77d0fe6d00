"""A task that fails for good, found and run again by what an operator types."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from app import db
from app.models import OutboxState
from scripts.live import jobs
from scripts.live.deployment import REPOSITORY, Deployment
from scripts.live.job_bench import JobBench, job_bench


@pytest.fixture
def bench(live: Deployment) -> Iterator[JobBench]:
    with job_bench(live) as made:
        yield made


def admin(bench: JobBench, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.admin", *words],
        cwd=REPOSITORY,
        env=bench.live.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# The command imports the app's tasks, the worker also those of the jobs.
UNKNOWN_HERE = "warning: there is no task 'scripts.live.jobs.work'\n"


def told(bench: JobBench, *words: str) -> Any:
    answer = admin(bench, *words, "--json")
    assert answer.returncode == 0
    assert answer.stderr in {"", UNKNOWN_HERE}
    return json.loads(answer.stdout)


def sql(statement: str) -> None:
    with db.transaction() as session:
        session.execute(text(statement))


@pytest.mark.timeout(180)
def test_a_dead_letter_is_found_and_run_again_to_one_effect(bench: JobBench) -> None:
    bench.live.start_worker(concurrency=1)
    bench.live.start_beat()
    sql("CREATE TRIGGER outage BEFORE INSERT ON job_effects BEGIN SELECT RAISE(ABORT, 'no'); END")
    entry_id = bench.enqueue("work", "a")
    bench.wait_until(lambda: bench.entry(entry_id).state is OutboxState.DEAD, timeout=30)
    assert [letter["id"] for letter in told(bench, "deadletters", "list")] == [entry_id]
    assert "IntegrityError" in admin(bench, "deadletters", "show", entry_id).stdout
    assert told(bench, "outbox", "status")["dead"] == 1

    sql("DROP TRIGGER outage")
    assert told(bench, "deadletters", "retry", entry_id) == {"retried": [entry_id], "left": {}}
    told(bench, "deadletters", "retry", entry_id)
    bench.wait_for_effects(1, timeout=30)
    bench.wait_until(lambda: bench.entry(entry_id).state is OutboxState.DONE, timeout=30)
    assert told(bench, "deadletters", "retry", entry_id) == {
        "retried": [],
        "left": {entry_id: "done"},
    }
    assert (jobs.effects()["a"], jobs.starts()["a"]) == (1, 2)
    assert told(bench, "deadletters", "list") == []
