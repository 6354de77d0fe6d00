"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table


def table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> Table:
    """Plain columns, the first one to the left and the figures to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for position, title in enumerate(head):
        made.add_column(title, justify="left" if position == 0 else "right", no_wrap=True)
    for row in rows:
        made.add_row(*(f"{each:,}" if isinstance(each, int) else str(each) for each in row))
    return made
