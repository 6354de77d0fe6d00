"""How many jobs the fault tests plan, and the table of what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # every run of pytest imports this module, and few strike a fault
    from scripts.faults.figures import Row
    from scripts.faults.strikes import Fault

ROWS: pytest.StashKey[list[Row]] = pytest.StashKey()
LINES = pytest.StashKey[list[str]]()


def _faults_named(text: str) -> tuple[Fault, ...]:
    from scripts.prove_faults import faults_named

    return faults_named(text)


def _positive(text: str) -> int:
    from scripts.arguments import positive

    return positive(text)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults",
        type=_faults_named,
        help="names of faults, with commas between, or 'short' for those of continuous "
        "integration; all where left out.",
    )
    parser.addoption(
        "--jobs",
        type=_positive,
        help="how many durable jobs the chosen fault tests plan in all; those of "
        "scripts/prove_faults.py where left out.",
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
        from scripts.faults.figures import table

        for line in table(rows):
            terminalreporter.write_line(line)
    for line in lines:
        terminalreporter.write_line(line)
