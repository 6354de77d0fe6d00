"""How the number of users changes with time: ``--shape``, or the picker of the web UI.

Each reads ``--users``, ``--spawn-rate`` and ``--run-time`` for its height, pace and length.
"""

from __future__ import annotations

from typing import Any, ClassVar

from locust import LoadTestShape

from loadtests import _profiles
from loadtests._profiles import Profile

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
        classes = [
            each
            for each in environment.user_classes
            if stage.floods or not getattr(each, "floods", False)
        ]
        # Without floods as many people as with them.
        part = sum(each.weight for each in classes) / sum(
            each.weight for each in environment.user_classes
        )
        height = max(1, round(users * stage.users * part))
        return height, options.spawn_rate or max(1, users / RAMPS_UP_IN_SECONDS), classes


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
