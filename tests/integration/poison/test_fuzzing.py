"""Whatever hypothesis writes into a queue ends, and the worker goes on.

``pytest -m chaos tests/chaos/test_fuzzing.py`` does the same for longer.
"""

import pytest

from tests.integration.poison.fuzzing import Fuzzed, fuzz
from tests.integration.poison.raw_messages import Envelope, envelope, headers

BATCHES = 20


@pytest.mark.timeout(240)
@fuzz(BATCHES)
def test_every_message_ends_and_a_healthy_one_runs(
    batch: list[bytes | Envelope], fuzzed: Fuzzed
) -> None:
    fuzzed.take(batch)


@pytest.mark.timeout(120)
def test_a_message_that_is_refused_after_it_was_received_is_one(fuzzed: Fuzzed) -> None:
    head = headers(expires="2100-01-01T00:00:00+00:00", stamped_headers=5)
    fuzzed.take([envelope(head=head)])
