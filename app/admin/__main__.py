"""``python -m app.admin``: what an operator asks and orders; one module a topic."""

import sys
from collections.abc import Callable, Sequence

from sqlalchemy.exc import SQLAlchemyError

from app import closed_pipe, db, schema
from app.admin import analytics, database, dead_letters, mails, outbox, queues, schedule
from app.admin.arguments import Parser, UsageError
from app.domain.errors import printable
from app.outbox.dead_letters import UnknownEntriesError
from app.services.queues import UnknownQueueError
from app.settings import SettingsError, warnings

CANNOT = 2
"""Exit status where a command was not run; one line on stderr says why."""


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit status."""
    parser = Parser(prog="python -m app.admin")
    topics = parser.add_subparsers(dest="topic", required=True)
    for topic in (analytics, database, dead_letters, mails, outbox, queues, schedule):
        topic.add_to(topics)
    try:
        _check_text(arguments)
        chosen = parser.parse_args(arguments)
        sys.stderr.writelines(f"{line}\n" for line in warnings())
        run: Callable[..., int] = chosen.run
        return run(chosen)
    except (
        UsageError,
        UnknownEntriesError,
        UnknownQueueError,
        SettingsError,
        schema.DatabaseNotReadyError,
    ) as error:
        print(printable(str(error)), file=sys.stderr)
    except SQLAlchemyError as error:
        print(f"the database did not do it, try again: {db.reason(error)}", file=sys.stderr)
    return CANNOT


def _check_text(arguments: Sequence[str]) -> None:
    """Raise ``UsageError`` for bytes that are not text in the terminal's encoding."""
    for word in arguments:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{word}: not UTF-8 text") from None


if __name__ == "__main__":
    sys.exit(closed_pipe.survive(lambda: main(sys.argv[1:])))
