"""The fuzzer of tests/integration/poison, for minutes."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from scripts.live.job_bench import JobBench
from tests.integration.conftest import (  # noqa: F401 - fixtures
    _no_process_is_left,
    live,
)
from tests.integration.poison.conftest import bench, lists  # noqa: F401 - fixtures
from tests.integration.poison.fuzzing import Fuzzed, batches
from tests.integration.poison.raw_messages import Envelope, Lists

BATCHES = 1_000


@pytest.fixture
def fuzzed(bench: JobBench, lists: Lists) -> Fuzzed:  # noqa: F811
    return Fuzzed(bench, lists)


@pytest.mark.timeout(3600)
@settings(
    max_examples=BATCHES,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(batch=batches)
def test_every_message_of_a_thousand_batches_ends_and_healthy_ones_run(
    batch: list[bytes | Envelope], fuzzed: Fuzzed
) -> None:
    fuzzed.take(batch)
