"""The hardened file on top: who has no password or does not speak TLS gets nothing."""

import base64
import subprocess
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psycopg
import pytest
import redis

from scripts.live.compose import Compose
from scripts.live.ports import HOST
from tests.e2e.conftest import UP_TAKES_SECONDS
from tests.e2e.test_compose import BOOK, SOON_SECONDS

pytestmark = pytest.mark.timeout(UP_TAKES_SECONDS)


def secret(secrets: Path, name: str) -> str:
    return (secrets / name).read_text().strip()


def test_a_lesson_is_confirmed_by_mail_over_tls(hardened: Compose) -> None:
    readers = {"ada@people.example", "bob@people.example"}
    hardened.python("flower", BOOK, *sorted(readers))
    deadline = time.monotonic() + SOON_SECONDS
    while len(mails := hardened.mails()) < 2 and time.monotonic() < deadline:
        time.sleep(1)
    assert {mail["To"][0]["Address"] for mail in mails} == readers


def test_redis_speaks_tls_and_wants_the_password(hardened: Compose, secrets: Path) -> None:
    port = hardened.ports["REDIS_PORT"]
    with redis.Redis(host=HOST, port=port) as plain, pytest.raises(redis.ConnectionError):
        plain.ping()
    tls = {"host": HOST, "port": port, "ssl": True, "ssl_ca_certs": secrets / "ca_certificate"}
    with redis.Redis(**tls) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    with redis.Redis(**tls, password=secret(secrets, "redis_password")) as friend:
        assert friend.ping()


def test_postgresql_wants_tls_and_the_password(hardened: Compose, secrets: Path) -> None:
    port = int(hardened.run("port", "postgres", "5432").stdout.strip().rpartition(":")[2])

    def ask(*, sslmode: str = "verify-full", password: str) -> object:
        with psycopg.connect(
            host=HOST,
            port=port,
            dbname="instainstru",
            user="instainstru",
            sslmode=sslmode,
            sslrootcert=str(secrets / "ca_certificate"),
            password=password,
        ) as connection:
            return connection.execute("SELECT 1").fetchone()

    password = secret(secrets, "postgres_password")
    assert ask(password=password) == (1,)
    with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
        ask(sslmode="disable", password=password)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        ask(password="guessed")


def test_flower_wants_a_login(hardened: Compose, secrets: Path) -> None:
    url = f"http://{HOST}:{hardened.ports['FLOWER_PORT']}/workers"
    with pytest.raises(HTTPError) as refused:
        urlopen(url, timeout=30)
    assert refused.value.code == 401
    refused.value.close()
    login = base64.b64encode(secret(secrets, "flower_login").encode()).decode()
    with urlopen(Request(url, headers={"Authorization": f"Basic {login}"}), timeout=30) as answer:
        assert answer.status == 200


def test_no_secret_can_be_seen_from_outside(hardened: Compose, secrets: Path) -> None:
    """Neither in what docker inspect tells, nor in a command line, nor in the logs."""
    logins = ("redis_password", "postgres_password", "flower_login", "grafana_password")
    # Of a login its password, of a key a line of its body.
    values = {name: secret(secrets, name).rpartition(":")[2] for name in logins}
    for name in ("redis_key", "postgres_key"):
        values[name] = secret(secrets, name).splitlines()[1]
    values["database_url"] = secret(secrets, "database_url")
    seen = str(hardened.containers())
    for container in hardened.containers():
        if container["State"]["Running"]:
            top = subprocess.run(
                ["docker", "top", container["Id"]], capture_output=True, text=True, timeout=60
            )
            seen += top.stdout
    seen += hardened.run("logs", "--no-color").stdout
    assert [name for name, value in values.items() if value in seen] == []
