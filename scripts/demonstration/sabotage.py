"""What ``--kill`` adds: SIGKILL for workers and beat, and a Redis that comes back empty."""

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Protocol

from scripts.demonstration.crew import Crew, Member
from scripts.demonstration.population import Say

WORKER_LIVES = (1.0, 4.0)
"""Seconds from when a worker is ready until it may be killed: from, to."""
LONGEST_WAIT = 3.0
"""Seconds for which its killer waits for a moment at which it hurts."""
BEAT_LIVES = 25.0
REDIS_AWAY = 3.0
SLOW_MAIL = 0.1
"""Seconds that the mail server thinks about each reader, so that workers die in the middle of
a conversation. Not about the message: what it has by then it would keep, and most kills would
double a mail."""

HASTE = {
    # The defaults wait longer than a show lasts. See app/settings.py for what each means
    # and app/outbox/publish.py for why the margin is more than five seconds.
    "VISIBILITY_TIMEOUT_SECONDS": "6",
    "LEASE_INTERVAL_SECONDS": "1",
    "RESEND_MARGIN_SECONDS": "6",
    "PUBLISH_PAUSE_SECONDS": "1",
    "SMTP_TIMEOUT_SECONDS": "2",
    "MAIL_LEASE_SECONDS": "10",
    # Here it is never the message's fault.
    "MAX_DELIVERIES": "50",
}


class Breakable(Protocol):
    """A ``RedisServer``, as far as it is broken here."""

    def kill(self) -> None: ...

    def start(self, *, empty: bool = False) -> None: ...


class Saboteur:
    """Kills what the crew starts again. Redis it starts again itself: once is enough."""

    def __init__(
        self,
        crew: Crew,
        redis: Breakable,
        *,
        rng: Random,
        say: Say,
        length: float | None,
        is_sending: Callable[[], bool],
    ) -> None:
        """``length``: seconds for which it may; ``None``: for ever. ``is_sending``: whether a
        worker has a mail in hand, which is when its death hurts most."""
        self._crew = crew
        self._redis = redis
        self._rng = rng
        self._say = say
        self._is_sending = is_sending
        self.killed: Counter[str] = Counter({"worker": 0, "beat": 0, "Redis": 0})
        length = 60.0 if length is None else length
        self._worker_life = rng.uniform(*WORKER_LIVES)
        self._beat_at = min(BEAT_LIVES, length / 4)
        self._redis_at: float | None = min(20.0, length / 2)
        self._redis_back_at: float | None = None

    def step(self, elapsed: float) -> None:
        """Do what is due ``elapsed`` seconds into the show."""
        worker, beat = self._crew.worker, self._crew.beat
        if worker.ready_at is not None:
            overdue = elapsed - worker.ready_at - self._worker_life
            if overdue >= LONGEST_WAIT or (overdue >= 0 and self._is_sending()):
                self._worker_life = self._rng.uniform(*WORKER_LIVES)
                self._kill(worker)
        if beat.ready_at is not None and elapsed >= self._beat_at:
            self._beat_at = elapsed + BEAT_LIVES
            self._kill(beat)
        if self._redis_at is not None and elapsed >= self._redis_at:
            self._redis_at, self._redis_back_at = None, elapsed + REDIS_AWAY
            self._redis.kill()
            self.killed["Redis"] += 1
            self._say("KILLED", "Redis, with everything in it; bookings go on")
        if self._redis_back_at is not None and elapsed >= self._redis_back_at:
            self.repair()

    def repair(self) -> None:
        """Give Redis back, if it is away."""
        if self._redis_back_at is not None:
            self._redis_back_at = None
            self._redis.start(empty=True)
            self._say("restarted", "Redis, empty")

    def _kill(self, member: Member) -> None:
        member.kill()
        member.ready_at = None
        self.killed[member.name] += 1
        self._say("KILLED", f"{member.name}, with SIGKILL")
