"""The metrics of a page, as the code declares them."""

from unittest.mock import MagicMock

from prometheus_client import Metric

from app.tasks import deployment_metrics, metrics
from app.tasks.exposition import OutageSeconds, Slots


def exported() -> list[tuple[Metric, tuple[str, ...]]]:
    """Each metric with the names of its labels; ``process_*`` are left to their library."""
    counted = [
        (collected, tuple(collector._labelnames))
        for collector in metrics.REGISTRY._collector_to_names
        for collected in collector.collect()
    ]
    worker = MagicMock()
    worker.pool.num_processes = 1
    worker.consumer.outage.seconds = 0.0
    gauges = [
        *Slots(worker).collect(),
        *OutageSeconds(worker).collect(),
        *deployment_metrics._queues(None),
        *deployment_metrics._outbox(None),
        *deployment_metrics._memory(None),
        deployment_metrics._clock(None),
    ]
    return [*counted, *((gauge, tuple(gauge._labelnames)) for gauge in gauges)]


def full_name(metric: Metric) -> str:
    """As it stands on the page: a counter ends in ``_total``."""
    return f"{metric.name}_total" if metric.type == "counter" else metric.name
