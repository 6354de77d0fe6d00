"""Whatever somebody puts into a queue, the worker goes on, and the message ends."""

import bz2
import gzip
import json
import pickle
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import delete, select

from app import clock, db
from app.models import OutboxEntry, OutboxState
from app.outbox import DUE_INSTANT_HEADER, PUBLISHED_AT_HEADER
from app.tasks.messages import NO_TASK
from app.trace import HEADER as TRACE_HEADER
from scripts.live import jobs
from scripts.live.job_bench import JobBench
from tests.integration.poison.conftest import VISIBILITY_TIMEOUT
from tests.integration.poison.raw_messages import (
    BODY,
    JOB,
    STRICT_JOB,
    Envelope,
    Lists,
    envelope,
    headers,
    properties,
)
from tests.integration.starting.shell import Shell

ANSWER = 60.0  # seconds
DEEP = 10_000
BIG = "x" * 5_000_000
BOMB = 2_000_000_000
"""Bytes that a compressed message would have; more than a worker should ever hold."""

Item = bytes | Envelope


def with_header(**changed: Any) -> Envelope:
    return envelope(head=headers(**changed))


def with_property(**changed: Any) -> Envelope:
    return envelope(props=properties(**changed))


def without(part: str, name: str) -> Envelope:
    made = envelope()
    del made[part][name]
    return made


def compressed(body: bytes, method: str) -> Envelope:
    return envelope(raw=body, head=headers(compression=method))


def a_bomb() -> bytes:
    """Bzip2 of ``BOMB`` zeros: its blocks repeat, so a few bytes say it all."""
    piece = bz2.compress(bytes(BOMB // 100))
    return piece * 100  # streams that follow each other are decompressed as one


NO_MESSAGE: dict[str, Item] = {
    "not JSON": b"rubbish",
    "nothing": b"",
    "not UTF-8": b"\xff\xfe\x00",
    "a number": b"5",
    "null": b"null",
    "a list": b"[]",
    "an empty object": b"{}",
    "nested too deep": b"[" * DEEP + b"]" * DEEP,
    "kombu's mark of a type that is none": b'{"__type__": "uuid", "__value__": 5}',
    "no properties": {"body": "", "headers": headers()},
    "properties that are none": envelope(props=[1]),
    "headers that are none": envelope(head="a text"),
    "headers that are a list": envelope(head=[["task", JOB]]),
    "headers nested too deep": b'{"headers": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "no delivery tag": without("properties", "delivery_tag"),
    "a delivery tag that is none": with_property(delivery_tag=[1]),
    "no delivery information": without("properties", "delivery_info"),
    "delivery information that is none": with_property(delivery_info="celery"),
    "half of the delivery information": with_property(delivery_info={"exchange": ""}),
    "a priority that is none": with_property(priority="high"),
    "a priority beyond all numbers": with_property(priority=float("inf")),
    "an encoding of the body that is none": with_property(body_encoding="rot13"),
    "an encoding of the body that is a list": with_property(body_encoding=[1]),
    "a body that is not Base64": envelope(body="%%%") | {"body": "%%%"},
    "a body that is an object": envelope() | {"body": {"a": 1}},
    "a bomb of bzip2": compressed(a_bomb(), "application/x-bz2"),
    "a bomb of gzip": compressed(gzip.compress(bytes(BOMB // 20)), "application/x-gzip"),
    "compressed rubbish": compressed(b"rubbish", "application/x-gzip"),
    "an unknown compression": compressed(b"rubbish", "application/x-unheard-of"),
    "a compression that is none": compressed(b"rubbish", "x") | {"headers": {"compression": [1]}},
}
"""What kombu itself could not read, or could only at our cost."""

NO_CALL: dict[str, Item] = {
    "a body that is not JSON": envelope(raw=b"[[1"),
    "a body that is not UTF-8": envelope(raw=b"\xff\xfe"),
    "no body": envelope() | {"body": ""},
    "null as body": envelope() | {"body": None},
    "no three parts": envelope([1, 2]),
    "a body nested too deep": envelope(raw=b"[" * DEEP + b"]" * DEEP),
    "arguments nested too deep": envelope(raw=b"[[" + b"[" * DEEP + b"]" * DEEP + b"], {}, {}]"),
    "arguments nested just too deep": envelope([[json.loads("[" * 900 + "]" * 900)], {}, {}]),
    "an unknown content type": envelope() | {"content-type": "application/x-unheard-of"},
    "a content type that is none": envelope() | {"content-type": 5},
    "YAML": envelope(raw=b"!!python/none") | {"content-type": "application/x-yaml"},
    "pickle": envelope(raw=pickle.dumps(BODY)) | {"content-type": "application/x-python-serialize"},
    "NaN and Infinity": envelope([[float("nan"), float("-inf")], {}, None]),
    "an unknown task": with_header(task="nobody.knows"),
    "a task that is a number": with_header(task=5),
    "an id that is a list": with_header(message_id=[1]),
    "an id with a line break": with_header(message_id="a\r\nb"),
    "an id that is too long": with_header(message_id="x" * 100_000),
    "retries below zero": with_header(retries=-1),
    "retries beyond the database's numbers": with_header(retries=10**30),
    "retries beyond every number": with_header(retries=float("inf")),
    "an unknown task, tried too often": with_header(task="nobody.knows", retries=10**18),
    "an ETA that is none": with_header(eta="next week"),
    "an ETA beyond the calendar": with_header(eta="9999-12-31T23:59:59-12:00"),
    "an expiry that is none": with_header(expires=[1]),
    "an expiry, and stamps that are none": with_header(
        expires="2100-01-01T00:00:00+00:00", stamped_headers=5
    ),
    "time limits that are none": with_header(timelimit=[float("nan"), {}]),
    "time limits below zero": with_header(timelimit=[-1, -5]),
    "a name to show that fakes a log line": with_header(shadow="x\r\n2026-01-01 all is well"),
    "headers that hide the methods of a request": with_header(get=1, update=2),
    "time limits that never end": with_header(timelimit=[float("inf"), float("nan")]),
}
"""What kombu reads, and no task can be given."""

FAILS: dict[str, Item] = {
    "no argument": envelope([[], {}, None], head=headers(STRICT_JOB)),
    "two arguments": envelope([[1, 2], {}, None], head=headers(STRICT_JOB)),
    "an unknown keyword": envelope([[1], {"x": 1}, None], head=headers(STRICT_JOB)),
    "itself as keyword": envelope([[], {"self": 1, "number": 2}, None], head=headers(STRICT_JOB)),
    "a keyword with a line break": envelope([[], {"a\nb": 1}, None], head=headers(STRICT_JOB)),
    "an empty keyword": envelope([[], {"": 1}, None], head=headers(STRICT_JOB)),
    "half a character": envelope([["\ud800", "\0"], {}, None], head=headers(STRICT_JOB)),
    "a number beyond every column": envelope([[10**400, 2], {}, None], head=headers(STRICT_JOB)),
}
"""What a task is given, and fails with."""

RUNS: dict[str, Item] = {
    "5 MB": envelope([[BIG], {}, None]),
    "a header of 1 MB": with_header(argsrepr=BIG[:1_000_000], more={"x": [BIG[:1_000_000]]}),
    "an unknown charset": envelope() | {"content-encoding": "klingon"},
    "a charset that is none": envelope() | {"content-encoding": [1]},
    "an ETA in the past": with_header(eta="2001-01-01T00:00:00+00:00"),
    "priority below zero": with_property(priority=-5),
    "priority beyond all": with_property(priority=10**30),
    "delivery information of another queue": with_property(
        delivery_info={"exchange": "nobodys", "routing_key": "nobodys", "redelivered": "yes"}
    ),
    "an answer to nobody": with_property(reply_to={"a": 1}, correlation_id=[1]),
    "a trace that is none": with_header(**{TRACE_HEADER: {"a": 1}}),
    "a due instant that is none": with_header(**{DUE_INSTANT_HEADER: 5}),
    "links that are none": envelope([[1], {}, {"callbacks": [5], "chain": "x", "chord": []}]),
    "origins that are none": with_header(origin=[1], lang=7, group={}, root_id=[], parent_id=5),
    "stamps that are none": with_header(stamped_headers=5, stamps="x"),
    "surprising keywords": envelope([[], {"__class__": 1, "a.b": 2, "": 3, "\0": 4}, None]),
}
"""What runs, or fails, as it likes: the one promise is an end, and no second one."""

SKIPPED: dict[str, Item] = {
    "expired": with_header(expires="2001-01-01T00:00:00+00:00"),
    "of an entry that is not there": with_header(**{PUBLISHED_AT_HEADER: "2026-01-01T00:00:00Z"}),
    "of an entry that is not there, at an instant that is none": with_header(
        **{PUBLISHED_AT_HEADER: [5]}
    ),
}
"""What is acknowledged, and neither run nor kept."""


def letters(state: OutboxState = OutboxState.DEAD) -> list[OutboxEntry]:
    with db.reading() as session:
        return list(session.scalars(select(OutboxEntry).where(OutboxEntry.state == state)))


def run_a_healthy_one(bench: JobBench) -> None:
    name = str(uuid4())
    bench.enqueue("effect", name)
    bench.wait_until(lambda: name in jobs.effects(), timeout=ANSWER)


def wait_for_the_end(bench: JobBench, lists: Lists) -> None:
    bench.wait_until(lambda: lists.waiting() == 0 and lists.held() == 0, timeout=ANSWER)


def wait_for_letters(bench: JobBench, count: int) -> list[OutboxEntry]:
    bench.wait_until(lambda: len(letters()) >= count, timeout=ANSWER)
    return letters()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("group", [NO_MESSAGE, NO_CALL, FAILS], ids=["message", "call", "argument"])
def test_each_is_one_dead_letter_and_the_worker_goes_on(
    group: dict[str, Item], bench: JobBench, lists: Lists
) -> None:
    worker = bench.live.start_worker()
    for number, (name, item) in enumerate(group.items(), 1):
        lists.push([item])
        bench.wait_until(
            lambda number=number: len(letters()) >= number or not worker.alive, timeout=ANSWER
        )
        assert worker.alive, name
    run_a_healthy_one(bench)
    wait_for_the_end(bench, lists)
    assert len(letters()) == len(group)
    assert worker.alive
    assert "dropped" not in worker.log_text()


@pytest.mark.timeout(240)
def test_what_is_odd_and_runs_ends_and_has_its_effect_at_most_once(
    bench: JobBench, lists: Lists
) -> None:
    worker = bench.live.start_worker()
    lists.push(RUNS.values())
    wait_for_the_end(bench, lists)
    run_a_healthy_one(bench)
    assert worker.alive
    ids = {name: item["headers"]["id"] for name, item in RUNS.items() if isinstance(item, dict)}
    ended = {letter.id for letter in letters()} | jobs.effects().keys()
    assert {name for name, message_id in ids.items() if message_id not in ended} == set()
    assert set(jobs.effects().values()) == {1}


@pytest.mark.timeout(240)
def test_what_expired_or_belongs_to_no_entry_is_skipped(bench: JobBench, lists: Lists) -> None:
    bench.live.start_worker()
    lists.push(SKIPPED.values())
    wait_for_the_end(bench, lists)
    run_a_healthy_one(bench)
    assert letters() == []
    assert len(jobs.effects()) == 1


@pytest.mark.timeout(240)
def test_messages_of_one_id_have_one_effect_and_of_one_delivery_tag_end(
    bench: JobBench, lists: Lists
) -> None:
    bench.live.start_worker()
    twin, tag = str(uuid4()), str(uuid4())
    lists.push([envelope(head=headers(message_id=twin)) for _ in range(5)])
    tagged = [envelope(props=properties(delivery_tag=tag)) for _ in range(5)]
    lists.push(tagged)
    wait_for_the_end(bench, lists)
    expected = {twin: 1, **{item["headers"]["id"]: 1 for item in tagged}}
    bench.wait_until(lambda: jobs.effects().keys() >= expected.keys(), timeout=ANSWER)
    assert jobs.effects() == expected


@pytest.mark.timeout(240)
def test_an_eta_in_the_far_future_holds_nothing_up(bench: JobBench, lists: Lists) -> None:
    worker = bench.live.start_worker(concurrency=1)
    far = [
        (clock.utcnow() + timedelta(days=1)).isoformat(),
        datetime(9999, 1, 1, tzinfo=UTC).isoformat(),
    ] * 50
    lists.push([with_header(eta=eta) for eta in far])
    bench.wait_until(lambda: lists.held() == len(far), timeout=ANSWER)
    run_a_healthy_one(bench)
    assert lists.waiting() == 0
    assert worker.terminate() == 0
    assert lists.waiting() == len(far), "they wait for the next worker"


@pytest.mark.timeout(240)
def test_poison_is_told_once_however_often_its_lease_could_have_run_out(
    bench: JobBench, lists: Lists
) -> None:
    worker = bench.live.start_worker()
    lists.push([NO_MESSAGE["not JSON"], NO_CALL["pickle"], FAILS["no argument"]])
    wait_for_letters(bench, 3)
    for _ in range(2):
        sleep(VISIBILITY_TIMEOUT.total_seconds())
        run_a_healthy_one(bench)
    assert len(letters()) == 3
    assert worker.log_text().count("refused (no task name)") == 1
    assert lists.held() == 0


@pytest.mark.timeout(240)
def test_an_item_that_is_no_message_is_kept_while_the_database_is_away(
    bench: JobBench, lists: Lists
) -> None:
    bench.live.environment["DATABASE_BUSY_TIMEOUT_SECONDS"] = "0.1"
    worker = bench.live.start_worker()
    with db.transaction() as session:
        session.execute(delete(OutboxEntry))  # on SQLite: nobody else writes now
        lists.push([b"rubbish"])
        worker.wait_for_line("held, its dead letter cannot be written", timeout=ANSWER)
    (letter,) = wait_for_letters(bench, 1)
    assert letter.task == NO_TASK
    assert letter.kwargs == {"unreadable_body": "an item of 7 bytes"}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("channel", "pool"),
    [
        ("celery.pidbox", "prefork"),
        ("celeryev/worker.heartbeat", "prefork"),
        ("celery.pidbox", "gevent"),  # which hears it on a connection of its own
    ],
)
def test_rubbish_on_the_channels_of_the_workers_ends_none(
    channel: str, pool: str, bench: JobBench, lists: Lists
) -> None:
    worker = bench.live.start_worker(pool=pool)
    bench.wait_until(lambda: lists.publish(channel, b"rubbish") >= 1, timeout=ANSWER)
    for item in (*NO_MESSAGE.values(), *NO_CALL.values()):
        lists.publish(channel, item)
    run_a_healthy_one(bench)
    assert worker.alive
    answered = Shell(bench.live).answer("celery -A app.tasks inspect ping --timeout 20")
    assert "pong" in answered
