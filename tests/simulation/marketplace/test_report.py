"""``--report`` of a marketplace's day, also where an invariant is broken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from simulations.marketplace import command, outcome, replay, report
from simulations.marketplace.invariants import INVARIANTS, Invariant
from tests.simulation.report.pages import Read

pytestmark = pytest.mark.timeout(120)

RUN = ("--date", "2026-11-01", "--bookings", "8", "--fault", "redis-down@00:05/2m")
NAMES = re.compile(r"@[a-z0-9-]+\.(com|org|net|test|example)\b")


class UntilTen(Invariant):
    """Ends a day after ten minutes."""

    name = "until ten past midnight"
    sentence = "Nothing happens after ten past midnight."

    def see(self, now: datetime, event: str, fields: Mapping[str, Any]) -> None:
        if event == "beat" and now - self.replay.start >= timedelta(minutes=10):
            self.broken("beat ran <after> ten", fields["entry"])


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (outcome, replay, report):
        monkeypatch.setattr(module, "INVARIANTS", (*INVARIANTS, UntilTen))


def day(*arguments: str) -> int:
    return command.main([*RUN, *arguments])


def test_a_broken_invariant_is_reported_and_the_exit_status_is_1(tmp_path: Path) -> None:
    path = tmp_path / "day.html"
    assert day("--report", str(path)) == 1
    found = Read(path.read_text(encoding="utf-8"))
    assert "Broken: until ten past midnight" in found.within("verdict")
    assert "beat ran <after> ten" in found.within("verdict")
    assert "Sun 01 Nov 00:10 EDT" in found.within("verdict")
    assert '"event":"beat"' in found.within("pre")
    states = [attrs["class"] for tag, attrs in found.tags if tag == "li"]
    assert states == ["unknown"] * len(INVARIANTS) + ["broken"]
    for each in INVARIANTS:
        assert each.sentence in found.within("invariants")
    assert '--fault "redis-down@00:05/2m"' in found.within("replay-command")
    assert "redis-down@00:05/2m" in found.within("faults")
    assert "clocks go back from 02:00 EDT to 01:00 EST" in found.within("timeline")
    assert [file.name for file in tmp_path.iterdir()] == ["day.html"]


def test_each_part_of_it_is_there_and_nobody_is_named(tmp_path: Path) -> None:
    path = tmp_path / "day.html"
    day("--report", str(path))
    html = path.read_text(encoding="utf-8")
    found = Read(html)
    for part in (
        "verdict",
        "figures",
        "replay",
        "timeline",
        "invariants",
        "faults",
        "beat",
        "queues",
        "tasks",
        "sometimes",
        "people",
    ):
        assert part in found.ids
    assert not NAMES.search(found.within("main"))
    assert not NAMES.search(found.within("timeline-data"))


def test_the_same_day_again_is_the_same_but_for_the_wall_time(tmp_path: Path) -> None:
    pages = []
    for name in ("first.html", "again.html"):
        day("--report", str(tmp_path / name))
        pages.append((tmp_path / name).read_text(encoding="utf-8").splitlines())
    differing = [first for first, again in zip(*pages, strict=True) if first != again]
    assert all('id="wall-time"' in line for line in differing)


def test_who_asks_for_no_report_pays_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_timeline(*_: object) -> None:
        raise AssertionError("a timeline was made")

    monkeypatch.setattr(command, "Timeline", no_timeline)
    assert day() == 1
    with pytest.raises(AssertionError, match="a timeline was made"):
        day("--report", str(tmp_path / "day.html"))
    assert list(tmp_path.iterdir()) == []
