"""What must hold, whatever goes wrong: each invariant a class with a name and one sentence."""

from simulations.marketplace.invariants.invariant import BrokenInvariantError, Invariant
from simulations.marketplace.invariants.lessons import FreeSlotsRight, NobodyDoubleBooked
from simulations.marketplace.invariants.limits import WithinLimits
from simulations.marketplace.invariants.liveness import SomethingStarts
from simulations.marketplace.invariants.mails import EachMailOnce, EveryMailArrives, NoLateReminder
from simulations.marketplace.invariants.messages import (
    AcknowledgedAtTheEnd,
    NoMessageLeft,
    UrgentFirst,
)
from simulations.marketplace.invariants.metrics import MetricsRight
from simulations.marketplace.invariants.outbox import (
    EveryRowSettled,
    NoDeathWithoutAFault,
    NothingResentWithoutALoss,
    NothingSentBeforeItsCommit,
)
from simulations.marketplace.invariants.schedule import EachDueInstantOnce

__all__ = [
    "INVARIANTS",
    "AcknowledgedAtTheEnd",
    "BrokenInvariantError",
    "EachDueInstantOnce",
    "EachMailOnce",
    "EveryMailArrives",
    "EveryRowSettled",
    "FreeSlotsRight",
    "Invariant",
    "MetricsRight",
    "NoDeathWithoutAFault",
    "NoLateReminder",
    "NoMessageLeft",
    "NobodyDoubleBooked",
    "NothingResentWithoutALoss",
    "NothingSentBeforeItsCommit",
    "SomethingStarts",
    "UrgentFirst",
    "WithinLimits",
]

INVARIANTS: tuple[type[Invariant], ...] = (
    EachMailOnce,
    NoLateReminder,
    NoDeathWithoutAFault,
    EveryMailArrives,
    EachDueInstantOnce,
    UrgentFirst,
    NobodyDoubleBooked,
    MetricsRight,
    FreeSlotsRight,
    EveryRowSettled,
    SomethingStarts,
    NoMessageLeft,
    WithinLimits,
    AcknowledgedAtTheEnd,
    NothingResentWithoutALoss,
    NothingSentBeforeItsCommit,
)
