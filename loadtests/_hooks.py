"""What a load test does at locust's own events.

Locust calls a process that only coordinates the *master*; one that runs users a *worker*
(Celery's workers are called Celery workers here); without ``--master`` and ``--worker`` one
process is both.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner

from loadtests import (
    INTERRUPTED,
    _coordination,
    _database,
    _objectives,
    _options,
    _page,
    _report,
    _target,
    _winding_down,
    end_at_once,
)
from loadtests._errors import LoadTestError
from loadtests._ledger import Measure, Record
from loadtests._load_run import REDIS_ERRORS, LoadRun

logger = logging.getLogger("loadtests")

BAD_INPUT = 2
"""Exit status."""
MISSED = 1
"""Exit status where an objective was missed, or nothing measured."""
PAGE_SECONDS = 4.0
"""Locust's page asks every two seconds for figures that are up to two seconds old."""

_load_run: LoadRun | None = None
_begun: Environment | None = None
"""Of the test that has begun, if one has."""


def load_run() -> LoadRun | None:
    """This process's part of the test that is under way."""
    return _load_run


def _add_options(parser: LocustArgumentParser, **_: Any) -> None:
    _options.add(parser)


def _prepare(environment: Environment, runner: Runner, web_ui: Any, **_: Any) -> None:
    options: Any = environment.parsed_options
    _interrupt_only_the_main_greenlet()
    _winding_down.register(runner, failed=_worker_failed)
    if isinstance(runner, WorkerRunner):
        return
    environment.locustfile = "loadtests"  # else that of the first scenario, in all reports
    try:
        _options.choose_shape(environment, runner)
        _objectives.load(Path(options.objectives))
        if options.headless or options.autostart:
            _coordination.announce(environment)
    except LoadTestError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted before the load began\n")
        sys.exit(INTERRUPTED)
    if web_ui is not None:
        _page.refuse_bad_input(web_ui, environment)
        _page.show_queues(web_ui, environment)


def _interrupt_only_the_main_greenlet() -> None:
    # By itself Ctrl-C is raised in whichever greenlet runs, and ends it: one that publishes, or
    # the one that hears the events, which are needed until the end.
    if signal.getsignal(signal.SIGINT) in {signal.default_int_handler, end_at_once}:
        main = gevent.getcurrent()
        gevent.signal_handler(signal.SIGINT, lambda: gevent.kill(main, KeyboardInterrupt()))


def _start(environment: Environment, **_: Any) -> None:
    global _load_run, _begun
    _load_run, _begun = None, environment
    runner = environment.runner
    options: Any = environment.parsed_options
    try:
        if not isinstance(runner, WorkerRunner):
            _coordination.announce(environment)
        if not isinstance(runner, MasterRunner):
            if options.through_services and not _database.is_named():
                raise LoadTestError(
                    "DATABASE_URL is set where the master runs, and not where this worker does"
                )
            _load_run = LoadRun(
                _target.connect(environment.host),
                _record_in(environment),
                through_services=options.through_services,
            )
    except (LoadTestError, *REDIS_ERRORS) as error:
        _cannot_start(environment, str(error))


def _cannot_start(environment: Environment, error: str) -> None:
    """End a test whose users are about to be spawned; those do nothing without a load run."""
    runner = environment.runner
    assert runner is not None  # noqa: S101 - it has fired this event
    logger.error("%s", error)
    environment.process_exit_code = BAD_INPUT
    if isinstance(runner, WorkerRunner):
        _winding_down.tell_master_of_failure(runner, error)
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
        _winding_down.wind_workers_down(environment, runner)
    elif finished is None:
        return
    if environment.web_ui is not None:
        time.sleep(PAGE_SECONDS)


def _stop(environment: Environment, **_: Any) -> None:
    _coordination.let_go()
    if _begun is not None and not isinstance(environment.runner, WorkerRunner):
        for line in _report.verdict(environment):
            logger.info("%s", line)


def _judge(environment: Environment, **_: Any) -> None:
    runner = environment.runner
    if runner is None or isinstance(runner, WorkerRunner):
        return
    # After Ctrl-C locust asks for the exit status before it stops the test.
    runner.stop()
    _coordination.let_go()
    if environment.process_exit_code is None and _begun and not _report.is_good(environment):
        environment.process_exit_code = MISSED


def _tell(**_: Any) -> None:
    if _begun is not None and not isinstance(_begun.runner, WorkerRunner):
        _report.print_all(_begun)


_LISTENERS: tuple[tuple[Any, Callable[..., None]], ...] = (
    (events.init_command_line_parser, _add_options),
    (events.init, _prepare),
    (events.test_start, _start),
    (events.test_stopping, _finish),
    (events.test_stop, _stop),
    (events.quitting, _judge),
    (events.quit, _tell),
)
for _event, _listener in _LISTENERS:
    _event.add_listener(_listener)
