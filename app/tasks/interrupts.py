"""Signals that arrive before Celery has installed its own handlers.

That takes about a second, while this package is imported. Until then Ctrl-C would end the
process with a traceback.
"""

import signal
import threading

INTERRUPT = {signal.SIGINT}
HANG_UP = {signal.SIGHUP}


def end_quietly() -> None:
    """End this process at once at Ctrl-C, also at one held back, until Celery handles it."""
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
