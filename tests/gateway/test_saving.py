"""Saving what is in sight, by keyboard, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from handscroll.errors import OverQuota
from handscroll_api.tiler.v1 import export_service_pb2 as pb
from tests.gateway.conftest import Stack, soon, window
from tests.gateway.fakeexports import TOTAL, FakeExports


@pytest.fixture
def page(browser: Browser, stack: Stack) -> Iterator[Page]:
    """A window of 900 x 600 px, at level 1 of a canvas around pixel -100, 50 of the finest."""
    canvas = stack.canvas("planet")
    with window(browser, 900, 600) as page:
        page.goto(f"{stack.url}/#{canvas.id}/15/-100/50")
        page.wait_for_selector("[data-canvas]")
        page.focus("#seal")
        page.keyboard.press("Enter")
        yield page


def begin(page: Page, format: str = "png") -> None:
    page.select_option("#save-format", format)
    page.focus("#save")
    page.keyboard.press("Enter")


def test_view_is_made_into_a_file_and_fetched(stack: Stack, page: Page) -> None:
    with page.expect_download() as downloading:
        begin(page, "jpg")
    (made,) = stack.tiler.exports.made.values()
    assert downloading.value.suggested_filename == f"handscroll-{made.id[:16]}.jpg"
    assert downloading.value.path().read_bytes() == FakeExports.content(0, made.size_bytes)
    expect(page.locator("#save-said")).to_have_text("Saved.")
    spec = made.spec
    assert (spec.level, spec.height_px, spec.width_px) == (1, 600, 900)
    assert (spec.top_px, spec.left_px) == (25 - 300, -50 - 450)
    assert spec.format == pb.EXPORT_FORMAT_JPEG


def test_progress_is_shown_until_it_is_done(stack: Stack, page: Page) -> None:
    stack.tiler.exports.state = pb.EXPORT_STATE_RUNNING
    begin(page)
    expect(page.locator("#save-said")).to_have_text(f"Painting: 3 of {TOTAL} tiles")
    assert page.locator("#save-painted").evaluate("bar => [bar.value, bar.max]") == [3, TOTAL]
    (made,) = stack.tiler.exports.made.values()
    with page.expect_download():
        made.size_bytes, made.etag, made.state = 10, "e" * 32, pb.EXPORT_STATE_DONE
    expect(page.locator("#save")).to_be_visible()
    expect(page.locator("#save-painted")).to_be_hidden()


def test_cancel_ends_the_export(stack: Stack, page: Page) -> None:
    stack.tiler.exports.state = pb.EXPORT_STATE_RUNNING
    begin(page, "pmtiles")
    expect(page.locator("#save-said")).to_contain_text("Painting")
    assert page.evaluate("document.activeElement.id") == "save-stop"
    page.keyboard.press("Enter")
    expect(page.locator("#save-said")).to_contain_text("Cancelled")
    soon(lambda: not stack.tiler.exports.made, "it is deleted")


def test_what_stopped_says_why_and_can_be_gone_on_with(stack: Stack, page: Page) -> None:
    stack.tiler.exports.state = pb.EXPORT_STATE_STOPPED
    begin(page)
    expect(page.locator("#save-said")).to_contain_text("It stopped: the store is full.")
    stack.tiler.exports.state = pb.EXPORT_STATE_DONE
    with page.expect_download():
        begin(page)


def test_saved_files_are_told_of_and_can_be_deleted(
    stack: Stack, page: Page, tmp_path: Path
) -> None:
    expect(page.locator("#kept")).to_be_hidden()
    stack.tiler.exports.size_bytes = 3 * 2**20 + 1
    with page.expect_download():
        begin(page)
    expect(page.locator("#kept-told")).to_have_text("4 of 16 MiB of saved files are kept")
    page.locator("#kept").scroll_into_view_if_needed()
    page.screenshot(path=tmp_path / "kept.png")
    page.focus("#kept-delete")
    page.keyboard.press("Enter")
    expect(page.locator("#kept")).to_be_hidden()
    expect(page.locator("#save-said")).to_have_text("Deleted. What is painted stays.")
    assert not stack.tiler.exports.made


def test_who_may_save_no_more_is_told_why(stack: Stack, page: Page) -> None:
    said = "of exports you may hold 0 bytes more: delete some first"
    stack.tiler.exports.refusal = OverQuota(said)
    begin(page)
    expect(page.locator("#save-said")).to_have_text(said)
