"""A PostgreSQL of our own: found, started as somebody who may, and gone afterwards."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg
import pytest

from scripts.live import postgres_server
from scripts.live.deployment import REPOSITORY
from scripts.live.postgres_server import NoPostgresServerError, PostgresServer, find_programs
from scripts.live.processes import ProcessEndedError


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    try:
        made = PostgresServer()
    except NoPostgresServerError as error:
        pytest.skip(str(error))
    with made as started:
        yield started


def connect(server: PostgresServer) -> psycopg.Connection:
    url = server.url.set(drivername="postgresql")
    return psycopg.connect(url.render_as_string(hide_password=False))


def test_it_answers_on_its_url(server: PostgresServer) -> None:
    with closing(connect(server)) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)


def test_it_wants_its_password(server: PostgresServer) -> None:
    url = server.url.set(drivername="postgresql", password="guessed")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url.render_as_string(hide_password=False))


def test_a_port_in_use_is_an_error_and_leaves_nothing(server: PostgresServer) -> None:
    second = PostgresServer(port=server.port)
    with pytest.raises(ProcessEndedError, match="Address already in use"), second:
        pass
    assert not second.process.alive
    assert not second.folder.exists()


def test_nothing_is_left_of_it(server: PostgresServer) -> None:
    with PostgresServer() as other, closing(connect(other)):
        process = psutil.Process(other.process.pid)
    assert not process.is_running()
    assert not other.folder.exists()


def test_it_does_not_outlive_who_started_it(server: PostgresServer) -> None:
    started = (
        "from scripts.live.postgres_server import PostgresServer\n"
        "server = PostgresServer().__enter__()\n"
        "print(server.process.pid, server.folder, flush=True)\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", started],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    ).stdout
    pid, folder = answer.split()
    try:
        if psutil.pid_exists(int(pid)):
            psutil.Process(int(pid)).wait(10)
    except psutil.NoSuchProcess:
        pass
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)
    assert not psutil.pid_exists(int(pid))


def test_a_server_that_is_too_old_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("postgres", "initdb"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 12.18'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(postgres_server, "DEBIAN", "/no/such/folder")
    with pytest.raises(NoPostgresServerError, match=r"too old or broken"):
        find_programs()


def test_no_server_at_all_says_in_one_line_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(postgres_server, "DEBIAN", "/no/such/folder")
    with pytest.raises(NoPostgresServerError) as error:
        find_programs()
    assert "apt install postgresql" in str(error.value)
    assert "\n" not in str(error.value)
