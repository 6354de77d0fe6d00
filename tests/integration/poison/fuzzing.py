"""Messages that nobody would write, and what a running worker makes of them."""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from app.outbox import DUE_INSTANT_HEADER, PUBLISHED_AT_HEADER
from app.trace import HEADER as TRACE_HEADER
from scripts.live import jobs
from scripts.live.job_bench import JobBench
from scripts.live.processes import Process
from tests.integration.poison.raw_messages import (
    JOB,
    STRICT_JOB,
    Envelope,
    Lists,
    envelope,
    headers,
    properties,
)

ANSWER = 60.0  # seconds
MANY = 20
"""Messages in a batch."""
RECEIVED = re.compile(r" Task (\S+\[.*\]) received ")
REFUSED = "] refused "
ENDED = re.compile(r" Task \S+\[[^\n]*\] (succeeded in|raised|retry:)|Discarding revoked task:")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 2**31, 2**63, 10**30, 10**400]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "\0", "\r\n", "\ud800", "2026-01-01T00:00:00Z", "0001-01-01"]),
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
"""Whatever JSON says, and the numbers that only Python's does."""

bodies = st.one_of(
    anything,
    st.tuples(anything, anything, anything).map(list),
    st.tuples(
        st.lists(anything, max_size=3),
        st.dictionaries(st.text(max_size=8), anything, max_size=3),
        st.none() | st.dictionaries(st.sampled_from(["callbacks", "chain", "chord"]), anything),
    ).map(list),
)
HEADERS = (
    *headers(),
    *("compression", "get", "shadow", "stamped_headers", "stamps"),
    *(DUE_INSTANT_HEADER, PUBLISHED_AT_HEADER, TRACE_HEADER),
)
names = st.sampled_from(HEADERS) | st.text(max_size=12)
PLACES = [
    *((name,) for name in envelope()),
    *(("headers", name) for name in HEADERS),
    *(("properties", name) for name in properties()),
    *(("properties", "delivery_info", name) for name in ("exchange", "routing_key", "redelivered")),
]


@st.composite
def sound(draw: st.DrawFn) -> Envelope:
    """One of Celery's messages, with arguments that may not suit its task."""
    body = draw(bodies)
    made = envelope(body, head=headers(draw(st.sampled_from([JOB, STRICT_JOB, "nobody.knows"]))))
    # Else what hypothesis repeats has the ids of the first time.
    made["headers"]["id"] = str(uuid4())
    return made


@st.composite
def mutated(draw: st.DrawFn) -> Envelope:
    """A sound message with a few values that are others, or missing."""
    made = deepcopy(draw(sound()))
    for *parents, name in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)):
        holder: Any = made
        for parent in parents:
            holder = holder.get(parent) if isinstance(holder, dict) else None
        if not isinstance(holder, dict):
            continue
        if draw(st.booleans()):
            holder[name] = draw(anything)
        else:
            holder.pop(name, None)
    return made


@st.composite
def corrupted(draw: st.DrawFn) -> bytes:
    """The bytes of a message, some of which are others, or cut off."""
    data = bytearray(json.dumps(draw(mutated())).encode())
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(len(data) // 2, len(data)))])


strange = st.builds(
    envelope,
    bodies,
    head=st.dictionaries(names, anything, max_size=6),
    props=st.dictionaries(st.sampled_from(list(properties())), anything),
)
items = st.one_of(sound(), mutated(), mutated(), corrupted(), strange, st.binary(max_size=40))
batches = st.lists(items, min_size=1, max_size=MANY)


def fuzz(number: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a test ``number`` times a ``batch``, all of which one worker takes."""

    def given_batches(test: Callable[..., None]) -> Callable[..., None]:
        return settings(
            max_examples=number,
            deadline=None,
            database=None,
            # A smaller example would cost as much as the first.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        )(given(batch=batches)(test))

    return given_batches


def messages_in(log: str) -> int:
    """How many messages a worker's log tells of, each as received or as refused.

    One that Celery has received may be refused after that: then the next line says so.
    """
    told, just_received = 0, None
    for line in log.splitlines():
        if received := RECEIVED.search(line):
            told += 1
            just_received = received[1]
        elif REFUSED in line:
            told += f"{REFUSED}{just_received}: " not in line
            just_received = None
    return told


class Fuzzed:
    """A running worker, and how many messages it was given."""

    def __init__(self, bench: JobBench, lists: Lists) -> None:
        self._bench, self._lists = bench, lists
        self.worker: Process = bench.live.start_worker()
        self.given = 0

    def take(self, batch: list[bytes | Envelope]) -> None:
        """Give it the batch and a healthy message; all of it must end."""
        self._lists.push(batch)
        healthy = str(uuid4())
        self._bench.enqueue("effect", healthy)
        self.given += len(batch) + 1
        self._wait(lambda: healthy in jobs.effects(), "the healthy message did not run")
        self._wait(lambda: self._lists.waiting() == 0, "messages wait")
        self._wait(lambda: self._lists.held() == 0, "messages are held")
        self._wait(lambda: self._told() == self.given, "messages are not told of")

    def _told(self) -> int:
        log = self.worker.log_text()
        assert len(ENDED.findall(log)) <= len(RECEIVED.findall(log))
        return messages_in(log)

    def _wait(self, condition: Any, otherwise: str) -> None:
        try:
            self._bench.wait_until(lambda: condition() or not self.worker.alive, timeout=ANSWER)
        except TimeoutError:
            raise AssertionError(f"{otherwise}: {self._told()} of {self.given} told") from None
        assert self.worker.alive, "the worker ended"
