"""The outbox: what becomes of its rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from app import db
from app.models import OutboxEntry, OutboxState
from app.outbox import PUBLISHED_AT_HEADER
from simulations.marketplace.invariants.invariant import SLACK, Invariant

if TYPE_CHECKING:
    from simulations.marketplace.replay import Replay


class EveryRowSettled(Invariant):
    name = "every outbox row settled"
    sentence = "When it is calm again no due work is pending."

    def conclude(self) -> None:
        now = self.replay.deployment.now
        with db.reading() as session:
            pending = session.execute(
                select(OutboxEntry.id, OutboxEntry.task, OutboxEntry.due_at).where(
                    OutboxEntry.pending(), OutboxEntry.due_at <= now
                )
            ).all()
        # What was planned in this very second is on its way.
        late = [entry for entry in pending if entry.due_at < now - SLACK]
        if late:
            self.broken(f"{len(late)} rows are still pending, such as {late[0].task}", late[0].id)


class NoDeathWithoutAFault(Invariant):
    name = "no entry dies without a fault of its own"
    sentence = (
        "Nothing is a dead letter but what was made unpublishable on purpose, and that is one."
    )

    def conclude(self) -> None:
        planted = self.replay.planted
        with db.reading() as session:
            # Without the arguments: those of a planted entry may be too deep to be read.
            dead = session.execute(
                select(OutboxEntry.id, OutboxEntry.task, OutboxEntry.errors).where(
                    OutboxEntry.state == OutboxState.DEAD
                )
            ).all()
        wrongly = [entry for entry in dead if entry.id not in planted and not self._excused(entry)]
        if wrongly:
            first = wrongly[0]
            self.broken(
                f"{len(wrongly)} rows are dead, such as {first.task}: {first.errors}", first.id
            )
        if left := planted - {entry.id for entry in dead}:
            self.broken(f"{len(left)} unpublishable entries are no dead letters", *left)

    def _excused(self, entry: Any) -> bool:
        """Whether it is a mail that a server took again and again without saying so."""
        silent = any(fault.kind == "smtp-silent" for fault in self.replay.plan.faults)
        return silent and "nobody knows whether it was sent" in str(entry.errors)


class NothingResentWithoutALoss(Invariant):
    name = "nothing resent without a loss"
    sentence = "Nothing is sent again that is done, or that the broker has not lost."

    LOSSES = frozenset(
        {
            "beat-down",
            "clock-step",
            "database-locked",
            "kill-beat",
            "kill-worker",
            "mutex-orphaned",
            "redis-down",
            "redis-emptied",
            "second-beat",
            "workers-down",
            "workers-lose-database",
            "wrong-clock",
        }
    )
    """After these a message may be gone: a process died, or Redis, between two steps."""

    def __init__(self, replay: Replay) -> None:
        super().__init__(replay)
        self._done: set[str] = set()

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event == "succeeded":
            self._done.add(fields["id"])
        elif event == "published" and fields["id"] in self._done:
            self.broken(f"{fields['task']} was sent again when it had succeeded", fields["id"])

    def conclude(self) -> None:
        if any(fault.kind in self.LOSSES for fault in self.replay.plan.faults):
            return
        with db.reading() as session:
            resent = session.scalars(select(OutboxEntry).where(OutboxEntry.resent > 0)).all()
        if resent:
            first = resent[0]
            self.broken(f"{len(resent)} rows were resent, such as {first.task}", first.id)


class NothingSentBeforeItsCommit(Invariant):
    name = "nothing sent before its commit"
    sentence = "Whoever gets a message of the outbox can read its row, with the message's stamp."

    def __init__(self, replay: Replay) -> None:
        super().__init__(replay)
        # One that is in no transaction of the replay's: it sees what is committed.
        path = replay.database.engine.url.database
        self._onlooker = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        replay.deployment.broker.observe(self._look)

    def _look(self, headers: Mapping[str, Any]) -> None:
        stamp = headers.get(PUBLISHED_AT_HEADER)
        if stamp is None:
            return
        # To the last row: a statement that is not at its end holds on to its snapshot.
        committed = self._onlooker.execute(
            "SELECT published_at FROM outbox_entries WHERE id = ?", [headers["id"]]
        ).fetchall()
        if not committed:
            self.broken(f"{headers['task']} was sent, and has no row yet", headers["id"])
        elif _instant(committed[0][0]) != datetime.fromisoformat(stamp):
            self.broken(
                f"{headers['task']} was sent with the stamp {stamp}, and its row says "
                f"{committed[0][0]}",
                headers["id"],
            )

    def close(self) -> None:
        self._onlooker.close()


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)
