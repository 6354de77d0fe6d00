"""What a fault of the real parts does to durable work: nothing is lost, nothing doubled."""

import pytest

from scripts.faults.rounds import suffer
from scripts.faults.stage import Stage
from scripts.faults.strikes import FAULTS, Fault
from scripts.prove_faults import JOBS
from tests.chaos_table import ROWS

pytestmark = pytest.mark.timeout(1200)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each fault that ``--faults`` names."""
    faults = metafunc.config.getoption("--faults") or FAULTS
    metafunc.parametrize("fault", faults, ids=[fault.name for fault in faults])


def test_nothing_is_lost_and_nothing_doubled(
    deployment: Stage, fault: Fault, faults_chosen: int, pytestconfig: pytest.Config
) -> None:
    jobs = -(-(pytestconfig.getoption("--jobs") or JOBS) // faults_chosen)
    row = suffer(deployment, fault, jobs)
    pytestconfig.stash[ROWS].append(row)
    assert (row.lost, row.doubled) == (0, 0)
    assert row.drained_seconds is not None
