"""Real processes for integration tests; nothing of them is left after a test."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest
from redis.connection import Connection

from scripts.live.deployment import Deployment
from scripts.live.redis_server import NoRedisServerError, RedisServer


@pytest.fixture
def live(
    broker_url: str, tmp_path: Path, show_logs: Callable[[Callable[[], Mapping[str, str]]], None]
) -> Iterator[Deployment]:
    """A deployment of the app on the chosen Redis: start workers and beats on it."""
    with Deployment(redis_url=broker_url, folder=tmp_path / "live") as deployment:
        show_logs(deployment.logs)
        yield deployment


@pytest.fixture
def own_redis(
    tmp_path: Path,
    missing_service: Callable[[str], NoReturn],
    show_logs: Callable[[Callable[[], Mapping[str, str]]], None],
) -> Iterator[RedisServer]:
    """A Redis that this test alone uses, and may stop, kill, hang and empty."""
    try:
        server = RedisServer(folder=tmp_path / "redis")
    except NoRedisServerError as error:
        missing_service(str(error))
    show_logs(server.logs)
    with server:
        yield server


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Returns how often this process has written to Redis; it writes a pipeline at once.

    How often a server reads is no measure of that: on a busy machine it reads in pieces.
    """
    written = 0
    send = Connection.send_packed_command

    def counted(connection: Connection, *args: Any, **kwargs: Any) -> None:
        nonlocal written
        written += 1
        send(connection, *args, **kwargs)

    monkeypatch.setattr(Connection, "send_packed_command", counted)
    return lambda: written


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Fail a test that leaves a process of its own, or a zombie.

    What a server starts that was there before, such as PostgreSQL for each connection, is
    that server's.
    """
    ourselves = psutil.Process()
    before = set(ourselves.children())
    yield
    left = set(ourselves.children()) - before
    seen = [f"{process.pid} ({process.name()}, {process.status()})" for process in left]
    for process in left:
        for member in (*process.children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):
                member.kill()
    assert not seen, f"left running: {', '.join(seen)}"
