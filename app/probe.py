"""``python -m app.probe URL [METRIC...]``: does a process of ours work? For health checks.

Exit status 0 where the page answers and each named metric is on it, 1 where not, with one
line that says what is wrong. A container asks this every few seconds, so it imports nothing
of the app: Celery alone takes longer to load than all of this.
"""

import sys
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

PATIENCE_SECONDS = 8.0
"""A metrics page waits for Redis and for the database, two seconds for each."""


def problem(url: str, metrics: Sequence[str] = ()) -> str | None:
    """What is wrong with the page at ``url`` (plain HTTP); ``None`` where nothing is.

    ``metrics`` are names of metrics in Prometheus' text format that must have a value there.
    """
    connection = None
    try:
        parts = urlsplit(url)
        connection = HTTPConnection(parts.netloc, timeout=PATIENCE_SECONDS)
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        page = answer.read().decode()
    # ValueError: not a URL, or a page that is not text.
    except (OSError, HTTPException, ValueError) as error:
        return f"{url} does not answer: {str(error) or type(error).__name__}"
    finally:
        if connection is not None:
            connection.close()
    if answer.status != 200:
        return f"{url} answers with status {answer.status}"
    found = {line.partition(" ")[0].partition("{")[0] for line in page.splitlines()}
    missing = [name for name in metrics if name not in found]
    return f"{url} does not tell {', '.join(missing)}" if missing else None


def main(arguments: Sequence[str]) -> int:
    """The command."""
    if not arguments:
        print("usage: python -m app.probe URL [METRIC...]", file=sys.stderr)  # noqa: T201
        return 2
    url, *metrics = arguments
    found = problem(url, metrics)
    if found is not None:
        print(found, file=sys.stderr)  # noqa: T201
    return 0 if found is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
