"""How deep lists and objects may be nested in each other."""

from collections.abc import Mapping
from typing import Any

DEEPEST = 64
"""Levels of a message's body. Python reads more, and fails with them elsewhere."""


def is_nested_too_deep(value: Any, *, brackets: int) -> bool:
    """Whether ``value`` is deeper than ``DEEPEST``; ``brackets`` counts those its text opens."""
    if brackets <= DEEPEST:
        return False  # nearly every message
    level = [value]
    for _ in range(DEEPEST + 1):
        children = (
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, Mapping) else parent)
        )
        level = [child for child in children if isinstance(child, list | tuple | Mapping)]
        if not level:
            return False
    return True
