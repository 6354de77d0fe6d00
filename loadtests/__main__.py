"""Take away what a load test through the services has left that was killed.

    DATABASE_URL=postgresql://... python -m loadtests clean --host redis://...

Exit status: 0 done, also where there was nothing; 1 something is left; 2 bad input.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from app import clock
from loadtests import _database, _made_up_people
from loadtests._errors import LoadTestError
from loadtests._target import settings_for
from simulations.arguments import Parser

IDLE = timedelta(minutes=5)
"""A load test that has planned nothing for so long is not under way."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status. Raises ``SystemExit`` for bad input."""
    parser = Parser(
        prog="python -m loadtests",
        description="Take away what load tests have left that were killed. The load tests "
        "themselves: locust -f loadtests",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    clean = commands.add_parser(
        "clean", help="delete the made-up people of load tests that were killed, and all of theirs"
    )
    clean.add_argument("--host", required=True, help="the deployment's Redis, as for locust")
    options = parser.parse_args(arguments)
    try:
        if not _database.is_named():
            raise LoadTestError("DATABASE_URL is missing: name the deployment's database")
        settings = settings_for(options.host)
        _database.check()
    except LoadTestError as error:
        parser.error(str(error))
    try:
        active, killed = _made_up_people.load_tests(active_since=clock.utcnow() - IDLE)
        for trace_id in killed:
            _made_up_people.move_out(trace_id, settings)
            print(f"removed what load test {trace_id} left")
    except (LoadTestError, SQLAlchemyError) as error:
        print(error, file=sys.stderr)
        return 1
    for trace_id, planned in active.items():
        print(
            f"left alone load test {trace_id}, which may be under way: if not, say this again "
            f"after {planned + IDLE:%Y-%m-%d %H:%M:%S} UTC"
        )
    if not active and not killed:
        print("no load test left anything")
    return 1 if active else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
