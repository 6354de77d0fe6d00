"""The faults: what is done to the containers, each undone when its function returns.

Each makes sure that it struck, and raises ``AssertionError`` where it did not: durable work
survives a fault that does nothing.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import redis
from redis.exceptions import OutOfMemoryError

from scripts.faults import figures, load
from scripts.faults.stage import Stage

DOCKER_SECONDS = 180.0
AWAY_SECONDS = 5.0
"""A killed container comes back after this, as its supervisor would bring it."""
HUNG_SECONDS = 20.0
"""More than every time-out that waits on Redis."""
CUT_SECONDS = 20.0
FULL_SECONDS = 15.0
CLOCK_OFF_SECONDS = 30.0
BEAT_AHEAD_MINUTES = 6
"""So that it takes what the others remember, and they what it does, for a mistake."""
WORKER_AHEAD_MINUTES = 5
REFUSED_STATUS = 75
"""With which a worker refuses to start."""
TOO_LITTLE = "1mb"
UNANSWERED_SECONDS = 2.0
SILENT = "beat fires nothing: this machine's clock is"
MOST_ROUNDS = 5
MANY = 10
"""Messages: one may be beat's, and no job."""
REACHES_REDIS = "import socket; socket.create_connection(('redis', 6379), 2)"


REACHES_POSTGRES = "from app import db; db.engine().connect().close()"
LOST_SECONDS = 75.0
"""So long that a message whose loss is counted would be given up: the stage's MAX_PUBLISHES."""
HOLD_THE_MUTEX = """
import os, signal
from kombu.transport.redis import Mutex
from app.tasks import celery_app
with celery_app.connection_for_read() as connection:
    channel = connection.default_channel
    with channel.conn_or_acquire() as client:
        with Mutex(client, channel.unacked_mutex_key, channel.unacked_mutex_expire):
            print(client.pttl(channel.unacked_mutex_key), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED_STATUS = 137
STEP_FILE = "/tmp/step"
STEPS = ("+3600", "-3600")
LARGEST_ITEM = 1_048_576
"""Bytes: the least that Redis can be set to."""
TRIED_SECONDS = 60.0
RELAYED = 20
RELAYED_AFTER = timedelta(seconds=5)


Meanwhile = Callable[[], object]


@dataclass(frozen=True)
class Fault:
    """One row of the table."""

    name: str
    strike: Callable[[Stage], None] | Callable[[Stage, Meanwhile], None]
    seconds: float = 15.0
    """For so long jobs go on being planned."""
    lessons: int = 0
    """Lessons that are confirmed in the middle of it, whose mails are counted too; the strike
    is then given what confirms them."""
    leaves: Literal["resent"] | None = None
    """What must have happened to some of the jobs, or it struck nothing."""

    def begin(self, stage: Stage, meanwhile: Meanwhile) -> None:
        """Strike, with ``meanwhile`` in the middle where lessons are confirmed."""
        strike: Callable[..., None] = self.strike
        if self.lessons:
            strike(stage, meanwhile)
        else:
            strike(stage)


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=DOCKER_SECONDS
    )
    if check and done.returncode != 0:
        raise AssertionError(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done


def _struck(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(f"the strike struck nothing: {otherwise}")


@contextmanager
def _started_anew(names: list[str]) -> Iterator[None]:
    """Each of the containers is another process at the end than at the beginning."""

    def started() -> list[str]:
        return docker("inspect", "--format", "{{.State.StartedAt}}", *names).stdout.split()

    before = started()
    yield
    same = [name for name, *at in zip(names, before, started(), strict=True) if len({*at}) == 1]
    _struck(not same, f"{', '.join(same)} went on all the time")


def _kill(names: list[str], look: Callable[[], object] = lambda: None) -> None:
    """SIGKILL; ``look`` is called while they are away."""
    with _started_anew(names):
        docker("kill", *names)
        look()
        time.sleep(AWAY_SECONDS)
        docker("start", *names)


def _restart(names: list[str]) -> None:
    with _started_anew(names):
        docker("restart", *names)


def kill_workers(stage: Stage) -> None:
    """Each worker once, then all of them at once, until some die with a message in hand."""
    names = stage.names("celery_worker")
    with _started_anew(names):
        for name in names:
            docker("kill", name)
            docker("start", name)
    in_hand: list[int] = []
    while not any(in_hand) and len(in_hand) < MOST_ROUNDS:
        _kill(names, lambda: in_hand.append(stage.held()))
        stage.compose.wait_until_healthy()
    _struck(any(in_hand), "no worker held a message")


def kill_beats(stage: Stage) -> None:
    _kill(stage.names("celery_beat"))


def restart_redis(stage: Stage) -> None:
    _restart(stage.names("redis"))


def empty_redis(stage: Stage) -> None:
    """Killed, and emptied as soon as it is back and many messages wait in it."""
    _kill(stage.names("redis"))
    deadline = time.monotonic() + DOCKER_SECONDS
    emptied = 0
    while not emptied and time.monotonic() < deadline:
        with suppress(redis.RedisError):  # it reads its file
            emptied = stage.empty_redis_if_many_wait(MANY)
        time.sleep(0.02)
    _struck(emptied > 0, f"never did {MANY} messages wait in it")


def hang_redis(stage: Stage) -> None:
    _hang(stage.names("redis"), stage.redis_answers)


def hang_postgres(stage: Stage) -> None:
    _hang(stage.names("postgres"), stage.postgres_answers)


def _hang(names: list[str], answers: Callable[[float], bool]) -> None:
    docker("pause", *names)
    try:
        _struck(not answers(UNANSWERED_SECONDS), f"{', '.join(names)} answers")
        time.sleep(HUNG_SECONDS)
    finally:
        docker("unpause", *names)


def cut_workers_off(stage: Stage) -> None:
    """From Redis, PostgreSQL and mail; back in another order, so that addresses change hands."""
    names = stage.names("celery_worker")
    for name in names:
        docker("network", "disconnect", stage.network, name)
    for name in names:
        # Who has no network waits long for a name.
        asked = docker("exec", name, "timeout", "3", "python", "-c", REACHES_REDIS, check=False)
        _struck(asked.returncode != 0, f"{name} reaches Redis")
    time.sleep(CUT_SECONDS)
    for name in reversed(names):
        docker("network", "connect", stage.network, name)


def restart_postgres(stage: Stage) -> None:
    _restart(stage.names("postgres"))


def kill_postgres(stage: Stage) -> None:
    _kill(stage.names("postgres"))


def fill_the_mail_disk(stage: Stage, confirm_lessons: Meanwhile) -> None:
    """While it is full, lessons are confirmed, and some of their mails are refused."""
    (mail,) = stage.names("mail")
    fill = "dd if=/dev/zero of=/kept/fill bs=4096 2>/dev/null; test -s /kept/fill"
    docker("exec", mail, "sh", "-c", fill)
    wrote = docker("exec", mail, "sh", "-c", "echo more >/kept/more", check=False)
    _struck(wrote.returncode != 0, "there is room for more")
    refused = figures.mails_put_back()
    confirm_lessons()
    time.sleep(FULL_SECONDS)
    put_back = figures.mails_put_back() - refused
    docker("exec", mail, "rm", "-f", "/kept/fill", "/kept/more")
    _struck(put_back > 0, "no mail was refused")


def fill_redis(stage: Stage) -> None:
    """Below what it holds: every write that needs memory is refused."""
    with stage.redis() as client:
        limit = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", TOO_LITTLE)
        try:
            client.set("full", "no")
        except OutOfMemoryError:
            pass
        else:
            raise AssertionError("Redis took a write at its limit: the strike struck nothing")
        time.sleep(FULL_SECONDS)
        client.config_set("maxmemory", limit)


def put_a_beat_ahead(stage: Stage) -> None:
    """A third beat, so far ahead of the others that it must fire nothing, and say so."""
    name = f"{stage.compose.project}_beat_ahead"
    ahead = _clock_off(BEAT_AHEAD_MINUTES)
    stage.compose.run("run", "-d", "--no-deps", "--name", name, *ahead, "celery_beat")
    try:
        time.sleep(CLOCK_OFF_SECONDS)
        told = docker("logs", name)
        said = f"{told.stdout}{told.stderr}"
        _struck(f"{SILENT} +{60 * BEAT_AHEAD_MINUTES} s off" in said, f"it said {said[-2000:]}")
    finally:
        docker("rm", "--force", name)


def put_a_worker_ahead(stage: Stage) -> None:
    """A fourth worker, five minutes ahead: it refuses to start, for it would steal tasks."""
    ahead = _clock_off(WORKER_AHEAD_MINUTES)
    refused = stage.compose.run(
        "run", "-T", "--rm", "--no-deps", *ahead, "celery_worker", check=False
    )
    said = f"{refused.stdout}\n{refused.stderr}"
    if refused.returncode != REFUSED_STATUS or "clock is +300 s off Redis's" not in said:
        raise AssertionError(f"it did not refuse, but ended with {refused.returncode}:\n{said}")


def lose_the_database(stage: Stage) -> None:
    """For the workers alone: PostgreSQL refuses them, and beat publishes on."""
    names = stage.names("celery_worker")

    def reach_it() -> list[str]:
        probes = [
            docker("exec", each, "python", "-c", REACHES_POSTGRES, check=False) for each in names
        ]
        return [each for each, probe in zip(names, probes, strict=True) if probe.returncode == 0]

    address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    addresses = docker("inspect", "--format", address, *names).stdout.split()
    _struck(reach_it() == names, "not every worker reached PostgreSQL before")
    with stage.postgres_refuses(addresses):
        _struck(not reach_it(), "a worker reaches PostgreSQL")
        time.sleep(LOST_SECONDS)


def step_clocks(stage: Stage) -> None:
    """Of two more workers, while they run: each ends, to be started again by its supervisor."""
    for step in STEPS:
        name = f"{stage.compose.project}_worker_steps"
        stepping = {
            "LD_PRELOAD": "/usr/local/lib/libfaketime.so.1",
            "FAKETIME_TIMESTAMP_FILE": STEP_FILE,
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        options = [word for key, value in stepping.items() for word in ("-e", f"{key}={value}")]
        stage.compose.run("run", "-d", "--no-deps", "--name", name, *options, "celery_worker")
        try:
            docker("update", "--restart=no", name)
            _wait_for_line(name, "ready.")
            docker(
                "exec",
                name,
                "sh",
                "-c",
                f"echo {step} >{STEP_FILE}.new && mv {STEP_FILE}.new {STEP_FILE}",
            )
            status = docker("wait", name).stdout.strip()
            logged = docker("logs", name)
            said = f"{logged.stdout}{logged.stderr}"
            if status != str(REFUSED_STATUS) or f"clock is {step} s off Redis's" not in said:
                raise AssertionError(f"after {step} s it ended with {status}:\n{said[-2000:]}")
        finally:
            docker("rm", "--force", name)


def _wait_for_line(name: str, line: str) -> None:
    deadline = time.monotonic() + DOCKER_SECONDS
    while time.monotonic() < deadline:
        logged = docker("logs", name)
        if line in f"{logged.stdout}{logged.stderr}":
            return
        time.sleep(0.5)
    raise AssertionError(f"{name} has not logged {line!r}")


def orphan_the_mutex(stage: Stage) -> None:
    """Workers die with messages in hand, and a process with the mutex that guards their return."""
    names = stage.names("celery_worker")
    beat = stage.names("celery_beat")[0]
    in_hand: list[int] = []
    held: list[subprocess.CompletedProcess[str]] = []

    def look() -> None:
        in_hand.append(stage.held())
        held.append(docker("exec", beat, "python", "-c", HOLD_THE_MUTEX, check=False))

    while not any(in_hand) and len(in_hand) < MOST_ROUNDS:
        _kill(names, look)
        stage.compose.wait_until_healthy()
    _struck(any(in_hand), "no worker held a message")
    died = held[-1].returncode == KILLED_STATUS and int(held[-1].stdout or 0) > 0
    _struck(died, f"nobody died with the mutex: {held[-1].stderr[-500:]}")


def plant_unpublishable(stage: Stage) -> None:
    """Entries that Python or Redis refuses come first, and others that only beat publishes."""
    deep, deeper = ("[" * depth + "]" * depth for depth in (970, 3000))
    large = f'["{"x" * 2 * LARGEST_ITEM}"]'
    job = "relayed beside the unpublishable"
    with stage.redis() as client:
        limit = client.config_get("proto-max-bulk-len")["proto-max-bulk-len"]
        client.config_set("proto-max-bulk-len", LARGEST_ITEM)
        try:
            planted = figures.plant([deep, deeper, large])
            load.plan_later(job, RELAYED, after=RELAYED_AFTER)
            deadline = time.monotonic() + TRIED_SECONDS
            while time.monotonic() < deadline:
                refused, relayed = figures.cannot_be_published(planted), figures.count(job).done
                if refused == len(planted) and relayed == RELAYED:
                    break
                time.sleep(0.5)
            if relayed != RELAYED:
                raise AssertionError(f"only {relayed} of {RELAYED} other entries were published")
            _struck(refused == len(planted), f"only {refused} of {len(planted)} were refused")
        finally:
            client.config_set("proto-max-bulk-len", limit)
            figures.cancel(planted)


def _clock_off(minutes: int) -> list[str]:
    off = {"LD_PRELOAD": "/usr/local/lib/libfaketime.so.1", "FAKETIME": f"+{minutes}m"}
    return [word for name, value in off.items() for word in ("-e", f"{name}={value}")]


FAULTS = (
    Fault("workers-killed", kill_workers),
    Fault("beats-killed", kill_beats),
    Fault("redis-restarted", restart_redis),
    Fault("redis-emptied", empty_redis, leaves="resent"),
    Fault("redis-hung", hang_redis, seconds=25),
    Fault("workers-cut-off", cut_workers_off, seconds=25),
    Fault("postgres-restarted", restart_postgres),
    Fault("postgres-killed", kill_postgres),
    Fault("postgres-hung", hang_postgres, seconds=25),
    Fault("mail-disk-full", fill_the_mail_disk, seconds=20, lessons=50),
    Fault("redis-full", fill_redis, seconds=20),
    Fault("beat-6-minutes-ahead", put_a_beat_ahead, seconds=30),
    Fault("worker-5-minutes-ahead", put_a_worker_ahead),
    Fault("workers-lose-database", lose_the_database, seconds=40),
    Fault("clock-steps", step_clocks, seconds=30),
    Fault("mutex-orphaned", orphan_the_mutex),
    Fault("unpublishable-entry", plant_unpublishable, seconds=20),
)
SHORT = ("workers-killed", "redis-restarted", "postgres-restarted")
"""Those that continuous integration runs."""


def chosen(names: Iterable[str]) -> tuple[Fault, ...]:
    """The faults of these names, in the table's order. ValueError for a name that is none."""
    wanted = set(names)
    unknown = wanted - {fault.name for fault in FAULTS}
    if unknown:
        known = ", ".join(fault.name for fault in FAULTS)
        raise ValueError(f"there is no fault {', '.join(sorted(unknown))}: choose from {known}")
    return tuple(fault for fault in FAULTS if fault.name in wanted)
