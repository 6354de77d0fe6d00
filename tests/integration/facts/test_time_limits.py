"""Which pool of Celery's enforces which time limit: ``app.tasks.time_limits`` says the same."""

from pathlib import Path

import pytest

from app import db, outbox
from app.models import OutboxState
from app.tasks import time_limits
from scripts.live.deployment import Deployment
from scripts.live.job_bench import job_bench

SOFT, END = "soft", "end"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("pool", "notes", "state", "not_enforced"),
    [
        ("prefork", [SOFT], OutboxState.DEAD, ()),
        ("gevent", [], OutboxState.DEAD, ("soft",)),
        ("eventlet", [END], OutboxState.DONE, ("soft", "hard")),
        ("threads", [END], OutboxState.DONE, ("soft", "hard")),
        ("solo", [END], OutboxState.DONE, ("soft", "hard")),
    ],
)
def test_a_pool_enforces_these_time_limits(
    live: Deployment,
    tmp_path: Path,
    pool: str,
    notes: list[str],
    state: OutboxState,
    not_enforced: tuple[str, ...],
) -> None:
    with job_bench(live) as bench:
        live.app = "tests.integration.facts.fact_tasks"
        worker = live.start_worker("--without-mingle", pool=pool, concurrency=1)
        assert time_limits.not_enforced(pool) == not_enforced
        warned = "time limits are not enforced" in worker.log_text()
        assert warned is bool(not_enforced)
        file = tmp_path / "notes"
        file.touch()
        with db.transaction() as session:
            entry_id = outbox.enqueue(session, "facts.outlast_limits", str(file), unchecked=True)
        bench.wait_until(lambda: bench.entry(entry_id).state is not OutboxState.PENDING, timeout=60)
        assert bench.entry(entry_id).state is state
        assert file.read_text().split() == notes
