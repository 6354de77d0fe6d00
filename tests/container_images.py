"""Which images a compose file names here: from the environment, from .env, or the public ones."""

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from scripts.live.images import image_from
from tests.compose_file import services

VARIABLES = {
    "instainstru-tasks": "APP_IMAGE",
    "redis": "REDIS_IMAGE",
    "postgres": "POSTGRES_IMAGE",
    "axllent/mailpit": "MAIL_IMAGE",
    "prom/prometheus": "PROMETHEUS_IMAGE",
    "grafana/grafana": "GRAFANA_IMAGE",
}


def name_of(service: Mapping[str, Any]) -> str:
    """The image of a service of the compose file, as compose would resolve it here."""
    public = str(service["image"])
    variable = VARIABLES[public.rpartition(":")[0]]
    return image_from(variable, public)


def app_image() -> str:
    """Our own."""
    return name_of(services()["celery_worker"])


def image_is_here(name: str) -> bool:
    """Whether Docker has it."""
    return inspect(name) is not None


def inspect(name: str) -> dict[str, Any] | None:
    """``docker image inspect``; ``None`` where there is no such image."""
    done = subprocess.run(["docker", "image", "inspect", name], capture_output=True, timeout=30)
    return json.loads(done.stdout)[0] if done.returncode == 0 else None
