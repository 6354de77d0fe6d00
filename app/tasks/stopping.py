"""How the processes of a worker and of beat stop, and how SIGHUP starts them again.

A supervisor may send SIGTERM to every process of a worker (systemd's default). Stock children
of a prefork pool exit at once, and their tasks with them. Ours ignore what the supervisor
sends, while the parent stops in an orderly way. The parent ends them with SIGQUIT instead.
"""

import atexit
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from billiard import popen_fork
from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded
from celery import Celery, bootsteps, platforms, signals
from celery.apps.beat import Beat
from celery.apps.worker import Worker, safe_say  # type: ignore[attr-defined]  # not typed
from celery.concurrency import prefork
from celery.worker import state
from celery.worker.components import Pool

from app.tasks import command, interrupts

TO_THE_PARENT = (signal.SIGTERM, signal.SIGHUP)
"""What a supervisor or a terminal sends to all processes, and only the parent obeys."""
END_A_CHILD = signal.SIGQUIT
"""What the parent sends to a child instead of SIGTERM: billiard handles both alike."""

_ENDING = (bootsteps.CLOSE, bootsteps.TERMINATE)  # type: ignore[attr-defined]  # not typed


def install(app: Celery) -> None:
    """Make the workers of ``app`` restart at SIGHUP, and finish their tasks at SIGTERM."""
    app.steps["worker"].add(EndsChildren)
    signals.worker_process_init.connect(leave_stopping_to_the_parent, weak=False)
    app.Worker = app.subclass_with_self(RestartingWorker)  # type: ignore[misc]


def stop_is_requested() -> bool:
    """Return whether a signal or a check has requested that this worker stops."""
    asked = (state.should_stop, state.should_terminate)
    # Each is an exit status or a flag. The status of an orderly stop is 0, which equals False.
    return any(status is not None and status is not False for status in asked)


class RestartingWorker(Worker):
    """Celery's ``worker`` command, which SIGHUP restarts however it was started."""

    def install_platform_tweaks(self, worker: Any) -> None:
        super().install_platform_tweaks(worker)

        def stop() -> None:
            safe_say("worker: finishing the running tasks, then restarting", sys.__stdout__)
            state.should_stop = platforms.EX_OK  # type: ignore[assignment]  # as Celery does

        def is_stopping() -> bool:
            # For ``celery control shutdown`` Celery stops the blueprint alone.
            return stop_is_requested() or worker.blueprint.state in _ENDING

        stop_for_good = _restart_at_hang_up(stop, is_stopping)
        # Celery sends this for SIGTERM, SIGINT and SIGQUIT, and not for SIGHUP.
        signals.worker_shutting_down.connect(lambda **_: stop_for_good(), weak=False)
        interrupts.accept_hang_ups()


class RestartingBeat(Beat):
    """Celery's ``beat`` command, which SIGHUP restarts as it does a worker."""

    def install_sync_handler(self, service: Any) -> None:
        super().install_sync_handler(service)
        end: Any = signal.getsignal(signal.SIGTERM)
        stop_for_good = _restart_at_hang_up(lambda: end(signal.SIGHUP, None))

        def stop(*arguments: Any) -> None:
            stop_for_good()
            end(*arguments)

        platforms.signals.update(SIGTERM=stop, SIGINT=stop)
        interrupts.accept_hang_ups()


def _restart_at_hang_up(
    stop: Callable[[], None], is_stopping: Callable[[], bool] = lambda: False
) -> Callable[[], None]:
    """Make SIGHUP call ``stop``, which ends this process in an orderly way, and start it again.

    SIGHUP does nothing while ``is_stopping``. Any other stop must call the function that is
    returned. After it the process does not start again, whether SIGHUP came before or after.

    In a terminal SIGHUP means that the window was closed. There it ends the process, as in
    stock Celery.
    """
    for_good = False

    def stop_for_good() -> None:
        nonlocal for_good
        for_good = True
        atexit.unregister(command.restart)

    def handle(*_: Any) -> None:
        if for_good or is_stopping():
            return
        # Registered last, so it runs first: a new process image needs no other clean-up.
        atexit.register(command.restart)
        stop()

    if not platforms.isatty(sys.__stdout__):
        signal.signal(signal.SIGHUP, handle)
    return stop_for_good


class EndsChildren(bootsteps.StartStopStep):
    """Makes a prefork pool end its children with a signal that no supervisor sends them.

    Used for a revoked task, a time limit, a pool that shrinks and a cold shutdown. At a hard
    time limit the child is dead before the end of its attempt is recorded: its transaction
    holds the row of its entry.
    """

    requires = (Pool,)

    def start(self, worker: Any) -> None:
        if not isinstance(worker.pool, prefork.TaskPool):
            return
        pool: Any = worker.pool
        popen_fork.TERM_SIGNAL = END_A_CHILD  # type: ignore[attr-defined]  # not typed
        terminate_job = pool.terminate_job

        def end_job(pid: int, number: int | None = None) -> None:
            by_default = number in (None, signal.SIGTERM)
            terminate_job(pid, END_A_CHILD if by_default else number)

        pool.terminate_job = end_job
        limits = pool._pool._timeout_handler
        if limits is not None:
            limits.on_hard_timeout = partial(_kill_then_report, limits)
            pool._pool.on_hard_timeout = limits.on_hard_timeout


def _kill_then_report(limits: Any, job: Any) -> None:
    """Do as billiard's ``on_hard_timeout``, which reports first and kills last."""
    if job.ready():
        return
    child, _ = limits._process_by_pid(job._worker_pid)
    if child is not None:
        limits._trywaitkill(child)
    try:
        raise TimeLimitExceeded(job._timeout)
    except TimeLimitExceeded:
        job._set(job._job, (False, ExceptionInfo()))
    job.handle_timeout(soft=False)


def leave_stopping_to_the_parent(**_: Any) -> None:
    """Make this child of a prefork pool ignore SIGTERM and SIGHUP; connected to
    ``worker_process_init``.
    """
    for number in TO_THE_PARENT:
        # Anything but SIG_IGN is replaced by billiard as soon as this returns.
        signal.signal(number, signal.SIG_IGN)
    signals.task_prerun.connect(_ignore_by_handler, weak=False)
    signals.worker_process_shutdown.connect(_obey_again, weak=False)


def _ignore_by_handler(**_: Any) -> None:
    # A program that a body runs would inherit SIG_IGN; a handler becomes the default there.
    for number in TO_THE_PARENT:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _ignore)


def _ignore(*_: Any) -> None:
    pass


def _obey_again(**_: Any) -> None:
    # The parent's SIGTERM cuts short the second that an exiting child waits.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
