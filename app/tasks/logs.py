"""Log lines: all alike, whoever logs, with the task that they are about.

Celery sets up logging as ever (``--loglevel``, ``--logfile``, ``--no-color`` and its
redirection of ``print`` work as documented); its handlers get our formatter, and a worker
or beat one more handler: a copy in a file.
"""

import logging
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any

import click
import structlog
from celery import signals
from celery.utils.log import get_multiprocessing_logger

from app.domain import personal_data
from app.settings import Settings, load_settings
from app.tasks import context
from app.tasks.log_files import LineFile, file_of, open_file

PROGRAMS = ("worker", "beat")
"""The commands whose lines are also kept in a file."""

Line = MutableMapping[str, Any]


def connect() -> None:
    """Format the lines of every Celery command of this process that logs."""
    # Who logs through structlog itself gets the same lines, and none where nobody asked
    # for logging: by default structlog prints.
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    signals.after_setup_logger.connect(_dress_root, weak=False)
    signals.after_setup_task_logger.connect(_dress, weak=False)


def formatter(settings: Settings, *, colors: bool = False) -> logging.Formatter:
    """The formatter that ``LOG_FORMAT`` names."""
    if settings.log_format == "json":
        rendering: Any = structlog.processors.JSONRenderer()
    else:
        rendering = structlog.dev.ConsoleRenderer(
            colors=colors,
            pad_event_to=0,
            sort_keys=False,
            timestamp_key="time",
            # The default one prints local variables: names and addresses.
            exception_formatter=structlog.dev.plain_traceback,
        )
    return structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.contextvars.merge_contextvars,
            _describe,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _leave_out_personal_data,
            rendering,
        ]
    )


def _describe(_logger: object, _method: str, line: Line) -> Line:
    record: logging.LogRecord = line["_record"]
    return {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
        "level": record.levelname.lower(),
        "event": line.pop("event"),
        "logger": record.name,
        "process": record.processName,
        "pid": record.process,
        **(context.current() or _task_of(record)),
        **line,
    }


def _leave_out_personal_data(_logger: object, _method: str, line: Line) -> Line:
    # Only where an error of a task may be quoted: the names of workers have an @, too.
    for key in ("event", "exception") if "task" in line else ("exception",):
        if key in line:
            line[key] = personal_data.leave_out(str(line[key]))
    return line


def _task_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """The task that Celery's own line names; where it runs, the context says more."""
    named = getattr(record, "data", None)
    if not isinstance(named, Mapping) or not {"id", "name"} <= named.keys():
        return {}
    return context.of(named["id"]) or {"task": named["name"], "task_id": named["id"]}


_file: LineFile | None = None


def _dress_root(logger: logging.Logger, colorize: bool | None = None, **_: Any) -> None:
    global _file
    settings = load_settings()
    command = click.get_current_context(silent=True)
    program = command.info_name if command is not None else None
    path = file_of(program, settings) if program in PROGRAMS else None
    if path is not None and _file is None:
        _file = open_file(path, settings)
    _dress(logger, colorize)
    # billiard's, which tells of killed children: Celery gives it a handler, and no signal.
    billiards: Any = get_multiprocessing_logger()
    _dress(billiards, colorize)


def _dress(logger: logging.Logger, colorize: bool | None = None, **_: Any) -> None:
    settings = load_settings()
    for handler in logger.handlers:
        handler.setFormatter(formatter(settings, colors=bool(colorize)))
    if _file is not None and _file not in logger.handlers:
        _file.setFormatter(formatter(settings))
        logger.addHandler(_file)
