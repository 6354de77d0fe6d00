"""How a worker finds out that its database answers again."""

from time import monotonic

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from app import db
from app.tasks.outage import probe
from tests.database import on_sqlite


@on_sqlite
def test_a_probe_of_a_locked_database_holds_back_a_fork_for_a_second_at_most(
    database: Engine,
) -> None:
    """A worker that cannot fork stands still: it cannot replace a child."""
    other = db.create_database_engine(database.url.render_as_string(hide_password=False))
    with other.begin():
        began = monotonic()
        with pytest.raises(OperationalError):
            probe()
        assert monotonic() - began < 3
    other.dispose()
    probe()
