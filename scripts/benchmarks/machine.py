"""On what the figures were taken."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from scripts.live import postgres_server, redis_server

PACKAGES = (
    "celery",
    "kombu",
    "redis",
    "sqlalchemy",
    "dramatiq",
    "rq",
    "huey",
    "taskiq",
    "taskiq-redis",
)


def machine() -> dict[str, Any]:
    """Processor, memory, load and the versions of all that is measured."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": versions(),
        "commit": _commit(),
    }


def versions() -> dict[str, str]:
    """Of the packages that are installed, and of the servers."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["sqlite"] = sqlite3.sqlite_version
    with suppress(redis_server.NoRedisServerError):
        found["redis-server"] = ".".join(map(str, redis_server.version(redis_server.find_server())))
    with suppress(postgres_server.NoPostgresServerError):
        found["postgresql"] = str(postgres_server.version(postgres_server.find_programs()))
    return found


def _processor() -> str:
    try:
        said = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        said = None
    return said[1] if said else platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit that was measured, with a + where files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    return described.stdout.strip() or None
