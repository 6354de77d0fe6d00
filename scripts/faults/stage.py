"""The compose file with countable jobs, up for the fault proofs, and planned for from here."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import redis
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from app import db
from scripts.live.compose import Compose, leftovers
from scripts.live.deployment import REPOSITORY
from scripts.live.images import image_from
from scripts.live.job_bench import planning
from scripts.live.ports import HOST, free_port

OVERRIDE = "scripts/faults/docker-compose.faults.yml"
IMAGE_FOLDER = REPOSITORY / "scripts" / "faults" / "image"
STORES = ("redis", "migrate", "mail")
"""PostgreSQL comes up with ``migrate``."""
PROCESSES = ("celery_worker", "celery_beat")
EMPTY_IF_MANY_WAIT = """
local waiting = 0
for _, key in ipairs(redis.call('KEYS', '*')) do
    if redis.call('TYPE', key)['ok'] == 'list' then
        waiting = waiting + redis.call('LLEN', key)
    end
end
if waiting < tonumber(ARGV[1]) then
    return 0
end
redis.call('FLUSHALL')
return waiting
"""
"""In one script: a worker would take a message between two commands."""
_END_CONNECTIONS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE client_addr = CAST(:address AS inet)"
)
UNACKED = "unacked"
"""kombu's hash of what workers hold."""
BUILD_SECONDS = 600.0
LATE_CREATION_SECONDS = 2.0


class NoImageError(RuntimeError):
    """The image that the faults need cannot be made here, in one line."""


class Stage:
    """A deployment in containers, and how to reach it from this process."""

    def __init__(self, compose: Compose, *, redis_port: int) -> None:
        self.compose = compose
        self.redis_url = f"redis://{HOST}:{redis_port}/0"

    def redis(self) -> redis.Redis:
        """A client of its Redis."""
        return redis.Redis.from_url(self.redis_url, socket_timeout=10)

    def waiting(self) -> int:
        """How many messages wait in its Redis, in all lists."""
        with self.redis() as client:
            return sum(client.llen(name) for name in client.scan_iter(_type="list"))

    def held(self) -> int:
        """How many messages were delivered to a worker and not acknowledged."""
        with self.redis() as client:
            return int(client.hlen(UNACKED))

    def empty_redis_if_many_wait(self, many: int) -> int:
        """Empty its Redis if so ``many`` messages wait; how many were lost, 0 for fewer.

        What a worker holds it finishes without its message, so that alone would be no loss.
        """
        with self.redis() as client:
            return int(client.eval(EMPTY_IF_MANY_WAIT, 0, str(many)))

    def redis_answers(self, patience: float) -> bool:
        """Whether it answers a ping within ``patience`` seconds."""
        asking = redis.Redis.from_url(self.redis_url, socket_timeout=patience, retry=None)
        try:
            with asking:
                return bool(asking.ping())
        except redis.RedisError:
            return False

    def postgres_answers(self, patience: float) -> bool:
        """Whether it takes a new connection within ``patience`` (whole) seconds."""
        asking = create_engine(
            db.engine().url,
            connect_args={"connect_timeout": round(patience)},
            poolclass=NullPool,
        )
        try:
            with asking.connect():
                return True
        except SQLAlchemyError:
            return False

    @contextmanager
    def postgres_refuses(self, addresses: Iterable[str]) -> Iterator[None]:
        """Let its PostgreSQL end the connections of these addresses, and take no new ones."""
        refused = list(addresses)
        engine = db.engine().execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            file = connection.scalar(text("SHOW hba_file"))
            before = connection.scalar(text("SELECT pg_read_binary_file(:file)"), {"file": file})
        lines = "".join(f"host all all {address}/32 reject\n" for address in refused).encode()
        self._write_on_postgres(file, lines + bytes(before))
        try:
            with engine.connect() as connection:
                for address in refused:
                    connection.execute(_END_CONNECTIONS, {"address": address})
            yield
        finally:
            self._write_on_postgres(file, bytes(before))

    @staticmethod
    def _write_on_postgres(file: str, content: bytes) -> None:
        with db.engine().begin() as connection:
            written = connection.scalar(text("SELECT lo_from_bytea(0, :it)"), {"it": content})
            connection.execute(text("SELECT lo_export(:it, :file)"), {"it": written, "file": file})
            connection.execute(text("SELECT lo_unlink(:it)"), {"it": written})
            connection.execute(text("SELECT pg_reload_conf()"))

    def names(self, service: str) -> list[str]:
        """The names of a service's containers, in order."""
        found = self.compose.containers(service)
        return sorted(one["Name"].lstrip("/") for one in found if not _is_one_off(one))

    @property
    def network(self) -> str:
        """The name of the network that its containers share."""
        return f"{self.compose.project}_default"


@contextmanager
def stage(*, workers: int = 3, beats: int = 2, name: str = "") -> Iterator[Stage]:
    """Bring it up, healthy, and let this process plan for it; at the end nothing is left.

    Raises ``NoComposeError`` or ``NoImageError`` where that is impossible here, and
    ``TimeoutError`` where it does not become healthy.
    """
    image = build_image()
    postgres_port = free_port()
    compose = Compose(
        name=name,
        files=[OVERRIDE],
        environment={"APP_IMAGE": image, "POSTGRES_PORT": str(postgres_port)},
    )
    database_url = (
        f"postgresql+psycopg://instainstru:instainstru@{HOST}:{postgres_port}/instainstru"
    )
    try:
        with compose:
            compose.up(*STORES)
            compose.wait_until_healthy()
            made = Stage(compose, redis_port=compose.ports["REDIS_PORT"])
            environment = {
                "REDIS_URL": made.redis_url,
                "DATABASE_URL": database_url,
                "SMTP_URL": "smtp://mail.invalid:25",  # this process sends none
            }
            # Before the first worker: it needs the tables that jobs are counted in.
            with planning(environment):
                scales = (f"--scale=celery_worker={workers}", f"--scale=celery_beat={beats}")
                compose.up(*scales, *PROCESSES)
                compose.wait_until_healthy()
                yield made
    finally:
        _remove_what_came_late(compose)


def build_image() -> str:
    """The product's image with what the faults need beside it; its name.

    Raises ``NoImageError``.
    """
    product = image_from("APP_IMAGE", "instainstru-tasks:local")
    name = f"{product}-faults"
    built = subprocess.run(
        ["docker", "build", "--build-arg", f"APP_IMAGE={product}", "--tag", name, IMAGE_FOLDER],
        env={**os.environ, "DOCKER_BUILDKIT": "0"},  # it takes what is here, and asks nobody
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
    )
    if built.returncode != 0:
        said = f"{built.stdout}\n{built.stderr}".strip().splitlines()
        raise NoImageError(f"no image {name}: run scripts/build_images ({said[-1]})")
    return name


def _remove_what_came_late(compose: Compose) -> None:
    """A daemon that was asked for a container as we were interrupted may still be making it."""
    time.sleep(LATE_CREATION_SECONDS)
    if leftovers(compose.project):
        compose.down()


def _is_one_off(container: dict[str, object]) -> bool:
    config = container["Config"]
    assert isinstance(config, dict)  # noqa: S101 - what docker inspect answers
    return bool(config["Labels"].get("com.docker.compose.oneoff") == "True")
