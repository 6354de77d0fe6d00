"""Whatever hypothesis writes into a queue ends, and the worker goes on.

``pytest -m chaos tests/chaos/test_fuzzing.py`` does the same for longer.
"""

import pytest

from tests.integration.poison.fuzzing import Fuzzed, fuzz
from tests.integration.poison.raw_messages import Envelope

BATCHES = 20


@pytest.mark.timeout(240)
@fuzz(BATCHES)
def test_every_message_ends_and_a_healthy_one_runs(
    batch: list[bytes | Envelope], fuzzed: Fuzzed
) -> None:
    fuzzed.take(batch)
