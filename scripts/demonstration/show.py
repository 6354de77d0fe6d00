"""The whole run: start everything, let people book, let it drain, stop everything, count."""

import random
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from app import clock, db
from app.adapters.slot_cache import CachedSlots
from app.domain.calendar import day_of
from scripts.demonstration import accounting, marketplace, people
from scripts.demonstration.crew import FLOWER_PORT, Crew
from scripts.demonstration.debts import Debts
from scripts.demonstration.effects import look
from scripts.demonstration.interruption import Interruption
from scripts.demonstration.narration import Narrator
from scripts.demonstration.options import Options
from scripts.demonstration.past import DAY, Past
from scripts.demonstration.population import Population
from scripts.demonstration.sabotage import HASTE, SLOW_MAIL, Saboteur
from scripts.demonstration.summary import Summary
from scripts.demonstration.voice import Voice
from scripts.live.deployment import REPOSITORY, Deployment
from scripts.live.redis_server import RedisServer

TICK = 0.1  # seconds
REMINDERS_EVERY = 10.0  # seconds
PATIENCE = 60.0  # seconds for the queues to drain, however short the show is
AFTERTHOUGHT = 5.0  # seconds for what beat enqueued as it was stopped


def closing_time(seconds: float | None, *, kill: bool) -> float | None:
    """When people stop booking in a show of so many seconds: early enough to drain."""
    if seconds is None:
        return None
    return seconds - min(15.0 if kill else 8.0, seconds / 3)


def run(options: Options, *, voice: Voice, interruption: Interruption) -> Summary:
    """The show from start to end; nothing that it started lives when it returns.

    Raises what keeps a process from starting, and ``KeyboardInterrupt`` for a Ctrl-C before the
    show has begun and for the second one later: then all processes are killed at once.
    """
    folder = options.folder or _new_folder()
    redis = RedisServer(folder=folder / "redis")
    live = Deployment(
        redis_url=redis.url, folder=folder, environment=HASTE if options.kill else None
    )
    with marketplace.opened(live.environment, log=live.log_folder / "marketplace.log"):
        residents = people.move_in()
        voice.say("starting", f"Redis on {redis.url}, mail server on {live.mail.url}")
        with redis, live:
            crew = Crew(live, say=voice.say)
            seed = random.SystemRandom().randrange(10_000) if options.seed is None else options.seed
            rng = random.Random(seed)
            show = Show(
                options,
                voice=voice,
                interruption=interruption,
                crew=crew,
                population=Population(residents, rng=rng, say=voice.say),
                narrator=Narrator(
                    live.mailbox,
                    students=residents.students,
                    say=voice.say,
                    status=voice.status,
                    status_every=voice.status_every,
                ),
                saboteur=_saboteur(options, crew, redis, seed=seed, voice=voice),
            )
            if options.kill:
                live.mail.delay(SLOW_MAIL, at="rcpt")
            voice.show(
                _where_to_look(live, flower_port=crew.flower_port, seed=seed, options=options)
            )
            show.play()
            voice.end()
            voice.say("stopping", "Flower, worker, mail server and Redis")
        return show.count(live)


class Show:
    """What happens between the start of the processes and their end."""

    def __init__(
        self,
        options: Options,
        *,
        voice: Voice,
        interruption: Interruption,
        crew: Crew,
        population: Population,
        narrator: Narrator,
        saboteur: Saboteur | None,
    ) -> None:
        self._options = options
        self._voice = voice
        self._interruption = interruption
        self._crew = crew
        self._population = population
        self._narrator = narrator
        self._saboteur = saboteur
        self._reminders_due_at = REMINDERS_EVERY
        self._reminded_at: datetime | None = None
        self._past: Past | None = None
        self._reported = False
        self._cached: dict[int, CachedSlots] = {}
        self._seconds = 0.0

    def play(self) -> None:
        """People book until closing time or Ctrl-C; then everything drains."""
        self._voice.begin()
        self._interruption.patient = True
        self._open()
        self._close()
        self._drain()
        self._seconds = self._voice.elapsed

    def count(self, live: Deployment) -> Summary:
        """The books of what was left in the tables and the mailbox."""
        with db.reading() as session:
            past, zone, now = self._past, marketplace.zone(), clock.utcnow()
            yesterday = past.yesterday if past else day_of(now, zone) - DAY
            account = accounting.draw_up(
                session,
                live.mailbox.message_ids(),
                Debts(session, yesterday=yesterday, zone=zone),
                domain=marketplace.mail_domain(),
                reminded_at=self._reminded_at,
                reported=self._reported,
                now=now,
            )
            effects = look(session, self._cached, yesterday=yesterday, zone=zone, now=now)
        return Summary(
            account,
            effects=effects,
            modules=marketplace.modules(),
            killed=self._saboteur.killed if self._saboteur else None,
            seconds=self._seconds,
            mailbox=live.mailbox.folder,
            database=live.database_url,
            logs=live.log_folder,
        )

    def _open(self) -> None:
        self._past = self._population.relive(zone=marketplace.zone())
        self._voice.say(
            "yesterday",
            "lessons were taught, cancelled and missed, sessions expired, passwords forgotten",
        )
        lessons = self._population.bring_history()
        self._voice.say(
            "history",
            f"{lessons} lessons that were agreed on hours or days ago;"
            " their reminders are due now or at the next whole minute",
        )
        tasks = marketplace.enqueue_schedule_once(self._past.yesterday)
        names = ", ".join(task.removeprefix("app.tasks.") for task in tasks)
        self._voice.say("schedule", f"runs once now, without waiting for beat: {names}")
        self._keep_going(
            lambda: self._interruption.wished,
            until=closing_time(self._options.seconds, kill=self._options.kill),
            busy=True,
        )

    def _close(self) -> None:
        if self._saboteur:
            self._saboteur.repair()
        self._send_reminders()
        again = "; Ctrl-C again ends it at once" if self._interruption.wished else ""
        self._voice.say("closing", f"people stop booking; what is under way drains{again}")

    def _drain(self) -> None:
        began = self._voice.elapsed
        while True:
            if not self._keep_going(marketplace.is_drained, until=began + PATIENCE):
                self._voice.say("gave up", f"after {PATIENCE:.0f} s: work is left")
                return
            if not self._reported and self._past is not None:
                # Only now: the week's reports are made of yesterday's metrics.
                self._reported = True
                marketplace.enqueue_reports(self._past.yesterday)
                marketplace.enqueue_slots()
                continue
            self._narrator.tell_mails()
            self._cached = marketplace.cached_slots()
            self._voice.say("drained", f"after {self._voice.elapsed - began:.1f} s")
            self._look_around()
            # Beat enqueues each minute: only without it does drained stay drained.
            self._voice.say("stopping", "beat")
            self._crew.dismiss(self._crew.beat)
            if self._keep_going(marketplace.is_drained, until=self._voice.elapsed + AFTERTHOUGHT):
                return
            self._crew.take_back(self._crew.beat, self._voice.elapsed)

    def _look_around(self) -> None:
        left = (self._options.seconds or 0.0) - self._voice.elapsed
        if left > 1.0 and not self._interruption.wished:
            self._voice.say("quiet", f"for the last {left:.0f} s")
            self._keep_going(lambda: self._interruption.wished, until=self._options.seconds)

    def _keep_going(
        self, done: Callable[[], bool], *, until: float | None, busy: bool = False
    ) -> bool:
        """Let things happen until ``done``, or ``until`` (seconds into the show); whether done.

        ``busy``: people book, and what is to be killed is.
        """
        while True:
            elapsed = self._voice.elapsed
            if busy:
                self._population.step(elapsed)
                if self._saboteur:
                    self._saboteur.step(elapsed)
                if elapsed >= self._reminders_due_at:
                    self._send_reminders()
            self._crew.watch(elapsed)
            self._narrator.look(elapsed)
            if done():
                return True
            if until is not None and elapsed >= until:
                return False
            time.sleep(TICK)

    def _send_reminders(self) -> None:
        self._reminders_due_at = self._voice.elapsed + REMINDERS_EVERY
        self._reminded_at = clock.utcnow()
        marketplace.enqueue_reminders()


def _saboteur(
    options: Options, crew: Crew, redis: RedisServer, *, seed: int, voice: Voice
) -> Saboteur | None:
    if not options.kill:
        return None
    # With a generator of its own: people decide the same, killed or not.
    return Saboteur(
        crew,
        redis,
        rng=random.Random(seed),
        say=voice.say,
        length=closing_time(options.seconds, kill=True),
        is_sending=marketplace.is_sending,
    )


def _where_to_look(live: Deployment, *, flower_port: int, seed: int, options: Options) -> str:
    taken = "" if flower_port == FLOWER_PORT else f"  (port {FLOWER_PORT} is in use)"
    ends = "Ctrl-C" if options.seconds is None else f"{options.seconds:g} s or Ctrl-C"
    return "\n".join(
        [
            "",
            f"  Flower     http://127.0.0.1:{flower_port}{taken}",
            f"  mailbox    {live.mailbox.folder}",
            f"  database   {live.database_url}",
            f"  logs       {live.log_folder}",
            f"  ends       with {ends}; again with --seed {seed}",
            "",
        ]
    )


def _new_folder() -> Path:
    home = REPOSITORY / "var" / "demo"
    name = f"{clock.utcnow():%Y%m%dT%H%M%SZ}"
    taken = {path.name for path in home.glob(f"{name}*")}
    return home / (f"{name}-{len(taken) + 1}" if taken else name)
