"""The rules and the dashboard that operators are given ask for what the pages have."""

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from app.models import OutboxState
from app.routing import QUEUES
from app.tasks.metrics import TaskState
from tests.exported import exported, full_name
from tests.promql import Selector, grouped_by, selectors

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "scripts" / "monitoring"
OF_EVERY_SERIES = {"instance", "job"}
OF_A_PROCESS = {"process_start_time_seconds", "process_resident_memory_bytes"}
PROMETHEUS_OWN = {"ALERTS": {"alertname", "alertstate"}}
SUFFIXES = ("_bucket", "_count", "_sum")

VALUES = {
    "queue": {spec.name for spec in QUEUES} | {"$queue"},
    "stage": {"published", "unpublished", "later"},
    "state": {*TaskState, *OutboxState, "busy", "free"},
    "alertstate": {"firing"},
}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
    return loaded


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"panel: {panel['title']}", target["expr"]
    for annotation in dashboard()["annotations"]["list"]:
        yield f"annotation: {annotation['name']}", annotation["expr"]


def labels_by_metric() -> dict[str, set[str]]:
    known: dict[str, set[str]] = {name: set() for name in OF_A_PROCESS} | PROMETHEUS_OWN
    for metric, labels in exported():
        name = full_name(metric)
        if metric.type == "histogram":
            known |= {f"{name}{suffix}": {*labels, "le"} for suffix in SUFFIXES}
        else:
            known[name] = set(labels)
    return known


@pytest.fixture
def promtool(missing_service: Callable[[str], NoReturn]) -> Callable[..., str]:
    path = shutil.which("promtool")
    if path is None:
        missing_service("no promtool on the PATH: apt-get install prometheus")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(path), *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_rules_are_as_prometheus_wants_them(promtool: Callable[..., str]) -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", "alerts.yml")


def test_each_alert_fires_in_its_situation_and_is_silent_in_a_healthy_one(
    promtool: Callable[..., str],
) -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


def test_no_alert_is_left_out_of_those_tests() -> None:
    fired, silent = set(), Counter[str]()
    for test in yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]:
        for check in test["alert_rule_test"]:
            if check["exp_alerts"]:
                fired.add(check["alertname"])
            else:
                silent[check["alertname"]] += 1
    names = {rule["alert"] for rule in rules()}
    assert fired == names
    # In the healthy situation at two instants, and before it fires in its own.
    assert {name for name in names if silent[name] < 3} == set()


@pytest.mark.parametrize("expression", [pytest.param(text, id=where) for where, text in queries()])
def test_a_query_names_metrics_and_labels_that_are_exported(expression: str) -> None:
    known = labels_by_metric()
    found = selectors(expression)
    assert found
    assert {each.metric for each in found} <= set(known)
    for each in found:
        assert {label for label, _ in each.matches} <= known[each.metric] | OF_EVERY_SERIES
        assert [
            (label, value)
            for label, value in each.matches
            if value not in VALUES.get(label, {value})
        ] == []
    labels = set().union(*(known[each.metric] for each in found)) | OF_EVERY_SERIES
    assert grouped_by(expression) <= labels


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"].endswith((".", "?"))
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor == rule["alert"].lower()
    assert f"\n### {rule['alert']}\n" in (ROOT / page).read_text()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_summary_uses_labels_that_its_alert_has(rule: dict[str, Any]) -> None:
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    known = labels_by_metric()
    matched = {each.metric for each in selectors(rule["expr"])}
    assert used <= grouped_by(rule["expr"]) | set().union(*(known[name] for name in matched))


def test_every_section_on_an_alert_has_its_alert() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    assert re.findall(r"^### (\w+)$", section, re.MULTILINE) == [rule["alert"] for rule in rules()]


def test_the_dashboards_numbers_are_its_own() -> None:
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(ids) == len(set(ids))


def test_no_panel_lies_on_another() -> None:
    taken = Counter(
        (x, y)
        for panel in dashboard()["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    assert max(taken.values()) == 1
    assert max(x for x, _ in taken) < 24


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_asks_the_prometheus_that_is_chosen(panel: dict[str, Any]) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert [panel["datasource"], *(target["datasource"] for target in panel["targets"])] == [
        chosen
    ] * (len(panel["targets"]) + 1)
    refs = [target["refId"] for target in panel["targets"]]
    assert len(refs) == len(set(refs))
    assert panel["fieldConfig"]["defaults"]["unit"]


def test_the_dashboard_lets_one_choose_prometheus_and_queues() -> None:
    found = {each["name"]: each["type"] for each in dashboard()["templating"]["list"]}
    assert found == {"datasource": "datasource", "queue": "query"}


def test_the_dashboard_shows_every_metric() -> None:
    asked = {each.metric for _, expression in queries() for each in selectors(expression)}
    names = {
        f"{full_name(metric)}_bucket" if metric.type == "histogram" else full_name(metric)
        for metric, _ in exported()
    }
    assert names - asked == set()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("max by (queue) (a_b) > 3", [Selector("a_b", ())]),
        ('rate(a{x="y"}[5m]) and on () b', [Selector("a", (("x", "y"),)), Selector("b", ())]),
        (
            'a{x=~"y|z"} unless a offset 15m',
            [Selector("a", (("x", "y"), ("x", "z"))), Selector("a", ())],
        ),
    ],
)
def test_what_an_expression_asks_for(expression: str, expected: list[Selector]) -> None:
    assert selectors(expression) == expected
