"""What a broadcast is after its worker was killed on the way."""

from random import Random

import pytest

from scripts.live.job_bench import JobBench
from scripts.prove_broadcast import prove


@pytest.mark.timeout(180)
def test_each_user_is_told_once_though_the_worker_is_killed(bench: JobBench) -> None:
    """A small one of ``scripts/prove_broadcast``."""
    kills = 2
    count = prove(bench, users=30_000, kills=kills, rng=Random(1), say=print)
    assert count.is_right(kills=kills), count
