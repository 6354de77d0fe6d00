"""The passwords and certificates of the hardened compose file."""

import os
import re
import shutil
import ssl
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.compose_file import REPOSITORY, read

Files = dict[str, str]


def make(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    cleaned = {key: value for key, value in os.environ.items() if key != "SMTP_URL"}
    return subprocess.run(
        [REPOSITORY / "scripts/make_secrets"],
        env={**cleaned, "SECRETS_DIR": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def contents(folder: Path) -> Files:
    return {file.name: file.read_text() for file in folder.iterdir()}


@pytest.fixture(autouse=True)
def _openssl(missing_service: Callable[[str], NoReturn]) -> None:
    if shutil.which("openssl") is None:
        missing_service("no openssl on the PATH")


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    done = make(folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_it_makes_what_the_compose_file_names_and_no_more(secrets: Path) -> None:
    named = read("docker-compose.hardened.yml")["secrets"]
    assert contents(secrets).keys() == named.keys()
    assert all(Path(one["file"]).name == name for name, one in named.items())


def test_each_password_is_its_own_and_the_database_s_is_in_its_url(secrets: Path) -> None:
    found = contents(secrets)
    passwords = {found[f"{name}_password"].strip() for name in ("redis", "postgres", "grafana")}
    passwords.add(found["flower_login"].strip().removeprefix("flower:"))
    assert len(passwords) == 4
    assert all(re.fullmatch(r"[0-9a-f]{48}", password) for password in passwords)
    assert f":{found['postgres_password'].strip()}@postgres/" in found["database_url"]


def test_only_its_owner_gets_into_the_folder(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700


def test_a_second_run_changes_nothing(secrets: Path) -> None:
    before = contents(secrets)
    assert make(secrets).returncode == 0
    assert contents(secrets) == before


def test_what_was_lost_is_made_again_and_nothing_else(secrets: Path) -> None:
    before = contents(secrets)
    (secrets / "grafana_password").unlink()
    make(secrets)
    after = contents(secrets)
    assert {name for name in before if before[name] != after[name]} == {"grafana_password"}


@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_a_server_s_certificate_is_signed_for_its_name(secrets: Path, server: str) -> None:
    command = ["openssl", "verify", "-x509_strict", "-CAfile", str(secrets / "ca_certificate")]
    command += ["-verify_hostname", server, str(secrets / f"{server}_certificate")]
    assert subprocess.run(command, capture_output=True).returncode == 0
    other = [word if word != server else "elsewhere" for word in command]
    assert subprocess.run(other, capture_output=True).returncode != 0
    # And its key belongs to it: this raises where it does not.
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
        secrets / f"{server}_certificate", secrets / f"{server}_key"
    )


def test_the_key_that_signs_is_thrown_away(secrets: Path) -> None:
    assert {name for name, text in contents(secrets).items() if "PRIVATE KEY" in text} == {
        "redis_key",
        "postgres_key",
    }


def test_mail_goes_where_it_is_told_to(tmp_path: Path) -> None:
    url = "smtp://user:password@mail.example:587?tls=starttls"
    done = make(tmp_path / "secrets", SMTP_URL=url)
    assert contents(tmp_path / "secrets")["smtp_url"].strip() == url
    assert url not in done.stdout


def test_what_it_prints_holds_no_secret(tmp_path: Path) -> None:
    done = make(tmp_path / "secrets")
    for name, text in contents(tmp_path / "secrets").items():
        assert text.strip().rpartition(":")[2] not in done.stdout + done.stderr, name


def test_a_wrong_argument_makes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [REPOSITORY / "scripts/make_secrets", "--wrong"],
        env={**os.environ, "SECRETS_DIR": str(tmp_path / "secrets")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "unknown argument '--wrong'" in done.stderr
    assert not (tmp_path / "secrets").exists()
