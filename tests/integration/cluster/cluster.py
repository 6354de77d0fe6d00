"""Two workers in containers, as a test addresses them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import Celery
from sqlalchemy import delete

from app import db, outbox
from app.models import OutboxEntry, PausedQueue
from app.routing import QUEUES, QueueSpec
from scripts.live import jobs
from scripts.live.job_bench import PlannedJobs
from scripts.live.queue_jobs import name_of
from tests.integration.cluster.containers import WorkerContainer

PATIENCE = 180.0
"""Seconds that anything may take on a busy machine; an idle one needs two or three."""
TEST_TIMEOUT = 900
"""Seconds for one test, whose cluster may have to be started, and its image built."""
POLL_TIMEOUT = 1.0
"""For an answer of workers that may not have started: they never get the question."""


class Cluster(PlannedJobs):
    """Plans jobs for its workers, and counts what came of them."""

    def __init__(self, app: Celery, first: WorkerContainer, second: WorkerContainer) -> None:
        self.app = app
        self.first = first
        self.second = second

    @property
    def workers(self) -> tuple[WorkerContainer, WorkerContainer]:
        return self.first, self.second

    def start(self) -> None:
        """Start what has been stopped, and wait until both take work of all queues."""
        with db.transaction() as session:
            session.execute(delete(PausedQueue))
        for worker in self.workers:
            if not worker.running:
                worker.start()
        self.wait_until_consumed(*self.workers, queues=[spec.name for spec in QUEUES])

    def stop(self) -> None:
        """End both as ``docker stop`` does."""
        for worker in self.workers:
            worker.terminate()
        assert [worker.wait() for worker in self.workers] == [0, 0]

    def wait_until_consumed(self, *workers: WorkerContainer, queues: Iterable[str]) -> None:
        """Until each worker takes from these queues and no other.

        AssertionError with its log if one has ended.
        """
        wanted = {worker.node: set(queues) for worker in workers}

        def answers() -> bool:
            for worker in workers:
                assert worker.running, worker.logs()
            found = self.inspect(*workers, timeout=POLL_TIMEOUT).active_queues() or {}
            return wanted == {node: {queue["name"] for queue in found[node]} for node in found}

        self.wait_until(answers, timeout=PATIENCE)

    def pause(self, queue: str) -> None:
        """Let work wait in a queue: no worker takes any."""
        self.first.admin("queues", "pause", queue)
        others = [spec.name for spec in QUEUES if spec.name != queue]
        self.wait_until_consumed(*self.workers, queues=others)

    def inspect(self, *workers: WorkerContainer, timeout: float = PATIENCE) -> Any:
        """Remote control's questions, to these workers or to both, until all have answered."""
        nodes = [worker.node for worker in workers or self.workers]
        return self.app.control.inspect(destination=nodes, limit=len(nodes), timeout=timeout)

    def empty(self) -> None:
        """Forget what an earlier test has left, when it has come to its end."""
        with db.transaction() as session:
            session.execute(delete(OutboxEntry))
        self.app.control.purge()
        self.wait_until(lambda: not self.held(), timeout=PATIENCE)
        jobs.empty_tables()

    def held(self) -> int:
        """How many messages the workers have taken and not yet acknowledged."""
        with self.app.connection_for_read() as connection:
            return int(connection.default_channel.client.hlen("unacked"))

    def enqueue_in(self, spec: QueueSpec, names: Iterable[str], seconds: float = 0.0) -> None:
        """Plan a job of each name in a queue, in one transaction."""
        with db.transaction() as session:
            for name in names:
                outbox.enqueue(session, name_of(spec), name, seconds)
