"""The page of a report."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta

import pytest
from plotly.offline import get_plotlyjs

from simulations.report import palette
from simulations.report.page import Figure, Invariant, Table, Verdict
from tests.simulation.report.pages import Read, a_page, a_timeline, run_a_task, written

FOREIGN = "</script><script>alert('x')</script><b>&amp;"


def test_the_verdict_comes_first_then_the_figures_the_command_and_the_timeline() -> None:
    found = Read(written(a_page()))
    sections = [id_ for id_ in found.ids if not id_.endswith("-title")]
    order = ["verdict", "figures", "replay", "timeline", "invariants", "tasks"]
    assert [each for each in sections if each in order] == order
    assert "All 1 invariants hold" in found.within("verdict")
    assert "All 1 invariants hold" in found.within("title")
    assert len(found.ids) == len(set(found.ids))


def test_the_command_can_be_copied_as_it_was_given() -> None:
    page = a_page()
    assert Read(written(page)).within("replay-command") == page.command


def test_a_broken_invariant_is_told_with_its_last_lines() -> None:
    timeline = a_timeline()
    broken = a_page(
        timeline,
        verdict=Verdict(False, "Broken: each once", ("t ran twice.",), ('{"event":"started"}',)),
        invariants=(
            Invariant("each once", "Each has one.", "t ran twice", "broken"),
            Invariant("none lost", "None is lost.", "not broken until then", "unknown"),
        ),
        broken_at=timeline.axis.start + timedelta(hours=1),
    )
    found = Read(written(broken))
    assert '{"event":"started"}' in found.within("pre")
    assert "t ran twice" in found.within("invariants")
    states = [attrs["class"] for tag, attrs in found.tags if tag == "li"]
    assert states == ["broken", "unknown"]
    lines = [shape for shape in found.figure["layout"]["shapes"] if shape["type"] == "line"]
    assert [line["x0"] for line in lines if line["line"]["dash"] == "solid"] == [12]


def test_what_an_app_calls_its_things_is_text_everywhere() -> None:
    timeline = a_timeline()
    run_a_task(timeline, timeline.axis.start, queue=FOREIGN, entry=FOREIGN)
    page = a_page(
        timeline,
        title=FOREIGN,
        subtitle=FOREIGN,
        command=FOREIGN,
        verdict=Verdict(None, FOREIGN, (FOREIGN,), (FOREIGN,)),
        figures=(Figure(FOREIGN, FOREIGN),),
        tables=(Table("tasks", FOREIGN, (FOREIGN, "runs"), ((FOREIGN, 1),), note=FOREIGN),),
    )
    html = written(page)
    plain = Read(written(a_page()))
    found = Read(html)
    assert found.within("tasks-title") == FOREIGN
    assert found.within("replay-command") == FOREIGN
    kinds = [
        sum(tag == wanted for tag, _ in each.tags)
        for each in (found, plain)
        for wanted in ("script", "b")
    ]
    assert kinds[:2] == kinds[2:]
    # Plotly takes tags in its texts for its own, so they reach it escaped.
    names = [text["text"] for text in found.figure["layout"]["annotations"]]
    assert not any("<script" in name or "<b>&" in name for name in names)
    assert any(name.startswith("&lt;/script&gt;") for name in names)


def test_it_loads_nothing_and_may_not() -> None:
    html = written(a_page()).replace(get_plotlyjs(), "")
    found = Read(html)
    for _, attrs in found.tags:
        for name in ("src", "href", "srcset", "action"):
            assert (attrs.get(name) or "#").startswith("#")
    policies = [
        attrs["content"] or ""
        for tag, attrs in found.tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert [policy.startswith("default-src 'none'") for policy in policies] == [True]
    assert "http" not in re.sub(r"http-equiv", "", html)
    assert "url(" not in html
    assert "@import" not in html


def test_the_same_run_gives_the_same_bytes_but_for_the_wall_time() -> None:
    def page(seconds: str) -> str:
        timeline = a_timeline()
        for number in range(50):
            run_a_task(timeline, timeline.axis.start + timedelta(minutes=number), number=number)
        wall_time = Figure(seconds, "of wall time", id="wall-time")
        return written(a_page(timeline, figures=(wall_time,)))

    assert page("1 s") == page("1 s")
    differing = [
        (first, second)
        for first, second in zip(page("1 s").splitlines(), page("2 s").splitlines(), strict=True)
        if first != second
    ]
    assert len(differing) == 1
    assert 'id="wall-time"' in differing[0][0]


def test_tables_are_tables_with_heads_and_thousands() -> None:
    found = Read(written(a_page()))
    heads = [attrs.get("scope") for tag, attrs in found.tags if tag == "th"]
    assert heads == ["col", "col", "row"]
    assert "1,234" in found.within("tasks")


@pytest.mark.timeout(120)  # half a million lines
def test_a_table_without_rows_is_left_out() -> None:
    page = a_page(tables=(Table("people", "What people did", ("what", "times"), ()),))
    assert "What people did" not in written(page)


def test_a_table_of_many_columns_has_the_whole_width() -> None:
    narrow = Table("narrow", "Narrow", ("a", "b"), (("x", 1),))
    wide = Table("wide", "Wide", tuple("abcdefg"), (("x", 1, 2, 3, 4, 5, 6),))
    sections = {
        attrs["id"]: attrs.get("class")
        for tag, attrs in Read(written(a_page(tables=(narrow, wide)))).tags
        if tag == "section"
    }
    assert (sections["narrow"], sections["wide"]) == (None, "wide")


def test_a_long_run_of_many_queues_and_entries_is_a_small_file() -> None:
    """Seven days of 150 entries and queues: the data is a fraction of Plotly's own script."""
    timeline = a_timeline(date(2026, 10, 29), days=7)
    number = 0
    for minute in range(0, 7 * 1440, 15):
        for each in range(150):
            number += 1
            run_a_task(
                timeline,
                timeline.axis.start + timedelta(minutes=minute),
                queue=f"queue-{each}",
                entry=f"entry-{each}",
                number=number,
            )
    assert number * 5 > 500_000
    html = written(a_page(timeline))
    assert len(html) - len(get_plotlyjs()) < 1_500_000
    assert len(json.dumps(Read(html).data["labels"])) < 20_000


def luminance(colour: str) -> float:
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = (
        each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts
    )
    return sum(each * share for each, share in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))


def contrast(one: str, other: str) -> float:
    """As WCAG 2.2 defines it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize(
    "ink", [palette.INK, palette.MUTED, palette.BLUE, palette.GREEN, palette.ORANGE, palette.RED]
)
def test_every_ink_can_be_read_on_paper_and_on_cards(theme: int, ink: tuple[str, str]) -> None:
    for ground in (palette.PAPER, palette.CARD):
        assert contrast(ink[theme], ground[theme]) >= 4.5


def test_each_colour_on_white_has_one_on_black() -> None:
    """The plot's colours are exchanged by their value: none may stand for two."""
    assert len(palette.in_the_dark()) == len(palette.ALL)


def test_a_name_in_a_narrow_column_breaks_between_its_words() -> None:
    tasks = Table("tasks", "Tasks", ("task", "runs"), (("email.send_<all>", 1),))
    text = written(a_page(tables=(tasks,)))
    assert '<th scope="row">email.<wbr>send_&lt;all&gt;</th>' in text
