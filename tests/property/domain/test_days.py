from datetime import date

from hypothesis import given
from hypothesis.strategies import dates

from app.domain import days


@given(day=dates())
def test_the_number_of_a_day_leads_back_to_it(day: date) -> None:
    assert days.numbered(days.number_of(day)) == day
