"""The monitoring profile: Prometheus finds every worker and beat, however many there are."""

import json
import time
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.request import urlopen

import pytest

from scripts.live.compose import Compose
from scripts.live.ports import HOST
from tests.compose_file import services
from tests.container_images import image_is_here, name_of
from tests.e2e.conftest import UP_TAKES_SECONDS

pytestmark = pytest.mark.timeout(UP_TAKES_SECONDS)

FOUND_WITHIN_SECONDS = 90
EXPECTED = {"celery_worker": 4, "celery_beat": 2}


@pytest.fixture(scope="module")
def prometheus(deployment: Compose, missing_service: Callable[[str], NoReturn]) -> str:
    image = name_of(services()["prometheus"])
    if not image_is_here(image):
        missing_service(f"no image {image}: run scripts/build_images --monitoring")
    deployment.run("--profile", "monitoring", "up", "-d", "--no-deps", "prometheus")
    deployment.wait_until_healthy()
    return f"http://{HOST}:{deployment.ports['PROMETHEUS_PORT']}"


def ask(prometheus: str, path: str) -> Any:
    with urlopen(f"{prometheus}/api/v1/{path}", timeout=30) as answer:  # noqa: S310
        return json.load(answer)["data"]


def test_it_scrapes_every_worker_and_beat(prometheus: str) -> None:
    deadline = time.monotonic() + FOUND_WITHIN_SECONDS
    while True:
        targets = ask(prometheus, "targets")["activeTargets"]
        up = [target["labels"]["job"] for target in targets if target["health"] == "up"]
        found = {job: up.count(job) for job in EXPECTED}
        if found == EXPECTED or time.monotonic() > deadline:
            break
        time.sleep(2)
    assert found == EXPECTED, targets


def test_it_can_answer_what_an_operator_asks(prometheus: str) -> None:
    answer = ask(prometheus, "query?query=max(celery_queue_depth)%20by%20(queue)")["result"]
    assert "bookings" in {one["metric"]["queue"] for one in answer}
