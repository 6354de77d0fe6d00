"""Signals that reach a worker or beat before Celery handles them.

Celery's own handlers are installed about a second after the start, while this package is
imported. Until then Ctrl-C would end the process with a traceback.
"""

import signal
import threading

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
