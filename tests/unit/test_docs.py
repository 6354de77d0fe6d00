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
from simulations.marketplace import timetable as oracle
from simulations.marketplace.invariants import INVARIANTS
from tests.exported import exported, full_name

ROOT = Path(__file__).parents[2]
PLACEHOLDER = "app/tasks/module.py"
"""Stands in the README for a module that the reader adds."""


def add_to(page: str, lines: list[str]) -> list[str]:
    """Return a line for each of ``lines`` that the page lacks, which says where to add it."""
    present = (ROOT / page).read_text().splitlines()
    return [f"add to {page}: {line}" for line in lines if line not in present]


def test_the_readmes_queues_are_those_of_the_table() -> None:
    lines = []
    for spec in QUEUES:
        name, tasks = spec.name, ", ".join(f"`app.tasks.{module}.*`" for module in spec.modules)
        if name == DEFAULT_QUEUE:
            name, tasks = f"{name} (default)", f"{tasks}, and whatever names no other"
        lines.append(f"| {name} | {spec.urgency} | {tasks} |")
    missing = add_to("README.md", lines)
    assert missing == [], "\n".join(missing)
    rows = [
        line
        for line in (ROOT / "README.md").read_text().splitlines()
        if re.match(r"\| [\w ()]+ \| \d \| `app\.tasks\.", line)
    ]
    assert rows == lines, "README.md, Queues: one row for each queue, in the order of QUEUES"


def test_the_readmes_schedule_is_the_oracles() -> None:
    rows = (ROOT / "README.md").read_text().partition("| what | when |\n|---|---|\n")[2]
    documented = []
    for line in rows.partition("\n\n")[0].splitlines():
        when = line.split("|")[2].strip()
        documented.append(
            f"0 {int(when[:2])}"
            if re.fullmatch(r"\d\d:00", when)
            else {
                "hourly": "0 *",
                "every 30 min": "*/30 *",
                "every 15 min": "*/15 *",
                "every 5 min": "*/5 *",
                "every minute": "* *",
            }[when]
        )
    expected = []
    for entry in oracle.README.values():
        step = 60 // len(entry.minutes)
        minute = {1: "*", 60: "0"}.get(step, f"*/{step}")
        hour = "*" if entry.hours == oracle.EVERY_HOUR else str(*entry.hours)
        expected.append(f"{minute} {hour}")
    assert documented == expected, (
        "change the table in README.md and README in simulations/marketplace/timetable.py together"
    )


def test_every_list_of_the_slow_queues_is_complete() -> None:
    """What a page tells an operator to type after ``-Q``, and what it says in prose."""
    bulk = [spec.name for spec in QUEUES if spec.bulk]
    urgent = {spec.name for spec in QUEUES if not spec.bulk}
    listed = re.compile(rf"\b{bulk[0]}(?:, ?\w+)+")
    wrong = [
        f"{named(page)}: write {','.join(bulk)} for {found}"
        for page in pages()
        for found in listed.findall(page.read_text())
        if not urgent & set(names := re.split(", ?", found)) and names != bulk
    ]
    assert wrong == [], "\n".join(wrong)


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
    config = (ROOT / "app" / "tasks" / "celery_config.py").read_text()
    reasons = re.findall(r"CatchUp\.[A-Z]+,  # (.+)\n", config)
    assert len(reasons) == len(BEAT_ENTRIES), (
        "app/tasks/celery_config.py: give the reason after each entry's CatchUp, as a comment"
    )
    lines = []
    for entry, reason in zip(BEAT_ENTRIES, reasons, strict=True):
        when = str(entry.schedule).removeprefix("<crontab: ").partition(" (")[0]
        cells = (f"`{entry.name}`", f"`{entry.task}`", f"`{when}`", entry.catch_up.value, reason)
        lines.append(f"| {' | '.join(cells)} |")
    missing = add_to("docs/schedule.md", lines)
    assert missing == [], "\n".join(missing)
    page = (ROOT / "docs" / "schedule.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == lines, "docs/schedule.md: one row for each entry, in the order of BEAT_ENTRIES"


def test_the_page_on_simulation_has_each_invariants_own_sentence() -> None:
    page = (ROOT / "docs" / "simulation.md").read_text()
    rows = [line.strip("|").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    documented = {row[0].strip(): row[1].strip() for row in rows if len(row) == 2}
    assert {each.name: each.sentence for each in INVARIANTS}.items() <= documented.items()
