"""Worker, beat and Flower, and who starts them again when they end, as a supervisor does."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from scripts.demonstration.population import Say
from scripts.live.deployment import BEAT_IS_READY, WORKER_IS_READY, Deployment, is_serving
from scripts.live.ports import free_port
from scripts.live.processes import Process, ProcessEndedError

FLOWER_PORT = 5555
PORTS_TRIED = 5
"""Another demo may take a free port before Flower listens on it."""
CANNOT_LISTEN = "flower cannot listen"
"""How Flower's last line begins where another process has its port."""

RESTART_PAUSE = 1.0
"""Seconds between two starts of one that does not stay."""


@dataclass
class Member:
    name: str
    process: Process
    is_ready: Callable[[], bool]
    """Whether it works, after a start."""
    started_at: float = 0.0
    """Seconds into the show."""
    ready_at: float | None = 0.0
    """Likewise; ``None`` while it starts."""

    def kill(self) -> None:
        """SIGKILL it and its children, without a word of warning."""
        self.process.kill()


class Crew:
    """Keeps its members alive. Every call says when it is, in seconds into the show."""

    def __init__(self, live: Deployment, *, say: Say) -> None:
        """Start all of them; ``ProcessEndedError`` or ``TimeoutError`` where one cannot."""
        self._live = live
        self._say = say
        say("starting", "a worker with two processes")
        worker = live.start_worker(concurrency=2)
        self.worker = Member("worker", worker, partial(_has_logged, worker, WORKER_IS_READY))
        say("starting", "beat")
        beat = live.start_beat()
        self.beat = Member("beat", beat, partial(_has_logged, beat, BEAT_IS_READY))
        say("starting", "Flower")
        self.flower_port = FLOWER_PORT
        flower = self._start_flower()
        self.flower = Member("Flower", flower, lambda: is_serving(flower, self.flower_port))
        self._on_duty = [self.worker, self.beat, self.flower]

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._on_duty))

    def watch(self, elapsed: float) -> None:
        """Start again whoever has ended, and say who is ready again."""
        for member in self:
            if not member.process.alive:
                if elapsed >= member.started_at + RESTART_PAUSE:
                    self._start_again(member, elapsed)
            elif member.ready_at is None and member.is_ready():
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

    def _start_flower(self) -> Process:
        for tried in range(PORTS_TRIED):
            # Only now: the port is Flower's when it listens, and not before.
            self.flower_port = free_port(None if tried else FLOWER_PORT)
            try:
                return self._live.start_flower(self.flower_port)
            except ProcessEndedError as error:
                if CANNOT_LISTEN not in str(error):
                    raise
        raise OSError(f"Flower found no free port in {PORTS_TRIED} attempts")

    def _start_again(self, member: Member, elapsed: float) -> None:
        exit_code = member.process.exit_code
        if member is self.flower and CANNOT_LISTEN in member.process.log_text():
            self.flower_port = free_port()
            self._say("moved", f"Flower, to http://127.0.0.1:{self.flower_port}")
            member.process.argv = self._live.flower_command(self.flower_port)
        member.process.start()
        member.started_at, member.ready_at = elapsed, None
        self._say("restarted", f"{member.name}, which had ended with {exit_code}")


def _has_logged(process: Process, pattern: str) -> bool:
    return re.search(pattern, process.log_text(), re.MULTILINE) is not None
