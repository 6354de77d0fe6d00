"""The Redis in memory answers what a real one answers."""

from __future__ import annotations

from typing import Any

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulations.engine.memory_redis import MemoryRedis

KEYS = st.sampled_from(["a", "b"])
VALUES = st.sampled_from(["x", "y", "z", b"bytes"])
FIELDS = st.sampled_from(["f", "g", b"h"])
SCORES = st.sampled_from([1.0, 2.0, 3.5])


def command(name: str, *arguments: st.SearchStrategy[Any], **fixed: Any) -> st.SearchStrategy[Any]:
    # Each type has keys of its own: Redis refuses a list command on a hash.
    return st.tuples(st.just(name), st.tuples(*arguments), st.just(fixed))


LIST, HASH, SET, SORTED, STRING = (KEYS.map(f"{kind}:{{}}".format) for kind in "lhszt")
COMMANDS = st.one_of(
    command("lpush", LIST, VALUES, VALUES),
    command("rpush", LIST, VALUES),
    command("rpop", LIST),
    command("llen", LIST),
    command("lindex", LIST, st.sampled_from([-2, -1, 0, 1])),
    command("hset", HASH, FIELDS, VALUES),
    command("hget", HASH, FIELDS),
    command("hmget", HASH, st.lists(FIELDS, min_size=1, max_size=2)),
    command("hexists", HASH, FIELDS),
    command("hdel", HASH, FIELDS, FIELDS),
    command("sadd", SET, VALUES, VALUES),
    command("srem", SET, VALUES),
    command("smembers", SET),
    command("zadd", SORTED, st.dictionaries(FIELDS, SCORES, min_size=1)),
    command("zrem", SORTED, FIELDS),
    command("zrange", SORTED, SCORES, SCORES, desc=True, byscore=True, withscores=True),
    command(
        "zrange", SORTED, SCORES, SCORES, desc=True, byscore=True, withscores=True, offset=0, num=1
    ),
    command("set", STRING, VALUES),
    command("get", STRING),
    command("exists", LIST, HASH, SET, SORTED, STRING),
    command("delete", LIST, SORTED, STRING),
)


def answers(client: Any, commands: list[tuple[str, tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
    return [_plain(getattr(client, name)(*args, **fixed)) for name, args, fixed in commands]


def _plain(answer: Any) -> Any:
    if not isinstance(answer, list):
        return answer
    return [tuple(item) if isinstance(item, list) else item for item in answer]


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(commands=st.lists(COMMANDS, max_size=25))
def test_every_command_answers_as_redis_does(broker_url: str, commands: list[Any]) -> None:
    with redis.Redis.from_url(broker_url) as real:
        real.flushdb()
        memory = MemoryRedis(lambda: 0.0)
        assert answers(memory, commands) == answers(real, commands)
        pipes: list[Any] = [memory.pipeline(), real.pipeline()]
        for pipe in pipes:
            for name, args, fixed in commands:
                getattr(pipe, name)(*args, **fixed)
        in_memory, on_redis = ([_plain(each) for each in pipe.execute()] for pipe in pipes)
        assert in_memory == on_redis
        real.flushdb()


def test_a_blocking_pop_takes_from_the_first_key_that_has_something(broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as real:
        memory = MemoryRedis(lambda: 0.0)
        clients: list[Any] = [memory, real]
        for client in clients:
            client.lpush("second", "old", "new")
            client.lpush("third", "other")
        keys = ["first", "second", "third"]
        popped = []
        for _ in range(3):
            memory.connection.send_command("BRPOP", *keys, 1)
            popped.append(memory.parse_response(memory.connection, "BRPOP"))
        assert popped == [tuple(real.brpop(keys, 1)) for _ in range(3)]  # type: ignore[union-attr,arg-type]
        real.flushdb()
