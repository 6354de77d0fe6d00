"""How the number of users changes with time: ``--shape``, or the picker of the web UI.

Each reads ``--users``, ``--spawn-rate`` and ``--run-time`` for its height, pace and length.
"""

from __future__ import annotations

from typing import Any, ClassVar

from locust import LoadTestShape

from loadtests import _profiles
from loadtests._profiles import Kind, Profile

RAMPS_UP_IN_SECONDS = 5
"""Where nobody gives a spawn rate."""


class _Shape(LoadTestShape):
    abstract = True
    use_common_options = True
    profile: ClassVar[Profile]

    def tick(self) -> tuple[int, float, list[Any]] | None:
        """Locust asks every second for the number of users, the pace and the classes."""
        assert self.runner is not None  # noqa: S101 - who else asks
        environment = self.runner.environment
        options: Any = environment.parsed_options
        elapsed: float = self.get_run_time()  # type: ignore[no-untyped-call]
        stage = self.profile.stage(elapsed, seconds=options.run_time or self.profile.seconds)
        if stage is None:
            return None
        users = options.num_users or self.profile.users
        known = environment.user_classes
        floods = [each for each in known if getattr(each, "floods", False)]
        people = [each for each in known if each not in floods]
        classes = {Kind.PEOPLE: people, Kind.FLOODS: floods, Kind.EVERYBODY: known}[stage.adds]
        part = 1.0
        if stage.adds is Kind.PEOPLE and people:
            # As many people as there will be under the floods.
            part = sum(each.weight for each in people) / sum(each.weight for each in known)
        height = max(1, round(users * stage.users * part))
        pace = options.spawn_rate or max(1, users / RAMPS_UP_IN_SECONDS)
        return height, pace, classes or known


class Steady(_Shape):
    """As many users from the beginning to the end."""

    profile = _profiles.STEADY


class MorningStorm(_Shape):
    """A quiet night, everybody at once, and an afternoon."""

    profile = _profiles.MORNING_STORM


class FloodUnderBookings(_Shape):
    """The same people before, under and after a flood of bulk work."""

    profile = _profiles.FLOOD_UNDER_BOOKINGS


class Soak(_Shape):
    """Hours of the same load."""

    profile = _profiles.SOAK
