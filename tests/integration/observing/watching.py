"""What a deployment tells of itself: its metrics pages and its log files."""

import json
import urllib.request
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from scripts.live.job_bench import JobBench
from scripts.live.ports import HOST
from scripts.live.processes import Process

ANSWER = 30.0  # seconds
JOBS = "scripts.live.jobs."


class Watched:
    """A bench with a metrics page for the worker and one for beat."""

    def __init__(self, bench: JobBench, *, port: int, beat_port: int) -> None:
        self.bench = bench
        self.port = port
        self.beat_port = beat_port

    def start_worker(self, *arguments: str, **options: Any) -> Process:
        environment = {"METRICS_PORT": str(self.port), **options.pop("environment", {})}
        return self.bench.live.start_worker(
            "--without-mingle", *arguments, environment=environment, **options
        )

    def start_beat(self, **options: Any) -> Process:
        environment = {"BEAT_METRICS_PORT": str(self.beat_port)}
        beat = self.bench.live.start_beat(environment=environment, **options)
        beat.wait_for_line("metrics on", timeout=ANSWER)
        return beat

    def page(self, port: int | None = None) -> str:
        """The metrics page of the worker, or of the given port."""
        url = f"http://{HOST}:{port or self.port}/metrics"
        with urllib.request.urlopen(url, timeout=ANSWER) as answer:
            return str(answer.read().decode())

    def samples(self, name: str, port: int | None = None) -> dict[tuple[str, ...], float]:
        """The values of a metric, by the values of its labels in alphabetical order."""
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.page(port))
            for sample in family.samples
            if sample.name == name
        }

    def runs(self) -> dict[tuple[str, str], float]:
        """How many runs of each job ended how: {(job, state): number}."""
        return {
            (task.removeprefix(JOBS), state): value
            for (_, state, task), value in self.samples("celery_tasks_total").items()
            if task.startswith(JOBS)  # beat may send the health check
        }

    def wait_for_runs(self, expected: dict[tuple[str, str], float]) -> None:
        try:
            self.bench.wait_until(lambda: self.runs() == expected, timeout=ANSWER)
        except TimeoutError:
            assert self.runs() == expected

    def lines(self, program: str = "worker") -> list[dict[str, Any]]:
        """The objects of a log file, each of its lines one."""
        file = self.bench.live.log_folder / "celery" / f"{program}.log"
        return [json.loads(line) for line in file.read_text().splitlines()]
