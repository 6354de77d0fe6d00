"""Messages: in which order they are taken, and when they are gone from the broker."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from app import db
from app.models import EmailKind, EmailMessage, OutboxEntry
from app.routing import QUEUES
from app.services.email import DELIVER
from simulations.engine.figures import ENDS
from simulations.marketplace.invariants.invariant import SLACK, Invariant

if TYPE_CHECKING:
    from simulations.marketplace.replay import Replay

URGENCIES = {spec.name: spec.urgency for spec in QUEUES}
"""Compared with the README's table in ``tests/unit/test_docs.py``."""
ABOVE_ALL = "app.tasks.email.send_password_reset"
"""With the delivery of its mail, at an urgency of its own."""


class UrgentFirst(Invariant):
    name = "urgent work first"
    sentence = "No worker takes a message while a more urgent one waits in a queue that it serves."

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event != "received" or fields["task"] == ABOVE_ALL:
            return
        taken = URGENCIES[fields["queue"]]
        above = [queue for queue, urgency in URGENCIES.items() if urgency > taken]
        if not above or not self.replay.deployment.broker.has_waiting(above):
            return
        what = (
            f"{fields['worker']} took {fields['task']} from {fields['queue']} while something "
            f"waited in {', '.join(above)}"
        )
        if fields["task"] == DELIVER:
            self.later(lambda: self._unless_it_is_a_password_reset(fields["id"], what))
        else:
            self.broken(what, fields["id"])

    def _unless_it_is_a_password_reset(self, entry_id: str, what: str) -> None:
        with db.reading() as session:
            entry = session.get_one(OutboxEntry, entry_id)
            kinds = set(
                session.scalars(select(EmailMessage.kind).where(EmailMessage.id.in_(entry.args[0])))
            )
        if kinds != {EmailKind.PASSWORD_RESET}:
            self.broken(what, entry_id)


class NoMessageLeft(Invariant):
    name = "no message lost or left"
    sentence = "When it is calm again nothing waits in a queue, and nobody holds a message."

    def conclude(self) -> None:
        broker = self.replay.deployment.broker
        since = broker.held_since()
        now = self.replay.deployment.now
        if since is not None and now.timestamp() - since > SLACK.total_seconds():
            self.broken("a message is held and never acknowledged")
        if broker.has_waiting(list(URGENCIES)):
            self.broken("messages wait and nobody takes them")


class AcknowledgedAtTheEnd(Invariant):
    name = "acknowledged at the end"
    sentence = "A message stays with the broker until its task has ended."

    def __init__(self, replay: Replay) -> None:
        super().__init__(replay)
        self._running: dict[str, str] = {}

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event == "started":
            self._running[fields["id"]] = fields["worker"]
        elif event in ENDS:
            self._running.pop(fields["id"], None)
        elif event == "killed" and "worker" in fields:
            self._running = {
                each: worker for each, worker in self._running.items() if worker != fields["worker"]
            }
        elif event == "acked" and self._running.get(fields["id"]) == fields["worker"]:
            self.broken(f"a message was acknowledged while {fields['worker']} ran it", fields["id"])
