"""Locust's page: it says what is wrong before a test begins, and shows the queues."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from flask import jsonify, request
from locust.env import Environment
from locust.runners import MasterRunner

from loadtests import _coordination, _objectives, _report
from loadtests._errors import LoadTestError

logger = logging.getLogger("loadtests")

TAB = "by-queue"


def refuse_bad_input(web_ui: Any, environment: Environment) -> None:
    """Let the page say what is wrong, before locust starts anything."""

    def before_swarm() -> Any:
        running = environment.runner is not None and environment.runner.user_count
        if request.method != "POST" or not request.path.endswith("/swarm") or running:
            return None
        wanted = request.form.getlist("user_classes")
        available: Any = environment.available_user_classes or {}
        if wanted:
            environment.user_classes = [available[name] for name in wanted if name in available]
        try:
            _objectives.load(
                Path(request.form.get("objectives") or environment.parsed_options.objectives)  # type: ignore[union-attr]
            )
            runner = environment.runner
            if isinstance(runner, MasterRunner) and not runner.worker_count:
                raise LoadTestError(
                    "no worker of locust is connected: start one with --worker, or wait a few "
                    "seconds after a test"
                )
            environment.host = request.form.get("host", environment.host)
            _coordination.announce(environment)
        except LoadTestError as error:
            logger.error("%s", error)
            return jsonify({"success": False, "message": str(error), "host": environment.host})
        return None

    web_ui.app.before_request(before_swarm)


def show_queues(web_ui: Any, environment: Environment) -> None:
    """Give the web UI a tab with the same table (locust docs, "Extending the Web UI")."""
    structure = [{"key": key, "title": title} for key, title in _report.columns()]
    web_ui.template_args |= {
        "extended_tabs": [{"title": "Queues", "key": TAB}],
        "extended_tables": [{"key": TAB, "structure": structure}],
        "extended_csv_files": [],
    }

    def with_queues(response: Any) -> Any:
        if request.path.endswith("/stats/requests") and response.is_json:
            told = response.get_json() | {
                "extended_stats": [{"key": TAB, "data": _report.rows(environment)}]
            }
            response.set_data(json.dumps(told))
        return response

    web_ui.app.after_request(with_queues)
