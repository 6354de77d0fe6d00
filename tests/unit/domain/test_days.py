from datetime import date

import pytest

from app.domain import days
from app.domain.days import WrongDayError


def test_a_task_reads_its_day() -> None:
    assert days.parse("2026-11-01") == date(2026, 11, 1)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-02-30", "20261101", "2026-W44-7", "2026-11-01T00:00"]
)
def test_what_is_no_day_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(WrongDayError, match=r"is no day: pass a date such as 2026-11-01$"):
        days.parse(text)


def test_a_week_begins_on_a_monday() -> None:
    assert days.parse_monday("2026-11-02") == date(2026, 11, 2)


def test_another_weekday_is_refused_with_the_monday_of_its_week() -> None:
    with pytest.raises(WrongDayError) as refused:
        days.parse_monday("2026-11-08")
    assert str(refused.value) == (
        "2026-11-08 is a Sunday: pass the Monday on which the week begins, such as 2026-11-02"
    )


def test_a_day_as_a_number_reads_like_the_date() -> None:
    assert days.number_of(date(2026, 11, 1)) == 20261101
