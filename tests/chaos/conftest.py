"""One deployment in containers for all fault tests; nothing of it is left."""

from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from scripts.faults.stage import NoImageError, Stage, build_image, stage
from scripts.live.compose import NoComposeError, find_compose
from tests.chaos_table import LINES


@pytest.fixture(scope="session")
def containers_can_be_had(missing_service: Callable[[str], NoReturn]) -> None:
    """Skip, or fail in CI, where there is no compose, or no image of ours."""
    try:
        find_compose()
        build_image()
    except (NoComposeError, NoImageError) as error:
        missing_service(str(error))


@pytest.fixture(scope="session")
def deployment(containers_can_be_had: None) -> Iterator[Stage]:
    """Three workers, two beats, Redis, PostgreSQL and a mail catcher, all healthy."""
    with stage() as made:
        yield made


@pytest.fixture
def faults_chosen(request: pytest.FixtureRequest) -> int:
    """How many tests of this run strike a fault; they share the jobs."""
    return sum("fault" in getattr(item, "fixturenames", ()) for item in request.session.items)


@pytest.fixture
def note(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Print a line below the table at the end of the run."""
    return pytestconfig.stash[LINES].append
