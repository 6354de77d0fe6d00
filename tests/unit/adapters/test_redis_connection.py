"""What is wrong with Redis, told by what it answered."""

import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from app.adapters.redis_connection import trouble


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConnectionError("Connection refused"), "Redis does not answer: Connection refused"),
        (TimeoutError("Timeout reading"), "Redis does not answer: Timeout reading"),
        (
            OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
            "Redis is full and refuses writes: raise its maxmemory, or add workers",
        ),
        (
            ResponseError("OOM command not allowed when used memory > 'maxmemory'."),
            "Redis is full and refuses writes: raise its maxmemory, or add workers",
        ),
        (
            ReadOnlyError("You can't write against a read only replica."),
            "Redis is a read-only replica and refuses writes: set REDIS_URL to the primary",
        ),
        (
            ResponseError("MISCONF Redis is configured to save RDB snapshots, but ..."),
            "Redis cannot save to its disk and refuses writes: look at its log and its disk",
        ),
        (
            ResponseError("NOREPLICAS Not enough good replicas to write."),
            "Redis has too few replicas and refuses writes: start them, or lower "
            "min-replicas-to-write",
        ),
        (
            BusyLoadingError("Redis is loading the dataset in memory"),
            "Redis is loading its data and answers soon",
        ),
        (
            NoPermissionError("this user has no permissions to run the 'lpush' command"),
            "Redis refuses a command: this user has no permissions to run the 'lpush' command: "
            "allow it (ACL SETUSER)",
        ),
        (
            AuthenticationError("invalid username-password pair"),
            "Redis refuses the password: check REDIS_URL and REDIS_PASSWORD",
        ),
        (
            ResponseError("WRONGPASS invalid username-password pair or user is disabled."),
            "Redis refuses the password: check REDIS_URL and REDIS_PASSWORD",
        ),
        (
            AuthenticationError("Authentication required."),
            "Redis refuses the password: check REDIS_URL and REDIS_PASSWORD",
        ),
        (ResponseError("unknown command"), "Redis refuses: unknown command"),
    ],
)
def test_each_refusal_says_what_to_do(error: RedisError, line: str) -> None:
    assert trouble(error) == line


def test_a_refusal_is_found_behind_what_was_made_of_it() -> None:
    wrapped = RuntimeError("Redis: command not allowed")
    wrapped.__cause__ = OutOfMemoryError("command not allowed")
    assert trouble(wrapped).startswith("Redis is full")


def test_redis_is_named_once() -> None:
    assert trouble(RuntimeError("Redis: Connection refused")) == (
        "Redis does not answer: Connection refused"
    )
