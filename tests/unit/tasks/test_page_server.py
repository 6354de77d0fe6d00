"""A page's clients are looked at from one thread while others serve them."""

from collections.abc import Callable
from typing import Any

import pytest

from app.tasks.page_server import PageServer


class Served:
    """A connection whose page begins to be made between two looks at it."""

    def __init__(self) -> None:
        self._deadlines = [0.0]

    @property
    def deadline(self) -> float | None:
        return self._deadlines.pop() if self._deadlines else None

    def drop(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("look", [PageServer.service_actions, PageServer._drop_slowest])
def test_a_page_that_begins_to_be_made_ends_no_server(look: Callable[[PageServer], None]) -> None:
    server: Any = PageServer.__new__(PageServer)
    server._connections = {number: Served() for number in range(2)}
    look(server)
