"""The containers of a cluster, as pytest-celery sees them."""

from __future__ import annotations

from functools import partial
from time import monotonic, sleep
from typing import Any

from pytest_celery import CeleryTestContainer, CeleryWorkerContainer
from pytest_docker_tools import container, fxtr

from scripts.live.deployment import REPOSITORY

APP = "scripts.live.queue_jobs"
"""What ``celery -A`` takes. The image has no tests in it: the jobs are mounted."""
SLOTS = 2
"""Of each worker."""
START_TIMEOUT = 180  # seconds
STOP_TIMEOUT = 120.0
HOME = "/srv/instainstru"
OWNER = "uid=10001,gid=10001"
WRITABLE = {"/tmp": "", f"{HOME}/logs": OWNER, f"{HOME}/var": OWNER}
"""A tmpfs for each: Docker would keep the volumes that the image declares."""


class WorkerContainer(CeleryWorkerContainer):
    """A worker of our image."""

    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        """``celery worker`` with these arguments on top."""
        return [
            *("celery", "-A", APP, "worker", "--loglevel=INFO"),
            *(f"--hostname={cls.worker_name()}@%h", f"--concurrency={SLOTS}"),
            *args,
        ]

    @classmethod
    def worker_name(cls) -> str:
        """The part of the node's name before the @; the container's short id comes after it."""
        return "worker"

    @classmethod
    def initial_env(
        cls, celery_worker_cluster_config: dict[str, Any], initial: dict[str, str] | None = None
    ) -> dict[str, str]:
        """The app's settings; pytest-celery's own are for an app that it makes itself."""
        return {
            "REDIS_URL": celery_worker_cluster_config["celery_broker_cluster_config"]["urls"][0],
            "DATABASE_URL": celery_worker_cluster_config["database_url"],
            "LOG_DIR": "",
            "PUMP_INTERVAL_SECONDS": "0.2",
            **(initial or {}),
        }

    @property
    def ready_prompt(self) -> None:
        """None: several workers start at the same time, then their ping is waited for."""
        return

    @property
    def node(self) -> str:
        """The name by which remote control addresses it."""
        return f"{self.worker_name()}@{self.host}"

    @property
    def host(self) -> str:
        """The container's host name."""
        return str(self.id)[:12]

    @property
    def running(self) -> bool:
        self.reload()
        return bool(self.status == "running")

    def start(self) -> None:
        """Start it again after it has ended."""
        self._container.start()

    def terminate(self) -> None:
        """Ask it to stop, as ``docker stop`` does, and do not wait."""
        self.kill("SIGTERM")

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """Its exit code; TimeoutError if it still runs after ``timeout`` seconds."""
        deadline = monotonic() + timeout
        while self.running:
            if monotonic() > deadline:
                raise TimeoutError(f"{self.node} still runs after {timeout} s")
            sleep(0.1)
        return int(self.attrs["State"]["ExitCode"])

    def admin(self, *arguments: str) -> str:
        """What ``python -m app.admin`` prints in the container; AssertionError if it fails."""
        status, output = self.exec_run(["python", "-m", "app.admin", *arguments])
        assert status == 0, output.decode()
        return str(output.decode())


class PostgresContainer(CeleryTestContainer):
    """A PostgreSQL that answers over TCP, which the one that sets it up does not."""

    def ready(self) -> bool:
        return super().ready() and self.exec_run(["pg_isready", "-h", "127.0.0.1"])[0] == 0

    @property
    def host_in_network(self) -> str:
        """Its name for the other containers."""
        return str(self.attrs["Config"]["Hostname"])


container_in_network = partial(
    container,
    network="{default_pytest_celery_network.name}",
    labels=fxtr("docker_labels"),
    timeout=START_TIMEOUT,
)
"""A fixture. A tmpfs goes where the image declares a volume, which would be left behind."""

app_container = partial(
    container_in_network,
    image="{worker_image}",
    environment=fxtr("default_worker_env"),
    volumes={str(REPOSITORY / "scripts"): {"bind": f"{HOME}/scripts", "mode": "ro"}},
    tmpfs=WRITABLE,
    init=True,
    read_only=True,
    cap_drop=["ALL"],
    wrapper_class=WorkerContainer,
)
"""A fixture of our image, run as compose runs it; ``command=`` is still to be said."""
