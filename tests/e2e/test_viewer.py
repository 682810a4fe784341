"""The viewer in a real browser, on the whole system."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, Response, expect

from handscroll.checkpoint import Checkpoint
from handscroll.film import FPS, film
from handscroll.geometry import Region, Tile, tile_to_xyz
from handscroll.paint import Painter
from tests.e2e.asking import canvas_of, new_canvas
from tests.handscroll.test_film import alike, shown
from tests.support.stack import PATIENCE_S, Stack, eventually

PATIENCE_MS = 1000 * PATIENCE_S
DESK = {"viewport": {"width": 900, "height": 600}}
PHONE = {
    "viewport": {"width": 390, "height": 720},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}

# Browsers do not hand out what a page has read as a blob, so the page is made to keep it.
KEEP_BLOBS = """
  window.blobs = new Map();
  const create = URL.createObjectURL;
  URL.createObjectURL = (blob) => {
    const url = create(blob);
    window.blobs.set(url, blob);
    return url;
  };
"""
# The tiles of which more than some pixels are in the window.
IN_WINDOW = """(px) => [...document.querySelectorAll("img.handscroll-tile")].filter((image) => {
  const { left, right, top, bottom } = image.getBoundingClientRect();
  return right > px && bottom > px && left < innerWidth - px && top < innerHeight - px;
})"""
KEYS = f"(px) => ({IN_WINDOW})(px).map((image) => image.dataset.key)"
# The same with the width and the digest of the picture in each.
SHOWN = f"""() => Promise.all(({IN_WINDOW})(0).map(async (image) => {{
  const {{ naturalWidth, src, dataset: {{ key }} }} = image;
  const content = await window.blobs.get(src).arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return [key, naturalWidth, [...digest]];
}}))"""
READY = "() => document.documentElement.dataset.state === 'ready'"


class Viewer:
    """A page with the viewer, and all that went wrong in it.

    Attributes:
        page: the page.
        wrongs: errors, warnings, and answers that are errors.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrongs: list[str] = []
        page.add_init_script(KEEP_BLOBS)
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.wrongs.append(str(error)))
        page.on("console", lambda said: self._hear(said.type, said.text))
        page.on("response", self._take)

    @property
    def canvas(self) -> str:
        """Id of the canvas in sight."""
        return str(self.page.evaluate("document.documentElement.dataset.canvas"))

    @property
    def hash(self) -> str:
        """The link to what is in sight."""
        return str(self.page.evaluate("location.hash"))

    def open(self, url: str) -> None:
        """Go to a page and wait until it is painted."""
        self.page.goto(url)
        self.until(READY)

    def until(self, script: str, argument: Any = None) -> None:
        """Wait until a function of the page says yes."""
        # Playwright's own waiting runs in the page, where its policy forbids what it needs.
        eventually(lambda: bool(self.page.evaluate(script, argument)), script, 60)

    def keys(self, px: int = 0) -> set[str]:
        """Keys of the tiles of which more than some pixels are in the window."""
        return set(self.page.evaluate(KEYS, px))

    def rest(self) -> None:
        """Wait until the window moves no more, and the address has followed it."""

        def rests() -> bool:
            before = self.hash, self.keys()
            self.page.wait_for_timeout(1000)
            return before == (self.hash, self.keys()) and bool(self.page.evaluate(READY))

        eventually(rests, "a window at rest")

    def until_new(self, act: Callable[[], object]) -> None:
        """Do something that moves the window, and wait until all that is new is painted."""
        link, keys = self.hash, list(self.keys())
        act()
        self.until(
            f"""([link, keys]) => ({READY})() && location.hash !== link
              && ({KEYS})(0).some((key) => !keys.includes(key))""",
            [link, keys],
        )

    def check_tiles(self, stack: Stack) -> None:
        """Every tile in the window is the one that HTTP serves."""
        shown, canvas = self.page.evaluate(SHOWN), self.canvas
        assert shown
        with httpx.Client(base_url=stack.url, timeout=PATIENCE_S) as client:
            for key, width, digest in shown:
                served = client.get(f"/tiles/{canvas}/{key}.webp", params={"wait": 0})
                assert (served.status_code, width) == (200, 256)
                assert bytes(digest) == hashlib.sha256(served.content).digest(), key

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.wrongs.append(text)

    def _take(self, response: Response) -> None:
        if response.status >= 400:
            self.wrongs.append(f"{response.status} {response.url}")


@contextmanager
def viewer_in(browser: Browser, window: dict[str, Any]) -> Iterator[Viewer]:
    """A viewer in a browser of its own, in which nothing may go wrong."""
    context = browser.new_context(**window)
    viewer = Viewer(context.new_page())
    yield viewer
    assert not viewer.wrongs
    context.close()


def test_it_opens_moves_and_zooms_and_a_link_shows_the_same_elsewhere(
    stack: Stack, browser: Browser, tmp_path: Path
) -> None:
    with viewer_in(browser, DESK) as viewer:
        page = viewer.page
        viewer.open(stack.url)
        viewer.check_tiles(stack)

        def drag() -> None:
            page.mouse.move(700, 300)
            page.mouse.down()
            page.mouse.move(100, 300, steps=8)
            page.mouse.up()

        viewer.until_new(drag)
        before_px = int(viewer.hash.split("/")[2])

        def pressed() -> bool:
            page.keyboard.press("ArrowRight")
            return int(viewer.hash.split("/")[2]) > before_px

        # Keys are not heard while the picture glides.
        eventually(pressed, "a move to the right", pause_s=0.5)
        viewer.until_new(lambda: page.click("#zoom-out"))
        viewer.rest()
        viewer.check_tiles(stack)
        page.screenshot(path=tmp_path / "desk.png")
        # A link holds whole pixels, so a sliver at the rim may be there or not.
        link, keys = viewer.hash, viewer.keys(px=8)
    with viewer_in(browser, DESK) as other:
        other.open(f"{stack.url}/{link}")
        assert other.hash == link
        finest = max(key.partition("/")[0] for key in keys)
        assert other.keys() >= {key for key in keys if key.startswith(f"{finest}/")}
        other.check_tiles(stack)


def choose_world(page: Page, world: str) -> None:
    """What is seen of a choice is its word; clicked once the panel has stopped rising."""
    page.locator(".choice span", has_text=world).click()
    expect(page.get_by_label(world, exact=True)).to_be_checked()


def test_a_canvas_is_made_in_the_panel(stack: Stack, browser: Browser, tmp_path: Path) -> None:
    with viewer_in(browser, DESK) as viewer:
        page = viewer.page
        viewer.open(stack.url)
        first = viewer.canvas
        page.click("#seal")
        choose_world(page, "planet")
        page.fill("#seed", "20220720")
        page.click("#create")
        viewer.until(
            f"(first) => ({READY})() && document.documentElement.dataset.canvas !== first", first
        )
        made = canvas_of(httpx.get(f"{stack.url}/canvases/{viewer.canvas}").json())
        assert (made.world, made.seed, made.prompt) == ("planet", 20220720, "")
        assert page.text_content("#title") == "Untitled planet"
        assert viewer.hash.startswith(f"#{made.id}/")
        page.wait_for_selector(f"#own a[href='#{made.id}'][aria-current=true]")
        viewer.check_tiles(stack)
        page.screenshot(path=tmp_path / "panel.png")


def test_a_canvas_is_painted_around_a_picture_of_ones_own(
    stack: Stack, browser: Browser, tmp_path: Path
) -> None:
    """It is brought to a scroll's height, and comes back untouched."""
    down, right = np.mgrid[0:88, 0:200]
    ramp = np.stack((2 * down, right, 255 - right), -1).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "mine.webp", lossless=True)
    with viewer_in(browser, DESK) as viewer:
        page = viewer.page
        viewer.open(stack.url)
        first = viewer.canvas
        page.click("#seal")
        choose_world(page, "scroll")
        page.set_input_files("#picture", tmp_path / "mine.webp")
        page.click("#create")
        viewer.until(
            f"(first) => ({READY})() && document.documentElement.dataset.canvas !== first", first
        )
        made = canvas_of(httpx.get(f"{stack.url}/canvases/{viewer.canvas}").json())
        assert made.known is not None and made.world == "scroll"
        assert (made.known.top, made.known.left) == (0, 0)
        assert (made.known.height, made.known.width) == (704, 1600)
        assert viewer.hash == f"#{made.id}/16/800/352"
        x, y, z = tile_to_xyz(Tile(2, 1, 1))
        tile = httpx.get(f"{stack.url}/tiles/{made.id}/{z}/{x}/{y}.png").content
        pixels = np.asarray(Image.open(io.BytesIO(tile)).convert("RGB")).astype(int)
        across = (340 + 256 + np.arange(256)) / 8  # the ramp where the tile lies
        assert np.abs(pixels[..., 1] - across).max() < 3
        assert np.abs(pixels[..., 2] - (255 - across)).max() < 3
        assert page.input_value("#picture") == ""
        page.screenshot(path=tmp_path / "around.png")
        # The picture was given for this canvas alone, and goes with it.
        page.click(f"#own li:has(a[href='#{made.id}']) button")
        page.get_by_text("Delete this canvas and its picture?").wait_for()
        page.screenshot(path=tmp_path / "delete.png")
        page.click("#own button.danger")
        page.wait_for_selector(f"#own a[href='#{made.id}']", state="detached")
        held = eventually(
            lambda: [
                one
                for one in [page.evaluate("async () => (await fetch('usage')).json()")]
                if not one["picture_bytes"]["held"]
            ],
            "the picture gone",
        )
        assert held[0]["canvases"]["held"] == 0
        viewer.until(READY)


def test_a_canvas_is_made_to_move_and_played(
    stack: Stack, browser: Browser, tmp_path: Path
) -> None:
    """It begins as it was; every frame that is shown is the one that HTTP serves."""
    with viewer_in(browser, {"viewport": {"width": 390, "height": 320}}) as viewer:
        page = viewer.page
        viewer.open(f"{stack.url}/")
        still, link = viewer.canvas, viewer.hash
        before = page.evaluate(SHOWN)
        page.click("#seal")
        assert page.is_hidden("#film")
        page.focus("#motion")
        page.keyboard.press("Enter")  # without words
        viewer.until(
            f"(still) => ({READY})() && document.documentElement.dataset.canvas !== still", still
        )
        made = canvas_of(httpx.get(f"{stack.url}/canvases/{viewer.canvas}").json())
        assert (made.frames, made.motion) == (16, "")
        assert viewer.hash.split("/")[1:] == link.split("/")[1:]
        assert page.evaluate(SHOWN) == before  # its first frame is what was there
        page.click("#play")
        viewer.until("() => Number(document.getElementById('frame').value) >= 2")
        page.click("#play")
        viewer.until(READY)
        frame = int(page.input_value("#frame"))
        assert page.text_content("#frame-told") == f"{frame + 1} of 16"
        viewer.rest()
        moved, shown = viewer.hash, page.evaluate(SHOWN)
        assert moved == f"#{made.id}/{'/'.join(link.split('/')[1:])}/{frame}"
        with httpx.Client(base_url=stack.url, timeout=PATIENCE_S) as client:
            for key, _, digest in page.evaluate(SHOWN):
                path = f"/tiles/{viewer.canvas}/{key}.webp"
                served = client.get(path, params={"wait": 0, "frame": frame})
                assert bytes(digest) == hashlib.sha256(served.content).digest(), key
        page.screenshot(path=tmp_path / "film.png")
        page.focus("#frame")
        page.keyboard.press("Home")
        viewer.until(f"() => ({READY})() && document.getElementById('frame').value === '0'")
        assert page.evaluate(SHOWN) == before
        viewer.rest()
        assert viewer.hash.split("/")[1:] == link.split("/")[1:]
        page.evaluate("(link) => { location.hash = link }", moved)
        viewer.until(
            f"(told) => ({READY})() && document.getElementById('frame').value === told", str(frame)
        )
        assert page.evaluate(SHOWN) == shown
        page.click("#seal")
        assert page.is_hidden("#animate")
        assert page.locator("#save-format option:not([hidden])").count() == 8


def test_a_film_is_saved_as_it_is_played(stack: Stack, browser: Browser, model: Checkpoint) -> None:
    """Forth and back, which closes the loop; of a view with odd sides, as an MP4 has none."""
    canvas = new_canvas(stack, frames=4)
    with viewer_in(browser, {"viewport": {"width": 301, "height": 201}}) as viewer:
        page = viewer.page
        viewer.open(f"{stack.url}/#{canvas.id}/14/0/0/2")
        page.click("#seal")
        page.get_by_label("Save this view").select_option("Film (MP4)")
        with page.expect_download() as downloading:
            page.get_by_role("button", name="Save picture").click()
        content = downloading.value.path().read_bytes()
    with Painter(model, canvas) as painter:
        frames = [
            np.concatenate(list(painter.region(Region(0, -100, -150, 200, 300, frame))))
            for frame in range(canvas.frames)
        ]
    assert [one.shape for one in shown("mp4", content)] == [(200, 300, 3)] * 6
    assert alike("mp4", content, film("mp4", [frames[at] for at in (0, 1, 2, 3, 2, 1)], FPS, False))


def test_a_part_is_repainted_in_its_place(stack: Stack, browser: Browser, tmp_path: Path) -> None:
    """What was there stays in sight until the candidate is painted, and comes back by undo."""
    with viewer_in(browser, DESK) as viewer:
        page = viewer.page
        viewer.open(stack.url)
        first, hash = viewer.canvas, viewer.hash
        page.click("#seal")
        page.click("#repaint")
        page.mouse.move(380, 200)
        page.mouse.down()
        page.mouse.move(560, 380)
        page.mouse.up()
        page.wait_for_selector("#candidates [aria-pressed=true]")
        assert page.evaluate(f"({KEYS})(0)"), "no blank paper"
        changed = f"(first) => ({READY})() && document.documentElement.dataset.canvas !== first"
        viewer.until(changed, first)
        made = canvas_of(httpx.get(f"{stack.url}/canvases/{viewer.canvas}").json())
        assert made.branch is not None and made.branch.parent == first
        viewer.check_tiles(stack)
        page.screenshot(path=tmp_path / "candidate.png")
        page.click("#choose-none")
        viewer.until(
            f"(first) => ({READY})() && document.documentElement.dataset.canvas === first", first
        )
        assert viewer.hash == hash
        viewer.check_tiles(stack)
        eventually(
            lambda: httpx.get(f"{stack.url}/canvases/{made.id}").status_code == 404, "it is gone"
        )


def test_it_works_under_a_finger_on_a_phone(stack: Stack, browser: Browser, tmp_path: Path) -> None:
    with viewer_in(browser, PHONE) as viewer:
        page = viewer.page
        viewer.open(stack.url)
        viewer.check_tiles(stack)
        finger = page.context.new_cdp_session(page)

        def touch(kind: str, *at: int) -> None:
            points = [{"x": at[0], "y": at[1]}] if at else []
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        def swipe() -> None:
            touch("touchStart", 350, 400)
            for x in range(340, 30, -30):
                touch("touchMove", x, 400)
            touch("touchEnd")

        viewer.until_new(swipe)
        viewer.check_tiles(stack)
        page.tap("#seal")
        page.wait_for_selector("#panel:not([hidden])")
        page.screenshot(path=tmp_path / "phone.png")
        page.tap("#close")
        page.wait_for_selector("#panel", state="hidden")
