"""Only its own messages are taken back, and each with the time at which it was published."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis

from app import trace
from app.routing import QUEUES
from loadtests import _leftovers, _target, _work
from loadtests._publishing import publish
from loadtests._target import Target

MANY = _leftovers.PAGE + 7


@pytest.fixture
def target(broker_url: str) -> Iterator[Target]:
    made = _target.connect(broker_url)
    yield made
    made.close()


def waiting(target: Target) -> dict[str, int]:
    depths = target.broker.depths([spec.name for spec in QUEUES])
    return {name: depth.waiting for name, depth in depths.items() if depth.waiting}


def test_what_others_published_stays_where_it_is(target: Target) -> None:
    ours, others = trace.new(), trace.new()
    publish(target.broker, _work.BOOKING, trace_id=others)
    ids = publish(target.broker, [*_work.BOOKING, *_work.PASSWORD_RESET], trace_id=ours)
    publish(target.broker, _work.HEALTH_CHECK, trace_id=others)
    removed = _leftovers.remove(target.app, ours)
    assert {task_id for task_id, _, _ in removed} == set(ids)
    assert {queue for _, queue, _ in removed} == {"bookings", "email", "notifications"}
    assert waiting(target) == {"bookings": 1, "email": 1, "notifications": 1, "celery": 1}
    now = target.broker.now()
    assert all(timedelta(0) <= now - stamp < timedelta(minutes=5) for _, _, stamp in removed)


def test_more_than_a_page_is_taken_back_among_others(target: Target) -> None:
    ours, others = trace.new(), trace.new()
    for trace_id in (ours, others) * 2:
        publish(target.broker, [_work.CACHE] * MANY, trace_id=trace_id)
    assert len(_leftovers.remove(target.app, ours)) == 2 * MANY
    assert waiting(target) == {"cache": 2 * MANY}
    assert _leftovers.remove(target.app, ours) == []


def test_rubbish_in_a_queue_is_passed_over(target: Target, broker_url: str) -> None:
    ours = trace.new()
    publish(target.broker, _work.HEALTH_CHECK, trace_id=ours)
    with redis.Redis.from_url(broker_url) as client:
        for rubbish in ("no JSON", "[]", f'{{"headers": "{ours}"}}', f'"{ours}"'):
            client.lpush("celery", rubbish)
    assert len(_leftovers.remove(target.app, ours)) == 1
    assert waiting(target) == {"celery": 4}
