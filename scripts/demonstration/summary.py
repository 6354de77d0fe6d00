"""What the demo says at its end: whether it adds up, the figures, where to look."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.demonstration.accounting import Account
from scripts.demonstration.effects import Effects

NEVER_RAN = {"succeeded": 0, "failed": 0, "retried": 0}
NAMED = 5  # so many examples of what is wrong


@dataclass(frozen=True)
class Summary:
    account: Account
    effects: Effects
    modules: Sequence[str]
    """Task modules that must have run."""
    killed: Mapping[str, int] | None
    """How often what was killed; ``None`` where nothing was to be."""
    seconds: float
    mailbox: Path
    database: str
    """As SQLAlchemy has it."""
    logs: Path

    @property
    def adds_up(self) -> bool:
        return not any(self._problems())

    def figures(self) -> dict[str, Any]:
        """What ``--json`` writes."""
        account = self.account
        return {
            "bookings": dict(account.bookings),
            "mails": {
                "expected": account.expected,
                "delivered": account.delivered,
                "doubled": account.doubled,
                "uncertain": account.uncertain,
            },
            "tasks": self._tasks(),
            "outbox": dict(account.outbox),
            "effects": dict(self.effects.figures),
            "lost": account.lost,
            "killed": dict(self.killed or {}),
            "mailbox": str(self.mailbox),
            "database": self.database,
            "seconds": round(self.seconds, 1),
        }

    def write(self, file: Path) -> None:
        """Write the figures; a reader finds the whole file or none."""
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            draft.write_text(json.dumps(self.figures(), indent=2) + "\n", encoding="utf-8")
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)

    def text(self) -> str:
        """For the terminal."""
        account = self.account
        problems = list(self._problems())
        verdict = (
            [f"It does not add up, after {self.seconds:.1f} s:", *(f"  - {p}" for p in problems)]
            if problems
            else [
                f"It adds up: {account.delivered} mails expected and in the mailbox,"
                f" {self._doubled()}, nothing lost, in {self.seconds:.1f} s."
            ]
        )
        rows = [
            ("lessons", _listed(account.bookings)),
            (
                "mails",
                f"{account.expected} expected, {account.delivered} delivered,"
                f" {account.doubled} doubled, {account.uncertain} uncertain",
            ),
            *((f"{module} tasks", _listed(row)) for module, row in self._tasks().items()),
            ("outbox", _listed(account.outbox)),
            ("effects", _listed(self.effects.figures)),
        ]
        if self.killed is not None:
            rows.append(("killed", _listed({f"{what} ×": n for what, n in self.killed.items()})))
        rows += [
            ("mailbox", str(self.mailbox)),
            ("database", self.database),
            ("logs", str(self.logs)),
        ]
        return "\n".join([*verdict, "", *(f"  {name:<22}{value}" for name, value in rows)])

    def _doubled(self) -> str:
        account = self.account
        if account.uncertain:
            return f"{account.doubled} doubled of {account.uncertain} that might have been"
        return "none doubled"

    def _tasks(self) -> dict[str, dict[str, int]]:
        ran = self.account.tasks
        return {name: dict(ran.get(name, NEVER_RAN)) for name in sorted({*self.modules, *ran})}

    def _problems(self) -> Iterator[str]:
        account = self.account
        if account.missing:
            yield f"not in the mailbox: {_examples(account.missing)}"
        if account.outbox["pending"]:
            yield f"{account.outbox['pending']} pieces of work are due and not done"
        if account.outbox["dead"]:
            yield (
                f"{account.outbox['dead']} pieces of work are dead:"
                " python -m app.admin deadletters list says why"
            )
        if self.killed is None and account.uncertain:
            yield f"{account.uncertain} mails were uncertain, though nothing was killed"
        if account.unexplained:
            yield f"came twice, and nothing explains it: {_examples(account.unexplained)}"
        if account.unexpected:
            yield f"nobody should have got: {_examples(account.unexpected)}"
        yield from self.effects.problems
        for name, row in self._tasks().items():
            if not row["succeeded"]:
                yield f"no task of {name} has succeeded"


def _listed(figures: Mapping[str, int]) -> str:
    return ", ".join(
        f"{name}{number}" if name.endswith("×") else f"{number} {name.replace('_', '-')}"
        for name, number in figures.items()
    )


def _examples(ids: frozenset[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return ", ".join(sorted(ids)[:NAMED]) + more
