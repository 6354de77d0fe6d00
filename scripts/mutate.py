"""Does the simulation find mistakes? Makes each on purpose, and says what finds it.

    python -m scripts.mutate                    every mutation
    python -m scripts.mutate ack-early wire     those whose names begin so

Each mutation is a small change of a copy of ``app``; then days, or the first hours of days,
are replayed until an invariant is broken, or until the traces of one seed differ. Exit status
0 only where every mutation is found. A change whose place is not there any more is an error:
mend it here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.arguments import command, run_command

ROOT = Path(__file__).parent.parent
MOST_SEEDS = 20
COPIED = ("app", "simulations", "pyproject.toml")
HOUR = ("--bookings", "40", "--hours", "1")


@dataclass(frozen=True)
class Change:
    """Of one place."""

    file: str
    old: str
    """Occurs once in the file."""
    new: str


@dataclass(frozen=True)
class Mutation:
    """One mistake."""

    name: str
    changes: tuple[Change, ...]
    arguments: tuple[str, ...] = HOUR
    by_traces: bool = False
    """Found by two traces of one seed that differ, not by an invariant."""


@dataclass(frozen=True)
class Finding:
    seeds: int
    found_by: str | None
    command: str


MUTATIONS = (
    Mutation(
        "drop-the-guard",
        (
            Change(
                "app/tasks/base.py",
                "                guard.mark_done(session, self._delivery, now=clock.utcnow())\n",
                "                pass\n",
            ),
        ),
    ),
    Mutation(
        "ack-early",
        (
            Change(
                "app/tasks/celery_config.py",
                '"task_acks_late": True',
                '"task_acks_late": False',
            ),
        ),
    ),
    Mutation(
        "wire-priority-is-urgency",
        (Change("app/routing.py", "    return MOST_URGENT - urgency\n", "    return urgency\n"),),
        (*HOUR, "--workers", "1", "--concurrency", "1", "--storm", "00:05/60"),
    ),
    Mutation(
        "stock-crontab",
        (
            Change(
                "app/tasks/celery_config.py",
                "from app.tasks.schedules import crontab",
                "from celery.schedules import crontab",
            ),
        ),
        ("--bookings", "40", "--date", "2026-11-01", "--hours", "3"),
    ),
    Mutation(
        "publish-before-commit",
        (
            Change(
                "app/outbox/publish.py",
                "            for entry in entries\n        ]\n    if not messages:\n",
                "            for entry in entries\n        ]\n"
                "        broker.push(messages)\n        return len(messages)\n"
                "    if not messages:\n",
            ),
        ),
    ),
    Mutation(
        "forget-the-resend",
        (
            Change(
                "app/outbox/pump.py",
                "        gone = [each for each in suspects if each in self._suspects][:BATCH]\n",
                "        gone: list[Missing] = []\n",
            ),
        ),
        (
            *(*HOUR, "--storm", "00:05/60"),
            *("--fault", "workers-down@00:05/4m", "--fault", "redis-emptied@00:08"),
        ),
    ),
    Mutation(
        "reminder-without-lower-bound",
        (
            Change(
                "app/domain/reminders.py",
                "    return LEADS[kind], max(later, default=timedelta(0))\n",
                "    return LEADS[kind], max(later, default=timedelta(days=-1))\n",
            ),
        ),
        ("--bookings", "400", "--hours", "2"),
    ),
    Mutation(
        "non-atomic-metrics",
        (
            Change(
                "app/services/day_metrics.py",
                "    _count_day(session, day, happened, start=start, end=end, now=now)\n",
                "    _count_day(session, day, happened, start=start, end=end, now=now)\n"
                '    session.connection().exec_driver_sql("COMMIT")\n'
                '    session.connection().exec_driver_sql("BEGIN IMMEDIATE")\n',
            ),
        ),
        ("--bookings", "40", "--hours", "3", "--fault", "kill-worker@02:00"),
    ),
    Mutation(
        "beat-state-in-memory",
        (
            Change(
                "app/tasks/scheduler.py",
                "        step = next_step(entry, seen, now)\n        if step is None:\n"
                "            return 0",
                '        memory = self.__dict__.setdefault("_last_due", {})\n'
                "        step = next_step(entry, seen := memory.get(entry.name), now)\n"
                "        if step is None:\n"
                "            return 0\n"
                "        memory[entry.name] = Seen(entry.schedule_hash, step.last_due)",
            ),
            Change(
                "app/outbox/schedule.py",
                "    if not _replace(session, entry, seen, last_due=step.last_due):\n"
                "        return None\n",
                "",
            ),
        ),
        (*HOUR, "--beats", "2"),
    ),
    Mutation(
        "jitter-without-a-seed",
        (
            Change(
                "app/domain/backoff.py",
                "rng.uniform(",
                '__import__("random").SystemRandom().uniform(',
            ),
        ),
        (*HOUR, "--storm", "00:05/40", "--fault", "smtp-busy@00:05/30m"),
        by_traces=True,
    ),
)
KNOWN = ", ".join(mutation.name for mutation in MUTATIONS)


def apply(mutation: Mutation, root: Path) -> None:
    """Change the copy below ``root``. Raises ``ValueError`` where a place is not there once."""
    for change in mutation.changes:
        path = root / change.file
        text = path.read_text(encoding="utf-8")
        if text.count(change.old) != 1:
            raise ValueError(
                f"{mutation.name}: {change.old.strip()!r} is {text.count(change.old)} times in "
                f"{change.file}, not once: mend scripts/mutate.py"
            )
        path.write_text(text.replace(change.old, change.new), encoding="utf-8")


@contextmanager
def changed_copy(mutation: Mutation) -> Iterator[Path]:
    """A folder with a copy of what a replay needs, the mistake made in it; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        root = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, root / name, ignore=ignored)
            else:
                shutil.copy(source, root / name)
        apply(mutation, root)
        yield root


def find(mutation: Mutation, *, most_seeds: int = MOST_SEEDS) -> Finding:
    """Replay days of a changed copy until the mistake shows, with one seed after the other."""
    with changed_copy(mutation) as root:
        for seed in range(1, most_seeds + 1):
            first = _replay(root, mutation, seed)
            if mutation.by_traces:
                again = _replay(root, mutation, seed)
                found = "two traces" if first["trace_hash"] != again["trace_hash"] else None
            else:
                found = first["broken"]
            if found is not None:
                return Finding(seed, found, str(first["replay"]))
    return Finding(most_seeds, None, "")


def _replay(root: Path, mutation: Mutation, seed: int) -> dict[str, str | None]:
    figures = root / "day.json"
    figures.unlink(missing_ok=True)
    command = [sys.executable, "simulations/day.py", *mutation.arguments]
    ended = subprocess.run(
        [*command, "--seed", str(seed), "--json", str(figures)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if not figures.exists():
        # Not a finding: a mutation that does not even run shows nothing.
        raise RuntimeError(f"{mutation.name}: the replay failed:\n{ended.stderr}")
    found: dict[str, str | None] = json.loads(figures.read_text(encoding="utf-8"))
    return found


def chosen(names: Sequence[str]) -> list[Mutation]:
    """The mutations whose names begin with one of ``names``; all without any."""
    return [each for each in MUTATIONS if not names or each.name.startswith(tuple(names))]


def beginning(text: str) -> str:
    """For argparse: how the name of a mutation begins."""
    if not any(mutation.name.startswith(text) for mutation in MUTATIONS):
        raise argparse.ArgumentTypeError(f"there is no mutation {text!r}, only {KNOWN}")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command("mutate", "Make mistakes in a copy of the app, and print what finds each.")
    parser.add_argument(
        "names",
        nargs="*",
        type=beginning,
        metavar="NAME",
        help=f"those whose names begin so, of {KNOWN} (all)",
    )
    options = parser.parse_args(arguments)
    missed = 0
    print(f"{'mutation':30} {'seeds':>5}  found by")
    for mutation in chosen(options.names):
        finding = find(mutation)
        missed += finding.found_by is None
        print(
            f"{mutation.name:30} {finding.seeds:>5}  {finding.found_by or 'NOT FOUND'}", flush=True
        )
        if finding.command:
            print(f"{'':38}{finding.command}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
