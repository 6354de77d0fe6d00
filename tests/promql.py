"""What a PromQL expression asks for: its metrics, the labels it matches and groups by.

No parser: it knows the forms in ``scripts/monitoring``, and takes what it does not know for
a metric, which the tests then do not find.
"""

import re
from dataclasses import dataclass

GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
SELECTOR = re.compile(r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()\s*(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
DURATION = re.compile(r"\[[^\]]*\]|\boffset \w+")
WORDS = {"and", "or", "unless", "bool"}


@dataclass(frozen=True)
class Selector:
    metric: str
    matches: tuple[tuple[str, str], ...]
    """Label and value, each alternative of a regular expression on its own."""


def grouped_by(expression: str) -> set[str]:
    """The labels in ``by (...)`` and the like."""
    found = ",".join(GROUPING.findall(expression))
    return {label.strip() for label in found.split(",") if label.strip()}


def selectors(expression: str) -> list[Selector]:
    """Each metric with its matchers."""
    bare = DURATION.sub("", GROUPING.sub("", expression))
    found = []
    for name, matchers in SELECTOR.findall(bare):
        if name not in WORDS:
            pairs = MATCHER.findall(matchers)
            matches = tuple((label, one) for label, value in pairs for one in value.split("|"))
            found.append(Selector(name, matches))
    return found
