"""Strike the whole deployment in containers, and count what becomes of durable jobs.

    python -m scripts.prove_faults --jobs 100000
    python -m scripts.prove_faults --jobs 3000 --faults workers-killed,redis-restarted

Needs Docker, and the images of scripts/build_images. Prints a row for each fault; exit
status 0 only where no job was lost or doubled and every fault's jobs were done within
five minutes of its end. No container, network or volume is left, however it ends.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from uuid import uuid4

from scripts.arguments import Parser, command, positive, run_command
from scripts.faults.figures import Row, table
from scripts.faults.rounds import suffer
from scripts.faults.stage import NoImageError, stage
from scripts.faults.strikes import FAULTS, SHORT, Fault, chosen
from scripts.live.compose import NoComposeError

JOBS = 5_200
CANNOT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    began = time.monotonic()
    try:
        rows = _prove(options.faults, options.jobs)
    except (NoComposeError, NoImageError) as error:
        print(f"cannot: {error}", file=sys.stderr)
        return CANNOT
    except AssertionError as error:
        print(f"NOT proven: {error}", file=sys.stderr)
        return 1
    print("\n".join(["", *table(rows)]))
    total = sum(row.jobs for row in rows)
    lost, doubled = sum(row.lost for row in rows), sum(row.doubled for row in rows)
    proven = all(row.exactly_once for row in rows)
    print(
        f"{'exactly once' if proven else 'NOT exactly once'}: {total:,} jobs under {len(rows)} "
        f"faults, {lost} lost, {doubled} doubled, in {time.monotonic() - began:.0f} s"
    )
    return 0 if proven else 1


def _prove(faults: Sequence[Fault], jobs: int) -> list[Row]:
    rows = []
    name = f"instainstru-{uuid4().hex[:8]}"
    print(f"bringing up {name}", flush=True)
    with stage(name=name) as deployment:
        print("\n".join(table([])), flush=True)
        for fault in faults:
            rows.append(suffer(deployment, fault, share(jobs, faults)))
            print(table(rows)[-1], flush=True)
    return rows


def share(jobs: int, faults: Sequence[Fault]) -> int:
    """Of ``jobs``, how many are planned under each of ``faults``."""
    return -(-jobs // len(faults))


def _parser() -> Parser:
    parser = command("prove_faults", __doc__)
    parser.add_argument(
        "--jobs", type=positive, default=JOBS, help=f"how many jobs in all ({JOBS})"
    )
    parser.add_argument(
        "--faults",
        type=faults_named,
        default=FAULTS,
        help="names with commas between, or 'short' for three; all where left out: "
        + ", ".join(fault.name for fault in FAULTS),
    )
    return parser


def faults_named(text: str) -> tuple[Fault, ...]:
    """Names with commas between, or ``short``. Raises ``argparse.ArgumentTypeError``."""
    try:
        return chosen(SHORT if text == "short" else text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(run_command(main))
