import pytest

from loadtests._profiles import FLOOD_UNDER_BOOKINGS, MORNING_STORM, SOAK, STEADY, Kind, Profile

ALL = pytest.mark.parametrize(
    "profile",
    [STEADY, MORNING_STORM, FLOOD_UNDER_BOOKINGS, SOAK],
    ids=["steady", "morning storm", "flood under bookings", "soak"],
)


@ALL
def test_a_profile_has_a_stage_at_every_moment_until_its_end_and_none_after(
    profile: Profile,
) -> None:
    assert all(profile.stage(second, seconds=100) is not None for second in range(100))
    assert profile.stage(100, seconds=100) is None


@ALL
def test_a_profile_reaches_all_its_users_and_never_more(profile: Profile) -> None:
    assert max(stage.users for stage in profile.stages) == 1.0


def test_the_storm_comes_out_of_the_quiet_and_goes_over() -> None:
    users = [stage.users for stage in MORNING_STORM.stages]
    top = users.index(max(users))
    assert users[: top + 1] == sorted(users[: top + 1])
    assert users[top:] == sorted(users[top:], reverse=True)
    assert users[0] == users[-1] == 0.1


def test_the_flood_comes_under_bookings_that_were_there_and_stay() -> None:
    kinds = [stage.adds for stage in FLOOD_UNDER_BOOKINGS.stages]
    assert kinds == [Kind.PEOPLE, Kind.FLOODS, Kind.PEOPLE]
    assert {stage.users for stage in FLOOD_UNDER_BOOKINGS.stages} == {1.0}
