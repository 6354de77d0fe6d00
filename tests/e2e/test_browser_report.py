"""The simulation's report in a browser, made by the commands that make it for people."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from scripts import mutate
from tests.compose_file import REPOSITORY
from tests.e2e.browser import LOAD_SECONDS, complaints, requested, shoot

pytestmark = pytest.mark.timeout(480)

SHORT = ("--hours", "1", "--bookings", "40")
SHOP = ("--app", "app.celery:app", "--service-times", "times.toml", "--date", "2026-10-25")
PHONES = (390, 360)
PLOT = "document.getElementById('timeline-plot')"


def report_of(
    folder: Path, *arguments: str, root: Path = REPOSITORY, cwd: Path | None = None, status: int = 0
) -> Path:
    """The file that ``simulations/day.py`` below ``root`` writes."""
    file = folder / "report.html"
    done = subprocess.run(
        [sys.executable, root / "simulations/day.py", *arguments, "--report", file],
        cwd=cwd or root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == status, done.stderr
    return file


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_of(
        tmp_path_factory.mktemp("day"),
        *SHORT,
        "--storm",
        "00:20/60",
        "--fault",
        "redis-down@00:22/5m",
    )


@pytest.fixture(scope="module")
def broken_day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an app that acknowledges before it works."""
    (mistake,) = mutate.chosen(["ack-early"])
    with mutate.changed_copy(mistake) as root:
        return report_of(tmp_path_factory.mktemp("broken"), *SHORT, root=root, status=1)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an app that is not ours, on the day of 25 hours."""
    here = REPOSITORY / "simulations/examples/shop"
    return report_of(tmp_path_factory.mktemp("shop"), *SHOP, cwd=here)


@pytest.fixture
def offline(page: Page) -> Iterator[Page]:
    """A page without network, which has asked for files alone and complained of nothing."""
    asked, said = requested(page), complaints(page)
    page.context.set_offline(True)
    yield page
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert len([url for url in asked if url.startswith("file:")]) == 1
    assert said == []


def show(page: Page, file: Path) -> None:
    page.goto(file.as_uri())
    expect(page.locator("#timeline-plot")).to_have_attribute(
        "data-drawn", "yes", timeout=1000 * LOAD_SECONDS
    )


def shown_range(page: Page) -> list[float]:
    found: list[float] = page.evaluate(f"{PLOT}.layout.xaxis.range")
    return found


def zoom_by_hand(page: Page) -> None:
    """Drag over the middle of the timeline."""
    area = page.locator("#timeline-plot .nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.3 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], y, steps=8)
    page.mouse.up()


def test_it_opens_offline_and_has_its_parts(offline: Page, day: Path) -> None:
    show(offline, day)
    expect(offline.locator("#verdict h2")).to_contain_text("All 16 invariants hold")
    expect(offline.locator("#figures dd")).not_to_have_count(0)
    expect(offline.locator("#invariants li.held")).to_have_count(14)
    for table in ("faults", "tasks", "queues"):
        expect(offline.locator(f"#{table} tbody tr")).not_to_have_count(0)
    for title in ("Faults", "Beat entries", "Messages waiting", "Tasks ended", "Mails"):
        expect(offline.locator("#timeline-plot svg").get_by_text(title, exact=True)).to_be_visible()
    shoot(offline, "report")


def test_every_link_leads_to_a_part(offline: Page, day: Path) -> None:
    show(offline, day)
    for target in offline.locator("nav a").evaluate_all("all => all.map(a => a.hash)"):
        expect(offline.locator(target)).to_have_count(1)


def test_the_command_that_repeats_it_is_copied(chromium: Browser, day: Path) -> None:
    with chromium.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        page = context.new_page()
        show(page, day)
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == (
        "python simulations/day.py --date 2026-07-15 --seed 1 --hours 1 --bookings 40 "
        '--storm 00:20/60 --fault "redis-down@00:22/5m"'
    )


def test_a_double_click_shows_the_whole_run_again(offline: Page, day: Path) -> None:
    show(offline, day)
    whole = shown_range(offline)
    zoom_by_hand(offline)
    offline.wait_for_function(f"{PLOT}.layout.xaxis.range[0] > {whole[0]}")
    assert shown_range(offline)[1] < whole[1]
    shoot(offline, "report-zoomed")
    offline.locator("#timeline-plot .nsewdrag").first.dblclick()
    offline.wait_for_function(f"{PLOT}.layout.xaxis.range[0] === {whole[0]}")
    assert shown_range(offline) == whole


def test_the_home_button_shows_the_whole_run_again(offline: Page, day: Path) -> None:
    show(offline, day)
    whole = shown_range(offline)
    zoom_by_hand(offline)
    offline.wait_for_function(f"{PLOT}.layout.xaxis.range[0] > {whole[0]}")
    offline.locator('#timeline-plot [data-title="The whole run"]').click()
    offline.wait_for_function(f"{PLOT}.layout.xaxis.range[0] === {whole[0]}")
    assert shown_range(offline) == whole


def test_it_is_dark_for_a_reader_in_the_dark(offline: Page, day: Path) -> None:
    show(offline, day)
    bright = colours(offline)
    offline.emulate_media(color_scheme="dark")
    offline.wait_for_function(f"getComputedStyle(document.body).color !== '{bright['ink']}'")
    dark = colours(offline)
    assert brightness(bright["paper"]) > 200 > 100 > brightness(dark["paper"])
    assert brightness(bright["ink"]) < 100 < 200 < brightness(dark["ink"])
    offline.wait_for_function(
        f"{PLOT}.layout.font.color !== '{bright['plot']}'"  # drawn again in other colours
    )
    shoot(offline, "report-dark")


@pytest.mark.parametrize("width", PHONES)
@pytest.mark.parametrize("name", ["day", "broken_day", "shop"])
def test_a_phone_need_not_be_moved_sideways(
    chromium: Browser, request: pytest.FixtureRequest, name: str, width: int
) -> None:
    phone: dict[str, Any] = {"viewport": {"width": width, "height": 780}, "has_touch": True}
    with chromium.new_context(**phone, is_mobile=True, offline=True) as context:
        page = context.new_page()
        show(page, request.getfixturevalue(name))
        assert page.evaluate("document.documentElement.scrollWidth") == width
        drawn = page.evaluate(f"{PLOT}.querySelector('svg').getBoundingClientRect().width")
        assert drawn <= width
        expect(page.locator(".handling")).to_be_hidden()  # it speaks of a mouse
        shoot(page, f"report-{name.replace('_', '-')}-{width}")


def test_it_prints_on_paper(offline: Page, day: Path, tmp_path: Path) -> None:
    show(offline, day)
    paper = offline.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert paper.startswith(b"%PDF")
    assert 2 <= paper.count(b"/Type /Page\n") <= 8


def test_a_broken_run_says_first_what_is_broken(offline: Page, broken_day: Path) -> None:
    show(offline, broken_day)
    expect(offline.locator("#verdict.broken h2")).to_contain_text("Broken: acknowledged at the end")
    expect(offline.locator("#verdict pre")).not_to_be_empty()
    expect(offline.locator("#invariants li.broken")).to_have_count(1)
    offline.emulate_media(color_scheme="dark")
    shoot(offline, "report-broken-dark")


def test_the_report_of_any_app_promises_nothing_and_tells_of_the_clocks(
    offline: Page, shop: Path
) -> None:
    show(offline, shop)
    expect(offline.locator("#verdict.told h2")).to_be_visible()
    expect(offline.locator("#invariants")).to_have_count(0)
    expect(offline.locator("#timeline-plot svg").get_by_text("CET")).not_to_have_count(0)
    shoot(offline, "report-app")


def colours(page: Page) -> dict[str, str]:
    found: dict[str, str] = page.evaluate(
        "() => ({ink: getComputedStyle(document.body).color,"
        " paper: getComputedStyle(document.body).backgroundColor,"
        f" plot: {PLOT}.layout.font.color}})"
    )
    return found


def brightness(colour: str) -> float:
    """Of ``rgb(r, g, b)``: 0 is black, 255 white."""
    parts = [int(each) for each in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    return sum(parts) / 3
