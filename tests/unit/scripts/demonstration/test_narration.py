"""What is told of the tables and the mailbox."""

from pathlib import Path

from sqlalchemy import Engine

from app import db
from app.models import EmailKind
from scripts.demonstration.accounting import message_id
from scripts.demonstration.narration import MAILS_EVERY, Narrator
from scripts.live.mailbox import Mailbox
from tests.builders import NOON, a_lesson, a_mail

STUDENT, INSTRUCTOR = 1, 2
STATUS_EVERY = 10.0


class Audience:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "new"
        self.folder.mkdir()
        self.heard: list[str] = []
        self.narrator = Narrator(
            Mailbox(folder),
            students=[STUDENT],
            say=lambda *line: self.heard.append(" ".join(line)),
            status=lambda status: self.heard.append(f"{status.mails} mails so far"),
            status_every=STATUS_EVERY,
        )
        self._elapsed = 0.0

    def arrive(self, kind: EmailKind, lesson: int, reader: int) -> None:
        file = self.folder / f"{len(list(self.folder.iterdir())):03}"
        file.write_text(f"Message-ID: {message_id(kind, lesson, reader, domain='x')}\n\n")

    def look(self, after: float = MAILS_EVERY) -> list[str]:
        self._elapsed += after
        self.heard.clear()
        self.narrator.look(self._elapsed)
        return list(self.heard)


def test_mails_are_told_once_and_both_sides_in_one_line(database: Engine, tmp_path: Path) -> None:
    audience = Audience(tmp_path)
    for lesson in (3, 4):
        for reader in (STUDENT, INSTRUCTOR):
            audience.arrive(EmailKind.BOOKING_CONFIRMATION, lesson, reader)
    audience.arrive(EmailKind.REMINDER_1H, 5, INSTRUCTOR)
    assert audience.look() == [
        "mail confirmation of lessons 3, 4 has reached both sides",
        "mail 1 h reminder of lesson 5 has reached the instructor",
    ]
    assert audience.look() == []


def test_a_second_copy_is_called_one(database: Engine, tmp_path: Path) -> None:
    audience = Audience(tmp_path)
    audience.arrive(EmailKind.BOOKING_CANCELLATION, 3, STUDENT)
    audience.look()
    audience.arrive(EmailKind.BOOKING_CANCELLATION, 3, STUDENT)
    assert audience.look()[0].startswith("doubled cancellation of lesson 3")


def test_planned_reminders_are_told_and_nobody_is_named(database: Engine, tmp_path: Path) -> None:
    audience = Audience(tmp_path)
    with db.transaction() as session:
        lesson = a_lesson(session, starts_at=NOON)
        for reader in (lesson.student, lesson.instructor):
            a_mail(session, about=lesson, kind=EmailKind.REMINDER_24H, to=reader)
    assert audience.look() == [
        f"reminder 24 h reminder planned for both sides of lesson {lesson.id}"
    ]


def test_takeovers_are_told(database: Engine, tmp_path: Path) -> None:
    audience = Audience(tmp_path)
    with db.transaction() as session:
        a_mail(session, about=a_lesson(session, starts_at=NOON)).uncertain = 2
    assert audience.look()[0].startswith("uncertain 2 ")
    assert audience.look() == []


def test_now_and_then_there_is_a_status(database: Engine, tmp_path: Path) -> None:
    audience = Audience(tmp_path)
    assert audience.look(STATUS_EVERY - 1) == []
    audience.arrive(EmailKind.REMINDER_1H, 5, INSTRUCTOR)
    assert "1 mails so far" in audience.look(1)
