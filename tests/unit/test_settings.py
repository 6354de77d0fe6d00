from pathlib import Path

import pytest

from app.settings import Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
        monkeypatch.delenv(f"{field.upper()}_FILE", raising=False)
    load_settings.cache_clear()


@pytest.fixture(autouse=True)
def fresh_settings_afterwards() -> object:
    yield
    load_settings.cache_clear()


def error(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        load_settings()
    return str(raised.value)


def test_the_defaults_need_no_environment() -> None:
    settings = load_settings()
    assert settings.celery_timezone == "US/Eastern"
    assert settings.redis_url.get_secret_value() == "redis://localhost:6379/0"


@pytest.mark.parametrize(
    ("name", "wrong", "example"),
    [
        ("REDIS_URL", "nonsense", "redis://localhost:6379/0"),
        ("REDIS_URL", "amqp://localhost", "redis://localhost:6379/0"),
        ("REDIS_URL", "redis://localhost:6379/zero", "redis://localhost:6379/0"),
        ("REDIS_URL", "redis://localhost:port/0", "redis://localhost:6379/0"),
        ("REDIS_URL", "redis://one;redis://other", "redis://localhost:6379/0"),
        ("REDIS_URL", "sentinel://one;redis://other", "redis://localhost:6379/0"),
        ("REDIS_URL", "rediss://host?ssl_cert_reqs=none", "redis://localhost:6379/0"),
        ("REDIS_TLS_CA", "/nowhere/ca.pem", "/etc/ssl/redis-ca.pem"),
        ("REDIS_TLS_CA", "/dev/null", "/etc/ssl/redis-ca.pem"),
        ("REDIS_TLS_CERT", "-----BEGIN CERTIFICATE-----", "/etc/ssl/redis-client.pem"),
        ("CACHE_URL", "memcached://localhost", "redis://localhost:6379/1"),
        ("CELERY_TIMEZONE", "US/Estern", "US/Eastern"),
        ("CELERY_TIMEZONE", "/etc/localtime", "US/Eastern"),
        ("DATABASE_URL", "nonsense", "sqlite:///var/instainstru.db"),
        ("DATABASE_URL", "mysql://localhost/x", "sqlite:///var/instainstru.db"),
        ("DATABASE_URL", "postgresql+pg8000://localhost/x", "pip install 'psycopg[binary]'"),
        ("SMTP_URL", "http://mail.example", "maildir:var/mail"),
        ("MAIL_FROM", "nobody", "no-reply@instainstru.example"),
        ("MAIL_FROM", "Shop <no-reply@b\u00fccher.example>", "no-reply@instainstru.example"),
        ("MAIL_FROM", "Insta, Inc. <no-reply@x.example>", "no-reply@instainstru.example"),
        ("PUBLIC_URL", "instainstru.example", "https://instainstru.example"),
        ("SMTP_TIMEOUT_SECONDS", "soon", "10.0"),
        ("VISIBILITY_TIMEOUT_SECONDS", "-1", "30"),
        ("LEASE_INTERVAL_SECONDS", "20", "5"),
        ("TASK_SOFT_TIME_LIMIT_SECONDS", "600", "599"),
        ("MAIL_LEASE_SECONDS", "49", "50"),
        ("RESEND_MARGIN_SECONDS", "4", "10"),
    ],
)
def test_a_wrong_value_is_one_line_with_the_variable_and_an_example(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: str, example: str
) -> None:
    line = error(monkeypatch, **{name: wrong})
    assert line.startswith(f"{name}: ")
    assert example in line
    assert "\n" not in line


def test_an_empty_cache_url_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_URL", "")
    assert load_settings().cache_url is None


def test_what_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_PASSWORD", "REDIS_SENTINEL_PASSWORD", "REDIS_TLS_CA", "REDIS_TLS_CERT"):
        monkeypatch.setenv(name, "")
    settings = load_settings()
    assert settings.redis_password is settings.redis_tls_ca is None
    assert settings.broker.for_celery() == "redis://localhost:6379/0"


def test_a_password_from_a_file_is_that_of_the_urls_that_have_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "redis_password"
    secret.write_text("p@ss/word\n")
    monkeypatch.setenv("REDIS_PASSWORD_FILE", str(secret))
    monkeypatch.setenv("REDIS_URL", "redis://broker.example")
    monkeypatch.setenv("CACHE_URL", "redis://:own@cache.example/1")
    settings = load_settings()
    assert settings.broker.for_celery() == "redis://:p%40ss%2Fword@broker.example:6379/0"
    assert settings.cache.password == "own"


def test_the_slots_are_on_the_broker_where_nothing_else_is_said() -> None:
    assert load_settings().cache == load_settings().broker


def test_a_key_without_its_certificate_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = tmp_path / "client.key"
    key.write_text("-----BEGIN PRIVATE KEY-----\n")
    line = error(monkeypatch, REDIS_TLS_KEY=str(key))
    assert line.startswith("REDIS_TLS_CERT: must be set where REDIS_TLS_KEY is")


def test_no_error_repeats_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "CACHE_URL", "DATABASE_URL", "SMTP_URL"):
        with monkeypatch.context() as context:
            context.setenv(name, "nonsense://user:hunter2@host/x")
            load_settings.cache_clear()
            with pytest.raises(SettingsError) as raised:
                load_settings()
            assert "hunter2" not in str(raised.value)
            assert "hunter2" not in repr(raised.value.__cause__)


def test_a_secrets_repr_does_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@localhost:6379/0")
    monkeypatch.setenv("SMTP_URL", "smtp://user:hunter2@mail.example:587?tls=starttls")
    settings = load_settings()
    assert "hunter2" not in f"{settings!r} {settings}"


def test_a_file_holds_the_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "redis_url"
    secret.write_text("redis://:hunter2@localhost:6379/3\n")
    monkeypatch.setenv("REDIS_URL_FILE", str(secret))
    assert load_settings().redis_url.get_secret_value() == "redis://:hunter2@localhost:6379/3"


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = error(monkeypatch, REDIS_URL_FILE=str(tmp_path / "missing"))
    assert line.startswith("REDIS_URL_FILE: cannot read")


def test_a_variable_and_its_file_exclude_each_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    line = error(
        monkeypatch, REDIS_URL="redis://localhost", REDIS_URL_FILE=str(tmp_path / "redis_url")
    )
    assert line.startswith("REDIS_URL and REDIS_URL_FILE are both set")


def test_a_text_where_a_number_belongs_is_said_in_our_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = error(monkeypatch, PUBLISH_TIMEOUT_SECONDS="soon")
    assert line.startswith("PUBLISH_TIMEOUT_SECONDS: must be a valid number")
