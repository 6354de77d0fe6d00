"""Free slots are refreshed again and again."""

from __future__ import annotations

from loadtests import _work
from loadtests._users import Flood


class FloodCache(Flood):
    weight = 4
    queues = ("cache",)
    sends = "floods the queue cache, wave by wave: free slots are refreshed"
    call = _work.CACHE
