"""Ctrl-C before a worker or beat hears it: while this package is imported, for a second.

Celery's own handlers come later, and until then Python's would end it with a traceback.
"""

import signal
import threading

INTERRUPT = {signal.SIGINT}


def end_quietly() -> None:
    """Let Ctrl-C end this process at once, also one that was held back, until Celery hears it."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPT)


def hold_back() -> None:
    """Keep Ctrl-C for the program that this process turns into, until that ``end_quietly``s."""
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPT)
