"""The registered tasks, and the calls that they take."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import signature
from typing import Any

from celery import Celery

from app.domain.errors import no_such


def names(app: Celery) -> list[str]:
    """The tasks of ``app`` that are registered by now, without Celery's own."""
    return sorted(name for name in app.tasks if not name.startswith("celery."))


def check_call(
    app: Celery, name: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> None:
    """Raise ``ValueError`` for a task that ``app`` lacks, ``TypeError`` for wrong arguments.

    A name is not checked before all modules of tasks are imported, and none is imported
    here: a web process may never need them. Arguments are compared with the signature as
    ``Task.apply_async`` does, so a decorator's own ``*args`` and ``typing=False`` accept any.
    """
    task: Any = app.tasks.get(name)
    if task is None:
        if _is_complete(app):
            raise ValueError(no_such("task", name, names(app)))
        return
    header = getattr(task, "__header__", None)  # made once, when the task is
    if header is None or not task.typing:
        return
    try:
        header(*args, **(kwargs or {}))
    except TypeError as error:
        raise TypeError(f"{name}{_signature(task)} {_why(task, args, kwargs, error)}") from None


def _is_complete(app: Celery) -> bool:
    modules = [*app.conf.include, *app.conf.imports]
    if any(module not in sys.modules for module in modules):
        return False
    for module in modules:
        import_module(module)  # waits where another thread is still importing it
    return True


def _signature(task: Any) -> str:
    parameters = signature(task.run).parameters.values()
    return f"({', '.join(str(each.replace(annotation=each.empty)) for each in parameters)})"


def _why(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None, error: TypeError) -> str:
    # Celery's header counts ``self``, and would say 2 of 1.
    try:
        signature(task.run).bind(*args, **(kwargs or {}))
    except TypeError as better:
        error = better
    return f"does not take these arguments: {error}"
