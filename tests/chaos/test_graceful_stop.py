"""Who stops a worker in an orderly way loses nothing, and nobody waits for it long."""

from collections.abc import Callable

import pytest

from scripts.faults.stage import Stage
from scripts.faults.stops import bookings_objective, restart_one_by_one, stop_under_load
from tests.compose_file import seconds, services

pytestmark = pytest.mark.timeout(900)

STOPPED_JOBS = 120
BACKGROUND_JOBS = 1000


def test_a_stop_under_load_finishes_what_was_begun_and_leaves_the_rest(
    deployment: Stage, note: Callable[[str], None]
) -> None:
    stopped = stop_under_load(deployment, STOPPED_JOBS, name="stop")
    note(str(stopped))
    assert (stopped.lost, stopped.doubled) == (0, 0)
    assert stopped.exit_statuses == (0, 0, 0)
    assert (stopped.unfinished, stopped.held) == (0, 0)
    assert stopped.started_twice == 0
    assert stopped.seconds < seconds(services()["celery_worker"]["stop_grace_period"])


def test_a_rolling_restart_keeps_bookings_within_their_objective(
    deployment: Stage, note: Callable[[str], None]
) -> None:
    rolled = restart_one_by_one(deployment, name="rolling", background=BACKGROUND_JOBS)
    note(str(rolled))
    assert (rolled.lost, rolled.doubled) == (0, 0)
    assert rolled.bookings > rolled.seconds, "somebody booked all the while"
    assert rolled.p99 < bookings_objective()
