"""How many jobs the fault tests plan, and the table of what became of them."""

from __future__ import annotations

import pytest

from scripts.faults.figures import Row, table
from scripts.faults.strikes import FAULTS
from scripts.prove_faults import JOBS, faults_named

ROWS = pytest.StashKey[list[Row]]()
LINES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults",
        type=faults_named,
        default=FAULTS,
        help="names of faults, with commas between, or 'short' for those of continuous "
        "integration; all where left out.",
    )
    parser.addoption(
        "--jobs",
        type=int,
        default=JOBS,
        help=f"how many durable jobs the chosen fault tests plan in all ({JOBS}).",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []
    config.stash[LINES] = []


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table at the end of the run."""
    rows, lines = config.stash[ROWS], config.stash[LINES]
    if rows or lines:
        terminalreporter.section("faults in containers")
    if rows:
        for line in table(rows):
            terminalreporter.write_line(line)
    for line in lines:
        terminalreporter.write_line(line)
