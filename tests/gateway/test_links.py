"""Links to a frame of a canvas that moves, in a real browser."""

from __future__ import annotations

import io
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from handscroll.canvas import Canvas
from tests.gateway.conftest import Stack, soon, window

FRAMES = 6


class Opened:
    """A page in which every tile is painted, and the frames that it asked for."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url, self.frames, held = page, url, set[int](), io.BytesIO()
        Image.new("RGB", (256, 256), "teal").save(held, "WEBP")
        self._tile = held.getvalue()
        page.route("**/tiles/**", self._answer)

    def _answer(self, route: Route) -> None:
        query = parse_qs(urlsplit(route.request.url).query)
        self.frames.add(int(query.get("frame", ["0"])[0]))
        route.fulfill(body=self._tile, content_type="image/webp")

    def follow(self, link: str) -> None:
        """Open the canvas with what a link says behind it."""
        self.page.goto(f"{self.url}{link}")

    def at(self, frame: int) -> None:
        """Wait until a frame is in sight, at rest, and in the address."""
        told = f"{frame + 1} of {FRAMES}"
        expect(self.page.locator("#frame-told")).to_have_text(told)
        expect(self.page.locator("#play")).to_have_attribute("aria-label", "Play")
        soon(lambda: self.hash == (f"/16/-100/350/{frame}" if frame else "/16/-100/350"), "a link")

    @property
    def hash(self) -> str:
        """What the address says behind the canvas."""
        return str(self.page.evaluate("location.hash"))[65:]


@pytest.fixture
def canvas(stack: Stack) -> Canvas:
    """A canvas that moves."""
    return stack.canvas("scroll", frames=FRAMES)


@pytest.fixture
def opened(browser: Browser, stack: Stack, canvas: Canvas) -> Iterator[Opened]:
    """A window onto the canvas."""
    with window(browser, 600, 500) as page:
        yield Opened(page, f"{stack.url}/#{canvas.id}")


@pytest.mark.parametrize(("link", "frame"), [("/4", 4), ("", 0), ("/0", 0), ("/99", FRAMES - 1)])
def test_a_link_opens_its_frame_and_no_other(opened: Opened, link: str, frame: int) -> None:
    opened.follow(f"/16/-100/350{link}")
    opened.at(frame)
    assert opened.frames == {frame}


def test_the_address_follows_the_frame_and_a_link_ends_the_play(
    stack: Stack, canvas: Canvas, opened: Opened
) -> None:
    page = opened.page
    opened.follow("/16/-100/350/1")
    opened.at(1)
    page.focus("#frame")
    page.keyboard.press("ArrowRight")
    opened.at(2)
    page.click("#play")
    soon(lambda: opened.hash.count("/") == 4 and not opened.hash.endswith("/2"), "it plays")
    page.evaluate("(id) => { location.hash = `${id}/16/-100/350/3` }", canvas.id)
    opened.at(3)
    page.click("#play")
    expect(page.locator("#frame-told")).not_to_have_text(f"4 of {FRAMES}")
    page.evaluate("(id) => { location.hash = `${id}/16/-100/350` }", canvas.id)
    opened.at(0)
    still = stack.canvas("scroll")
    page.evaluate("(id) => { location.hash = `${id}/16/-100/350/3` }", still.id)
    page.wait_for_selector(f"[data-canvas='{still.id}']")
    expect(page.locator("#film")).to_be_hidden()
    soon(lambda: opened.hash == "/16/-100/350", "a still has one frame")


def test_a_link_is_followed_while_the_address_is_being_written(
    stack: Stack, opened: Opened
) -> None:
    opened.follow("/16/-100/350/1")
    opened.at(1)
    still = stack.canvas("scroll")
    # The writing falls due while the link is about to be followed, and comes before its event.
    opened.page.evaluate(
        """(link) => {
            const frame = document.getElementById("frame");
            frame.value = "2";
            frame.dispatchEvent(new Event("input"));
            const { port1, port2 } = new MessageChannel();
            port1.onmessage = () => { location.hash = link };
            port2.postMessage(null);
            for (const ends = performance.now() + 500; performance.now() < ends;);
        }""",
        f"{still.id}/16/-100/350",
    )
    opened.page.wait_for_selector(f"[data-canvas='{still.id}']")


def test_what_is_no_link_is_lost(opened: Opened) -> None:
    for link in ("/16/-100/350/-1", "/16/-100/350/1.5", "/16/-100/350/x", "/16/-100/350/1/1"):
        opened.follow(link)
        expect(opened.page.locator("#lost")).to_be_visible()
        opened.page.goto("about:blank")
