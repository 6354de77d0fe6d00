from collections.abc import Iterator

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from app import db


@pytest.fixture
def session(database: Engine) -> Iterator[Session]:
    """One transaction around the whole test, as a task's body has it."""
    with db.transaction() as opened:
        yield opened
