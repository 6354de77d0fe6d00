"""What the page on load tests repeats of the scenarios is compared with them.

Read and not imported: locust patches the standard library of whoever imports it.
"""

import ast
from pathlib import Path

from app.routing import QUEUES
from loadtests import _profiles, _work

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "load-testing.md").read_text()
OF_FIFTY = 50


def classes() -> dict[str, dict[str, ast.expr]]:
    """What each class of a scenario or shape sets, by its name."""
    return {
        node.name: {
            target.id: statement.value
            for statement in node.body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
        for file in sorted((ROOT / "loadtests").glob("[!_]*.py"))
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }


def scenarios() -> dict[str, tuple[int, tuple[str, ...]]]:
    return {
        name: (ast.literal_eval(body["weight"]), ast.literal_eval(body["queues"]))
        for name, body in classes().items()
        if "queues" in body
    }


def rows(heading: str) -> list[list[str]]:
    """The cells of the table in a section of the page."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_names_each_scenario_with_its_part_and_its_queues() -> None:
    documented = {
        name: (int(part), tuple(queue.split()[0] for queue in queues.split(", ")))
        for name, part, queues in rows("What it sends")
    }
    missing = sorted(scenarios().keys() - documented.keys())
    assert missing == [], f"add {missing} to the table of docs/load-testing.md, What it sends"
    assert documented == scenarios()
    total = sum(part for part, _ in documented.values())
    assert total == OF_FIFTY, f"the weights of the users in loadtests add up to {total}"


def test_every_queue_is_loaded_by_a_scenario() -> None:
    loaded = {queue for _, queues in scenarios().values() for queue in queues}
    missing = sorted({spec.name for spec in QUEUES} - loaded)
    assert missing == [], f"add a user of {missing} to loadtests, as loadtests/cache_flood.py is"
    assert loaded <= {spec.name for spec in QUEUES}


def test_a_flood_is_of_the_queue_that_it_says() -> None:
    floods = {
        name: (ast.literal_eval(body["queues"]), getattr(_work, body["call"].attr).queue)
        for name, body in classes().items()
        if isinstance(body.get("call"), ast.Attribute)
    }
    flooded = {queue for _, queue in floods.values()}
    missing = [spec.name for spec in QUEUES if spec.bulk and spec.name not in flooded]
    assert missing == [], f"add a Flood of {missing} to loadtests, as loadtests/cache_flood.py is"
    assert all(queues == (queue,) for queues, queue in floods.values())


def test_the_page_names_each_shape() -> None:
    documented = {(option, name) for option, name, *_ in rows("Shapes")}
    assert documented == {(option, name) for option, (name, _) in _profiles.SHAPES.items()}
    assert {name for _, name in documented} <= set(classes())


def test_the_page_says_how_long_each_shape_takes() -> None:
    units = {"min": 60, "h": 3600}
    for option, *_, length in rows("Shapes"):
        number, unit = length.split()
        assert int(number) * units[unit] == _profiles.SHAPES[option][1].seconds
