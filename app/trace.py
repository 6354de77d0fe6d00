"""The trace id: what tells, from a request to its last mail, which work belongs together.

32 lower-case hexadecimal digits, not all of them zero (W3C Trace Context, "trace-id"). It
is random and tells nothing about anybody.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token

from app import entropy

HEADER = "trace_id"
"""The message header that carries it to a worker."""

_VALID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_in_force: ContextVar[str | None] = ContextVar("trace_id", default=None)


def new() -> str:
    """A trace id that nobody has used."""
    return f"{entropy.rng().getrandbits(128) or 1:032x}"


def is_valid(trace_id: object) -> bool:
    """Whether it is a trace id."""
    return isinstance(trace_id, str) and _VALID.fullmatch(trace_id) is not None


def current() -> str:
    """The trace id in force; where there is none, a new one at each call."""
    return _in_force.get() or new()


@contextmanager
def use(trace_id: str | None = None) -> Iterator[str]:
    """Put ``trace_id`` (a new one where left out) in force for what is called inside.

    A web request gives the trace-id of its ``traceparent`` header. Raises ``ValueError`` for
    what is no trace id.
    """
    if trace_id is not None and not is_valid(trace_id):
        raise ValueError("a trace id is 32 lower-case hexadecimal digits, not all of them zero")
    token = _in_force.set(trace_id or new())
    try:
        yield current()
    finally:
        _in_force.reset(token)


def begin(trace_id: object) -> Token[str | None]:
    """As ``use``, where the beginning and the end are two calls; what is invalid is replaced."""
    return _in_force.set(trace_id if isinstance(trace_id, str) and is_valid(trace_id) else new())


def end(token: Token[str | None]) -> None:
    """Put back what was in force before ``begin``."""
    _in_force.reset(token)
