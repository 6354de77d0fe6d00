"""The deployment that a load test aims at: the one whose Redis ``--host`` names."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from celery import Celery
from kombu.exceptions import OperationalError
from pydantic import SecretStr, ValidationError
from redis.exceptions import RedisError

from app import outbox, routing
from app.adapters.redis_refusal import refusal
from app.outbox import BrokerUnavailableError
from app.redis_url import RedisUrl
from app.settings import Settings, SettingsError, load_settings
from app.tasks.active_queues import queues_by_worker
from app.tasks.broker import RedisBroker
from app.tasks.celery_config import config
from loadtests._errors import LoadTestError

EXAMPLE = "--host redis://localhost:6379/0"
REPLY_SECONDS = 2.0
"""So long the workers have to answer a question; one that is busy answers within a loop."""
OVERRIDES = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")
"""Celery takes these variables in place of what it is configured with."""

# Importing app.tasks attached the Redis of REDIS_URL, which may be any.
outbox.attach(None)


def settings_for(host: str | None) -> Settings:
    """This process's settings, but with the Redis that ``host`` names. Raises ``LoadTestError``."""
    if not host:
        raise LoadTestError(
            f"--host is missing: name the Redis of the deployment to load, such as {EXAMPLE}"
        )
    if overriding := [name for name in OVERRIDES if os.environ.get(name)]:
        raise LoadTestError(f"{overriding[0]} would be used in place of --host: unset it")
    try:
        RedisUrl.parse(host)
    except ValueError as error:
        raise LoadTestError(f"--host: {error}; for example {EXAMPLE}") from error
    try:
        load_settings()  # its message is better
        return Settings(redis_url=SecretStr(host))
    except (SettingsError, ValidationError) as error:
        raise LoadTestError(str(error)) from error


def shown(url: RedisUrl) -> str:
    """The URL without who logs in, and how."""
    places = ";".join(f"{host}:{port}" for host, port in url.addresses) or url.path
    return f"{url.scheme}://{places}/{url.database}"


def names_password(host: str) -> bool:
    return RedisUrl.parse(host).password is not None


@dataclass(frozen=True)
class Target:
    """A Redis that answers."""

    settings: Settings
    app: Celery
    broker: RedisBroker

    @property
    def name(self) -> str:
        return shown(self.settings.broker)

    def queues_by_worker(self) -> Mapping[str, frozenset[str]]:
        """Which queues each worker takes from, or the workers of one name together; not from
        those that are paused."""
        found = queues_by_worker(self.app, timeout=REPLY_SECONDS)
        return {name: frozenset().union(*of) for name, of in found.items()}

    def check_workers(self, queues: Collection[str]) -> Mapping[str, frozenset[str]]:
        """As ``queues_by_worker``. Raises ``LoadTestError`` where one of ``queues`` has none."""
        workers = self.queues_by_worker()
        if not workers:
            raise LoadTestError(
                f"no worker answers on {self.name}: start one (celery -A app.tasks worker), "
                "or name the database number that the workers have"
            )
        unserved = [
            spec.name
            for spec in routing.QUEUES
            if spec.name in queues and not any(spec.name in taken for taken in workers.values())
        ]
        if unserved:
            raise LoadTestError(
                f"no worker on {self.name} takes from {', '.join(unserved)}: start one that does, "
                "resume what is paused (python -m app.admin queues list), or choose other users"
            )
        return workers

    @contextmanager
    def task_events(self) -> Iterator[list[str]]:
        """Workers that were told to send events of their tasks; at the end no longer."""
        replies = self.app.control.enable_events(reply=True, timeout=REPLY_SECONDS) or []
        told = [
            worker
            for reply in replies
            for worker, answer in reply.items()
            if "already" not in str(answer)
        ]
        try:
            yield told
        finally:
            if told:
                self.app.control.disable_events(destination=told)

    def close(self) -> None:
        self.broker.close()
        self.app.close()


def connect(host: str | None) -> Target:
    """The deployment at ``host``, whose Redis answered. Raises ``LoadTestError``."""
    settings = settings_for(host)
    app = Celery("loadtests", set_as_current=False)
    app.conf.update(config(settings))
    broker = RedisBroker(app, timeout=settings.publish_timeout_seconds)
    try:
        broker.now()
    except (BrokerUnavailableError, OperationalError, RedisError) as error:
        why = refusal(settings.broker, settings, error)
        broker.close()
        if why is None:
            why = (
                f"--host: no Redis answers at {shown(settings.broker)} ({error}): start it, or "
                f"check the address, such as {EXAMPLE}"
            )
        # Here that setting is an option.
        why = why.replace("REDIS_URL=", "--host ").replace("REDIS_URL", "--host")
        raise LoadTestError(why) from error
    return Target(settings, app, broker)
