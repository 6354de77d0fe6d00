"""Reads the compose files as docker-compose does, with no variable set."""

import re
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def read(name: str = "docker-compose.celery.yml") -> dict[str, Any]:
    """A compose file, each variable replaced by its default."""
    text = (REPOSITORY / name).read_text()
    found: dict[str, Any] = yaml.safe_load(VARIABLE.sub(lambda match: match[2] or "", text))
    return found


def services(name: str = "docker-compose.celery.yml") -> dict[str, dict[str, Any]]:
    """The services of a compose file."""
    found: dict[str, dict[str, Any]] = read(name)["services"]
    return found


def seconds(duration: str) -> int:
    """Of a duration such as ``11m`` or ``1m30s``."""
    units = {"h": 3600, "m": 60, "s": 1}
    parts = re.findall(r"(\d+)([hms])", duration)
    assert "".join(number + unit for number, unit in parts) == duration, duration
    return sum(int(number) * units[unit] for number, unit in parts)
