"""Celery, with a ``task`` decorator that keeps the signature of the body.

celery-types gives each task of a base class the type of that class, so that a wrong
``delay`` would go unnoticed. Only a type checker sees a difference.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from celery import Celery

from app.tasks.base import BaseTask

P = ParamSpec("P")
R = TypeVar("R")


class TypedCelery(Celery):
    """What ``celery_app`` is."""

    if TYPE_CHECKING:

        @overload  # type: ignore[override]
        def task(
            self, *, base: type[BaseTask], bind: Literal[True], name: str, **options: Any
        ) -> Callable[[Callable[Concatenate[BaseTask, P], R]], BaseTask[P, R]]: ...

        @overload
        def task(
            self, *, base: type[BaseTask], bind: Literal[False] = ..., name: str, **options: Any
        ) -> Callable[[Callable[P, R]], BaseTask[P, R]]: ...

        def task(self, **options: Any) -> Any:
            """Make a task of the decorated function; every task here has a name and this base."""
