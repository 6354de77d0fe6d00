"""Workers that are sent every end of ``ending_jobs``, and what became of each."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep
from uuid import uuid4

import redis
from sqlalchemy import select

from app import db, outbox
from app.models import OutboxEntry, OutboxState
from scripts.live import ending_jobs, jobs
from scripts.live.ending_jobs import ENDINGS, Ending
from scripts.live.job_bench import JobBench
from scripts.live.processes import Process

WORK_SECONDS = 2.0
"""Of a job that holds a slot, to count those that are left."""
ANSWER = 30.0
POLL_SECONDS = 0.5
PENDING = OutboxState.PENDING


@dataclass(frozen=True)
class Case:
    """An end on a pool, of a message with an entry or of one without."""

    pool: str
    name: str
    with_entry: bool
    number: int = 0

    @property
    def end(self) -> Ending:
        return ENDINGS[self.name]

    def __str__(self) -> str:
        return f"{self.pool}: {self.name}, {'entry' if self.with_entry else 'no entry'}"


def cases(*pools: str, times: int = 1) -> list[Case]:
    """Every end that the pools have, ``times`` times, with an entry and without."""
    return [
        Case(pool, name, with_entry, number)
        for pool in pools
        for name, end in ENDINGS.items()
        if pool in end.pools
        for with_entry in (True, False)
        for number in range(times)
    ]


class EndingBench:
    """A worker of one pool that is sent cases."""

    def __init__(self, bench: JobBench, pool: str, slots: int) -> None:
        self.bench, self.pool = bench, pool
        self.slots = 1 if pool == "solo" else slots
        self._ids: dict[Case, str] = {}
        bench.live.app = ending_jobs.__name__
        self.worker: Process = bench.live.start_worker(name=pool, pool=pool, concurrency=slots)

    def send(self, sent: list[Case]) -> None:
        """Plan or publish a job for each case."""
        with db.transaction() as session:
            for case in sent:
                if case.with_entry:
                    entry_id = outbox.enqueue(session, case.end.task, case.name)
                    self._ids[case] = entry_id
        for case in sent:
            if not case.with_entry:
                task = jobs.celery_app.tasks[case.end.task]
                self._ids[case] = str(uuid4())
                task.apply_async((case.name,), task_id=self._ids[case], ignore_result=True)

    def wait(self, *, patience: float) -> None:
        """Wait until every end has come, or none has come for ``patience`` seconds."""
        missing = len(self._ids)
        last = monotonic()
        while (left := self._missing()) and monotonic() - last < patience:
            if left < missing:
                missing, last = left, monotonic()
            sleep(POLL_SECONDS)

    def states(self) -> dict[Case, OutboxEntry | None]:
        """The entry of each case; ``None`` where it has none."""
        with db.reading() as session:
            chosen = select(OutboxEntry).where(OutboxEntry.id.in_(self._ids.values()))
            entries = {entry.id: entry for entry in session.scalars(chosen)}
        return {case: entries.get(entry_id) for case, entry_id in self._ids.items()}

    def starts(self) -> dict[Case, int]:
        """How often each case was started."""
        counted = jobs.starts()
        return {case: counted[entry_id] for case, entry_id in self._ids.items()}

    def unacknowledged(self) -> int:
        """Messages that the broker holds for workers."""
        with redis.Redis.from_url(self.bench.live.redis_url) as client:
            return int(client.hlen("unacked"))

    def slots_left(self) -> int:
        """How many of the worker's slots run something at the same time."""
        names = [f"slot {uuid4()}" for _ in range(self.slots)]
        for name in names:
            self.bench.enqueue("work", name, WORK_SECONDS)
        with suppress(TimeoutError):
            self.bench.wait_until(lambda: Counter(names) <= jobs.effects(), timeout=ANSWER)
        began = [start.at for name in names for start in jobs.starts_of(name)]
        last = max(began, default=None)
        return sum((last - at).total_seconds() < WORK_SECONDS for at in began) if last else 0

    def _missing(self) -> int:
        """How many cases have not ended; 1 where the broker still holds a message of one."""
        started, states = self.starts(), self.states()
        missing = sum(
            started[case] < case.end.starts if entry is None else entry.state is PENDING
            for case, entry in states.items()
        )
        return missing or min(1, self.unacknowledged())
