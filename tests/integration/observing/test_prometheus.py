"""A real Prometheus with our rules asks a real deployment what the dashboard asks."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import yaml

from scripts.live.ports import HOST, free_port
from scripts.live.prometheus import MONITORING, Prometheus, dashboard_queries
from scripts.live.redis_server import RedisServer
from tests.integration.observing.watching import ANSWER, Watched


def start_prometheus(watched: Watched, folder: Path, command: str) -> Prometheus:
    """One that scrapes the two pages every second."""
    port = free_port()
    pages = [f"{HOST}:{watched.port}", f"{HOST}:{watched.beat_port}"]
    config = folder / "prometheus.yml"
    config.write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(MONITORING / "alerts.yml")],
                "scrape_configs": [{"job_name": "celery", "static_configs": [{"targets": pages}]}],
            }
        )
    )
    process = watched.bench.live.run(
        [
            command,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={HOST}:{port}",
        ],
        name="prometheus",
    )
    process.wait_for_line("Server is ready", timeout=ANSWER)
    return Prometheus(port)


@pytest.fixture
def prometheus(
    breakable: Watched,
    own_redis: RedisServer,
    tmp_path: Path,
    missing_service: Callable[[str], NoReturn],
) -> Prometheus:
    command = shutil.which("prometheus")
    if command is None:
        missing_service("no prometheus on the PATH: apt-get install prometheus")
    with own_redis.client() as client:
        client.config_set("maxmemory", "100mb")
    return start_prometheus(breakable, tmp_path, str(command))


@pytest.mark.timeout(180)
def test_each_query_returns_data_and_a_dead_letter_alone_is_alarming(
    prometheus: Prometheus, breakable: Watched
) -> None:
    breakable.start_beat()
    breakable.start_worker()
    bench = breakable.bench
    bench.wait_until(lambda: bool(prometheus.samples("dead_letters_total")), timeout=ANSWER)
    bench.enqueue_many("effect", 20)
    bench.enqueue("fail_first", "retried", 1)
    bench.enqueue("fail", "dead", "permanent")
    empty = dashboard_queries()

    def all_answered() -> bool:
        empty[:] = [(title, query) for title, query in empty if not prometheus.samples(query)]
        return not empty

    try:
        bench.wait_until(all_answered, timeout=ANSWER)
    except TimeoutError:
        assert empty == []
    bench.wait_until(
        lambda: all(rule["health"] == "ok" for rule in prometheus.rules()), timeout=ANSWER
    )
    bench.wait_until(lambda: "DeadLetters" in prometheus.firing(), timeout=ANSWER)
    assert prometheus.firing() == {"DeadLetters"}
