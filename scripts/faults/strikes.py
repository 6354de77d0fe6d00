"""The faults: what is done to the containers, each undone when its function returns."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import redis
from redis.exceptions import OutOfMemoryError

from scripts.faults.stage import Stage

DOCKER_SECONDS = 180.0
AWAY_SECONDS = 5.0
"""A killed container comes back after this, as its supervisor would bring it."""
HUNG_SECONDS = 20.0
"""More than every time-out that waits on Redis."""
CUT_SECONDS = 20.0
FULL_SECONDS = 15.0
CLOCK_OFF_SECONDS = 30.0
CLOCK_OFF = {"LD_PRELOAD": "/usr/local/lib/libfaketime.so.1", "FAKETIME": "+5m"}
REFUSED_STATUS = 2
"""With which a worker refuses to start."""
TOO_LITTLE = "1mb"


@dataclass(frozen=True)
class Fault:
    """One row of the table."""

    name: str
    strike: Callable[[Stage], None]
    seconds: float = 15.0
    """For so long jobs go on being planned."""
    lessons: int = 0
    """Lessons that are confirmed meanwhile, whose mails are counted too."""


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=DOCKER_SECONDS
    )
    if check and done.returncode != 0:
        raise AssertionError(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done


def _kill(names: Iterable[str]) -> None:
    names = list(names)
    docker("kill", *names)
    time.sleep(AWAY_SECONDS)
    docker("start", *names)


def kill_workers(stage: Stage) -> None:
    """Each worker once, then all of them at once."""
    names = stage.names("celery_worker")
    for name in names:
        docker("kill", name)
        docker("start", name)
    _kill(names)


def kill_beats(stage: Stage) -> None:
    _kill(stage.names("celery_beat"))


def restart_redis(stage: Stage) -> None:
    docker("restart", *stage.names("redis"))


def empty_redis(stage: Stage) -> None:
    """Killed, and emptied as soon as it is back."""
    _kill(stage.names("redis"))
    deadline = time.monotonic() + DOCKER_SECONDS
    with stage.redis() as client:
        while True:
            try:
                client.flushall()
            except redis.RedisError:  # it reads its file
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return


def hang_redis(stage: Stage) -> None:
    _paused(stage.names("redis"))


def hang_postgres(stage: Stage) -> None:
    _paused(stage.names("postgres"))


def _paused(names: list[str]) -> None:
    docker("pause", *names)
    try:
        time.sleep(HUNG_SECONDS)
    finally:
        docker("unpause", *names)


def cut_workers_off(stage: Stage) -> None:
    """From Redis, PostgreSQL and mail; back in another order, so that addresses change hands."""
    names = stage.names("celery_worker")
    for name in names:
        docker("network", "disconnect", stage.network, name)
    time.sleep(CUT_SECONDS)
    for name in reversed(names):
        docker("network", "connect", stage.network, name)


def restart_postgres(stage: Stage) -> None:
    docker("restart", *stage.names("postgres"))


def kill_postgres(stage: Stage) -> None:
    _kill(stage.names("postgres"))


def fill_the_mail_disk(stage: Stage) -> None:
    (mail,) = stage.names("mail")
    fill = "dd if=/dev/zero of=/kept/fill bs=4096 2>/dev/null; test -s /kept/fill"
    docker("exec", mail, "sh", "-c", fill)
    time.sleep(FULL_SECONDS)
    docker("exec", mail, "rm", "/kept/fill")


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
    """A third beat, five minutes ahead of the others."""
    name = f"{stage.compose.project}_beat_ahead"
    stage.compose.run("run", "-d", "--no-deps", "--name", name, *_clock_off(), "celery_beat")
    try:
        time.sleep(CLOCK_OFF_SECONDS)
        ahead = docker("exec", name, "date", "-u", "+%s").stdout
        assert abs(int(ahead) - time.time() - 300) < 60, "its clock is right"  # noqa: S101
    finally:
        docker("rm", "--force", name)


def put_a_worker_ahead(stage: Stage) -> None:
    """A fourth worker, five minutes ahead: it refuses to start, for it would steal tasks."""
    refused = stage.compose.run(
        "run", "-T", "--rm", "--no-deps", *_clock_off(), "celery_worker", check=False
    )
    said = f"{refused.stdout}\n{refused.stderr}"
    if refused.returncode != REFUSED_STATUS or "clock is +300 s off Redis's" not in said:
        raise AssertionError(f"it did not refuse, but ended with {refused.returncode}:\n{said}")


def _clock_off() -> list[str]:
    return [word for name, value in CLOCK_OFF.items() for word in ("-e", f"{name}={value}")]


FAULTS = (
    Fault("workers-killed", kill_workers),
    Fault("beats-killed", kill_beats),
    Fault("redis-restarted", restart_redis),
    Fault("redis-emptied", empty_redis),
    Fault("redis-hung", hang_redis, seconds=25),
    Fault("workers-cut-off", cut_workers_off, seconds=25),
    Fault("postgres-restarted", restart_postgres),
    Fault("postgres-killed", kill_postgres),
    Fault("postgres-hung", hang_postgres, seconds=25),
    Fault("mail-disk-full", fill_the_mail_disk, seconds=20, lessons=50),
    Fault("redis-full", fill_redis, seconds=20),
    Fault("beat-5-minutes-ahead", put_a_beat_ahead, seconds=30),
    Fault("worker-5-minutes-ahead", put_a_worker_ahead),
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
