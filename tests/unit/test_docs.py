"""What the documentation repeats of the code is compared with it."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.routing import DEFAULT_QUEUE, QUEUES
from app.settings import Settings
from app.tasks import metrics
from app.tasks.celery_config import BEAT_ENTRIES
from simulations.marketplace.invariants import INVARIANTS
from tests.exported import exported, full_name

ROOT = Path(__file__).parents[2]
PLACEHOLDER = "app/tasks/module.py"
"""Stands in the README for a module that the reader adds."""


def test_the_readmes_queues_are_those_of_the_table() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = [line.split("|")[1:4] for line in readme.splitlines() if "`app.tasks." in line]
    documented = {
        (name.split()[0], int(urgency), tasks.split("`")[1])
        for name, urgency, tasks in rows
        if urgency.strip().isdecimal()
    }
    assert documented == {
        (spec.name, spec.urgency, f"app.tasks.{spec.module}.*") for spec in QUEUES
    }
    assert f"{DEFAULT_QUEUE} (default)" in readme


def pages() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages(), ids=named)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    code = re.findall(r"`([^`\n]+)`", page.read_text())
    own = re.compile(r"(?:app|deploy|docs|scripts|tests|loadtests|simulations)/[\w./-]*")
    paths = {path[0].rstrip(".") for text in code if (path := own.match(text))}
    linked = {
        (page.parent / link).resolve() for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    }
    missing = {path for path in paths - {PLACEHOLDER} if not (ROOT / path).exists()}
    assert missing | {str(link) for link in linked if not link.exists()} == set()


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", pages(), ids=named)
def test_every_heading_that_a_page_links_to_exists(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text())
    missing = {
        f"{path}#{anchor}"
        for path, anchor in links
        if anchor not in anchors((page.parent / path) if path else page)
    }
    assert missing == set()


@pytest.mark.parametrize("page", pages(), ids=named)
def test_every_module_that_a_page_runs_exists(page: Path) -> None:
    modules = set(re.findall(r"python -m ((?:app|scripts|simulations)[\w.]*)", page.read_text()))
    assert {module for module in modules if find_spec(module) is None} == set()


def test_every_decision_is_listed_by_its_title() -> None:
    folder = ROOT / "docs" / "decisions"
    titles = []
    for page in sorted(folder.glob("0*.md")):
        number, _, words = page.read_text().splitlines()[0].removeprefix("# ").partition(". ")
        titles.append(f"{number}. [{words}]({page.name})")
    assert (folder / "README.md").read_text().splitlines()[4:] == titles


def test_every_setting_is_documented_with_its_default() -> None:
    lines = (ROOT / "docs" / "settings.md").read_text().splitlines()
    documented = [line for line in lines if line.startswith("| `")]
    expected = []
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = default.get_secret_value() if isinstance(default, SecretStr) else default
        expected.append(
            f"| `{name.upper()}` | `{shown}` | {' '.join(str(field.description).split())} |"
        )
    assert documented == expected


def test_every_metric_is_documented_as_the_page_has_it() -> None:
    lines = (ROOT / "docs" / "metrics.md").read_text().splitlines()
    documented = [line for line in lines if line.startswith("| `")]
    expected = []
    for metric, labels in exported():
        named = f" {', '.join(labels)} " if labels else " "
        expected.append(
            f"| `{full_name(metric)}` | {metric.type} |{named}| {metric.documentation} |"
        )
    assert documented == expected


def test_every_state_of_a_run_is_documented() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    states = text.partition("States of `celery_tasks_total`:")[2].partition("\n")[0]
    assert [state for state in metrics.TaskState if f"`{state}`" not in states] == []


def test_the_schedules_table_is_that_of_the_code() -> None:
    rows = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]]
        for line in (ROOT / "docs" / "schedule.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    assert [row[:4] for row in rows] == [
        [
            entry.name,
            entry.task,
            str(entry.schedule).removeprefix("<crontab: ").partition(" (")[0],
            entry.catch_up.value,
        ]
        for entry in BEAT_ENTRIES
    ]
    config = (ROOT / "app" / "tasks" / "celery_config.py").read_text()
    for row in rows:
        assert f"CatchUp.{row[3].upper()},  # {row[4]}\n" in config


def test_the_page_on_simulation_has_each_invariants_own_sentence() -> None:
    page = (ROOT / "docs" / "simulation.md").read_text()
    rows = [line.strip("|").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    documented = {row[0].strip(): row[1].strip() for row in rows if len(row) == 2}
    assert {each.name: each.sentence for each in INVARIANTS}.items() <= documented.items()
