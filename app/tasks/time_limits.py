"""Which time limits a worker's pool enforces.

Source: Celery's pools. ``prefork`` enforces both. ``gevent`` enforces the hard limit alone,
and only while the task waits. The other pools ignore both.
"""

from collections.abc import Sequence

from celery import Celery

_NOT_ENFORCED = {"prefork": (), "gevent": ("soft",)}
_NAMED = 3
"""Tasks that a warning names."""


def pool_name(implementation: str) -> str:
    """The name after ``--pool`` of a pool's class, ``celery.concurrency.thread:TaskPool``."""
    name = implementation.partition(":")[0].rpartition(".")[2]
    return "threads" if name == "thread" else name


def not_enforced(pool: str) -> tuple[str, ...]:
    """Of "soft" and "hard", the limits that the pool of this name ignores."""
    return _NOT_ENFORCED.get(pool, ("soft", "hard"))


def kinds(limits: Sequence[str]) -> str:
    """Words for what ``not_enforced`` returns, where that is not empty."""
    return "time limits" if len(limits) > 1 else f"{limits[0]} time limits"


def warning(app: Celery, pool: str) -> str | None:
    """One line about the time limits of ``app`` that ``pool`` ignores; ``None`` without any."""
    ignored = not_enforced(pool)
    everyones = {
        "soft": app.conf.task_soft_time_limit,
        "hard": app.conf.task_time_limit,
    }
    found = [f"{kind} {everyones[kind]:g} s" for kind in ignored if everyones[kind]]
    own = [
        name
        for name, task in sorted(app.tasks.items())
        if ("soft" in ignored and task.soft_time_limit not in {None, everyones["soft"]})
        or ("hard" in ignored and task.time_limit not in {None, everyones["hard"]})
    ]
    if own:
        more = f" and {len(own) - _NAMED} more" if len(own) > _NAMED else ""
        found.append(f"those of {', '.join(own[:_NAMED])}{more}")
    if not found:
        return None
    return (
        f"pool {pool}: {kinds(ignored)} are not enforced ({', '.join(found)}). "
        "A task that hangs keeps its slot. Use --pool=prefork where that matters"
    )
