"""What a running Prometheus answers, and what our dashboard asks it."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from typing import Any

from scripts.live.deployment import REPOSITORY
from scripts.live.ports import HOST

MONITORING = REPOSITORY / "scripts" / "monitoring"
ANSWER_SECONDS = 30.0


class Prometheus:
    """The HTTP API on a port of this machine."""

    def __init__(self, port: int, *, rate_interval: str = "10s") -> None:
        """``rate_interval`` is what a dashboard's rates are taken over: four scrapes or more."""
        self._port = port
        self._variables = {"$__rate_interval": rate_interval, "$queue": ".*"}

    def ask(self, path: str, **parameters: str) -> Any:
        """What the API answers; ``HTTPError`` where it understands a query not."""
        query = urllib.parse.urlencode(parameters)
        url = f"http://{HOST}:{self._port}/api/v1/{path}?{query}"
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:
            return json.load(answer)["data"]

    def samples(self, expression: str) -> list[Any]:
        """What an expression is now, the dashboard's variables filled in."""
        for name, value in self._variables.items():
            expression = expression.replace(name, value)
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def firing(self) -> set[str]:
        """The alerts."""
        return {each["metric"]["alertname"] for each in self.samples('ALERTS{alertstate="firing"}')}


def dashboard_queries() -> list[tuple[str, str]]:
    """Title and expression of each target of each panel."""
    board = json.loads((MONITORING / "dashboard.json").read_text())
    return [
        (panel["title"], target["expr"])
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]
