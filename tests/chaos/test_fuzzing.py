"""The fuzzer of tests/integration/poison, for minutes."""

import pytest

from tests.integration.conftest import (  # noqa: F401 - fixtures
    _no_process_is_left,
    live,
)
from tests.integration.poison.conftest import bench, fuzzed, lists  # noqa: F401 - fixtures
from tests.integration.poison.fuzzing import Fuzzed, fuzz
from tests.integration.poison.raw_messages import Envelope

BATCHES = 1_000


@pytest.mark.timeout(3600)
@fuzz(BATCHES)
def test_every_message_of_a_thousand_batches_ends_and_healthy_ones_run(
    batch: list[bytes | Envelope],
    fuzzed: Fuzzed,  # noqa: F811
) -> None:
    fuzzed.take(batch)
