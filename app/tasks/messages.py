"""What a worker can tell of a message before any task sees it."""

import json
from collections.abc import Mapping
from typing import Any, TypeGuard

from celery.app.task import Context
from celery.utils.time import maybe_iso8601, maybe_make_aware, timezone
from kombu.asynchronous.timer import to_timestamp

from app import clock, entropy
from app.domain.nesting import is_nested_too_deep
from app.outbox import PUBLISHED_AT_HEADER
from app.outbox.guard import Delivery
from app.outbox.ids import uuid7

NO_TASK = "(no task name)"
LONGEST_NAME = 255
"""Of an id or a task's name, in an outbox entry."""
MOST_RETRIES = 1_000_000
LONGEST_LIMIT = 10.0**9
"""Seconds."""

_METHODS = frozenset(name for name in dir(Context) if callable(getattr(Context, name)))

_UNREADABLE = object()


class FaultyMessageError(Exception):
    """No task can be given this message; the text says why, and quotes nothing of its body."""


def check(message: Any) -> None:
    """Raise ``FaultyMessageError`` where Celery's worker would fail with the message.

    Both of Celery's protocols are known (Celery docs, "Message Protocol"). The body is
    decoded, once: the message keeps it.
    """
    try:
        payload = message.payload
    except Exception as error:
        kind = type(error).__name__
        raise FaultyMessageError(
            f"the body cannot be decoded ({kind}): {_shown(message)}"
        ) from error
    headers = message.headers
    if is_nested_too_deep(payload, brackets=_brackets(message.body)):
        raise FaultyMessageError(f"the body is nested too deep: {_shown(message)}")
    if not _METHODS.isdisjoint(headers):
        # A request takes headers for its attributes.
        raise FaultyMessageError("a header has the name of a method")
    if "task" in headers:
        fields = headers
        if isinstance(payload, Mapping) and "args" in payload:
            args, kwargs = payload["args"], payload.get("kwargs", {})
        elif isinstance(payload, list | tuple) and len(payload) == 3:
            args, kwargs, embedded = payload
            if not isinstance(embedded, Mapping | None):
                raise FaultyMessageError(f"the body's third part is no object: {_shown(message)}")
        else:
            raise FaultyMessageError(f"the body has not Celery's three parts: {_shown(message)}")
    elif isinstance(payload, Mapping) and "task" in payload:
        fields = payload
        args, kwargs = payload.get("args", ()), payload.get("kwargs", {})
    else:
        raise FaultyMessageError(f"it names no task: {_shown(message)}")
    if not isinstance(args, list | tuple) or not isinstance(kwargs, Mapping):
        raise FaultyMessageError(
            f"its arguments are no list and object but {type(args).__name__} and "
            f"{type(kwargs).__name__}: {_shown(message)}"
        )
    if _says_not_a_number(message.body) and not _can_be_kept([args, kwargs], message.body):
        raise FaultyMessageError(f"its arguments are no JSON (RFC 8259): {_shown(message)}")
    _check_fields(fields)


def delivery_of(message: Any) -> Delivery:
    """The message as its dead letter is to have it.

    Where they cannot be read, or belong to no task, a keyword argument that no task takes
    stands for the arguments: run again by mistake, it fails, and does not run with others.
    """
    payload = _payload(message)
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    fields = headers if "task" in headers or not isinstance(payload, Mapping) else payload
    parts: Any = payload
    if isinstance(payload, Mapping):
        parts = (payload.get("args", ()), payload.get("kwargs", {}))
    args, kwargs = (
        parts[:2] if isinstance(parts, list | tuple) and len(parts) >= 2 else (None, None)
    )
    task, retries = name_or_none(fields.get("task")), fields.get("retries")
    whole = isinstance(args, list | tuple) and isinstance(kwargs, Mapping)
    if task is None or not whole or not _can_be_kept([args, kwargs], message.body):
        args, kwargs = (), {"unreadable_body": _shown(message)}
    return Delivery(
        id=name_or_none(fields.get("id")) or uuid7(clock.utcnow(), entropy.rng()),
        task=task or NO_TASK,
        args=list(args),
        kwargs=dict(kwargs),
        from_outbox=PUBLISHED_AT_HEADER in headers,
        tries=retries if _is_number_of_retries(retries) else 0,
    )


# To Python true is a number, to SQL it is none: no dead letter could be written of it.


def _is_number_of_retries(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= MOST_RETRIES


def _is_time_limit(value: Any) -> bool:
    return type(value) in {int, float} and 0 <= value <= LONGEST_LIMIT


def _check_fields(fields: Mapping[str, Any]) -> None:
    for name in ("id", "task"):
        if name_or_none(fields.get(name)) is None:
            raise FaultyMessageError(f"its {name} is no text of 1 to {LONGEST_NAME} signs")
    retries = fields.get("retries")
    if not (retries is None or _is_number_of_retries(retries)):
        raise FaultyMessageError(f"its number of retries is none from 0 to {MOST_RETRIES:,}")
    limits = fields.get("timelimit") or (None, None)
    if not (isinstance(limits, list | tuple) and len(limits) == 2) or not all(
        limit is None or _is_time_limit(limit) for limit in limits
    ):
        raise FaultyMessageError("its time limits are no pair of numbers")
    if fields.get("shadow") and name_or_none(fields["shadow"]) is None:
        raise FaultyMessageError("the name that it is to be shown by is none")
    for name in ("eta", "expires"):
        if fields.get(name) is not None and not _is_instant(fields[name]):
            raise FaultyMessageError(f"its {name} is no instant")


def _is_instant(text: Any) -> bool:
    """Whether Celery's worker can compute with it (celery/worker/strategy.py)."""
    try:
        instant = maybe_iso8601(text)
        to_timestamp(timezone.to_system(maybe_make_aware(instant)))  # type: ignore[arg-type]
    except (AttributeError, ArithmeticError, TypeError, ValueError):
        return False
    return True


def name_or_none(text: Any) -> str | None:
    """``text`` if an outbox entry and a log line can have it as an id or a task's name."""
    fits = isinstance(text, str) and text.isprintable() and 0 < len(text) <= LONGEST_NAME
    return text if fits else None


def _brackets(body: Any) -> int:
    if isinstance(body, str):
        return body.count("[") + body.count("{")
    return body.count(b"[") + body.count(b"{") if isinstance(body, bytes) else 0


def _says_not_a_number(body: Any) -> bool:
    data = body.encode() if isinstance(body, str) else body
    return b"NaN" in data or b"Infinity" in data


def _can_be_kept(value: Any, body: Any) -> bool:
    """Whether a JSON column takes it: PostgreSQL knows no NaN, and no text with a NUL."""
    if is_nested_too_deep(value, brackets=_brackets(body)):
        return False
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError):
        return False
    return "\\u0000" not in text


def _payload(message: Any) -> Any:
    try:
        return message.payload
    except Exception:
        return _UNREADABLE


def _shown(message: Any) -> str:
    """What the body is, and nothing that it says."""
    payload = _payload(message)
    size = len(message.body) if isinstance(message.body, str | bytes) else 0
    if payload is _UNREADABLE:
        return f"{size} bytes of {name_or_none(message.content_type) or 'an unknown type'}"
    length = f" of {len(payload)}" if isinstance(payload, list | tuple | Mapping) else ""
    return f"{type(payload).__name__}{length}, {size} bytes"
