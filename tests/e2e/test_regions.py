"""Words for places of their own through the whole system: asked for by HTTP, held to `Painter`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx

from handscroll.canvas import PromptRegion
from handscroll.checkpoint import Checkpoint
from handscroll.paint import Painter
from tests.e2e.asking import Visitor, assert_painted, block, canvas_of, pixels
from tests.support.stack import PATIENCE_S, Stack

SEA: dict[str, Any] = {"top": -600, "left": -2000, "height": 1200, "width": 2000, "softness": 768}
SNOW: dict[str, Any] = {"top": -200, "left": -100, "height": 900, "width": 700}
"""It has the border that is a region's own, and lies over the sea's."""


def test_a_canvas_with_regions_is_what_a_painter_paints(stack: Stack, model: Checkpoint) -> None:
    """The tiles lie where the borders are, so all that is said of the regions is seen in them."""
    regions = [{"prompt": "a stormy sea", **SEA}, {"prompt": "snowy mountains", **SNOW}]
    wish = {"world": "planet", "seed": 991, "prompt": "a desert", "regions": regions}
    asked = wish | {"sampling": {"group": 64}}
    answer = httpx.post(f"{stack.url}/canvases", json=asked, timeout=PATIENCE_S)
    assert answer.status_code == 201, answer.text
    canvas = canvas_of(answer.json())
    sea, snow = PromptRegion("a stormy sea", **SEA), PromptRegion("snowy mountains", **SNOW)
    assert canvas.regions == (sea, snow)
    with Visitor(stack) as visitor:
        found = visitor.tiles(canvas.id, block(0, -1, -1, 1, 2))
    assert_painted(model, canvas, found)
    for others in ((), (snow, sea), (replace(sea, softness=0), snow)):
        with Painter(model, replace(canvas, regions=others)) as painter:
            for tile, image in found.items():
                assert (painter.tile(tile) != pixels(image)).any(), (tile, others)
