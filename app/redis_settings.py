"""Where the Redis is, and what it takes to be let in."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.redis_url import RedisUrl
from app.settings_files import SettingsError


class RedisSettings(BaseSettings):
    """The part of the settings that concerns Redis."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    EXAMPLES: ClassVar[dict[str, str]] = {
        "redis_url": "redis://localhost:6379/0",
        "cache_url": "redis://localhost:6379/1",
        "redis_tls_ca": "/etc/ssl/redis-ca.pem",
        "redis_tls_cert": "/etc/ssl/redis-client.pem",
        "redis_tls_key": "/etc/ssl/redis-client.key",
    }

    redis_url: SecretStr = SecretStr("redis://localhost:6379/0")
    """Broker and result backend: a Redis, or the sentinels that know it."""
    cache_url: SecretStr | None = None
    """Redis that holds the free slots; that of REDIS_URL where this is not set."""
    redis_password: SecretStr | None = None
    """Password for the Redis URLs that have none in them."""
    redis_sentinel_master: str = Field("mymaster", min_length=1)
    """What the sentinels call the Redis."""
    redis_sentinel_password: SecretStr | None = None
    """Password of the sentinels themselves, where they have one."""
    redis_tls_ca: str | None = None
    """File with the certificates that sign Redis's, in PEM format; the system's where not set."""
    redis_tls_cert: str | None = None
    """File with this process's own certificate, where Redis asks for one."""
    redis_tls_key: str | None = None
    """File with the key of REDIS_TLS_CERT, where that file does not hold it."""

    @field_validator(
        "cache_url",
        "redis_password",
        "redis_sentinel_password",
        "redis_tls_ca",
        "redis_tls_cert",
        "redis_tls_key",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        # Compose files pass an unset variable on as an empty one.
        return value or None

    @field_validator("redis_url", "cache_url")
    @classmethod
    def _redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            RedisUrl.parse(value.get_secret_value())
        return value

    @field_validator("redis_tls_ca", "redis_tls_cert", "redis_tls_key")
    @classmethod
    def _pem_file(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if "-----BEGIN" in value:
            raise ValueError("this is the file's text: give its path")
        try:
            text = Path(value).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise ValueError(f"cannot read {value} ({reason})") from error
        if "-----BEGIN" not in text:
            raise ValueError(f"{value} is not in PEM format")
        return value

    @property
    def broker(self) -> RedisUrl:
        """REDIS_URL, with its password."""
        return self._with_password(self.redis_url)

    @property
    def cache(self) -> RedisUrl:
        """Where the free slots are: CACHE_URL, else REDIS_URL, with its password."""
        return self._with_password(self.cache_url or self.redis_url)

    def _with_password(self, value: SecretStr) -> RedisUrl:
        url = RedisUrl.parse(value.get_secret_value())
        if url.password is None and self.redis_password is not None:
            return replace(url, password=self.redis_password.get_secret_value())
        return url

    @model_validator(mode="after")
    def _client_certificate_is_whole(self) -> Self:
        if self.redis_tls_key is not None and self.redis_tls_cert is None:
            raise SettingsError(
                "REDIS_TLS_CERT: must be set where REDIS_TLS_KEY is, for example "
                f"REDIS_TLS_CERT={self.EXAMPLES['redis_tls_cert']}"
            )
        return self
