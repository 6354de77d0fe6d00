import pytest

from app.domain.bookings import BookingStatus
from app.domain.no_shows import Side
from app.domain.notification_kinds import NotificationKind
from app.domain.notifications import TRUE_OF, Text, booking_text

ABOUT_LESSONS = sorted(set(NotificationKind) - {NotificationKind.BROADCAST})
BOTH = frozenset(Side)


def told(kind: NotificationKind, reader: Side, absent: frozenset[Side] = frozenset()) -> Text:
    return booking_text(
        kind, reader=reader, absent=absent, service_name="Guitar", other_name="Bob Instructor"
    )


@pytest.mark.parametrize("kind", ABOUT_LESSONS)
def test_a_reader_sees_what_happened_to_which_lesson(kind: NotificationKind) -> None:
    text = told(kind, Side.STUDENT, BOTH)
    assert text.title
    assert text.body == "Guitar with Bob Instructor"


def test_no_two_events_read_alike() -> None:
    titles = [told(kind, Side.STUDENT, BOTH).title for kind in ABOUT_LESSONS]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(
    ("reader", "absent", "title"),
    [
        (Side.STUDENT, BOTH, "Nobody checked in to your lesson"),
        (Side.INSTRUCTOR, BOTH, "Nobody checked in to your lesson"),
        (Side.STUDENT, frozenset({Side.STUDENT}), "You did not check in to your lesson"),
        (Side.INSTRUCTOR, frozenset({Side.INSTRUCTOR}), "You did not check in to your lesson"),
        (Side.STUDENT, frozenset({Side.INSTRUCTOR}), "Your instructor did not come"),
        (Side.INSTRUCTOR, frozenset({Side.STUDENT}), "Your student did not come"),
    ],
)
def test_a_no_show_says_who_did_not_come(reader: Side, absent: frozenset[Side], title: str) -> None:
    assert told(NotificationKind.BOOKING_NO_SHOW, reader, absent).title == title


@pytest.mark.parametrize("kind", ABOUT_LESSONS)
def test_every_kind_about_a_lesson_says_when_it_is_true(kind: NotificationKind) -> None:
    assert TRUE_OF[kind]
    assert BookingStatus.PENDING not in TRUE_OF[kind]


def test_a_cancelled_lesson_is_not_told_of_as_confirmed() -> None:
    assert BookingStatus.CANCELLED not in TRUE_OF[NotificationKind.BOOKING_CONFIRMED]
