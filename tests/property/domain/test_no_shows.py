"""What becomes of a lesson depends on who checked in, and on nothing else."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis.strategies import (
    DrawFn,
    composite,
    integers,
    lists,
    none,
    sampled_from,
    timedeltas,
)

from app.domain.bookings import BookingRefusedError, BookingStatus, check_confirmation
from app.domain.no_shows import (
    CHECK_IN_OPENS,
    GRACE,
    Side,
    absent,
    check_check_in,
    outcome,
)
from tests.builders import NOON

MINUTE = timedelta(minutes=1)
LONG = timedelta(days=400)
"""More than any lesson and any outage."""

statuses = sampled_from(BookingStatus)
instants = timedeltas(-4 * GRACE, 16 * GRACE).map(lambda passed: NOON + passed)
check_ins = none() | instants


@dataclass(frozen=True)
class Lesson:
    """A lesson that begins at noon, as the marketplace would keep it."""

    minutes: int
    status: BookingStatus = BookingStatus.CONFIRMED
    student: datetime | None = None
    instructor: datetime | None = None

    @property
    def ends_at(self) -> datetime:
        return NOON + self.minutes * MINUTE

    def outcome(self, now: datetime) -> BookingStatus | None:
        return outcome(
            self.status,
            starts_at=NOON,
            ends_at=self.ends_at,
            student_checked_in_at=self.student,
            instructor_checked_in_at=self.instructor,
            now=now,
        )

    def settled(self, now: datetime) -> "Lesson":
        return replace(self, status=self.outcome(now) or self.status)

    def checked_in(self, side: Side, now: datetime) -> "Lesson":
        try:
            check_check_in(self.status, starts_at=NOON, ends_at=self.ends_at, now=now)
        except BookingRefusedError:
            return self
        return replace(self, **{side.value: now})


@composite
def lessons(draw: DrawFn) -> Lesson:
    return Lesson(draw(integers(1, 240)), draw(statuses), draw(check_ins), draw(check_ins))


@given(lesson=lessons(), now=instants)
def test_only_a_pending_or_confirmed_lesson_becomes_something(
    lesson: Lesson, now: datetime
) -> None:
    became = lesson.outcome(now)
    if lesson.status is BookingStatus.PENDING:
        assert became in {None, BookingStatus.CANCELLED}
    elif lesson.status is BookingStatus.CONFIRMED:
        assert became in {None, BookingStatus.COMPLETED, BookingStatus.NO_SHOW}
    else:
        assert became is None


@given(lesson=lessons())
def test_every_lesson_is_settled_once_and_for_all_in_the_end(lesson: Lesson) -> None:
    settled = lesson.settled(NOON + LONG)
    assert settled.status not in {BookingStatus.PENDING, BookingStatus.CONFIRMED}
    assert settled.outcome(NOON + 2 * LONG) is None


@given(lesson=lessons(), now=instants)
def test_no_lesson_is_settled_while_it_may_still_go_otherwise(
    lesson: Lesson, now: datetime
) -> None:
    """Who is on time can confirm a pending lesson, or check in, and is not overtaken."""
    became = lesson.outcome(now)
    if became is BookingStatus.CANCELLED:
        assert not can_confirm(lesson, now)
    elif became is BookingStatus.NO_SHOW:
        assert lesson.checked_in(Side.STUDENT, now) == lesson
    elif became is BookingStatus.COMPLETED:
        assert now >= lesson.ends_at
        assert not absent_from(lesson)


def can_confirm(lesson: Lesson, now: datetime) -> bool:
    try:
        return check_confirmation(lesson.status, starts_at=NOON, now=now)
    except BookingRefusedError:
        return False


def absent_from(lesson: Lesson) -> frozenset[Side]:
    return absent(student_checked_in_at=lesson.student, instructor_checked_in_at=lesson.instructor)


@given(
    minutes=integers(1, 240),
    attempts=lists(
        sampled_from([*Side, None]).flatmap(lambda who: instants.map(lambda at: (at, who)))
    ),
)
def test_the_outcome_is_the_same_whenever_and_however_often_the_task_runs(
    minutes: int, attempts: list[tuple[datetime, Side | None]]
) -> None:
    """``None`` among the attempts is a run of the task; an outage leaves one run, long after."""
    watched = unwatched = Lesson(minutes)
    for now, side in sorted(attempts, key=lambda attempt: attempt[0]):
        if side is None:
            watched = watched.settled(now)
        elif getattr(unwatched, side.value) is None:
            watched = watched.checked_in(side, now)
            unwatched = unwatched.checked_in(side, now)
    assert watched.settled(NOON + LONG).status is unwatched.settled(NOON + LONG).status


@given(lesson=lessons(), now=instants)
def test_a_check_in_is_taken_from_before_the_start_until_a_while_after_the_end(
    lesson: Lesson, now: datetime
) -> None:
    in_time = NOON - CHECK_IN_OPENS <= now < lesson.ends_at + GRACE
    taken = replace(lesson, student=None).checked_in(Side.STUDENT, now).student is not None
    assert taken == (in_time and lesson.status is BookingStatus.CONFIRMED)


@given(student=check_ins, instructor=check_ins)
def test_a_no_show_is_a_lesson_from_which_somebody_was_absent(
    student: datetime | None, instructor: datetime | None
) -> None:
    lesson = Lesson(60, student=student, instructor=instructor)
    settled = lesson.settled(NOON + LONG)
    assert (settled.status is BookingStatus.NO_SHOW) == bool(absent_from(lesson))
