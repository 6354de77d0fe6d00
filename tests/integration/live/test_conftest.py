"""What tests/conftest.py and its plugins promise to every test, on a small suite."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from scripts.live.deployment import REPOSITORY
from scripts.live.postgres_server import NoPostgresServerError, PostgresServer
from scripts.live.redis_server import RedisServer
from tests.docker_objects import RUN_VARIABLE, found
from tests.postgres_databases import connect
from tests.redis_choice import REDIS
from tests.service_choice import NO_ANSWER, why_no_container

USES_REDIS = """
    import redis
    def test_it(broker_url):
        with redis.Redis.from_url(broker_url) as client:
            assert client.dbsize() == 0
            client.set("a", "b")
    test_again = test_it
"""
USES_POSTGRES = """
    from tests.database import on_postgresql
    from sqlalchemy import text
    @on_postgresql
    def test_it(database):
        with database.begin() as connection:
            assert connection.scalar(text("SELECT count(*) FROM paused_queues")) == 0
            connection.execute(text("INSERT INTO paused_queues VALUES ('email', now())"))
    test_again = test_it
"""
USES_A_CLUSTER = """
    def test_it(cluster):
        pass
"""
# A shell that starts us in the background lets us ignore Ctrl-C, which we would hand down.
PYTEST = """
import signal, sys, pytest
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(pytest.main(sys.argv[1:]))
"""
NO_DOCKER = {"DOCKER_HOST": "tcp://127.0.0.1:1", "REDIS_IMAGE": "", "POSTGRES_IMAGE": ""}

CLUSTER = "integration/cluster"

Suite = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """Run a suite of one file, in the given folder, under copies of our conftests."""

    def run(
        source: str, *options: str, folder: str = "integration", environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "test_it.py").write_text(dedent(source))
        for place in ("", "integration", "integration/cluster"):
            conftest = f"{place}/conftest.py".lstrip("/")
            (tmp_path / conftest).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / conftest).write_text((REPOSITORY / "tests" / conftest).read_text())
        (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
        ours = {"CI", RUN_VARIABLE}
        outer = {name: value for name, value in os.environ.items() if name not in ours}
        return subprocess.run(
            [sys.executable, "-c", PYTEST, "--disable-socket", "--allow-unix-socket", *options],
            cwd=tmp_path,
            env={**outer, "PYTHONPATH": str(REPOSITORY), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_without_docker_the_embedded_server_is_used_and_named(suite: Suite) -> None:
    done = suite(USES_REDIS, environment=NO_DOCKER)
    assert "redis: embedded " in done.stdout
    assert "(no container: Docker does not answer)" in done.stdout
    assert "2 passed" in done.stdout


def test_a_missing_service_is_skipped_on_a_laptop(suite: Suite) -> None:
    done = suite(USES_REDIS, "--redis=container", "-rs", environment=NO_DOCKER)
    assert done.returncode == 0
    assert "2 skipped" in done.stdout
    assert "no Redis (--redis=container, but Docker does not answer)" in done.stdout


def test_a_missing_service_fails_in_ci(suite: Suite) -> None:
    done = suite(USES_REDIS, "--redis=container", environment=NO_DOCKER | {"CI": "true"})
    assert done.returncode == 1
    assert "missing in CI: no Redis" in done.stdout


def test_a_url_is_used_as_it_is_and_left_empty(suite: Suite) -> None:
    with RedisServer() as server:
        done = suite(USES_REDIS, f"--redis={server.url}", environment=NO_DOCKER)
        assert f"redis: url {server.url}" in done.stdout
        assert "2 passed" in done.stdout
        assert server.client().dbsize() == 0


def test_a_database_with_somebodys_data_is_not_touched(suite: Suite) -> None:
    with RedisServer() as server:
        server.client().set("precious", "data")
        done = suite(USES_REDIS, f"--redis={server.url}", environment=NO_DOCKER)
        assert done.returncode != 0
        assert "is not empty; name an empty database" in done.stdout + done.stderr
        assert server.client().get("precious") == "data"


def test_without_docker_the_embedded_postgresql_is_used_and_named(suite: Suite) -> None:
    done = suite(USES_POSTGRES, environment=NO_DOCKER, folder="unit")
    if "2 skipped" in done.stdout:
        pytest.skip("no PostgreSQL server on this machine")
    assert "postgres: embedded " in done.stdout
    assert "2 passed" in done.stdout


def test_a_missing_postgresql_fails_in_ci(suite: Suite) -> None:
    done = suite(USES_POSTGRES, "--postgres=container", environment=NO_DOCKER | {"CI": "true"})
    assert done.returncode == 1
    assert "missing in CI: no PostgreSQL (--postgres=container, but Docker" in done.stdout


def test_a_servers_own_databases_are_left_alone_and_ours_are_gone(suite: Suite) -> None:
    with postgres() as server:
        before = databases(server)
        url = server.url.render_as_string(hide_password=False)
        passing = "    test_again = test_it"
        failing = USES_POSTGRES.replace(passing, f"        assert not 'passing'\n{passing}")
        done = suite(failing, f"--postgres={url}", environment=NO_DOCKER)
        assert "2 failed" in done.stdout
        assert f"postgres: url {server.url.render_as_string(hide_password=True)}" in done.stdout
        assert databases(server) == before


def postgres() -> PostgresServer:
    try:
        return PostgresServer()
    except NoPostgresServerError as error:
        pytest.skip(str(error))


def databases(server: PostgresServer) -> list[str]:
    with connect(server.url) as connection:
        return [name for (name,) in connection.execute("SELECT datname FROM pg_database")]


def test_the_folder_gives_the_marker_and_blocks_sockets(suite: Suite) -> None:
    source = """
        import socket, pytest, pytest_socket
        def test_it():
            with pytest.raises(pytest_socket.SocketBlockedError):
                socket.socket()
    """
    done = suite(source, "-m", "unit", folder="unit", environment=NO_DOCKER)
    assert "1 passed" in done.stdout
    assert "redis:" not in done.stdout


def test_a_failing_test_shows_the_logs_of_its_processes(suite: Suite) -> None:
    source = """
        import sys
        def test_it(live):
            live.run([sys.executable, "-c", "print('last words')"], name="talker").wait(10)
            assert not "passing"
    """
    done = suite(source, "--redis=embedded", environment=NO_DOCKER)
    assert "end of talker.out" in done.stdout
    assert "last words" in done.stdout


def test_a_test_that_leaves_a_process_fails(suite: Suite) -> None:
    source = """
        import subprocess
        def test_it():
            global left  # else its collection warns, which is not what is tried here
            left = subprocess.Popen(["sleep", "60"])
    """
    done = suite(source, "--redis=embedded", environment=NO_DOCKER)
    assert "left running" in done.stdout
    assert "(sleep, " in done.stdout


@pytest.mark.parametrize("ci", [{}, {"CI": "true"}], ids=["laptop", "ci"])
def test_a_cluster_without_docker_is_skipped_and_named(suite: Suite, ci: dict[str, str]) -> None:
    """Also in CI, where the server processes stand in for Docker, and .ci/run says so."""
    done = suite(USES_A_CLUSTER, "-rs", folder=CLUSTER, environment=NO_DOCKER | ci)
    assert done.returncode == 0
    assert "1 skipped" in done.stdout
    assert "no cluster: Docker does not answer" in done.stdout


def test_a_cluster_without_its_images_fails_in_ci(suite: Suite) -> None:
    if why_no_container(REDIS.public_image) == NO_ANSWER:
        pytest.skip(NO_ANSWER)
    environment = {"REDIS_IMAGE": "instainstru-standin/redis:missing", "CI": "true"}
    done = suite(USES_A_CLUSTER, folder=CLUSTER, environment=environment)
    assert done.returncode == 1
    assert "missing in CI: no cluster: " in done.stdout
    assert "scripts/build_images makes the images" in done.stdout


IN_DOCKER = pytest.mark.parametrize(
    ("fixture", "options"),
    [
        ("broker_url", ["--redis=container"]),
        ("postgres_url", ["--postgres=container"]),
        ("default_redis_broker", []),  # of a cluster, in a network
    ],
)


@IN_DOCKER
def test_an_interrupted_run_leaves_nothing_in_docker(
    suite: Suite, tmp_path: Path, fixture: str, options: list[str]
) -> None:
    interrupted = """
            os.kill(os.getpid(), signal.SIGINT)
    """
    assert "KeyboardInterrupt" in run_in_docker(suite, tmp_path, fixture, options, interrupted)


def test_a_process_that_an_interrupted_run_kills_leaves_nothing_in_docker(
    suite: Suite, tmp_path: Path
) -> None:
    """pytest-xdist kills what has not ended within ten seconds."""
    too_slow = """
            os.kill(os.getppid(), signal.SIGINT)
            try:
                time.sleep(60)
            finally:
                time.sleep(60)
    """
    options = ["--numprocesses=1"]
    said = run_in_docker(suite, tmp_path, "default_redis_broker", options, too_slow)
    assert "KeyboardInterrupt" in said


@IN_DOCKER
def test_a_failed_test_leaves_nothing_in_docker(
    suite: Suite, tmp_path: Path, fixture: str, options: list[str]
) -> None:
    failed = """
            raise ValueError("the test fails")
    """
    assert "1 failed" in run_in_docker(suite, tmp_path, fixture, options, failed)


def run_in_docker(suite: Suite, tmp_path: Path, fixture: str, options: list[str], end: str) -> str:
    """What a run prints whose test ends so, while its fixture runs; nothing of it is left."""
    file = tmp_path / "run"
    source = f"""
        import os, signal, time
        from tests.docker_objects import found
        def test_it({fixture}):
            run = os.environ["{RUN_VARIABLE}"]
            open("{file}", "w").write(run)
            assert found(run)
            {end.strip()}
    """
    done = suite(source, *options, folder=CLUSTER, environment={})
    if "1 skipped" in done.stdout:
        pytest.skip("Docker has no image for it here")
    assert found(file.read_text()) == set()
    return done.stdout
