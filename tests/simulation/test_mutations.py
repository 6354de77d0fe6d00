"""Three of the mistakes that ``scripts.mutate`` makes, in the default run; it makes ten."""

from __future__ import annotations

import pytest

from scripts import mutate

# Each changes a copy of app and starts a process that replays it, as a person would.
pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("name", "invariant"),
    [
        ("drop-the-guard", "nothing resent without a loss"),
        ("publish-before-commit", "nothing sent before its commit"),
        ("beat-state-in-memory", "each due instant once"),
    ],
)
def test_a_mistake_is_found_with_the_first_seed(name: str, invariant: str) -> None:
    (mutation,) = mutate.chosen([name])
    finding = mutate.find(mutation, most_seeds=1)
    assert finding.found_by == invariant
