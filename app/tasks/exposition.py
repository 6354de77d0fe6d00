"""The metrics pages: ``GET /metrics`` of a worker and of beat."""

import logging
from collections.abc import Iterable
from typing import Any

from celery import Celery, bootsteps, signals
from celery.worker import state
from prometheus_client import CollectorRegistry, Metric, ProcessCollector, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.settings import load_settings
from app.tasks.broker import RedisBroker
from app.tasks.deployment_metrics import DeploymentMetrics
from app.tasks.metrics import REGISTRY
from app.tasks.page_server import PageServer

logger = logging.getLogger(__name__)


class Page:
    """A server for the metrics of this process and of the deployment, in a thread."""

    def __init__(self, app: Celery, *collectors: Collector) -> None:
        self._app = app
        self._collectors = collectors
        self._server: PageServer | None = None
        # Its own, with half the patience: a page is due within seconds.
        self._broker = RedisBroker(app, timeout=load_settings().publish_timeout_seconds / 2)

    def open(self, host: str, port: int) -> None:
        """Listen; 0: do not. A port in use, by a second worker say, is logged and no more."""
        if not port:
            return
        deployment = DeploymentMetrics(self._app, self._broker)
        registry = CollectorRegistry()
        for collector in (REGISTRY, *self._collectors, deployment):
            registry.register(collector)
        ProcessCollector(registry=registry)
        try:
            self._server = PageServer(host, port, make_wsgi_app(registry))
        except OSError as error:
            logger.warning("no metrics page on %s port %d: %s", host, port, error.strerror)
            return
        logger.info("metrics on http://%s:%d/metrics", host, port)

    def close(self) -> None:
        """Stop listening."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self._broker.close()


class Slots(Collector):
    """How many slots of the worker's pool are busy."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def collect(self) -> Iterable[Metric]:
        slots = GaugeMetricFamily("worker_slots", "Slots of this worker's pool.", labels=["state"])
        total = self._worker.pool.num_processes
        busy = min(len(state.active_requests), total)
        slots.add_metric(["busy"], busy)
        slots.add_metric(["free"], total - busy)
        yield slots


class OutageSeconds(Collector):
    """For how long the worker has taken no messages, because it cannot reach the database."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def collect(self) -> Iterable[Metric]:
        consumer = getattr(self._worker, "consumer", None)  # made after the page
        yield GaugeMetricFamily(
            "worker_database_outage_seconds",
            "Seconds for which this worker has taken no messages, because the database does not "
            "answer; 0: it does.",
            value=0.0 if consumer is None else consumer.outage.seconds,
        )


class WorkerPage(bootsteps.StartStopStep):
    """Opens a worker's page when its pool has started: the pool's first children have no part
    in it."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_options: Any) -> None:
        self._page = Page(worker.app, Slots(worker), OutageSeconds(worker))

    def start(self, worker: Any) -> None:
        settings = load_settings()
        self._page.open(settings.metrics_host, settings.metrics_port)

    def stop(self, worker: Any) -> None:
        self._page.close()


def install(app: Celery) -> None:
    """Give the workers and beats of ``app`` their pages."""
    app.steps["worker"].add(WorkerPage)

    def open_beats(**_: Any) -> None:
        settings = load_settings()
        Page(app).open(settings.metrics_host, settings.beat_metrics_port)

    signals.beat_init.connect(open_beats, weak=False)
