"""A marketplace's autumn night on a real Redis is the one in memory, line for line."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import date, time, timedelta

import pytest

from simulations.engine.faults import Fault
from simulations.marketplace.plan import Plan
from simulations.marketplace.replay import Replay

NIGHT = Plan(
    day=date(2026, 11, 1),
    bookings=200,
    seed=5,
    storm=(time(0, 5), 40),
    faults=(
        Fault("smtp-busy", time(0, 5), timedelta(minutes=10)),
        *(Fault("kill-worker", time(0, minute)) for minute in (6, 8, 10)),
        Fault("kill-child", time(0, 12)),
        Fault("mutex-orphaned", time(0, 14)),
        Fault("duplicate", time(0, 20)),
        Fault("unpublishable-entry", time(0, 22)),
        Fault("workers-lose-database", time(0, 25), timedelta(minutes=3)),
        Fault("clock-step", time(0, 32), timedelta(seconds=30)),
        Fault("redis-down", time(0, 40), timedelta(minutes=2)),
        Fault("redis-emptied", time(0, 50)),
    ),
)


def night(broker_url: str | None) -> list[str]:
    lines = io.StringIO()
    with Replay(replace(NIGHT, broker_url=broker_url), trace_into=lines) as replay:
        replay.deployment.run_until(replay.start + timedelta(hours=3.5))
    return lines.getvalue().splitlines()


@pytest.mark.timeout(180)  # two nights, one of them with every command over a socket
def test_faults_and_the_repeated_hour_leave_the_same_trace(broker_url: str) -> None:
    in_memory, on_redis = night(None), night(broker_url)
    assert in_memory == on_redis
    events = {line.split('"event":"')[1].split('"')[0] for line in on_redis}
    assert {"retried", "redelivered", "killed", "duplicated", "emptied", "mail"} <= events
    assert {"orphaned", "planted", "exited"} <= events
    assert sum('"entry":"session-cleanup"' in line for line in on_redis) == 4
