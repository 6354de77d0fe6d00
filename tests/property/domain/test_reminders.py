"""The reminders' windows tile the time before a lesson."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis.strategies import DrawFn, booleans, composite, datetimes, lists, timedeltas

from app.domain.email_kinds import EmailKind
from app.domain.reminders import LEADS, due_kind, is_open
from tests.builders import NOON

LONGEST = max(LEADS.values())
TICK = timedelta(microseconds=1)

STARTS_AT = NOON
LONG_BEFORE = STARTS_AT - 7 * LONGEST


@composite
def runs(draw: DrawFn) -> list[datetime]:
    """When the reminder task runs: any cadence, with outages and a clock that steps."""
    now = STARTS_AT - LONGEST - draw(timedeltas(-LONGEST, LONGEST))
    instants = []
    for pause, steps_back in draw(
        lists(
            composite(lambda d: (d(timedeltas(TICK, timedelta(hours=30))), d(booleans())))(),
            max_size=60,
        )
    ):
        now += -pause / 10 if steps_back else pause
        instants.append(now)
    return instants


def planned(at: list[datetime], *, confirmed_at: datetime) -> dict[EmailKind, datetime]:
    """What the runs plan, and when; each kind once, since its row is unique."""
    mails: dict[EmailKind, datetime] = {}
    for now in at:
        kind = due_kind(STARTS_AT, confirmed_at=confirmed_at, now=now)
        if kind is not None:
            mails.setdefault(kind, now)
    return mails


@given(at=runs())
def test_a_reminder_goes_out_if_and_only_if_a_run_falls_into_its_window(
    at: list[datetime],
) -> None:
    mails = planned(at, confirmed_at=LONG_BEFORE)
    for kind in LEADS:
        reached = any(is_open(kind, starts_at=STARTS_AT, now=now) for now in at)
        assert (kind in mails) == reached


@given(
    cadence=timedeltas(timedelta(minutes=1), min(LEADS.values())),
    phase=timedeltas(timedelta(0), timedelta(hours=1)),
)
def test_any_cadence_up_to_the_shortest_window_plans_every_reminder(
    cadence: timedelta, phase: timedelta
) -> None:
    first = STARTS_AT - LONGEST - phase
    at = [first + n * cadence for n in range((LONGEST + phase) // cadence + 1)]
    assert set(planned(at, confirmed_at=LONG_BEFORE)) == set(LEADS)


@given(at=runs())
def test_no_reminder_is_planned_once_the_lesson_has_begun(at: list[datetime]) -> None:
    assert all(now < STARTS_AT for now in planned(at, confirmed_at=LONG_BEFORE).values())


@given(at=runs())
def test_the_24_h_reminder_is_never_planned_when_the_1_h_one_is_due(at: list[datetime]) -> None:
    mails = planned(at, confirmed_at=LONG_BEFORE)
    begins = STARTS_AT - LEADS[EmailKind.REMINDER_1H]
    assert mails.get(EmailKind.REMINDER_24H, LONG_BEFORE) < begins


@given(now=datetimes(NOON.replace(tzinfo=None) - 2 * LONGEST, NOON.replace(tzinfo=None) + LONGEST))
def test_every_instant_of_the_last_day_lies_in_exactly_one_window(now: datetime) -> None:
    at = now.replace(tzinfo=NOON.tzinfo)
    open_windows = [kind for kind in LEADS if is_open(kind, starts_at=STARTS_AT, now=at)]
    assert len(open_windows) == (STARTS_AT - LONGEST <= at < STARTS_AT)


@given(at=runs(), before=timedeltas(timedelta(0), 2 * LONGEST))
def test_who_has_just_been_told_by_the_confirmation_is_not_reminded(
    at: list[datetime], before: timedelta
) -> None:
    confirmed_at = STARTS_AT - before
    for kind in planned(at, confirmed_at=confirmed_at):
        assert confirmed_at <= STARTS_AT - LEADS[kind]
