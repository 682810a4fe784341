"""Repainting a part, by mouse and by keyboard, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from handscroll.canvas import Canvas, PromptRegion
from handscroll.errors import Overloaded
from tests.gateway.conftest import Stack, soon, window

REGIONS = (PromptRegion("ice", 0, 0, 100, 100),)


@pytest.fixture
def parent(stack: Stack) -> Canvas:
    """What is repainted."""
    return stack.canvas("scroll", prompt="a lake", regions=REGIONS)


@pytest.fixture
def page(browser: Browser, stack: Stack, parent: Canvas) -> Iterator[Page]:
    """A window, at the finest level of the canvas around pixel -100, 350, ready to be marked."""
    with window(browser, 900, 600) as page:
        page.goto(f"{stack.url}/#{parent.id}/16/-100/350")
        page.wait_for_selector("[data-canvas]")
        page.click("#seal")
        yield page


def mark(page: Page, words: str = "") -> None:
    """Mark columns -200 to 30 and rows 300 to 645."""
    page.fill("#repaint-words", words)
    page.click("#repaint")
    expect(page.locator("#panel")).to_be_hidden()
    page.mouse.move(350, 250)
    page.mouse.down()
    page.mouse.move(500, 400)
    expect(page.locator("#mark")).to_be_visible()
    page.mouse.move(580, 595)
    page.mouse.up()


def in_sight(page: Page, number: int | None) -> None:
    """Wait until a candidate is in sight; None for what was there before."""
    if number is None:
        expect(page.locator("#candidates [aria-pressed=true]")).to_have_count(0)
    else:
        pressed = page.locator("#candidates [aria-pressed=true]")
        expect(pressed).to_have_text(str(number))


def told(page: Page, stack: Stack) -> dict[str, Any]:
    """The canvas in sight, by its address."""
    canvas = page.evaluate("location.hash").removeprefix("#").partition("/")[0]
    answer: dict[str, Any] = stack.get(f"/canvases/{canvas}").json()
    return answer


def test_what_is_marked_is_branched_and_kept(stack: Stack, page: Page, parent: Canvas) -> None:
    mark(page)
    in_sight(page, 1)
    first = told(page, stack)
    place = {"top": 256, "left": -256, "height": 448, "width": 320}
    assert first["branch"] == {"parent": parent.id, **place}
    assert first["prompt"] == "a lake" and first["regions"][0]["prompt"] == "ice"
    expect(page).to_have_url(re.compile("/16/-100/350$"))
    page.click("#candidates button:nth-child(3)")
    in_sight(page, 3)
    third = told(page, stack)
    assert third["branch"] == first["branch"] and third["seed"] != first["seed"]
    page.click("#candidates button:nth-child(1)")
    in_sight(page, 1)
    page.click("#choose")
    expect(page.locator("#choosing")).to_be_hidden()
    assert told(page, stack) == first
    soon(lambda: stack.get(f"/canvases/{third['id']}").status_code == 404, "the other goes")
    page.click("#seal")
    expect(page.locator("#branch")).to_have_text("repainted · as it was before")
    page.click("#undo")
    page.wait_for_selector(f"[data-canvas='{parent.id}']")
    expect(page).to_have_url(re.compile("/16/-100/350$"))
    expect(page.locator("#branch")).to_be_hidden()


def test_words_are_for_what_is_marked_alone(stack: Stack, page: Page) -> None:
    mark(page, " a small boat ")
    in_sight(page, 1)
    made = told(page, stack)
    assert (made["prompt"], made["regions"]) == ("a small boat", [])


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A file of 130 x 100 pixels."""
    pixels = np.random.default_rng(3).integers(0, 256, (100, 130, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mine.png")
    return tmp_path / "mine.png"


def pictures(page: Page) -> int:
    """How many are the viewer's own."""
    return int(
        page.evaluate("async () => (await (await fetch('pictures')).json()).pictures.length")
    )


def test_a_picture_is_put_into_what_is_marked(stack: Stack, page: Page, picture: Path) -> None:
    """As large as leaves a rim, in the middle; each candidate has it, and undo takes it back."""
    page.set_input_files("#repaint-picture", picture)
    mark(page, "a boat")
    in_sight(page, 1)
    first = told(page, stack)
    place = {"top": 384, "left": -192, "height": 148, "width": 192}
    assert first["known"] == {"picture": first["known"]["picture"], **place}
    assert first["branch"]["top"] == 256 and first["prompt"] == "a boat"
    page.click("#candidates button:nth-child(2)")
    in_sight(page, 2)
    assert told(page, stack)["known"] == first["known"]
    assert pictures(page) == 1
    page.click("#choose-none")
    soon(lambda: pictures(page) == 0, "the picture goes")
    page.click("#seal")
    mark(page)
    in_sight(page, 1)
    page.click("#choose")
    assert told(page, stack)["known"] == first["known"] and pictures(page) == 1
    assert page.input_value("#repaint-picture") == ""


def test_a_part_too_small_for_a_picture_is_refused(page: Page, picture: Path) -> None:
    page.set_input_files("#repaint-picture", picture)
    page.click("#repaint")
    page.mouse.move(350, 250)
    page.mouse.down()
    page.mouse.move(380, 480)
    page.mouse.up()
    expect(page.locator("#repaint-error")).to_have_text(
        "For a picture, mark at least 192 × 192 pixels."
    )
    assert pictures(page) == 0
    page.click("#choose-none")
    expect(page.locator("#choosing")).to_be_hidden()


def test_what_was_repainted_is_made_to_move_with_what_is_around_it(
    stack: Stack, page: Page, parent: Canvas
) -> None:
    """A branch has as many frames as its parent: there must be one that moves."""
    mark(page)
    in_sight(page, 1)
    still = told(page, stack)
    page.click("#choose")
    page.click("#seal")
    page.fill("#motion", "waves roll")
    page.press("#motion", "Enter")
    expect(page.locator("#film")).to_be_visible()
    moving = told(page, stack)
    under = stack.get(f"/canvases/{moving['branch']['parent']}").json()
    assert under["branch"] is None
    for before, after in ((still, moving), (stack.get(f"/canvases/{parent.id}").json(), under)):
        said = {"id", "tilejson", "frames", "motion", "branch"}
        assert (after["frames"], after["motion"]) == (16, "waves roll")
        assert all(after[name] == before[name] for name in before.keys() - said)


def test_undo_leaves_all_as_it_was(stack: Stack, page: Page, parent: Canvas) -> None:
    mark(page)
    in_sight(page, 1)
    first = told(page, stack)
    page.click("#choose-none")
    page.wait_for_selector(f"[data-canvas='{parent.id}']")
    expect(page.locator("#choosing")).to_be_hidden()
    soon(lambda: stack.get(f"/canvases/{first['id']}").status_code == 404, "it goes")


def test_the_keyboard_takes_the_middle_or_nothing(stack: Stack, page: Page) -> None:
    page.focus("#repaint")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(page.locator("#marking")).to_be_hidden()
    page.focus("#seal")
    page.keyboard.press("Enter")
    page.focus("#repaint")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    in_sight(page, 1)
    assert page.evaluate("document.activeElement.textContent") == "1"
    place = told(page, stack)["branch"]
    assert (place["left"], place["width"]) == (-256, 320)
    assert (place["top"], place["height"]) == (256, 192)


def test_a_touch_marks_nothing(page: Page) -> None:
    page.click("#repaint")
    page.mouse.click(400, 300)
    expect(page.locator("#marking")).to_be_visible()
    expect(page.locator("#choosing")).to_be_hidden()


def test_who_goes_elsewhere_chooses_no_more(stack: Stack, page: Page) -> None:
    mark(page)
    in_sight(page, 1)
    other = stack.canvas("planet")
    page.evaluate("(id) => { location.hash = id }", other.id)
    page.wait_for_selector(f"[data-canvas='{other.id}']")
    expect(page.locator("#choosing")).to_be_hidden()


def test_what_cannot_be_branched_says_why(stack: Stack, page: Page) -> None:
    stack.tiler.failure = Overloaded("too much to do", 1)
    mark(page)
    expect(page.locator("#repaint-error")).to_contain_text("busy. Please try again")
    in_sight(page, None)
    expect(page.locator("#choose")).to_be_disabled()
    stack.tiler.failure = None
    page.click("#candidates button:nth-child(1)")
    in_sight(page, 1)
    expect(page.locator("#repaint-error")).to_be_empty()
