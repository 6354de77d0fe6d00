"""Words and tables for a person, JSON for a machine."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from app.domain.errors import one_line

WIDTH = 100
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[int] = ()
) -> None:
    """Print rows under a header; the last column is cut where the line would be too long.

    ``numbers`` are the columns that are set to the right.
    """
    cells = [list(header), *([one_line(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        line = "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print(cut(line.rstrip(), WIDTH))


def figures(rows: Sequence[tuple[str, object]]) -> None:
    """Print names and what they stand at, each on a line of its own."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name.ljust(width)}  {value}")


def as_json(value: Any) -> None:
    """Print ``value``; instants become ISO 8601 in their own zone, durations seconds."""
    print(json.dumps(value, default=_plain, ensure_ascii=False, indent=2))


def cut(text: str, width: int) -> str:
    """``text``, or as much of it as fits."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def age(length: timedelta) -> str:
    """A duration in full units of the largest that fits: 30s, 5m, 2h, 30d."""
    seconds = int(length.total_seconds())
    return next(f"{seconds // size}{unit}" for unit, size in _UNITS if seconds >= size or size == 1)


def exact(length: timedelta) -> str:
    """A duration of whole seconds as somebody typed it, or in a larger unit: 90m, 2h, 30d."""
    seconds = int(length.total_seconds())
    units = ((unit, size) for unit, size in _UNITS if size == 1 or seconds >= size)
    return next(f"{seconds // size}{unit}" for unit, size in units if seconds % size == 0)


def instant(at: datetime | None) -> str:
    """An instant in UTC, to the second."""
    return "-" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def several(number: int, noun: str) -> str:
    """``1 dead letter``, ``2 days``, ``1,000 entries``."""
    if number == 1:
        return f"1 {noun}"
    plural = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}s"
    return f"{number:,} {plural}"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(f"{type(value).__name__} has no JSON")
