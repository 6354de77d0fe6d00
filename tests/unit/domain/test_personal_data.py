import time

import pytest

from app.domain import personal_data


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("550 no such user <ann.lee+x@mail.example>", "550 no such user <(left out)>"),
        ("cannot greet ann@mail.example: never", "cannot greet (left out): never"),
        ("Key exists\nDETAIL:  Key (name)=(Ann Lee) exists.", "Key exists\nDETAIL:(left out)"),
        ("booking 42 at 17:00", "booking 42 at 17:00"),
    ],
)
def test_addresses_and_quoted_values_are_left_out(text: str, left: str) -> None:
    assert personal_data.leave_out(text) == left


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("ada.lovelace@people.example", "a***@people.example"),
        ("b@people.example", "***@people.example"),
        ("odd@name@people.example", "o***@people.example"),
        ("no address", "***"),
    ],
)
def test_a_masked_address_keeps_its_domain_and_a_first_sign(address: str, masked: str) -> None:
    assert personal_data.masked(address) == masked


def test_the_search_for_addresses_takes_linear_time() -> None:
    """Ten times the text would take a hundred times as long in a search that steps back."""

    def seconds(length: int) -> float:
        began = time.process_time()
        assert personal_data.leave_out("a" * length + " ann@mail.example").endswith("(left out)")
        return time.process_time() - began

    shorter = min(seconds(100_000) for _ in range(5))
    assert min(seconds(1_000_000) for _ in range(3)) < 40 * shorter
