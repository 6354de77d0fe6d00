"""The table of docs/guarantees.md, "How an attempt ends", on real workers of every pool.

Each pool has one worker, which is sent every end at once, with an entry and without.
"""

from collections.abc import Callable, Iterator

import pytest

from app.models import OutboxEntry, OutboxState
from scripts.live.deployment import Deployment
from scripts.live.ending_bench import Case, EndingBench, cases
from scripts.live.ending_jobs import POOLS, SETTINGS
from scripts.live.job_bench import job_bench

PATIENCE = 30.0  # seconds
SLOTS = 2

pytestmark = pytest.mark.timeout(180)


class Ended:
    """What became of every end on one pool, and how many slots its worker has left."""

    def __init__(self, ends: EndingBench) -> None:
        ends.send(cases(ends.pool))
        ends.wait(patience=PATIENCE)
        self.starts: dict[Case, int] = ends.starts()
        self.entries: dict[Case, OutboxEntry | None] = ends.states()
        self.held = ends.unacknowledged()
        self.slots, self.slots_left = ends.slots, ends.slots_left()
        self.alive = ends.worker.alive


@pytest.fixture(scope="module")
def ended(
    module_broker_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Ended]]:
    """By the name of a pool; its worker is started when it is first asked for."""
    known: dict[str, Ended] = {}
    with (
        Deployment(
            redis_url=module_broker_url,
            folder=tmp_path_factory.mktemp("ends"),
            environment=SETTINGS,
        ) as live,
        job_bench(live) as bench,
    ):
        live.start_beat()

        def of_pool(pool: str) -> Ended:
            if pool not in known:
                ends = EndingBench(bench, pool, SLOTS)
                known[pool] = Ended(ends)
                ends.worker.kill()
            return known[pool]

        yield of_pool


@pytest.mark.parametrize("case", cases(*POOLS), ids=str)
def test_an_attempt_ends_as_the_table_says(ended: Callable[[str], Ended], case: Case) -> None:
    found = ended(case.pool)
    assert found.starts[case] == case.end.starts
    entry = found.entries[case]
    if entry is None:
        assert (case.with_entry, case.end.state) == (False, OutboxState.DONE)
        return
    assert entry.state is case.end.state
    if entry.state is OutboxState.DEAD:
        assert entry.errors[-1]["error"].startswith(case.end.error)


@pytest.mark.parametrize("pool", POOLS)
def test_every_slot_comes_back_and_no_message_stays(
    ended: Callable[[str], Ended], pool: str
) -> None:
    found = ended(pool)
    assert (found.alive, found.held, found.slots_left) == (True, 0, found.slots)
