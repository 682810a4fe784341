"""The form for a new canvas, in a real browser: what it asks for is what was filled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from handscroll.canvas import MAX_REGIONS
from tests.gateway.conftest import Stack, soon, window


@contextmanager
def opened(browser: Browser, stack: Stack, height_px: int, place: str = "") -> Iterator[Page]:
    """A window with its panel open, over the first scroll."""
    with window(browser, 900, height_px) as page:
        page.goto(f"{stack.url}/#{stack.canvas('scroll').id}{place}")
        page.wait_for_selector("[data-canvas]")
        page.click("#seal")
        yield page


@pytest.fixture
def page(browser: Browser, stack: Stack) -> Iterator[Page]:
    with opened(browser, stack, 900) as page:
        yield page


def made(stack: Stack, page: Page) -> dict[str, Any]:
    """Send the form; the canvas that it makes."""
    before = page.evaluate("location.hash")
    page.click("#create")
    page.wait_for_function("(before) => location.hash !== before", arg=before)
    canvas = page.evaluate("location.hash").removeprefix("#").partition("/")[0]
    answer: dict[str, Any] = stack.get(f"/canvases/{canvas}").json()
    return answer


def file_of(folder: Path, width: int, height: int, frames: int = 1, format: str = "webp") -> Path:
    """A file of noise."""
    rng = np.random.default_rng(3)
    shown = [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)) for _ in range(frames)
    ]
    shown[0].save(folder / f"mine.{format}", save_all=frames > 1, append_images=shown[1:])
    return folder / f"mine.{format}"


def test_what_is_not_wanted_and_guidance_are_asked_for(stack: Stack, page: Page) -> None:
    page.fill("#prompt", "mountains")
    plain = made(stack, page)
    assert plain["sampling"]["negative_prompt"] == ""
    page.click("summary")
    page.fill("#negative", "  snow ")
    page.fill("#guidance", "2.5")
    sampling = made(stack, page)["sampling"]
    assert (sampling["negative_prompt"], sampling["guidance"]) == ("snow", 2.5)
    changed = {"negative_prompt", "guidance"}
    assert {k: v for k, v in sampling.items() if k not in changed} == {
        k: v for k, v in plain["sampling"].items() if k not in changed
    }


def test_what_guidance_may_not_be_is_said_where_it_is_seen(page: Page) -> None:
    """By the browser, and by the gateway to whoever gets past it."""
    page.click("summary")
    page.fill("#guidance", "21")
    page.click("summary")
    expect(page.locator("#guidance")).to_be_hidden()
    page.click("#create")
    expect(page.locator("#guidance")).to_be_focused()
    page.locator("#guidance").evaluate("field => field.removeAttribute('max')")
    page.click("#create")
    expect(page.locator("#new-error")).to_have_text("guidance must be 0 to 20, not 21.0")


def test_a_picture_may_have_an_end_on_all_sides(stack: Stack, page: Page, tmp_path: Path) -> None:
    """Twice as large, in whole tokens of all levels, unless it is said how large."""
    page.set_input_files("#picture", file_of(tmp_path, 200, 176))
    page.check("#ended")
    expect(page.locator("#width")).to_have_attribute("placeholder", "twice")
    canvas = made(stack, page)
    assert canvas["order"] == "outward"
    assert canvas["extent"] == {
        "kind": "picture",
        "finest": 2,
        "height_px": 1408,
        "width_px": 1600,
    }
    known = {"top": 384, "left": 384, "height": 704, "width": 800}
    assert canvas["known"] == {"picture": canvas["known"]["picture"], **known}
    link = f"#{canvas['id']}/15.36/800/704"
    soon(lambda: bool(page.evaluate("location.hash") == link), "it fills the window")
    page.set_input_files("#picture", file_of(tmp_path, 200, 176))
    page.fill("#width", "1024")
    page.select_option("#order", "raster")
    canvas = made(stack, page)
    assert canvas["order"] == "raster"
    assert (canvas["extent"]["height_px"], canvas["extent"]["width_px"]) == (1408, 1024)
    assert (canvas["known"]["top"], canvas["known"]["left"]) == (384, 128)
    page.uncheck("#ended")
    endless = made(stack, page)
    assert (endless["known"], endless["extent"]["kind"]) == (None, "scroll")


@pytest.mark.parametrize(("world", "usual"), [("scroll", (704, 1408)), ("planet", (1024, 1024))])
def test_a_canvas_may_have_an_end_without_a_picture(
    stack: Stack, page: Page, world: str, usual: tuple[int, int]
) -> None:
    expect(page.locator("#width")).to_be_hidden()
    page.click(f"#worlds >> text={world}")
    page.check("#ended")
    expect(page.locator("#height")).to_have_attribute("placeholder", str(usual[0]))
    canvas = made(stack, page)
    size = canvas["extent"]["height_px"], canvas["extent"]["width_px"]
    assert (canvas["extent"]["kind"], size) == ("picture", usual)
    assert (canvas["order"], canvas["known"]) == ("lattice", None)
    page.fill("#width", "1920")
    page.fill("#height", "832")
    for order in ("outward", "raster", "lattice"):
        page.select_option("#order", order)
        canvas = made(stack, page)
        assert (canvas["extent"]["height_px"], canvas["extent"]["width_px"]) == (832, 1920)
        assert canvas["order"] == order


def test_sizes_that_no_canvas_has_are_not_asked_for(page: Page) -> None:
    """The browser says which there are; the gateway, what is too large for an order."""
    page.check("#ended")
    before = page.evaluate("location.hash")
    for side, size in (
        ("width", "1000"),
        ("width", "0"),
        ("width", "65600"),
        ("height", "320"),
        ("height", "1472"),
    ):
        page.fill(f"#{side}", size)
        page.click("#create")
        expect(page.locator(f"#{side}")).to_be_focused()
        assert page.locator(f"#{side}").evaluate("field => field.validationMessage")
        page.fill(f"#{side}", "")
    assert page.evaluate("location.hash") == before
    page.click("#worlds >> text=planet")
    page.fill("#width", "65536")
    page.fill("#height", "16448")
    page.select_option("#order", "raster")
    page.click("#create")
    expect(page.locator("#new-error")).to_have_text(
        "order raster draws at most 4096 patches; this picture has 16640"
    )


@pytest.fixture
def marking(browser: Browser, stack: Stack) -> Iterator[Page]:
    """One pixel of the finest level to its own, -100, 350 amidst."""
    with opened(browser, stack, 600, "/16/-100/350") as page:
        yield page


def mark(page: Page, words: str, left: int = 350) -> None:
    """Mark rows 300 to 350 for some words, and columns -200 to -100 unless they begin elsewhere."""
    page.fill("#region-words", words)
    page.press("#region-words", "Enter")
    expect(page.locator("#panel")).to_be_hidden()
    page.mouse.move(left, 250)
    page.mouse.down()
    page.mouse.move(left + 100, 300)
    page.mouse.up()
    expect(page.locator("#marking")).to_be_hidden()


def test_places_have_words_of_their_own(stack: Stack, marking: Page) -> None:
    """What was marked is asked for, in its order, and seen where it was marked."""
    page = marking
    mark(page, "a stormy sea")
    expect(page.locator("#regions li")).to_have_text(["a stormy sea192 × 128 px at -256, 256"])
    expect(page.locator("#region-words")).to_be_focused()
    assert page.input_value("#region-words") == ""
    mark(page, " snow ", 450)
    page.click("#region-mark")  # without words there is nothing to mark
    expect(page.locator("#marking")).to_be_hidden()
    canvas = made(stack, page)
    place = {"top": 256, "height": 128, "softness": 256}
    assert canvas["regions"] == [
        {"prompt": "a stormy sea", "left": -256, "width": 192, **place},
        {"prompt": "snow", "left": -128, "width": 128, **place},
    ]
    expect(page).to_have_url(re.compile(f"#{canvas['id']}/16/-100/350$"))
    page.click("[aria-label='Remove a stormy sea']")
    assert [one["prompt"] for one in made(stack, page)["regions"]] == ["snow"]
    page.click("[aria-label='Remove snow']")
    assert made(stack, page)["regions"] == []


def test_what_was_marked_before_is_seen_while_marking(marking: Page) -> None:
    page = marking
    mark(page, "snow")
    page.fill("#region-words", "ice")
    page.click("#region-mark")
    box = page.locator("#marked div").bounding_box()
    assert box == {"x": 294, "y": 206, "width": 192, "height": 128}


def test_who_leaves_has_marked_nothing(stack: Stack, marking: Page) -> None:
    """By keyboard, by button, or to another canvas; the words stay, and are not lost in silence."""
    page, other = marking, stack.canvas("scroll").id
    ways: list[Callable[[], object]] = [
        lambda: page.keyboard.press("Escape"),
        lambda: page.click("#marking-leave"),
        lambda: page.evaluate("(id) => { location.hash = id }", other),
    ]
    page.fill("#region-words", "snow")
    for leave in ways:
        page.click("#region-mark")
        expect(page.locator("#panel")).to_be_hidden()
        leave()
        expect(page.locator("#panel")).to_be_visible()
        expect(page.locator("#marking")).to_be_hidden()
        expect(page.locator("#region-words")).to_be_focused()
    expect(page.locator("#regions li")).to_have_count(0)
    page.click("#create")
    expect(page.locator("#new-error")).to_have_text("Mark where “snow” is to be, or take it away.")


def test_there_may_be_as_many_places_as_a_canvas_has(stack: Stack, marking: Page) -> None:
    page = marking
    for number in range(MAX_REGIONS):
        page.fill("#region-words", f"boat {number}")
        page.press("#region-words", "Enter")
        page.keyboard.press("Enter")
    expect(page.locator("#regions li")).to_have_count(MAX_REGIONS)
    expect(page.locator("#region-words")).to_be_disabled()
    assert len(made(stack, page)["regions"]) == MAX_REGIONS
    page.click("[aria-label='Remove boat 0']")
    expect(page.locator("#region-words")).to_be_focused()


def test_places_are_of_the_world_that_they_were_marked_in(stack: Stack, marking: Page) -> None:
    page = marking
    mark(page, "a stormy sea")
    page.click("text=planet >> nth=0")
    expect(page.locator("#region-words")).to_be_disabled()
    expect(page.locator("#regions li")).to_have_count(0)
    planet = made(stack, page)
    assert planet["world"] == "planet" and planet["regions"] == []
    page.wait_for_selector(f"[data-canvas='{planet['id']}']")
    mark(page, "an island")
    assert [one["prompt"] for one in made(stack, page)["regions"]] == ["an island"]
    page.click("text=scroll >> nth=0")
    assert [one["prompt"] for one in made(stack, page)["regions"]] == ["a stormy sea"]


def test_places_outside_a_picture_with_an_end_are_refused(stack: Stack, marking: Page) -> None:
    """Its corner is 0, 0; of those that are partly in it something is seen."""
    page = marking
    mark(page, "sea", 450)
    page.check("#ended")
    page.click("#create")
    expect(page.locator("#new-error")).to_have_text(
        "“sea” lies outside the picture, which is from 0, 0 to 1408, 704."
    )
    page.click("[aria-label='Remove sea']")
    mark(page, "ice", 500)
    canvas = made(stack, page)
    assert (canvas["extent"]["kind"], canvas["regions"][0]["left"]) == ("picture", -64)
    expect(page).to_have_url(re.compile("/704/352$"))


def test_more_words_than_a_canvas_may_have_are_refused_in_words(marking: Page) -> None:
    page = marking
    for number in range(5):
        mark(page, f"{number}" * 2000)
    page.click("#create")
    expect(page.locator("#new-error")).to_have_text(
        "the prompts of all regions may have 8000 characters, not 10000"
    )


MOVING = [("webp", "must be a still"), ("png", "must be a still"), ("gif", "not 'image/gif'")]


@pytest.mark.parametrize(("format", "words"), MOVING)
def test_a_picture_that_moves_is_refused(
    stack: Stack, page: Page, tmp_path: Path, format: str, words: str
) -> None:
    """Its first frame would be taken, and nobody told."""
    before = set(stack.tiler.pictures)
    page.set_input_files("#picture", file_of(tmp_path, 64, 64, 3, format))
    page.click("#create")
    expect(page.locator("#new-error")).to_contain_text(words)
    page.set_input_files("#repaint-picture", tmp_path / f"mine.{format}")
    page.click("#repaint")
    page.keyboard.press("Enter")
    expect(page.locator("#repaint-error")).to_contain_text(words)
    assert set(stack.tiler.pictures) == before


def truncated(folder: Path) -> None:
    """A photograph of which the end is missing."""
    whole = file_of(folder, 300, 200, format="jpeg").read_bytes()
    (folder / "bad.jpeg").write_bytes(whole[: len(whole) // 2])


def no_picture(folder: Path) -> None:
    """Text by another name."""
    (folder / "bad.png").write_text("A lake, and mountains behind it.")


def too_large(folder: Path) -> None:
    """81 million pixels in a small file."""
    Image.new("1", (9000, 9000)).save(folder / "bad.png")


BROKEN = " is broken, or no PNG, JPEG or WebP picture."
BAD = [
    (truncated, f"bad.jpeg{BROKEN}"),
    (no_picture, f"bad.png{BROKEN}"),
    (too_large, "A picture may have 64 million pixels, not 9000 × 9000."),
]


@pytest.mark.parametrize(("bad", "words"), BAD)
def test_a_bad_file_is_refused_before_it_is_sent(
    page: Page, tmp_path: Path, bad: Callable[[Path], None], words: str
) -> None:
    """In words, where it was chosen; the form is as it was, and takes a better one."""
    bad(tmp_path)
    (file,) = tmp_path.glob("bad.*")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(f"{request.method} {request.url}"))
    page.set_input_files("#picture", file)
    page.click("#create")
    expect(page.locator("#new-error")).to_have_text(words)
    page.set_input_files("#repaint-picture", file)
    page.click("#repaint")
    page.keyboard.press("Enter")
    expect(page.locator("#repaint-error")).to_have_text(words)
    assert not [one for one in sent if one.startswith("POST")]
    page.click("#choose-none")
    page.click("#seal")
    page.set_input_files("#picture", file_of(tmp_path, 200, 176))
    before = page.evaluate("location.hash")
    page.click("#create")
    page.wait_for_function("(before) => location.hash !== before", arg=before)
    expect(page.locator("#new-error")).to_be_empty()
    assert [one for one in sent if one.startswith("POST") and one.endswith("/pictures")]
