"""A day on the broker in memory and on a real Redis is the same day, line for line."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
import redis

from simulations.engine import Deployment, WorkerGroup
from simulations.engine.real_redis import NotEmptyError
from tests.simulation.engine.toys import HOUR, MINUTE, Toy, every_minute

AUTUMN = datetime(2026, 11, 1, 5, tzinfo=UTC)  # an hour before the clocks go back in New York


def trace(broker_url: str | None) -> str:
    toy = Toy(
        visibility_timeout=30.0,
        broker_connection_max_retries=None,
        beat_schedule={
            "retries": every_minute("toy.jittered", "a"),
            "works": every_minute("toy.work", "b", 25),
            "reports": {**every_minute("toy.note", "c"), "options": {"priority": 2}},
        },
    )
    lines = io.StringIO()
    with Deployment(
        toy.app,
        start=AUTUMN,
        seed=11,
        workers=[WorkerGroup(2, 2)],
        broker_url=broker_url,
        trace_into=lines,
    ) as deployment:
        deployment.run_for(10 * MINUTE + MINUTE / 6)
        deployment.workers["worker1"].kill()
        deployment.run_for(20 * MINUTE)
        deployment.broker.go_down()
        deployment.run_for(2 * MINUTE)
        deployment.broker.come_back()
        deployment.run_for(20 * MINUTE)
        deployment.broker.empty()
        deployment.run_until(AUTUMN + 2 * HOUR)
    return lines.getvalue()


def test_retries_a_kill_an_outage_and_an_emptied_broker_leave_the_same_trace(
    broker_url: str,
) -> None:
    in_memory, on_redis = trace(None), trace(broker_url)
    assert in_memory.splitlines() == on_redis.splitlines()
    assert {"retried", "redelivered", "failed"} <= {
        line.split('"event":"')[1].split('"')[0] for line in on_redis.splitlines()
    }


def test_nothing_is_left_on_the_real_redis(broker_url: str) -> None:
    trace(broker_url)
    with redis.Redis.from_url(broker_url) as client:
        assert client.dbsize() == 0


def test_a_database_that_holds_anything_is_refused(broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as client:
        client.set("precious", 1)
        with pytest.raises(NotEmptyError, match="1 key"):
            trace(broker_url)
        assert client.get("precious") == b"1"
        client.delete("precious")
