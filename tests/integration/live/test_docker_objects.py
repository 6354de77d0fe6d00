"""Whatever was made in Docker under a run's labels is removed, whoever made it."""

from collections.abc import Iterator
from uuid import uuid4

import docker
import pytest
from docker.errors import DockerException

from tests.docker_objects import PART_LABEL, docker_client, labelled


@pytest.fixture
def client() -> Iterator[docker.DockerClient]:
    try:
        with docker_client() as made:
            made.ping()
            yield made
    except DockerException:
        pytest.skip("Docker does not answer")


def test_networks_and_volumes_are_gone_though_their_makers_added_labels(
    client: docker.DockerClient,
) -> None:
    name = f"instainstru-{uuid4()}"
    with labelled() as labels:
        mine = {"label": f"{PART_LABEL}={labels[PART_LABEL]}"}
        client.networks.create(name, labels=labels)
        labels["signature"] = "of the volume"  # as pytest-docker-tools does
        client.volumes.create(name, labels=labels)
        assert len(client.networks.list(filters=mine)) == 1
        assert len(client.volumes.list(filters=mine)) == 1
    assert client.networks.list(filters=mine) == []
    assert client.volumes.list(filters=mine) == []
