"""What a worker or beat checks before it starts, and warns of."""

import logging
import os
import sys
from datetime import timedelta
from functools import partial
from threading import Thread
from typing import Any, NoReturn

from celery import Celery, signals
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from app import clock, db, outbox, schema
from app.adapters.mailer import MailerNotReadyError
from app.adapters.mailers import mailer_from
from app.adapters.redis_connection import trouble
from app.adapters.redis_refusal import refusal
from app.domain.errors import no_such
from app.outbox import Broker, BrokerUnavailableError, guard
from app.routing import QUEUES
from app.settings import SettingsError, load_settings, warnings
from app.tasks import command_line, recorder, registry, time_limits, timetable
from app.tasks.active_queues import pids_of, shared_name
from app.tasks.broker import RedisBroker
from app.tasks.registration import RegistrationError
from app.tasks.stopping import RestartingBeat

logger = logging.getLogger(__name__)

CANNOT = 2
"""Exit status where a setting is wrong: starting again changes nothing."""
TRY_AGAIN = 75
"""Exit status where the database does not answer or the clock is wrong: EX_TEMPFAIL of
sysexits.h."""
NAMESAKE_SECONDS = 2.0
"""Seconds to wait for another worker of this name to answer."""


def connect(app: Celery) -> None:
    """Let this process publish from the outbox, and check it where it becomes a worker or beat.

    What it enqueues is checked against the tasks of ``app``.
    """
    broker = RedisBroker(app, timeout=load_settings().publish_timeout_seconds)
    outbox.attach(broker)
    outbox.check_calls(partial(registry.check_call, app))

    def check_options(instance: Any, options: dict[str, Any], **_: Any) -> None:
        if instance.app is app:
            _or_exit(lambda: _check_queues(app, options))

    def check_worker(sender: Any, **_: Any) -> None:
        if sender.app is app:
            _or_exit(_check_database, _check_mail)
            _or_exit(lambda: _check_redis(broker), lambda: check_clock(broker))

    def tell_queues(instance: Any, **_: Any) -> None:
        if instance.app is app:
            _warn_of_variables()
            _tell_queues(app)

    def warn_worker(sender: Any, **_: Any) -> None:
        if sender.app is app:
            _tell_risk(broker)
            _warn_of_time_limits(app, sender.pool)
            if app.conf.worker_enable_remote_control:
                # Not waited for: the worker must run its loop to answer itself.
                Thread(
                    target=_warn_of_namesakes,
                    args=(app, sender.hostname),
                    name="Namesakes",
                    daemon=True,
                ).start()

    def check_beat(sender: Any, **_: Any) -> None:
        if sender.app is app:
            _warn_of_variables()
            _or_exit(_check_database, lambda: _check_redis(broker), lambda: timetable.check(app))

    # Asked before it prints anything; beat_init comes below the banner, in its log.
    app.Beat = app.subclass_with_self(CheckedBeat)  # type: ignore[misc]
    signals.celeryd_init.connect(check_options, weak=False)
    signals.worker_init.connect(check_worker, weak=False)
    # Before paused queues leave those that it takes from.
    signals.celeryd_after_setup.connect(tell_queues, weak=False)
    # By now Redis answers.
    signals.worker_ready.connect(warn_worker, weak=False)
    signals.beat_init.connect(check_beat, weak=False)
    signals.task_revoked.connect(_cancel_revoked, weak=False)
    if command_line.celery_command() in command_line.ASKING:
        _or_exit(lambda: _check_redis_answers(broker))


class CheckedBeat(RestartingBeat):
    """Celery's ``beat`` command, which refuses a schedule that cannot be kept."""

    app: Celery

    def run(self) -> None:
        _or_exit(lambda: timetable.check(self.app))
        super().run()


class CannotStartError(Exception):
    """Why this process must not start; one line that says what to do."""

    status = CANNOT
    """The exit status of the process."""


class WrongClockError(CannotStartError):
    """This machine's clock is wrong; NTP may set it before the next start."""

    status = TRY_AGAIN


def _or_exit(*checks: Any) -> None:
    try:
        for check in checks:
            check()
    except schema.DatabaseNotReadyError as error:
        _exit(str(error), TRY_AGAIN if error.may_pass else CANNOT)
    except CannotStartError as error:
        _exit(str(error), error.status)
    except (
        timetable.ScheduleError,
        RegistrationError,
        SettingsError,
        MailerNotReadyError,
    ) as error:
        _exit(str(error))
    except Exception as error:
        _exit(f"cannot start: {type(error).__name__}: {error}")


def _exit(line: str, status: int = CANNOT) -> NoReturn:
    # By the time that beat asks, Celery has turned sys.stderr into its log.
    stderr = sys.__stderr__ or sys.stderr
    stderr.write(f"{line}\n")
    # Signal handlers' exceptions are logged and ignored; SystemExit is not.
    raise SystemExit(status)


def _check_database() -> None:
    schema.prepare(db.engine())


def _check_mail() -> None:
    mailer_from(load_settings()).check()


def _check_queues(app: Celery, options: dict[str, Any]) -> None:
    """Names after ``-Q`` and ``-X``: Celery ends in a traceback of one, and ignores the other."""
    for option, key in (("-Q", "queues"), ("-X", "exclude_queues")):
        named = options.get(key) or ()
        for name in named.split(",") if isinstance(named, str) else named:
            if name not in app.amqp.queues:
                reason = no_such("queue", name, app.amqp.queues)
                raise CannotStartError(f"{option} {name}: {reason}")


def _check_redis(broker: RedisBroker) -> None:
    """A Redis that is away is waited for; one that refuses us will do so for ever."""
    try:
        broker.now()
    except BrokerUnavailableError as error:
        settings = load_settings()
        why = refusal(settings.broker, settings, error)
        if why is not None:
            raise CannotStartError(why) from error


def _check_redis_answers(broker: RedisBroker) -> None:
    """For a command that a person waits for; Celery's own would try for 20 s."""
    _check_redis(broker)
    try:
        broker.now()
        if command_line.celery_command() in command_line.WRITING:
            broker.check_writable()
    except BrokerUnavailableError as error:
        raise CannotStartError(f"REDIS_URL: {trouble(error)}") from error


def check_clock(broker: Broker) -> None:
    """Raise ``WrongClockError`` where this machine's clock is far off Redis's.

    Return where Redis does not answer: the worker waits for it, and checks again then. A stall
    around the answer, of this process or of the machine, is not taken for a wrong clock.
    """
    before = clock.utcnow()
    try:
        broker_now = broker.now()
    except BrokerUnavailableError:
        return
    after = clock.utcnow()
    allowed = timedelta(seconds=load_settings().worker_clock_tolerance_seconds)
    if before - allowed <= broker_now <= after + allowed:
        return
    ahead = before - broker_now if broker_now < before else after - broker_now
    raise WrongClockError(
        f"this machine's clock is {ahead.total_seconds():+.0f} s off Redis's, more than the "
        f"{allowed.total_seconds():g} s that the visibility timeout allows: set the clock (NTP), "
        "then start the worker again"
    )


def _warn_of_variables() -> None:
    for line in warnings():
        logger.warning("%s", line)


def _tell_queues(app: Celery) -> None:
    others = [spec.name for spec in QUEUES if spec.name not in app.amqp.queues.consume_from]
    if others:
        logger.info("left to other workers: %s", ", ".join(others))


def _tell_risk(broker: RedisBroker) -> None:
    try:
        risk = broker.memory().risk
    except BrokerUnavailableError:
        return  # not every user of Redis may ask
    if risk is not None:
        logger.warning("%s", risk)


def _warn_of_time_limits(app: Celery, pool: Any) -> None:
    warning = time_limits.warning(app, time_limits.pool_name(pool.info["implementation"]))
    if warning is not None:
        logger.warning("%s", warning)


def _warn_of_namesakes(app: Celery, name: str) -> None:
    """Warn where another worker has this one's name; Celery's remote control mixes them up.

    In containers both may have the same process id, so two answers are enough. One answer
    is another worker's where this one's solo pool is busy. A prefork child that is replaced
    meanwhile is forked afterwards: it would inherit locks of Celery's pool of connections.
    """
    try:
        with db.no_fork(always=True):
            pids = pids_of(app, name, timeout=NAMESAKE_SECONDS)
    except (OperationalError, RedisError, OSError):
        return
    others = len(pids) - 1 if os.getpid() in pids else len(pids)
    if others:
        logger.warning("%s", shared_name(name, others + 1))


def _cancel_revoked(request: Any, **_: Any) -> None:
    # Else the pump would find its message gone and send it again.
    recorder.record(f"the revocation of {request.id}", partial(_cancel, request.id))


def _cancel(entry_id: str) -> None:
    with db.transaction(brief=True) as session:
        guard.cancel(session, entry_id, now=clock.utcnow())
