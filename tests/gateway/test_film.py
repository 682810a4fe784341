"""A film that is played: the next frame is asked for before it is shown, in a real browser."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import pairwise
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Request, Route, expect

from handscroll.canvas import Canvas
from handscroll.geometry import xyz_to_tile
from handscroll_api.generator.v1 import generator_service_pb2 as generator_pb
from tests.gateway.conftest import Stack, soon, window

FRAMES = 12
# The frame of each tile asked for, and the one in sight then; when frames were shown, in ms.
NOTES = """
  window.asked = [];
  window.shown = [];
  const ask = window.fetch;
  window.fetch = (url, ...more) => {
    const { pathname, searchParams } = new URL(url, document.baseURI);
    const shown = Number(document.getElementById("frame").value);
    const frame = Number(searchParams.get("frame"));
    if (pathname.startsWith("/tiles/")) window.asked.push({ frame, shown });
    return ask(url, ...more);
  };
  addEventListener("DOMContentLoaded", () => {
    const note = () => window.shown.push(performance.now());
    const told = document.getElementById("frame-told");
    new MutationObserver(note).observe(told, { childList: true });
  });
"""


class Played:
    """A page in which the tiles of some frames are painted, and of others are not.

    Attributes:
        page: the page.
        painted: the frames that are.
        left: frames of which it wanted something, and does not any more.
        tile: a file, which every tile has.
    """

    def __init__(self, page: Page) -> None:
        self.page, self.painted, held = page, set(range(FRAMES)), io.BytesIO()
        self.left: list[int] = []
        Image.new("RGB", (256, 256), "teal").save(held, "WEBP")
        self.tile = held.getvalue()
        page.add_init_script(NOTES)
        page.route("**/tiles/**", self._answer)
        page.on("requestfailed", self._hear)

    def _hear(self, request: Request) -> None:
        if "/events?" in request.url:
            self.left.append(_frame(request))

    def _answer(self, route: Route) -> None:
        if _frame(route.request) in self.painted:
            route.fulfill(body=self.tile, content_type="image/webp")
        else:
            route.fulfill(status=202)

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for something, and answer the page meanwhile."""
        soon(lambda: self.page.evaluate("true") and holds(), what)

    def until_ready(self) -> None:
        """Wait until all that is in the window is in sight."""
        expect(self.page.locator("html")).to_have_attribute("data-state", "ready")

    def asked(self) -> list[dict[str, int]]:
        """The frame of each tile that was asked for by now, and the one in sight at that time."""
        found: list[dict[str, int]] = self.page.evaluate("window.asked")
        return found

    def frames(self) -> set[int]:
        """Frames of which tiles were asked for by now."""
        return {one["frame"] for one in self.asked()}


def _frame(request: Request) -> int:
    return int(parse_qs(urlsplit(request.url).query).get("frame", ["0"])[0])


def wanted(stack: Stack, frame: int, priority: int) -> bool:
    """Whether what was asked for last is this."""
    last = stack.tiler.streams[-1]
    return (last.frame, last.priority) == (frame, priority)


@pytest.fixture
def canvas(stack: Stack) -> Canvas:
    """A canvas that moves."""
    return stack.canvas("scroll", frames=FRAMES)


@pytest.fixture
def played(browser: Browser, stack: Stack, canvas: Canvas) -> Iterator[Played]:
    """A window that shows frame 4, with all of it painted."""
    with window(browser, 600, 500) as page:
        played = Played(page)
        page.goto(f"{stack.url}/#{canvas.id}/16/-100/350/4")
        played.until_ready()
        yield played


def test_a_frame_is_asked_for_before_it_is_shown(played: Played) -> None:
    """Forth to the end, and back again."""
    page = played.page
    assert played.frames() == {4}
    page.click("#play")
    played.until(lambda: 3 in played.frames(), "it plays back")
    page.click("#play")
    assert all(abs(one["frame"] - one["shown"]) == 1 for one in played.asked() if one["frame"] != 4)
    assert set(range(3, FRAMES)) <= played.frames() <= set(range(FRAMES))


def test_what_was_painted_before_is_played_in_time(
    stack: Stack, canvas: Canvas, played: Played
) -> None:
    page = played.page
    page.unroute("**/tiles/**")
    for key in page.locator(".handscroll-tile").evaluate_all(
        "all => all.map(one => one.dataset.key)"
    ):
        z, x, y = map(int, key.split("/"))
        for frame in range(FRAMES):
            stack.keep(canvas, xyz_to_tile(x, y, z)._replace(frame=frame), played.tile)
    page.evaluate("window.shown = []")
    page.click("#play")
    played.until(lambda: page.evaluate("window.shown.length") > FRAMES, "it plays")
    times_ms = page.evaluate("window.shown")
    steps_ms = sorted(later - earlier for earlier, later in pairwise(times_ms))
    assert steps_ms[len(steps_ms) // 2] < 250  # 125, where nothing else is to be done


def test_who_steps_finds_the_frame_beyond_painted(played: Played) -> None:
    page = played.page
    page.focus("#frame")
    page.keyboard.press("ArrowRight")
    played.until(lambda: played.frames() == {4, 5, 6}, "the one beyond is asked for")
    page.keyboard.press("ArrowLeft")
    played.until(lambda: played.frames() == {3, 4, 5, 6}, "or before")
    page.keyboard.press("End")
    played.until_ready()
    page.wait_for_timeout(300)
    assert max(played.frames()) == FRAMES - 1


def test_what_is_not_painted_is_wanted_ahead_then_at_once(stack: Stack, played: Played) -> None:
    page = played.page
    played.painted -= {6, 7}
    with stack.closed_gate():
        page.focus("#frame")
        page.keyboard.press("ArrowRight")
        played.until(lambda: wanted(stack, 6, generator_pb.PRIORITY_PREFETCH), "ahead")
        page.click("#play")
        played.until(lambda: wanted(stack, 6, generator_pb.PRIORITY_VIEWPORT), "at once")
        assert 7 not in played.frames(), "nothing is asked ahead of what is waited for"
        played.painted.add(6)
    expect(page.locator("#frame-told")).to_have_text(f"8 of {FRAMES}")


@pytest.mark.parametrize("end", ["a move", "a frame picked", "the play's end"])
def test_nothing_is_wanted_ahead_of_what_is_left(stack: Stack, played: Played, end: str) -> None:
    page = played.page
    played.painted -= {6}
    with stack.closed_gate():
        page.focus("#frame")
        page.keyboard.press("ArrowRight")
        played.until(lambda: wanted(stack, 6, generator_pb.PRIORITY_PREFETCH), "ahead")
        assert 6 not in played.left
        if end == "a move":
            page.mouse.move(300, 250)
            page.mouse.down()
            page.mouse.move(280, 240, steps=3)
        elif end == "a frame picked":
            page.keyboard.press("Home")
        else:
            page.evaluate(
                "const play = document.getElementById('play'); play.click(); play.click()"
            )
        played.until(lambda: 6 in played.left, "it is not wanted any more")
        page.mouse.up()
