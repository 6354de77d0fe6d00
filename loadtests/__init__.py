"""Load tests of a deployment, for locust: docs/load-testing.md.

Each module without a leading underscore is a scenario or the shapes; locust loads it by its
path. What they share begins with an underscore.
"""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""Exit status, as a shell reports SIGINT."""


def end_at_once(_number: int, _frame: FrameType | None) -> None:
    """End in one line while the scenarios are loaded: nothing has begun yet."""
    os.write(2, b"interrupted before the load began\n")
    os._exit(INTERRUPTED)


# Loading takes seconds, in which a Ctrl-C would be a traceback out of the middle of an import.
if "locust" in sys.modules and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, end_at_once)
