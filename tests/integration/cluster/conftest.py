"""A cluster in containers: Redis, PostgreSQL, and two workers and a beat of our own image.

pytest-celery's fixtures, overridden for one broker, no backend of its own, and our app. The
containers live as long as the run; each test finds both workers running, and nothing to do.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from pytest_celery import (
    CeleryBrokerCluster,
    CeleryTestWorker,
    CeleryWorkerCluster,
    RedisContainer,
    RedisTestBroker,
)
from pytest_docker_tools import fxtr, network

from scripts.live import queue_jobs
from scripts.live.images import image_from
from scripts.live.job_bench import planning
from scripts.live.postgres_server import WITHOUT_SAFETY
from tests import docker_objects
from tests.integration.cluster.cluster import Cluster
from tests.integration.cluster.containers import (
    APP,
    WRITABLE,
    PostgresContainer,
    WorkerContainer,
    app_container,
    container_in_network,
)
from tests.integration.cluster.images import ImageMissingError, our_image
from tests.postgres_choice import POSTGRES
from tests.redis_choice import REDIS
from tests.service_choice import NO_ANSWER, Service, why_no_container

if TYPE_CHECKING:
    from celery import Celery
    from docker import DockerClient

Missing = Callable[[str], NoReturn]

HERE = Path(__file__).parent
POSTGRES_PASSWORD = secrets.token_hex(16)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put these tests first, together: then one of pytest-xdist's processes gets all of them.

    Scattered, each process would start a cluster. A process gets a row of tests, and others
    steal from its end.
    """
    items.sort(key=lambda item: item.path.parent != HERE)


def image_of(service: Service, missing_service: Missing) -> str:
    name = image_from(service.image_variable, service.public_image)
    reason = why_no_container(name)
    if reason == NO_ANSWER:
        pytest.skip(f"no cluster: {reason}")
    if reason:
        missing_service(f"no cluster: {reason}; scripts/build_images makes the images")
    return name


@pytest.fixture(scope="session")
def redis_image(missing_service: Missing) -> str:
    return image_of(REDIS, missing_service)


@pytest.fixture(scope="session")
def postgres_image(missing_service: Missing) -> str:
    return image_of(POSTGRES, missing_service)


@pytest.fixture(scope="session")
def worker_image(redis_image: str, missing_service: Missing) -> str:
    """That of our own; ``redis_image`` first, which says whether Docker answers at all."""
    try:
        return our_image()
    except ImageMissingError as error:
        missing_service(f"no cluster: {error}")


@pytest.fixture(scope="session")
def docker_client(redis_image: str) -> Iterator[DockerClient]:
    with docker_objects.docker_client() as client:
        yield client


@pytest.fixture(scope="session")
def docker_labels(redis_image: str) -> Iterator[dict[str, str]]:
    """Of everything here; what carries them is gone after the run, however that ends."""
    with docker_objects.labelled() as labels:
        yield labels


default_pytest_celery_network = network(labels=fxtr("docker_labels"), scope="session")

default_redis_broker = container_in_network(
    image="{redis_image}",
    command=RedisContainer.command(),
    ports={"6379/tcp": ("127.0.0.1", None)},
    tmpfs={"/data": ""},
    wrapper_class=RedisContainer,
    scope="session",
)

postgres_container = container_in_network(
    image="{postgres_image}",
    command=["postgres", *(f"-c{option}" for option in WITHOUT_SAFETY)],
    environment={
        "POSTGRES_PASSWORD": POSTGRES_PASSWORD,
        "POSTGRES_INITDB_ARGS": "--no-sync",
        "PGDATA": "/tmp/postgres",
    },
    ports={"5432/tcp": ("127.0.0.1", None)},
    tmpfs={"/tmp": "", "/var/lib/postgresql/data": ""},
    wrapper_class=PostgresContainer,
    scope="session",
)

default_worker_container = app_container(command=WorkerContainer.command(), scope="session")
second_worker_container = app_container(command=WorkerContainer.command(), scope="session")
beat_container = app_container(
    command=["celery", "-A", APP, "beat", "--loglevel=INFO"], scope="session"
)


@pytest.fixture(scope="session")
def celery_broker_cluster(default_redis_broker: RedisContainer) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(RedisTestBroker(default_redis_broker))


@pytest.fixture(scope="session")
def celery_broker_cluster_config(celery_broker_cluster: CeleryBrokerCluster) -> dict[str, Any]:
    return celery_broker_cluster.config()


@pytest.fixture(scope="session")
def celery_backend_cluster() -> None:
    """None: results are of no use to work that is planned through the outbox."""


@pytest.fixture(scope="session")
def celery_worker_cluster_config(
    celery_broker_cluster_config: dict[str, Any], postgres_container: PostgresContainer
) -> dict[str, Any]:
    return {
        "celery_broker_cluster_config": celery_broker_cluster_config,
        "database_url": database_url(postgres_container.host_in_network, 5432),
    }


def database_url(host: str, port: int) -> str:
    return f"postgresql+psycopg://postgres:{POSTGRES_PASSWORD}@{host}:{port}/postgres"


@pytest.fixture(scope="session")
def default_worker_env(
    celery_worker_cluster_config: dict[str, Any],
    docker_client: DockerClient,
    docker_labels: dict[str, str],
    worker_image: str,
    default_pytest_celery_network: Any,
) -> dict[str, str]:
    """The environment of workers and beat, whose database has been migrated by our image."""
    environment = WorkerContainer.initial_env(celery_worker_cluster_config)
    docker_client.containers.run(
        worker_image,
        ["python", "-m", "app.admin", "database", "upgrade"],
        environment=environment,
        network=default_pytest_celery_network.name,
        labels=docker_labels,
        tmpfs=WRITABLE,
        remove=True,
    )
    return environment


@pytest.fixture(scope="session")
def celery_setup_app() -> Celery:
    """The app of this process, with the jobs that the workers have mounted."""
    return queue_jobs.celery_app


@pytest.fixture(scope="session")
def celery_worker_cluster(
    default_worker_container: WorkerContainer,
    second_worker_container: WorkerContainer,
    celery_setup_app: Celery,
) -> CeleryWorkerCluster:
    containers = (default_worker_container, second_worker_container)
    return CeleryWorkerCluster(*(CeleryTestWorker(one, celery_setup_app) for one in containers))


@pytest.fixture
def cluster(
    celery_setup: Any,
    default_redis_broker: RedisContainer,
    postgres_container: PostgresContainer,
    beat_container: WorkerContainer,
    show_logs: Callable[[Callable[[], Mapping[str, str]]], None],
) -> Iterator[Cluster]:
    """Two workers that take from all queues, a beat, and nothing to do."""
    first, second = (worker.container for worker in celery_setup.worker_cluster)
    containers = {"first": first, "second": second, "beat": beat_container}
    show_logs(lambda: {name: one.logs() for name, one in containers.items()})
    host, port = postgres_container.get_addr("5432/tcp")
    broker_host, broker_port = default_redis_broker.get_addr("6379/tcp")
    settings = {
        "REDIS_URL": f"redis://{broker_host}:{broker_port}/0",
        "DATABASE_URL": database_url(host, port),
    }
    with planning(settings):
        made = Cluster(celery_setup.app, first, second)
        made.start()
        made.empty()
        yield made
