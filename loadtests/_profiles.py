"""How many users there are when: shapes as data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    EVERYBODY = auto()
    PEOPLE = auto()
    FLOODS = auto()


@dataclass(frozen=True)
class Stage:
    until: float
    """The part of the whole time (0 to 1) at which it ends."""
    users: float
    """The part of all users (0 to 1); while only people act, of all people."""
    adds: Kind = Kind.EVERYBODY
    """Who comes, where more come; who came last goes first, where there are too many."""


@dataclass(frozen=True)
class Profile:
    stages: tuple[Stage, ...]
    seconds: int
    """How long it takes where nobody says otherwise."""
    users: int = 50
    """How many at the most, where nobody says otherwise."""

    def stage(self, elapsed: float, *, seconds: float) -> Stage | None:
        """The one ``elapsed`` seconds after the start; ``None`` when the time is up."""
        part = elapsed / seconds
        return next((stage for stage in self.stages if part < stage.until), None)


STEADY = Profile((Stage(1.0, 1.0),), seconds=300)
# Few at night; then everybody wakes up, and most of it is over before noon.
MORNING_STORM = Profile(
    (
        Stage(0.2, 0.1),
        Stage(0.3, 0.5),
        Stage(0.6, 1.0),
        Stage(0.75, 0.4),
        Stage(1.0, 0.1),
    ),
    seconds=600,
)
# The same bookings before, under and after the flood.
FLOOD_UNDER_BOOKINGS = Profile(
    (
        Stage(0.25, 1.0, Kind.PEOPLE),
        Stage(0.75, 1.0, Kind.FLOODS),
        Stage(1.0, 1.0, Kind.PEOPLE),
    ),
    seconds=180,
)
# Leaks and slow growth show only in hours.
SOAK = Profile((Stage(0.02, 0.5), Stage(1.0, 1.0)), seconds=4 * 3600)

SHAPES = {
    "steady": ("Steady", STEADY),
    "morning-storm": ("MorningStorm", MORNING_STORM),
    "flood": ("FloodUnderBookings", FLOOD_UNDER_BOOKINGS),
    "soak": ("Soak", SOAK),
}
"""Classes in ``loadtests/shapes.py``, and what they do, by their names on the command line."""
