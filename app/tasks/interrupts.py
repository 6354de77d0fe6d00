"""Signals that Celery handles too late, or passes to a task's body.

Celery's own handlers are installed about a second after the start, while this package is
imported. Until then Ctrl-C would end the process with a traceback.

A supervisor may send SIGTERM to every process of a worker (systemd's default). Stock children
of a prefork pool exit at once, and their tasks with them. Ours ignore what the supervisor
sends, while the parent stops in an orderly way. The parent ends them with SIGQUIT instead.
"""

import signal
import sys
import threading
from typing import Any

INTERRUPT = {signal.SIGINT}
HANG_UP = {signal.SIGHUP}


def end_quietly() -> None:
    """Let Ctrl-C end this process at once, also one that was held back, until Celery hears it."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPT)


def hold_back() -> None:
    """Keep Ctrl-C and SIGHUP for the program that this process turns into.

    That program receives the first after ``end_quietly`` and the second after
    ``accept_hang_ups``.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPT | HANG_UP)


def accept_hang_ups() -> None:
    """Receive SIGHUP, also one that arrived since ``hold_back``."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANG_UP)


TO_THE_PARENT = (signal.SIGTERM, signal.SIGHUP)
"""What a supervisor or a terminal sends to all processes, and only the parent obeys."""
END_A_CHILD = signal.SIGQUIT
"""What the parent sends to a child instead of SIGTERM: billiard handles both alike."""


def leave_stopping_to_the_parent(**_: Any) -> None:
    """Make this child of a prefork pool ignore SIGTERM and SIGHUP; connected to
    ``worker_process_init``.
    """
    from celery import signals  # not at the top: this module is imported first of all

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
