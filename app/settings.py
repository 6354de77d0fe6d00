"""Every setting: its environment variable, its unit, its default.

A variable is the field's name in capitals. Where a secret should not stand in the
environment, ``NAME_FILE`` names a file that holds it (Docker's and Kubernetes'
convention).
"""

import os
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches
from email.utils import parseaddr
from functools import cache
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app.redis_settings import RedisSettings
from app.settings_files import FileVariants, SettingsError

__all__ = ["VARIABLES", "Settings", "SettingsError", "load_settings", "misspelt", "warnings"]

MAIL_SCHEMES = frozenset({"smtp", "smtps", "maildir"})
DATABASE_BACKENDS = frozenset({"sqlite", "postgresql"})

WEEK_SECONDS = 7 * 86_400
LONGEST_PUBLIC_URL = 500
"""Characters. A line of a mail has at most 998 bytes (RFC 5322, 2.1.1)."""

CLOCK_TOLERANCE = 1 / 3
"""Of the visibility timeout: by this much a worker's clock may differ from Redis's."""

# From the claim of a mail to the server's answer, SMTP waits at most this many times:
# MAIL, RCPT, DATA, the final dot, and a QUIT or RSET before the next one.
SMTP_WAITS_IN_A_LEASE = 5


class Settings(RedisSettings):
    """The deployment's settings, checked once at the start of a process."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    EXAMPLES: ClassVar[dict[str, str]] = {
        **RedisSettings.EXAMPLES,
        "celery_timezone": "US/Eastern",
        "database_url": "sqlite:///var/instainstru.db",
        "smtp_url": "smtp://user:password@mail.example:587?tls=starttls or maildir:var/mail",
        "mail_from": "InstaInstru <no-reply@instainstru.example>",
        "public_url": "https://instainstru.example",
    }

    celery_timezone: str = "US/Eastern"
    """IANA time zone of the schedule."""
    database_url: SecretStr = SecretStr("sqlite:///var/instainstru.db")
    """SQLAlchemy URL: SQLite for one machine, PostgreSQL in production."""
    database_busy_timeout_seconds: float = Field(10.0, gt=0, le=60)
    """How long a transaction waits for a lock of another one, on PostgreSQL and on SQLite."""

    smtp_url: SecretStr = SecretStr("maildir:var/mail")
    """Where mail goes: an SMTP server, or a folder in maildir format."""
    smtp_timeout_seconds: float = Field(10.0, gt=0, le=120)
    """Bound of each whole reply of the mail server, but for its answer to a whole mail: that one
    has the lease less four of these."""
    mail_lease_seconds: float = Field(120.0, gt=0, le=3600)
    """How long a claimed mail belongs to the worker that claimed it."""
    mail_from: str = "InstaInstru <no-reply@instainstru.example>"
    """Sender of every mail; its domain ends the Message-IDs."""
    public_url: str = "https://instainstru.example"
    """Root of the marketplace's web site, for links in mails."""

    visibility_timeout_seconds: int = Field(30, ge=3, le=43_200)
    """After this long without a renewed lease, a dead worker's tasks run elsewhere."""
    lease_interval_seconds: float = Field(5.0, gt=0, le=43_200)
    """How often a living worker renews the lease on what it holds."""
    task_soft_time_limit_seconds: int = Field(540, gt=0, le=WEEK_SECONDS)
    """After this long a task gets SoftTimeLimitExceeded and may clean up."""
    task_time_limit_seconds: int = Field(600, gt=0, le=WEEK_SECONDS)
    """After this long the task's process is killed."""

    publish_timeout_seconds: float = Field(2.0, gt=0, le=5)
    """Bound of every wait on Redis while publishing from the outbox."""
    publish_pause_seconds: float = Field(5.0, ge=0, le=3600)
    """After a failed publish this process leaves publishing to the pump for so long."""
    pump_interval_seconds: float = Field(1.0, gt=0, le=60)
    """Pause between two ticks of beat."""
    resend_margin_seconds: float = Field(10.0, gt=0, le=3600)
    """A message younger than this is never taken for gone."""
    max_publishes: int = Field(20, gt=0, le=1_000_000)
    """An entry whose message is lost this often in one try (about two hours), while others run,
    is dead."""
    max_deliveries: int = Field(5, gt=0, le=1000)
    """A message that was redelivered as often as this, in one try, is dead."""
    watchdog_seconds: float = Field(60.0, ge=0, le=86_400)
    """A worker with free slots that starts nothing for so long while work waits exits; 0: never."""
    max_argument_bytes: int = Field(1_000_000, ge=1000, le=16_000_000)
    """Arguments of a task that are longer than this, as JSON, are refused by enqueue."""
    unknown_task_retries: int = Field(8, ge=0, le=1000)
    """How often a task that a worker does not know is tried again, about six minutes in all."""

    log_format: Literal["console", "json"] = "console"
    """console: lines for a person; json: one JSON object a line."""
    log_dir: str = "logs"
    """Folder of the copy of all log lines, celery/worker.log and celery/beat.log; empty: none."""
    log_max_bytes: int = Field(20_000_000, ge=0, le=1_000_000_000_000)
    """A log file that has grown so long is moved to worker.log.1; 0: never, for logrotate."""
    log_files_kept: int = Field(5, ge=1, le=100)
    """So many of the moved files are kept."""

    metrics_host: str = "127.0.0.1"
    """Address that the metrics pages listen on."""
    metrics_port: int = Field(9540, ge=0, le=65_535)
    """Port of a worker's metrics page; 0: none."""
    beat_metrics_port: int = Field(9541, ge=0, le=65_535)
    """Port of beat's metrics page; 0: none."""

    outbox_retention_days: int = Field(7, ge=7, le=36_500)
    """Done and cancelled work is kept so long, and its key with it; never less than a week."""
    dead_letter_retention_days: int = Field(90, ge=7, le=36_500)
    """Work that failed for good is kept so long."""
    mail_retention_days: int = Field(90, ge=7, le=36_500)
    """Mails that are sent or cancelled are kept so long; failed ones as long as dead letters."""
    notification_retention_days: int = Field(30, ge=1, le=36_500)
    """Notifications are kept so long after they were read."""
    broadcast_retention_days: int = Field(90, ge=7, le=36_500)
    """Broadcasts are kept so long after they reached everybody."""
    password_reset_retention_days: int = Field(7, ge=1, le=36_500)
    """Password resets are kept so long after they expired, used or not."""

    health_queue_age_seconds: float = Field(900.0, gt=0, le=WEEK_SECONDS)
    """Health: a message that waits for longer is a problem; in a queue of slow work, four times."""
    health_unpublished_seconds: float = Field(120.0, gt=0, le=WEEK_SECONDS)
    """Health: due work that nobody has published for so long is a problem."""
    health_beat_seconds: float = Field(180.0, gt=0, le=WEEK_SECONDS)
    """Health: a beat that has fired nothing for so long is a problem."""
    health_dead_letters: int = Field(20, ge=0, le=1_000_000)
    """Health: more dead letters than this within an hour are a problem."""
    health_retrying_seconds: float = Field(300.0, gt=0, le=WEEK_SECONDS)
    """Health: work that has failed and been retried for longer than this is a problem."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, FileVariants(settings_cls)

    @field_validator("*", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        # Python keeps the bytes of a variable that are not text, and fails where it writes them.
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise ValueError("not UTF-8 text") from error
        return value

    @field_validator("celery_timezone")
    @classmethod
    def _celery_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (OSError, ValueError, ZoneInfoNotFoundError) as error:
            raise ValueError(f"{value!r} is no time zone of the IANA database") from error
        return value

    @field_validator("database_url")
    @classmethod
    def _database_url(cls, value: SecretStr) -> SecretStr:
        try:
            url = make_url(value.get_secret_value())
        except ArgumentError as error:
            raise ValueError("not a database URL") from error
        if url.get_backend_name() not in DATABASE_BACKENDS:
            raise ValueError(f"only {' and '.join(sorted(DATABASE_BACKENDS))} are supported")
        if url.get_backend_name() == "sqlite" and (
            url.database in {None, "", ":memory:"} or url.query.get("mode") == "memory"
        ):
            raise ValueError("it names no file, and each process would have a database of its own")
        try:
            url.get_dialect().import_dbapi()
        except ImportError as error:
            raise ValueError(
                "its driver is not installed: pip install 'psycopg[binary]'"
            ) from error
        return value

    @field_validator("smtp_url")
    @classmethod
    def _smtp_url(cls, value: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(value.get_secret_value())
            _ = parts.port
        except ValueError as error:
            raise ValueError("not a mail URL: the host or port cannot be read") from error
        if parts.scheme not in MAIL_SCHEMES:
            known = ", ".join(sorted(MAIL_SCHEMES))
            raise ValueError(f"not a mail URL: it must begin with one of {known}")
        return value

    @field_validator("mail_from")
    @classmethod
    def _mail_from(cls, value: str) -> str:
        _, address = parseaddr(value)
        local, _, domain = address.rpartition("@")
        if not local or not domain or "\n" in value or "\r" in value:
            raise ValueError(f"{value!r} is no mail address (a name with a comma needs quotes)")
        if not address.isascii():
            raise ValueError(
                f"{value!r} has an address beyond ASCII, which not every mail server takes "
                "(write the domain as xn--...)"
            )
        return value

    @field_validator("public_url")
    @classmethod
    def _public_url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
        except ValueError as error:
            raise ValueError("not a web address") from error
        plain = value.isprintable() and " " not in value and len(value) <= LONGEST_PUBLIC_URL
        if parts.scheme not in {"http", "https"} or not parts.hostname or not plain:
            raise ValueError(
                f"not a web address of at most {LONGEST_PUBLIC_URL} printable characters"
            )
        return value.rstrip("/")

    @property
    def worker_clock_tolerance_seconds(self) -> float:
        """A worker whose clock is further off Redis's would take from others what they run."""
        return CLOCK_TOLERANCE * self.visibility_timeout_seconds

    @model_validator(mode="after")
    def _bounds_fit_together(self) -> Self:
        if self.lease_interval_seconds * 3 > self.visibility_timeout_seconds:
            raise SettingsError(
                "LEASE_INTERVAL_SECONDS: must be at most a third of VISIBILITY_TIMEOUT_SECONDS "
                f"({self.visibility_timeout_seconds}), for example "
                f"{self.visibility_timeout_seconds / 6:g}"
            )
        if self.resend_margin_seconds <= 2 * self.publish_timeout_seconds:
            raise SettingsError(
                "RESEND_MARGIN_SECONDS: must be more than twice PUBLISH_TIMEOUT_SECONDS "
                f"({self.publish_timeout_seconds:g}), for example "
                f"{5 * self.publish_timeout_seconds:g}"
            )
        if self.task_soft_time_limit_seconds >= self.task_time_limit_seconds:
            raise SettingsError(
                "TASK_SOFT_TIME_LIMIT_SECONDS: must be less than TASK_TIME_LIMIT_SECONDS "
                f"({self.task_time_limit_seconds}), for example {self.task_time_limit_seconds - 1}"
            )
        if self.mail_lease_seconds < SMTP_WAITS_IN_A_LEASE * self.smtp_timeout_seconds:
            raise SettingsError(
                f"MAIL_LEASE_SECONDS: must be at least {SMTP_WAITS_IN_A_LEASE} times "
                f"SMTP_TIMEOUT_SECONDS ({self.smtp_timeout_seconds:g}), for example "
                f"{SMTP_WAITS_IN_A_LEASE * self.smtp_timeout_seconds:g}"
            )
        return self


@cache
def load_settings() -> Settings:
    """The settings of this process, read from the environment once.

    Raises ``SettingsError`` with one line that names the variable, what is wrong with
    it and an example. The value itself is not repeated: it may be a secret.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "settings"
        default = Settings.model_fields[field].default if field in Settings.model_fields else ""
        example = Settings.EXAMPLES.get(field, default)
        reason = first["msg"].removeprefix("Value error, ").replace("Input should", "must")
        raise SettingsError(
            f"{field.upper()}: {reason}; for example {field.upper()}={example}"
        ) from error


OF_FLOWER = ("FLOWER_ADDRESS", "FLOWER_BASIC_AUTH", "FLOWER_PORT")
"""Variables of Flower's that app/tasks/flower.py reads too."""
VARIABLES = frozenset(
    name + ending
    for name in (*(field.upper() for field in Settings.model_fields), *OF_FLOWER)
    for ending in ("", "_FILE")
)
"""Every variable that this program reads."""
MOST_SLIPS = 2
"""Letters in which a misspelt name differs; two that are swapped count as two."""
CLOSEST = 0.85
"""Ratio of ``difflib`` from which two names are close: one slip in seven letters."""
NEAR_BUT_OTHERS = frozenset({"SFTP_URL"})
"""Names of other programs that differ from ours in as little as a slip does."""


def misspelt(names: Iterable[str]) -> dict[str, str]:
    """Those of ``names`` that are nearly the name of a variable of ours, each with ours.

    Names that belong to other programs, such as REDIS_HOST, are not near enough.
    """
    found = {}
    for name in names:
        typed = name.upper()  # pydantic-settings reads either case
        if typed in VARIABLES or typed in NEAR_BUT_OTHERS:
            continue
        for meant in get_close_matches(typed, VARIABLES, n=1, cutoff=CLOSEST):
            if _slips(typed, meant) <= MOST_SLIPS:
                found[name] = meant
    return found


def _slips(typed: str, meant: str) -> int:
    changes = SequenceMatcher(None, typed, meant, autojunk=False).get_opcodes()
    return sum(
        max(end - start, meant_end - meant_start)
        for kind, start, end, meant_start, meant_end in changes
        if kind != "equal"
    )


def warnings() -> list[str]:
    """One line for each variable of this process that is probably misspelt; never its value."""
    return [
        f"{name}: not a variable that this program reads. Did you mean {meant}?"
        for name, meant in sorted(misspelt(os.environ).items())
    ]
