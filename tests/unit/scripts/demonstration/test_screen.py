"""What a terminal shows of the figures."""

from io import StringIO

from rich.console import Console

from scripts.demonstration.screen import Screen
from scripts.demonstration.status import Status

STATUS = Status(
    bookings={"confirmed": 12, "no_show": 3},
    tasks={"email": {"succeeded": 40, "failed": 1, "retried": 2}},
    outbox={"done": 50, "pending": 4},
    mails=77,
)


def shown(*, status: Status | None = None, line: tuple[str, str] | None = None) -> str:
    output = StringIO()
    console = Console(file=output, force_terminal=True, width=80, color_system=None)
    with Screen(on_silence=lambda: None, console=console) as screen:
        screen.begin()
        if status:
            screen.status(status)
        if line:
            screen.say(*line)
    return output.getvalue()


def test_every_figure_is_in_view() -> None:
    text = shown(status=STATUS)
    for figure in ("12 confirmed", "3 no-show", "77 in the mailbox", "50 done", "4 pending"):
        assert figure in text
    assert "email" in text
    assert "40" in text


def test_what_happens_is_a_line_with_its_second_and_no_markup_of_its_own() -> None:
    assert "0.0 s  booked     lesson [7]" in shown(line=("booked", "lesson [7]"))
