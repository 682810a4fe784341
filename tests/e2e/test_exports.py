"""Exports through the whole system, and when the tiler that makes one is killed."""

from __future__ import annotations

import time
from typing import Any

import httpx
import numpy as np
from pmtiles.reader import MemorySource, all_tiles

from handscroll.archive import tiles_in
from handscroll.canvas import Canvas
from handscroll.checkpoint import Checkpoint
from handscroll.geometry import Region, tile_to_xyz
from handscroll.paint import Painter
from tests.e2e.asking import new_canvas, path_of, pixels
from tests.support.stack import PATIENCE_S, Stack


def ask(stack: Stack, canvas: Canvas, region: Region, format: str) -> dict[str, Any]:
    wish = {"canvas": canvas.id, "format": format, **region._asdict()}
    answer = httpx.post(f"{stack.url}/exports", json=wish, timeout=PATIENCE_S)
    assert answer.status_code in (200, 202), answer.text
    found: dict[str, Any] = answer.json()
    return found


def made(stack: Stack, canvas: Canvas, region: Region, format: str) -> bytes:
    """The file of an export, asked for as often as it takes."""
    ends = time.monotonic() + PATIENCE_S
    while (told := ask(stack, canvas, region, format))["state"] != "done":
        assert time.monotonic() < ends, told
        time.sleep(0.2)
    return httpx.get(f"{stack.url}{told['file']}", timeout=PATIENCE_S).content


def test_export_is_what_a_painter_paints(stack: Stack, model: Checkpoint) -> None:
    canvas, region = new_canvas(stack), Region(1, -70, -300, 200, 330)
    found = pixels(made(stack, canvas, region, "png"))
    with Painter(model, canvas) as painter:
        np.testing.assert_array_equal(found, np.concatenate(list(painter.region(region))))


def test_archive_holds_the_tiles_that_the_gateway_serves(stack: Stack) -> None:
    canvas, region = new_canvas(stack, "scroll"), Region(1, 100, -90, 200, 60)
    content = made(stack, canvas, region, "pmtiles")
    found = {(x, y, z): image for (z, x, y), image in all_tiles(MemorySource(content))}
    tiles = tiles_in(region, canvas.extent)
    assert set(found) == {tile_to_xyz(tile) for tile in tiles}
    for tile in tiles:
        served = httpx.get(f"{stack.url}{path_of(canvas.id, tile, 'webp')}", timeout=PATIENCE_S)
        assert served.content == found[tile_to_xyz(tile)]


def test_export_whose_tiler_is_killed_is_gone_on_with(stack: Stack, model: Checkpoint) -> None:
    """At first it counts as running, since whoever makes it might only be slow."""
    canvas, region = new_canvas(stack), Region(0, 0, 0, 20, 70 * 256)
    begun = ask(stack, canvas, region, "png")
    stack.child("tiler_svc").kill()
    stack.heal()
    orphan = httpx.get(f"{stack.url}/exports/{begun['id']}", timeout=PATIENCE_S).json()
    assert orphan["state"] == "running" and orphan["file"] is None
    found = pixels(made(stack, canvas, region, "png"))
    part = region._replace(left=65 * 256, width=512)
    with Painter(model, canvas) as painter:
        expected = np.concatenate(list(painter.region(part)))
    np.testing.assert_array_equal(found[:, 65 * 256 : 67 * 256], expected)
