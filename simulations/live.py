"""What a terminal shows while days are replayed: how far it is, the virtual clock, the speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from simulations.engine.clock import wall_seconds

Tell = Callable[[datetime, int], None]
"""Told the virtual instant, and how many events there were until then."""


@contextmanager
def live(
    console: Console, *, start: datetime, end: datetime, zone: ZoneInfo
) -> Iterator[Tell | None]:
    """Show a bar from ``start`` to ``end`` (aware); nothing where there is no terminal."""
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.fields[clock]}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[speed]} events/s"),
    )
    began = wall_seconds()
    # Its own thread would ask the virtual clock when to draw.
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:
        task = bar.add_task("", total=(end - start).total_seconds(), clock="", speed="0")

        def tell(now: datetime, events: int) -> None:
            bar.update(
                task,
                completed=(now - start).total_seconds(),
                clock=f"{now.astimezone(zone):%a %d %b %H:%M}",
                speed=f"{events / (wall_seconds() - began):,.0f}",
                refresh=True,
            )

        yield tell
