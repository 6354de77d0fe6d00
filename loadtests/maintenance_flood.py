"""Old rows are looked for again and again."""

from __future__ import annotations

from loadtests import _work
from loadtests._users import Flood


class FloodMaintenance(Flood):
    weight = 4
    queues = ("maintenance",)
    sends = "floods the queue maintenance, wave by wave: expired sessions are deleted"
    call = _work.MAINTENANCE
