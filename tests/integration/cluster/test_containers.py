"""What the cluster's containers are allowed, and what they would leave behind."""

import pytest
from docker import DockerClient
from docker.models.containers import Container

from tests.docker_objects import PART_LABEL
from tests.integration.cluster.cluster import TEST_TIMEOUT, Cluster

pytestmark = pytest.mark.timeout(TEST_TIMEOUT)


@pytest.fixture
def containers(
    cluster: Cluster, docker_client: DockerClient, docker_labels: dict[str, str]
) -> list[Container]:
    ours = {"label": f"{PART_LABEL}={docker_labels[PART_LABEL]}"}
    return docker_client.containers.list(filters=ours)


def test_no_container_has_a_volume_that_would_outlive_it(containers: list[Container]) -> None:
    assert len(containers) == 5  # Redis, PostgreSQL, two workers, beat
    mounts = [mount["Type"] for one in containers for mount in one.attrs["Mounts"]]
    assert "volume" not in mounts


def test_only_this_machine_reaches_the_containers_ports(containers: list[Container]) -> None:
    published = [
        binding["HostIp"]
        for one in containers
        for bindings in one.attrs["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    ]
    assert published == ["127.0.0.1", "127.0.0.1"]


def test_a_worker_runs_without_privileges_and_writes_only_where_it_may(cluster: Cluster) -> None:
    for worker in cluster.workers:
        assert worker.exec_run(["id", "-u"]) == (0, b"10001\n")
        assert worker.exec_run(["touch", "/srv/instainstru/app/new"])[0] != 0
        assert worker.exec_run(["touch", "/srv/instainstru/var/new"])[0] == 0
