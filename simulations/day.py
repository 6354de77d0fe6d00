"""Replays a day: see ``python simulations/day.py --help``."""

import sys
from pathlib import Path

# Python puts this file's folder first; what is imported lies in the folder above it.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from simulations.cli import main  # noqa: E402 - after the path is right

if __name__ == "__main__":
    raise SystemExit(main())
