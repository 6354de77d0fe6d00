"""What a load test does at locust's own events: options, checks, start, end, verdict.

Locust calls a process that only coordinates the *master*; one that runs users a *worker*
(Celery's workers are called Celery workers here); without ``--master`` and ``--worker`` one
process is both.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import gevent
from flask import jsonify, request
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner

from app import outbox
from loadtests import _marketplace, _objectives, _report, _target
from loadtests._errors import LoadTestError
from loadtests._ledger import Measure, Record
from loadtests._load_run import BROKEN, LoadRun
from loadtests._profiles import FLOOD_UNDER_BOOKINGS, MORNING_STORM, SOAK, STEADY

logger = logging.getLogger("loadtests")

BAD_INPUT = 2
"""Exit status."""
MISSED = 1
"""Exit status where an objective was missed."""
SHAPES = {
    "steady": ("Steady", STEADY),
    "morning-storm": ("MorningStorm", MORNING_STORM),
    "flood": ("FloodUnderBookings", FLOOD_UNDER_BOOKINGS),
    "soak": ("Soak", SOAK),
}
WIND_DOWN, WOUND_DOWN, FAILED = "load-test-wind-down", "load-test-wound-down", "load-test-failed"
"""Messages between master and workers."""
CLEANING_SECONDS = 60.0
"""So long a worker may take beyond its patience, until the master goes on without it."""

PAGE_SECONDS = 4.0
"""Locust's page asks every two seconds for figures that are up to two seconds old."""

_load_run: LoadRun | None = None
_coordinating = ExitStack()
"""What the coordinating process undoes at the end of a test."""
_announced: str | None = None
"""The host of the test that may begin."""


def load_run() -> LoadRun | None:
    """This process's part of the test that is under way."""
    return _load_run


def _options(parser: LocustArgumentParser, **_: Any) -> None:
    parser.add_argument(
        "--objectives",
        metavar="FILE",
        default=str(_objectives.DEFAULT_FILE),
        help="TOML file with the times that are good enough; a missed one makes exit status 1",
    )
    parser.add_argument(
        "--shape",
        choices=sorted(SHAPES),
        include_in_web_ui=False,  # the picker has them
        help="Let the number of users change with time: --users at the most, --run-time long",
    )
    parser.add_argument(
        "--backlog",
        metavar="N",
        type=_positive,
        default=100,
        help="Messages that each user of a flood keeps waiting while it floods",
    )
    parser.add_argument(
        "--patience",
        metavar="SECONDS",
        type=_positive,
        default=10,
        help="How long what is under way at the end is waited for, before it is taken back",
    )
    # Anybody who reaches the page can send load to any host.
    parser.set_defaults(class_picker=True, web_host="127.0.0.1", stop_timeout="10")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _prepare(environment: Environment, runner: Runner, web_ui: Any, **_: Any) -> None:
    options: Any = environment.parsed_options
    if isinstance(runner, WorkerRunner):
        runner.register_message(WIND_DOWN, _wind_down, concurrent=True)
        return
    if isinstance(runner, MasterRunner):
        runner.register_message(WOUND_DOWN, _wound_down)
        runner.register_message(FAILED, _worker_failed, concurrent=True)
    environment.locustfile = "loadtests"  # else that of the first scenario, in all reports
    _choose_shape(environment, runner)
    try:
        _objectives.load(Path(options.objectives))
        if options.headless or options.autostart:
            _announce(environment)
    except LoadTestError as error:
        _give_up(error)
    if web_ui is not None:
        _refuse_bad_input(web_ui, environment)
        _report.show_in(web_ui, environment)


def _choose_shape(environment: Environment, runner: Runner) -> None:
    # Locust takes the first that it finds, whether or not anybody wants one.
    chosen = environment.parsed_options.shape  # type: ignore[union-attr]
    available: Any = environment.available_shape_classes or {}
    environment.shape_class = None
    if chosen is None:
        return
    name, profile = SHAPES[chosen]
    environment.shape_class = available.get(name)
    if environment.shape_class is None:
        _give_up(LoadTestError("--shape needs loadtests/shapes.py: name the folder, -f loadtests"))
    environment.shape_class.runner = runner
    options: Any = environment.parsed_options
    options.num_users = options.num_users or profile.users


def _give_up(error: LoadTestError) -> NoReturn:
    sys.stderr.write(f"{error}\n")
    sys.exit(BAD_INPUT)


def _announce(environment: Environment) -> None:
    """Make sure that a test can begin, and say what it will send; once for each test.

    Raises ``LoadTestError``.
    """
    global _announced
    if _announced is not None and _announced == environment.host:
        return
    _let_go()
    options: Any = environment.parsed_options
    options.through_services = _marketplace.is_wanted()
    target = _target.connect(environment.host)
    _coordinating.callback(target.close)
    try:
        workers = target.check_workers(_queues(environment))
        if options.through_services:
            outbox.attach(target.broker)
            try:
                _marketplace.verify()
            finally:
                outbox.attach(None)
        told = _coordinating.enter_context(target.task_events())
    except BROKEN as error:
        _let_go()
        raise LoadTestError(f"--host: {target.name} does not answer: {error}") from error
    except LoadTestError:
        _let_go()
        raise
    _report.announce(target, environment, workers=workers, told=told)
    _announced = environment.host


def _let_go() -> None:
    global _announced
    _announced = None
    try:
        _coordinating.close()
    except BROKEN as error:
        logger.error("Celery workers that were told to send events still do: %s", error)


def _queues(environment: Environment) -> set[str]:
    return {queue for each in environment.user_classes for queue in getattr(each, "queues", ())}


def _refuse_bad_input(web_ui: Any, environment: Environment) -> None:
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
            environment.host = request.form.get("host", environment.host)
            _announce(environment)
        except LoadTestError as error:
            logger.error("%s", error)
            return jsonify({"success": False, "message": str(error), "host": environment.host})
        return None

    web_ui.app.before_request(before_swarm)


def _start(environment: Environment, **_: Any) -> None:
    global _load_run
    _load_run = None
    runner = environment.runner
    options: Any = environment.parsed_options
    try:
        if not isinstance(runner, WorkerRunner):
            _announce(environment)
        if not isinstance(runner, MasterRunner):
            if options.through_services and not _marketplace.is_wanted():
                raise LoadTestError(
                    "DATABASE_URL is set where the master runs, and not where this worker does"
                )
            _load_run = LoadRun(
                _target.connect(environment.host),
                _record_in(environment),
                through_services=options.through_services,
            )
    except (LoadTestError, *BROKEN) as error:
        _cannot_start(environment, str(error))


def _cannot_start(environment: Environment, error: str) -> None:
    """End a test whose users are about to be spawned; those do nothing without a load run."""
    runner = environment.runner
    assert runner is not None  # noqa: S101 - it has fired this event
    logger.error("%s", error)
    environment.process_exit_code = BAD_INPUT
    if isinstance(runner, WorkerRunner):
        runner.send_message(FAILED, {"error": error})
    else:
        _end_early(environment)


def _end_early(environment: Environment) -> None:
    runner = environment.runner
    headless = environment.parsed_options.headless  # type: ignore[union-attr]
    # Not from here: it ends the greenlet that it is called in.
    gevent.spawn(runner.quit if headless else runner.stop)  # type: ignore[union-attr]


def _worker_failed(environment: Environment, msg: Any, **_: Any) -> None:
    logger.error("a worker cannot start: %s", msg.data["error"])
    environment.process_exit_code = BAD_INPUT
    _end_early(environment)


def _record_in(environment: Environment) -> Record:
    fire: Any = environment.events.request.fire

    def record(measure: Measure, queue: str, seconds: float | None, error: str | None) -> None:
        fire(
            request_type=str(measure),
            name=queue,
            response_time=None if seconds is None else 1000 * seconds,
            response_length=0,
            exception=LoadTestError(error) if error else None,
            context={},
        )

    return record


def _finish(environment: Environment, **_: Any) -> None:
    """Come to the end before the users are stopped: so long locust's page asks for figures.

    They do nothing any more as soon as there is no load run.
    """
    global _load_run
    runner = environment.runner
    finished, _load_run = _load_run, None
    if finished is not None:
        finished.finish(patience=environment.parsed_options.patience)  # type: ignore[union-attr]
    if isinstance(runner, MasterRunner):
        _wind_workers_down(environment, runner)
    elif finished is None:
        return
    if environment.web_ui is not None:
        time.sleep(PAGE_SECONDS)


def _stop(environment: Environment, **_: Any) -> None:
    _let_go()
    if not isinstance(environment.runner, WorkerRunner):
        for line in _report.verdict(environment):
            logger.info("%s", line)


# The master ends a test by telling its workers to quit, and waits half a second for their last
# figures. They need longer: so they are asked to come to their end before.

_winding_down: set[str] = set()


def _wind_workers_down(environment: Environment, runner: MasterRunner) -> None:
    _winding_down.clear()
    _winding_down.update(client.id for client in runner.clients.all)
    runner.send_message(WIND_DOWN)
    patience = environment.parsed_options.patience  # type: ignore[union-attr]
    deadline = time.monotonic() + 2 * patience + CLEANING_SECONDS
    while _winding_down & set(runner.clients) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left := _winding_down & set(runner.clients):
        logger.error("%d workers did not come to their end: their figures are not whole", len(left))


def _wind_down(environment: Environment, **_: Any) -> None:
    runner = environment.runner
    assert isinstance(runner, WorkerRunner)  # noqa: S101 - who else is told
    runner.stop()
    runner._send_stats()
    runner.send_message(WOUND_DOWN)


def _wound_down(msg: Any, **_: Any) -> None:
    _winding_down.discard(msg.node_id)


def _judge(environment: Environment, **_: Any) -> None:
    runner = environment.runner
    if runner is None or isinstance(runner, WorkerRunner):
        return
    # After Ctrl-C locust asks for the exit status before it stops the test.
    runner.stop()
    _let_go()
    if environment.process_exit_code is None and _report.misses(environment):
        environment.process_exit_code = MISSED


def _tell(**_: Any) -> None:
    _report.print_last()


_LISTENERS: tuple[tuple[Any, Callable[..., None]], ...] = (
    (events.init_command_line_parser, _options),
    (events.init, _prepare),
    (events.test_start, _start),
    (events.test_stopping, _finish),
    (events.test_stop, _stop),
    (events.quitting, _judge),
    (events.quit, _tell),
)
for _event, _listener in _LISTENERS:
    _event.add_listener(_listener)
