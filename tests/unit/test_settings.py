from pathlib import Path

import pytest
from annotated_types import Le, Lt
from pydantic import SecretStr

from app.settings import (
    VARIABLES,
    Settings,
    SettingsError,
    load_settings,
    misspelt,
    warnings,
)


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
        ("RESEND_MARGIN_SECONDS", "inf", "10"),
        ("HEALTH_BEAT_SECONDS", "inf", "180"),
        ("HEALTH_BEAT_SECONDS", "nan", "180"),
        ("DATABASE_URL", "sqlite://", "sqlite:///var/instainstru.db"),
        ("DATABASE_URL", "sqlite:///:memory:", "sqlite:///var/instainstru.db"),
        ("DATABASE_URL", "sqlite:///file:x?mode=memory&uri=true", "sqlite:///var/instainstru.db"),
        ("PUBLIC_URL", "https://x.example/\r\nBcc: a@b.example", "https://instainstru.example"),
        ("PUBLIC_URL", f"https://{'x' * 1_200}.example", "https://instainstru.example"),
        ("PUBLIC_URL", "https:///path", "https://instainstru.example"),
    ],
)
def test_a_wrong_value_is_one_line_with_the_variable_and_an_example(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: str, example: str
) -> None:
    line = error(monkeypatch, **{name: wrong})
    assert line.startswith(f"{name}: ")
    assert example in line
    assert "\n" not in line


def test_every_number_has_an_upper_bound() -> None:
    """Without one, ``inf`` is a beat that publishes nothing, or a crash hours later."""
    unbounded = {
        name
        for name, field in Settings.model_fields.items()
        if field.annotation in {int, float}
        and not any(isinstance(bound, Le | Lt) for bound in field.metadata)
    }
    assert unbounded == set()


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


OF_OTHER_PROGRAMS = """
    _ CI CD CC CXX CFLAGS COLUMNS DEBUG DISPLAY EDITOR ENV ENVIRONMENT HOME HOST HOSTNAME LANG
    LANGUAGE LC_ALL LC_CTYPE LC_TIME LINES LOGNAME LOG_LEVEL LOG_FILE LOG_PATH LS_COLORS MAIL
    MAILTO MAIL_HOST MAIL_PORT MAIL_USER MAIL_SERVER MAIL_PASSWORD OLDPWD PAGER PATH PORT PWD
    SHELL SHLVL TERM TMPDIR TZ UID USER VIRTUAL_ENV XDG_CACHE_HOME XDG_RUNTIME_DIR PYTHONPATH
    PYTHONHASHSEED PYTHONUNBUFFERED PYTHONWARNINGS PIP_CACHE_DIR PIP_INDEX_URL UV_CACHE_DIR
    REQUESTS_CA_BUNDLE SSL_CERT_FILE SSL_CERT_DIR CURL_CA_BUNDLE HTTP_PROXY HTTPS_PROXY NO_PROXY
    ALL_PROXY http_proxy https_proxy no_proxy PGHOST PGPORT PGUSER PGPASSWORD PGPASSFILE
    PGDATABASE PGSSLMODE PGSSLROOTCERT PGOPTIONS POSTGRES_DB POSTGRES_HOST POSTGRES_USER
    POSTGRES_PORT POSTGRES_URL POSTGRES_PASSWORD POSTGRES_PASSWORD_FILE DATABASE_HOST
    DATABASE_NAME DATABASE_PORT DATABASE_USER DATABASE_PASSWORD DB_URL DB_HOST DB_PORT DB_NAME
    DB_USER DB_PASSWORD MYSQL_HOST SQLALCHEMY_DATABASE_URI SQLALCHEMY_WARN_20 ALEMBIC_CONFIG
    REDIS_HOST REDIS_PORT REDIS_DB REDIS_USER REDIS_USERNAME REDIS_PASS REDIS_TLS REDIS_SSL
    REDIS_MAXMEMORY REDIS_VERSION REDIS_DATABASE REDIS_CLUSTER REDISCLI_AUTH REDIS_CA_CERT
    REDIS_SERVICE_HOST REDIS_SERVICE_PORT REDIS_PORT_6379_TCP REDIS_PORT_6379_TCP_ADDR
    REDIS_PORT_6379_TCP_PORT REDIS_PORT_6379_TCP_PROTO REDIS_MASTER_SERVICE_HOST
    REDIS_MASTER_PORT REDIS_SENTINEL_HOST REDIS_SENTINEL_PORT REDIS_SENTINEL_SERVICE_HOST
    REDIS_MASTER_NAME REDIS_IMAGE REDIS_MEM_LIMIT CACHE_TTL CACHE_DIR CACHE_HOST CACHE_PORT
    CACHE_BACKEND CACHE_TYPE KUBERNETES_PORT KUBERNETES_SERVICE_HOST
    KUBERNETES_SERVICE_PORT_HTTPS KUBECONFIG POD_NAME POD_NAMESPACE POD_IP NODE_NAME DOCKER_HOST
    DOCKER_CONFIG COMPOSE_FILE COMPOSE_PROJECT_NAME FLOWER_SERVICE_HOST FLOWER_URL_PREFIX
    FLOWER_AUTH FLOWER_PERSISTENT FLOWER_DB FLOWER_LOGGING CELERY_BROKER_URL
    CELERY_RESULT_BACKEND CELERY_CONFIG_MODULE CELERY_LOADER CELERY_TRACE_APP CELERY_RDBSIG
    CELERY_BEAT_SCHEDULE CELERYD_NODES CELERY_APP CELERY_BIN BROKER_URL RESULT_BACKEND
    REMAP_SIGTERM GEVENT_RESOLVER EVENTLET_HUB AWS_REGION AWS_DEFAULT_REGION AWS_ACCESS_KEY_ID
    AWS_SECRET_ACCESS_KEY AWS_PROFILE AWS_SESSION_TOKEN AWS_CONFIG_FILE
    AWS_WEB_IDENTITY_TOKEN_FILE AWS_ROLE_ARN GOOGLE_APPLICATION_CREDENTIALS AZURE_CLIENT_ID
    SENTRY_DSN SENTRY_ENVIRONMENT GITHUB_ACTIONS GITHUB_TOKEN GITHUB_SHA GITHUB_REF
    GITHUB_OUTPUT GITHUB_WORKSPACE RUNNER_TEMP GITLAB_CI CI_COMMIT_SHA CI_PROJECT_DIR CI_JOB_ID
    JENKINS_URL BUILD_NUMBER BUILD_URL JOB_NAME CIRCLECI TRAVIS BUILDKITE TEAMCITY_VERSION
    PUBLIC_HOST PUBLIC_DIR PUBLIC_IP BASE_URL APP_URL API_URL SITE_URL WEB_URL SMTP_HOST
    SMTP_PORT SMTP_USER SMTP_PASSWORD SMTP_TLS SMTP_SERVER SMTP_FROM SFTP_URL HTTP_URL
    METRICS_PATH METRICS_ENABLED METRICS_TOKEN METRICS_URL PROMETHEUS_MULTIPROC_DIR STATSD_HOST
    STATSD_PORT OTEL_EXPORTER_OTLP_ENDPOINT OTEL_SERVICE_NAME DD_AGENT_HOST LOG_FORMATTER
    LOG_COLOR LOG_TO_STDOUT JOURNAL_STREAM INVOCATION_ID SYSTEMD_EXEC_PID NOTIFY_SOCKET
    WATCHDOG_USEC WATCHDOG_PID LISTEN_FDS STATE_DIRECTORY LOGS_DIRECTORY CREDENTIALS_DIRECTORY
    MAINPID SSH_AUTH_SOCK SSH_CONNECTION SUDO_USER
"""
OTHERS = OF_OTHER_PROGRAMS.split()


def test_variables_of_other_programs_are_not_near_misses() -> None:
    assert len(OTHERS) > 200
    assert misspelt(OTHERS) == {}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("REDIS_URI", "REDIS_URL"),
        ("REDIS_ULR", "REDIS_URL"),
        ("redis_uri", "REDIS_URL"),
        ("REDISURL", "REDIS_URL"),
        ("REDIS_PASSWD", "REDIS_PASSWORD"),
        ("REDIS_PASSWORD_FIEL", "REDIS_PASSWORD_FILE"),
        ("CELERY_TIMEZNOE", "CELERY_TIMEZONE"),
        ("CELERY_TIME_ZONE", "CELERY_TIMEZONE"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("DATABSE_URL", "DATABASE_URL"),
        ("SMTP_URI", "SMTP_URL"),
        ("LOG_DRI", "LOG_DIR"),
        ("METRIC_PORT", "METRICS_PORT"),
        ("METRICS_PRT", "METRICS_PORT"),
        ("FLOWER_BASICAUTH", "FLOWER_BASIC_AUTH"),
        ("FLOWER_PROT", "FLOWER_PORT"),
        ("TASK_TIME_LIMIT_SECOND", "TASK_TIME_LIMIT_SECONDS"),
    ],
)
def test_a_slip_in_the_name_of_a_setting_is_a_near_miss(typed: str, meant: str) -> None:
    assert misspelt([typed]) == {typed: meant}


def test_each_name_with_two_letters_swapped_is_a_near_miss_of_itself() -> None:
    for name in sorted(VARIABLES):
        # The last two letters of each word that differ; in front they may make another's name.
        at = next(i for i in range(len(name) - 2, 0, -1) if name[i] != name[i + 1])
        swapped = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
        assert misspelt([swapped]) == {swapped: name}


def test_the_names_themselves_are_right_in_any_case() -> None:
    assert misspelt([*VARIABLES, "redis_url"]) == {}
    assert {"METRICS_PORT", "REDIS_URL_FILE", "FLOWER_PORT", "FLOWER_BASIC_AUTH_FILE"} <= VARIABLES


def test_a_warning_names_both_and_not_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URI", "redis://:secret@host")
    (line,) = [line for line in warnings() if line.startswith("REDIS_URI")]
    assert line == "REDIS_URI: not a variable that this program reads. Did you mean REDIS_URL?"


BYTES = "\udcff\udcfe"
"""What Python makes of the bytes FF FE of a variable: they are no UTF-8."""


@pytest.mark.parametrize("field", Settings.model_fields)
def test_a_value_that_is_no_text_is_refused_in_one_line_that_does_not_quote_it(
    monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    default = Settings.model_fields[field].default
    plain = default.get_secret_value() if isinstance(default, SecretStr) else str(default)
    for value in (BYTES, f"{plain}{BYTES}"):
        with monkeypatch.context() as patched:
            assert error(patched, **{field.upper(): value}) == (
                f"{field.upper()}: not UTF-8 text; for example {field.upper()}={example_of(field)}"
            )


def example_of(field: str) -> object:
    return Settings.EXAMPLES.get(field, Settings.model_fields[field].default)
