"""What we override of Celery and kombu is called by them: its signature must stay theirs.

The overrides are found by themselves: every class of ours below one of theirs, and every
method or property that both have.
"""

import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter
from types import FunctionType
from typing import Any

import pytest
from celery import bootsteps
from celery.beat import Scheduler

import app

THEIRS = ("celery", "kombu", "billiard")
PROCESSES = ("app.tasks.worker", "app.tasks.beat", "app.migrations.env")
"""Modules that do something when they are imported."""
COLLECTS = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)

# Found today. What is not found any more has lost its method in Celery, and does nothing now.
KNOWN = {
    "BaseTask.__call__",
    "BaseTask.on_bound",
    "BaseTask.on_failure",
    "BaseTask.retry",
    "CheckedBeat.run",
    "RestartingBeat.install_sync_handler",
    "RestartingWorker.install_platform_tweaks",
    "WorkerThread.__init__",
    "WorkerThread.start",
    "WorkerThread.stop",
    "OutboxRequest.cancel",
    "OutboxRequest.on_failure",
    "OutboxRequest.send_event",
    "OutboxRequest.terminate",
    "OutboxScheduler.__init__",
    "OutboxScheduler.info",
    "OutboxScheduler.install_default_entries",
    "OutboxScheduler.tick",
    "crontab.now",
    "crontab.remaining_estimate",
}


@dataclass(frozen=True)
class Override:
    name: str
    ours: Any
    theirs: Any


def our_classes() -> Iterator[type]:
    for module in pkgutil.walk_packages(app.__path__, "app."):
        if module.name in PROCESSES or module.name.endswith("__main__"):
            continue
        if module.name.startswith("app.migrations."):
            continue
        for member in vars(import_module(module.name)).values():
            if isinstance(member, type) and member.__module__ == module.name:
                yield member


def overrides_of(ours: type) -> Iterator[Override]:
    theirs = [base for base in ours.__mro__ if base.__module__.partition(".")[0] in THEIRS]
    for name, member in vars(ours).items():
        for base in theirs:
            inherited = vars(base).get(name)
            if isinstance(member, FunctionType | property | classmethod | staticmethod) and (
                inherited is not None
            ):
                yield Override(f"{ours.__name__}.{name}", member, inherited)
                break


OVERRIDES = sorted(
    {found.name: found for ours in our_classes() for found in overrides_of(ours)}.values(),
    key=lambda found: found.name,
)


def calls(function: Any) -> list[tuple[Any, ...]]:
    """How a function can be called: what a parameter is called counts where it can be given
    by its name, which Celery does not do with those that have no default."""
    signature = inspect.signature(getattr(function, "__func__", function))
    return [
        (
            parameter.kind,
            parameter.default is Parameter.empty,
            None
            if parameter.kind in COLLECTS or parameter.default is Parameter.empty
            else parameter.name,
        )
        for parameter in signature.parameters.values()
    ]


def takes_anything(function: Any) -> bool:
    function = getattr(function, "__func__", function)
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    return kinds[1:] == [Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD]


def drift(found: Override) -> str | None:
    """How the two differ; ``None`` where ours can be called in every way that theirs can."""
    if isinstance(found.ours, property) or not callable(
        getattr(found.theirs, "__func__", found.theirs)
    ):
        kinds = (type(found.ours).__name__, type(found.theirs).__name__)
        both = isinstance(found.ours, property) and not inspect.isfunction(found.theirs)
        return None if both else f"{kinds[0]} in place of {kinds[1]}"
    if takes_anything(found.ours) or calls(found.ours) == calls(found.theirs):
        return None
    return f"{inspect.signature(found.ours)} in place of {inspect.signature(found.theirs)}"


def test_every_override_that_is_known_is_still_one() -> None:
    assert {found.name for found in OVERRIDES} >= KNOWN


@pytest.mark.parametrize("found", OVERRIDES, ids=lambda found: found.name)
def test_an_override_can_be_called_as_celery_calls_the_original(found: Override) -> None:
    assert drift(found) is None


class Renamed(Scheduler):
    def apply_async(self, entry, publisher=None, advance=True, **kwargs):  # type: ignore
        """One parameter with a default has another name."""


class OneMore(bootsteps.StartStopStep):
    def start(self, worker, more):  # type: ignore
        """One parameter more than is given."""


class NoProperty(Scheduler):
    def info(self):  # type: ignore
        """A method where Celery reads a property."""


class AsItIs(bootsteps.StartStopStep):
    def start(self, worker):  # type: ignore
        """Another name for what is given by its position."""


@pytest.mark.parametrize(
    ("ours", "drifts"), [(Renamed, True), (OneMore, True), (NoProperty, True), (AsItIs, False)]
)
def test_a_drift_is_seen(ours: type, drifts: bool) -> None:
    (found,) = overrides_of(ours)
    assert (drift(found) is not None) is drifts
