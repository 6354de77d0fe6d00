"""What the audience sees in a terminal: figures that move, and the lines above them."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from scripts.demonstration.status import Status
from scripts.demonstration.voice import Voice

TROUBLE = frozenset(
    {"killed", "lost", "retry", "resent", "dead", "uncertain", "doubled", "gave up"}
)
"""What happened, where somebody should look twice."""


class Screen(Voice):
    """A voice that keeps the figures in view; use it as a context manager."""

    status_every = 0.5

    def __init__(self, on_silence: Callable[[], None], *, console: Console | None = None) -> None:
        super().__init__(on_silence)
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def begin(self) -> None:
        super().begin()
        self._live.start()

    def end(self) -> None:
        self._live.stop()

    def say(self, what: str, text: str) -> None:
        line = self.line(what, text)
        self._console.print(Text(line, style="yellow" if what in TROUBLE else ""))

    def show(self, text: str) -> None:
        self._console.print(Text(text))

    def status(self, status: Status) -> None:
        self._live.update(picture(status, elapsed=self.elapsed), refresh=True)


def picture(status: Status, *, elapsed: float) -> Panel:
    """The figures at one moment."""
    lessons = _figures({name.replace("_", "-"): n for name, n in status.bookings.items()})
    return Panel(
        Group(
            _row("lessons", lessons),
            _row("mails", Text(f"{status.mails} in the mailbox")),
            _row("outbox", _figures(status.outbox)),
            Text(),
            _tasks(status.tasks),
        ),
        title=f"{elapsed:.0f} s",
        title_align="left",
        expand=False,
    )


def _tasks(tasks: Mapping[str, Mapping[str, int]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("tasks of")
    for column in ("succeeded", "retried", "failed"):
        table.add_column(column, justify="right")
    for module, row in sorted(tasks.items()):
        figures = (str(row[column]) for column in ("succeeded", "retried", "failed"))
        table.add_row(module, *figures, style="red" if row["failed"] else "")
    return table


def _row(name: str, value: Text) -> Text:
    return Text(f"{name:<10}", style="bold").append_text(value)


def _figures(figures: Mapping[str, int]) -> Text:
    return Text(", ".join(f"{number} {name}" for name, number in figures.items()), style="not bold")
