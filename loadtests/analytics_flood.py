"""A day is counted again and again."""

from __future__ import annotations

from loadtests import _work
from loadtests._users import Flood


class FloodAnalytics(Flood):
    weight = 4
    queues = ("analytics",)
    sends = "floods the queue analytics, wave by wave: a day of long ago is counted"
    call = _work.ANALYTICS
