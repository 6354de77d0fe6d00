"""Worker, beat and Flower, and who starts them again when they end, as a supervisor does."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from scripts.demonstration.population import Say
from scripts.live.deployment import BEAT_IS_READY, WORKER_IS_READY, Deployment
from scripts.live.processes import Process

RESTART_PAUSE = 1.0
"""Seconds between two starts of one that does not stay."""


@dataclass
class Member:
    name: str
    process: Process
    ready_line: str | None
    """What its log says when it works; ``None``: nobody waits for it."""
    started_at: float = 0.0
    """Seconds into the show."""
    ready_at: float | None = 0.0
    """Likewise; ``None`` while it starts."""

    def kill(self) -> None:
        """SIGKILL it and its children, without a word of warning."""
        self.process.kill()


class Crew:
    """Keeps its members alive. Every call says when it is, in seconds into the show."""

    def __init__(self, live: Deployment, *, flower_port: int, say: Say) -> None:
        """Start all of them; ``ProcessEndedError`` or ``TimeoutError`` where one cannot."""
        self._say = say
        say("starting", "a worker with two processes")
        self.worker = Member("worker", live.start_worker(concurrency=2), WORKER_IS_READY)
        say("starting", "beat")
        self.beat = Member("beat", live.start_beat(), BEAT_IS_READY)
        say("starting", "Flower")
        self.flower = Member("Flower", live.start_flower(flower_port), None)
        self._on_duty = [self.worker, self.beat, self.flower]

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._on_duty))

    def watch(self, elapsed: float) -> None:
        """Start again whoever has ended, and say who is ready again."""
        for member in self:
            if not member.process.alive:
                if elapsed >= member.started_at + RESTART_PAUSE:
                    self._start_again(member, elapsed)
            elif member.ready_at is None and _is_ready(member):
                member.ready_at = elapsed
                self._say("ready", member.name)

    def dismiss(self, member: Member) -> None:
        """Stop it as an operator does, for good."""
        if member in self._on_duty:
            self._on_duty.remove(member)
        member.process.terminate()

    def take_back(self, member: Member, elapsed: float) -> None:
        """Start one again that was dismissed."""
        self._on_duty.append(member)
        self._start_again(member, elapsed)

    def _start_again(self, member: Member, elapsed: float) -> None:
        exit_code = member.process.exit_code
        member.process.start()
        member.started_at, member.ready_at = elapsed, None
        self._say("restarted", f"{member.name}, which had ended with {exit_code}")


def _is_ready(member: Member) -> bool:
    return member.ready_line is None or bool(
        re.search(member.ready_line, member.process.log_text(), re.MULTILINE)
    )
