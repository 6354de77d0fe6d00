"""Does the simulation find mistakes? Makes each on purpose, and says what finds it.

    python -m scripts.mutate                    every mutation
    python -m scripts.mutate ack-early wire     those whose names begin so

Each mutation is one change of one place in a copy of ``app``; then days are replayed until an
invariant is broken, or until the traces of one seed differ. Exit status 0 only where every
mutation is found. A change whose place is not there any more is an error: mend it here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST_SEEDS = 5
COPIED = ("app", "simulations", "pyproject.toml")
DAY = ("--bookings", "40")


@dataclass(frozen=True)
class Mutation:
    """One mistake."""

    name: str
    file: str
    old: str
    """Occurs once in the file."""
    new: str
    arguments: tuple[str, ...] = DAY
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
        "app/tasks/base.py",
        "                guard.mark_done(session, self._delivery, now=clock.utcnow())\n",
        "                pass\n",
    ),
    Mutation(
        "ack-early",
        "app/tasks/celery_config.py",
        '"task_acks_late": True',
        '"task_acks_late": False',
    ),
    Mutation(
        "wire-priority-is-urgency",
        "app/routing.py",
        "    return MOST_URGENT - urgency\n",
        "    return urgency\n",
        (*DAY, "--workers", "1", "--concurrency", "1", "--storm", "09:00/60"),
    ),
    Mutation(
        "stock-crontab",
        "app/tasks/celery_config.py",
        "from app.tasks.schedules import crontab",
        "from celery.schedules import crontab",
        (*DAY, "--date", "2026-11-01"),
    ),
    Mutation(
        "forget-the-resend",
        "app/outbox/pump.py",
        "        gone = sorted(suspects & self._suspects, key=lambda pair: pair[1])[:BATCH]\n",
        "        gone: list[Stamped] = []\n",
        (
            *DAY,
            "--storm",
            "09:00/60",
            "--fault",
            "workers-down@09:00/4m",
            "--fault",
            "redis-emptied@09:03",
        ),
    ),
    Mutation(
        "reminder-without-lower-bound",
        "app/domain/reminders.py",
        "    return LEADS[kind], max(later, default=timedelta(0))\n",
        "    return LEADS[kind], max(later, default=timedelta(days=-1))\n",
        ("--bookings", "400"),
    ),
    Mutation(
        "jitter-without-a-seed",
        "app/domain/backoff.py",
        "rng.uniform(",
        '__import__("random").SystemRandom().uniform(',
        (*DAY, "--fault", "smtp-busy@08:00/60m"),
        by_traces=True,
    ),
)


def apply(mutation: Mutation, root: Path) -> None:
    """Change the copy below ``root``. Raises ``ValueError`` where the place is not there once."""
    path = root / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(
            f"{mutation.name}: {mutation.old.strip()!r} is {text.count(mutation.old)} times in "
            f"{mutation.file}, not once: mend scripts/mutate.py"
        )
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")


def find(mutation: Mutation) -> Finding:
    """Replay days of a changed copy until the mistake shows."""
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
        for seed in range(1, MOST_SEEDS + 1):
            first = _replay(root, mutation, seed)
            if mutation.by_traces:
                again = _replay(root, mutation, seed)
                found = "two traces" if first["trace_hash"] != again["trace_hash"] else None
            else:
                found = first["broken"]
            if found is not None:
                return Finding(seed, found, str(first["replay"]))
    return Finding(MOST_SEEDS, None, "")


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
    if not names:
        return list(MUTATIONS)
    for name in names:
        if not any(mutation.name.startswith(name) for mutation in MUTATIONS):
            known = ", ".join(mutation.name for mutation in MUTATIONS)
            raise SystemExit(f"there is no mutation {name!r}, only {known}")
    return [each for each in MUTATIONS if each.name.startswith(tuple(names))]


def main() -> int:
    missed = 0
    print(f"{'mutation':30} {'seeds':>5}  found by")
    for mutation in chosen(sys.argv[1:]):
        finding = find(mutation)
        missed += finding.found_by is None
        print(
            f"{mutation.name:30} {finding.seeds:>5}  {finding.found_by or 'NOT FOUND'}", flush=True
        )
        if finding.command:
            print(f"{'':38}{finding.command}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
