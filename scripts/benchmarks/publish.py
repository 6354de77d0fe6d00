"""Publish from a process of its own: ``... scripts.benchmarks.publish MODULE FUNCTION ARGS AFTER``.

Each system's module is imported in the environment that its workers have, and in no process
that measures another one. Prints the Unix seconds before and after the call, and what it
returned. ``ARGS`` is a JSON list; ``AFTER`` is how many tasks must have run before the call.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from importlib import import_module

from scripts.benchmarks.runs import wait_for_runs


def main() -> None:
    module, function, arguments, after = sys.argv[1:]
    call = getattr(import_module(module), function)
    wait_for_runs(int(after))
    began = time.time()
    result = call(*json.loads(arguments))
    told = {"began": began, "ended": time.time(), "result": result, "peak_mb": _peak_mb()}
    print(json.dumps(told), flush=True)


def _peak_mb() -> float:
    """Of this process, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
