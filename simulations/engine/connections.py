"""Every connection that an app makes, led to the virtual broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery._state import (  # type: ignore[attr-defined]
    _set_task_join_will_block,
    _tls,
    get_current_app,
    task_join_will_block,
)
from kombu import transport

from simulations.engine.broker import VirtualBroker


@contextmanager
def on_virtual_broker(app: Any, broker: VirtualBroker) -> Iterator[None]:
    """Let every connection that ``app`` makes go to ``broker``; undone at the end."""
    conf = app.conf

    def connection(_url: Any, **options: Any) -> Any:
        given = {**conf.broker_transport_options, **(options.get("transport_options") or {})}
        return app.amqp.Connection(
            "redis://virtual:0/0",
            transport=broker.transport_class,
            transport_options=given,
            heartbeat=options.get("heartbeat"),
            connect_timeout=conf.broker_connection_timeout,
        )

    kept = {
        name: conf[name]
        for name in ("worker_enable_remote_control", "worker_send_task_events", "include")
    }
    current, joins_block = get_current_app(), task_join_will_block()
    default_queues = app.amqp.queues._consume_from
    conf.update(worker_enable_remote_control=False, worker_send_task_events=False)
    app._connection = connection
    _forget_connections(app)
    for task in app.tasks.values():
        task.__trace__ = None
    app.set_current()
    try:
        yield
    finally:
        del app._connection
        transport._transport_cache.pop(broker.transport_class, None)  # type: ignore[attr-defined]
        conf.update(kept)
        app.amqp.queues._consume_from = default_queues
        _forget_connections(app)
        for task in app.tasks.values():
            task.__trace__ = None
        _tls.current_app = current
        # Set by whoever starts a pool: in a worker a result is not to be waited for.
        _set_task_join_will_block(joins_block)


def _forget_connections(app: Any) -> None:
    app._pool = None
    app.amqp._producer_pool = None
