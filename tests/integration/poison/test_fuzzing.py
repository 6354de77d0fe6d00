"""Whatever hypothesis writes into a queue ends, and the worker goes on.

``pytest -m chaos tests/chaos/test_fuzzing.py`` does the same for longer.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from scripts.live.job_bench import JobBench
from tests.integration.poison.fuzzing import Fuzzed, batches
from tests.integration.poison.raw_messages import Envelope, Lists

BATCHES = 20


@pytest.fixture
def fuzzed(bench: JobBench, lists: Lists) -> Fuzzed:
    return Fuzzed(bench, lists)


@pytest.mark.timeout(240)
@settings(
    max_examples=BATCHES,
    deadline=None,
    database=None,
    # One worker takes them all, and a smaller example would cost as much as the first.
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(batch=batches)
def test_every_message_ends_and_a_healthy_one_runs(
    batch: list[bytes | Envelope], fuzzed: Fuzzed
) -> None:
    fuzzed.take(batch)
