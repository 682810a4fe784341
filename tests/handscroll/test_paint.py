"""The laws of `handscroll.paint`: one canvas, whoever looks at which part of it, in what order."""

import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handscroll.assemble import Pixels
from handscroll.canvas import Branch, Canvas, Sampling
from handscroll.checkpoint import Checkpoint
from handscroll.context import Codes, Context
from handscroll.detail import Detail
from handscroll.errors import InvalidRequest, NotFound, SpecMismatch
from handscroll.geometry import Extent, Patch, Region, Tile, tile_region
from handscroll.paint import Painter
from handscroll.sample import PatchSampler
from handscroll.tokenizer import RADIUS_TOK
from handscroll.view import View


def canvas_of(model: Checkpoint, world: str = "planet", **changes: Any) -> Canvas:
    """A canvas of the tiny model; large groups, because that is quick."""
    extent, sampling = model.worlds[world].extent, Sampling(group=64)
    spec: dict[str, Any] = {"seed": 7, "extent": extent, "sampling": sampling} | changes
    return Canvas(model.digest, world, **spec)


def picture(model: Checkpoint, canvas: Canvas, region: Region, workers: int = 1) -> Pixels:
    """A region of a canvas, from a painter that has drawn nothing yet."""
    with Painter(model, canvas, workers) as painter:
        found = np.concatenate(list(painter.region(region)))
    assert found.shape == (region.height, region.width, 3) and found.dtype == np.uint8
    return found


def patches(
    model: Checkpoint, canvas: Canvas, requests: Collection[Sequence[Patch]], workers: int = 1
) -> dict[Patch, bytes]:
    """All that some requests draw, one after another."""
    found: dict[Patch, bytes] = {}
    with Painter(model, canvas, workers) as painter:
        for request in requests:
            for patch, codes in painter.patches(request):
                assert patch not in found
                found[patch] = codes.tobytes()
    return found


@pytest.mark.parametrize(
    ("world", "large", "windows"),
    [
        ("planet", Region(0, -390, -300, 500, 420), [(0, 0, 90, 150), (311, 250, 189, 99)]),
        ("planet", Region(1, -100, 10**9 - 7, 300, 330), [(100, 100, 64, 64)]),
        ("planet", Region(2, -700, -650, 300, 200), [(30, 20, 99, 99)]),
        ("scroll", Region(0, 0, -400, 176, 500), [(100, 3, 76, 300)]),
        ("scroll", Region(1, 20, 10, 332, 300), [(200, 100, 132, 150)]),
        ("scroll", Region(2, 200, -(10**8), 504, 260), [(150, 0, 354, 17), (0, 240, 100, 20)]),
    ],
)
def test_window_is_the_same_alone_and_in_a_larger_picture(
    model: Checkpoint, world: str, large: Region, windows: list[tuple[int, int, int, int]]
) -> None:
    """Byte for byte, at negative coordinates and over a scroll's lower edge too."""
    canvas = canvas_of(model, world)
    whole = picture(model, canvas, large)
    assert whole.std() > 5
    for down, right, height, width in windows:
        region = Region(large.level, large.top + down, large.left + right, height, width)
        alone = picture(model, canvas, region)
        np.testing.assert_array_equal(
            alone, whole[down : down + height, right : right + width], strict=True
        )


@pytest.mark.parametrize(
    ("world", "region", "rows", "cols"),
    [
        ("scroll", Region(0, 0, -100, 176, 270), range(1), range(-2, 2)),
        ("scroll", Region(1, 250, 30, 102, 90), range(2), range(-1, 2)),
        ("planet", Region(0, -70, -200, 120, 100), range(-2, 2), range(-2, 2)),
    ],
)
def test_region_is_cut_from_one_big_decode_of_its_patches(
    model: Checkpoint, world: str, region: Region, rows: range, cols: range
) -> None:
    """In its place to the pixel; a scroll's edge is that of the array of its tokens."""
    canvas = canvas_of(model, world)
    with Painter(model.as_decoded(), canvas) as painter:
        wanted = [Patch(region.level, 0, row, col) for row in rows for col in cols]
        codes = dict(painter.patches(wanted))
        found = np.concatenate(list(painter.region(region)))
    tokens = np.concatenate(
        [
            np.concatenate([codes[Patch(region.level, 0, row, col)] for col in cols], axis=1)
            for row in rows
        ]
    )
    height = canvas.extent.size(region.level)[0]
    tokens = tokens[: None if height is None else height // 16]
    pixels = model.tokenizer.decode(torch.from_numpy(tokens)[None])[0]
    top, left = region.top - 256 * rows[0], region.left - 256 * cols[0]
    cut = pixels[top : top + region.height, left : left + region.width]
    expected = ((cut + 1) * 127.5).round().to(torch.uint8).numpy()
    np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("world", ["planet", "scroll"])
def test_what_is_decoded_is_given_detail_of_its_world(model: Checkpoint, world: str) -> None:
    """At the levels of which there are pieces, tile by tile as of all that lies around them."""
    canvas, pieces = canvas_of(model, world), model.worlds[world].pieces
    for level in range(3):
        tile = Tile(level, 0, 4)
        view = View(tile, canvas.extent, 16, RADIUS_TOK, 128)
        level_, top, left, height, width, _ = view.region
        with Painter(model.as_decoded(), canvas) as painter:
            inside = canvas.extent.inside(level, top, left, (height, width), 1)
            decoded = np.zeros((height, width, 3), np.uint8)
            rows, cols = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
            region = Region(level, top + int(rows[0]), left, len(rows), width)
            decoded[rows[0] : rows[-1] + 1] = np.concatenate(list(painter.region(region)))
            plain = painter.tile(tile)
        assert len(cols) == width
        with Painter(model, canvas) as painter:
            found = painter.tile(tile)
        if level not in pieces:
            np.testing.assert_array_equal(found, plain)
            continue
        lost = Detail(pieces[level]).of(decoded, inside, (128, 128))
        expected = np.rint(np.clip(decoded + lost, 0, 255))[128:-128, 128:-128]
        assert (found != plain).mean() > 0.1
        np.testing.assert_array_equal(found, expected)


def test_workers_paint_the_same(model: Checkpoint) -> None:
    """One or two, and when batches hold several patches."""
    region = Region(1, -300, -300, 300, 300)
    for rows in (1, 3):
        canvas = canvas_of(model, sampling=Sampling(rows=rows, group=64))
        np.testing.assert_array_equal(
            picture(model, canvas, region, workers=1), picture(model, canvas, region, workers=2)
        )


@pytest.mark.parametrize("world", ["planet", "scroll"])
def test_patches_are_the_same_in_whatever_order_they_are_asked(
    model: Checkpoint, world: str
) -> None:
    canvas = canvas_of(model, world)
    rows = range(-2, 1) if world == "planet" else range(2)
    wanted = [Patch(1, 0, row, col) for row in rows for col in range(-2, 2)]
    at_once = patches(model, canvas, [wanted])
    assert set(wanted) <= set(at_once)
    assert len(set(at_once.values())) == len(at_once)
    for way in (wanted, wanted[::-1], random.Random(5).sample(wanted, len(wanted))):
        assert patches(model, canvas, [[one] for one in way], workers=2) == at_once


def test_tile_is_the_region_it_covers(model: Checkpoint) -> None:
    canvas = canvas_of(model)
    tile = Tile(0, -3, 2)
    with Painter(model, canvas) as painter:
        once, again = painter.tile(tile), painter.tile(tile)
    np.testing.assert_array_equal(once, again)
    expected = picture(model, canvas, tile_region(tile, canvas.extent))
    np.testing.assert_array_equal(once, expected, strict=True)


def test_other_seeds_worlds_and_places_are_other_pictures(model: Checkpoint) -> None:
    """Nothing of what names a picture is lost on the way."""
    region = Region(0, 0, 0, 60, 60)
    made = [
        picture(model, canvas_of(model), region),
        picture(model, canvas_of(model, seed=8), region),
        picture(model, canvas_of(model), region._replace(left=512)),
        picture(model, canvas_of(model, "scroll"), region),
        picture(model, canvas_of(model, sampling=Sampling(temperature=0.5, group=64)), region),
        picture(model, canvas_of(model, extent=Extent("picture", 2, 640, 640)), region),
    ]
    assert len({one.tobytes() for one in made}) == len(made)


def test_seed_and_world_reach_the_tokens_by_every_way(model: Checkpoint) -> None:
    """By noise and number alone where fields are all alike, and by the field without noise."""
    worlds = {
        name: replace(
            world,
            palette=replace(
                world.palette,
                blocks_BRCV=np.zeros_like(world.palette.blocks_BRCV[:1]),
                captions_BW=None,
            ),
        )
        for name, world in model.worlds.items()
    }
    alike = replace(model, worlds=worlds)
    scroll = Extent("scroll", 2, 704)
    wanted = [[Patch(0, 0, 0, 0)]]
    by_noise = [
        patches(alike, canvas_of(model, "planet", seed=7, extent=scroll), wanted),
        patches(alike, canvas_of(model, "planet", seed=8, extent=scroll), wanted),
        patches(alike, canvas_of(model, "scroll", seed=7, extent=scroll), wanted),
    ]
    assert len({one[Patch(0, 0, 0, 0)] for one in by_noise}) == 3
    sampling = Sampling(temperature=0, group=64)
    by_field = [
        patches(checkpoint, canvas_of(model, seed=seed, sampling=sampling), wanted)
        for checkpoint, seed in ((model, 7), (model, 8), (alike, 7), (alike, 8))
    ]
    first, second, same, still_same = (one[Patch(0, 0, 0, 0)] for one in by_field)
    assert first != second and same == still_same


def test_extents_of_one_kind_share_what_they_share(model: Checkpoint) -> None:
    """The finest level is where a canvas ends, not part of what it shows above."""
    region = Region(0, -20, -20, 50, 50)
    np.testing.assert_array_equal(
        picture(model, canvas_of(model), region),
        picture(model, canvas_of(model, extent=Extent("plane", 0)), region),
    )


@pytest.mark.parametrize("order", ["raster", "outward"])
def test_bounded_pictures_are_painted_in_their_orders(model: Checkpoint, order: str) -> None:
    """The paper's orders, to the rim of the picture and no further."""
    extent = Extent("picture", 1, 288, 352)
    canvas = canvas_of(model, extent=extent, order=order)
    whole = picture(model, canvas, Region(1, 0, 0, 288, 352))
    other = picture(model, replace(canvas, order="lattice"), Region(1, 0, 0, 288, 352))
    assert not np.array_equal(whole, other)
    corner = picture(model, canvas, Region(1, 200, 300, 88, 52))
    np.testing.assert_array_equal(corner, whole[200:, 300:])


def test_animated_canvases_begin_as_still_ones(model: Checkpoint) -> None:
    still, moving = (
        patches(model, canvas_of(model, frames=frames), [[Patch(0, 0, 1, 1)]]) for frames in (1, 2)
    )
    assert still == moving
    canvas = canvas_of(model, frames=2)
    both = patches(model, canvas, [[Patch(0, 1, 1, 1)]])
    assert len(both) == 18 and still.items() <= both.items()
    assert both[Patch(0, 1, 1, 1)] != still[Patch(0, 0, 1, 1)]


# What a painter draws and keeps.


def test_painter_tells_of_every_patch_of_the_cone_once(model: Checkpoint) -> None:
    region = Region(1, -60, -60, 100, 100)
    told: list[Patch] = []
    with Painter(model, canvas_of(model), workers=2, on_patch=told.append) as painter:
        cone = painter.cone(region)
        assert len(cone) == 18
        first = np.concatenate(list(painter.region(region)))
        assert sorted(told) == sorted(cone)
        assert painter.cone(region) == set()
        second = np.concatenate(list(painter.region(region)))
        assert len(told) == len(cone)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("keep", [0, 5])
def test_painter_keeps_no_more_than_it_may(model: Checkpoint, keep: int) -> None:
    """After a region, a tile, and a reader who walks away; and paints the same."""
    region = Region(0, -200, -200, 200, 90)
    expected = picture(model, canvas_of(model), region)
    with Painter(model, canvas_of(model), keep=keep) as painter:
        np.testing.assert_array_equal(np.concatenate(list(painter.region(region))), expected)
        assert len(painter.pool) <= keep
        painter.tile(Tile(0, 5, 5))
        assert len(painter.pool) <= keep
        next(painter.region(region))
        assert len(painter.pool) <= keep
        next(iter(painter.patches([Patch(1, 0, 1, 1)])))
        assert len(painter.pool) <= keep


def test_painter_survives_a_failing_listener(model: Checkpoint) -> None:
    def fail(patch: Patch) -> None:
        raise ArithmeticError

    region = Region(0, -60, -60, 100, 100)
    with Painter(model, canvas_of(model), keep=0, on_patch=fail) as painter:
        with pytest.raises(ArithmeticError):
            list(painter.region(region))
        assert len(painter.pool) == 0
        painter.on_patch = lambda patch: None
        again = np.concatenate(list(painter.region(region)))
    np.testing.assert_array_equal(again, picture(model, canvas_of(model), region))


# What a painter refuses.


def test_painter_refuses_another_model(model: Checkpoint) -> None:
    canvas = replace(canvas_of(model), model="f" * 64)
    with pytest.raises(SpecMismatch, match=f"ffff.*{model.digest[:16]}"):
        Painter(model, canvas)


def test_painter_refuses_worlds_the_model_has_not(model: Checkpoint) -> None:
    with pytest.raises(NotFound, match="no world 'mars'"):
        Painter(model, replace(canvas_of(model), world="mars"))


@pytest.mark.parametrize(
    "extent", [Extent("plane", 2), Extent("scroll", 2, 1024), Extent("scroll", 3, 1408)]
)
def test_painter_refuses_extents_the_world_has_not(model: Checkpoint, extent: Extent) -> None:
    with pytest.raises(SpecMismatch, match="world scroll"):
        Painter(model, canvas_of(model, "scroll", extent=extent))


@pytest.mark.parametrize(
    "changes", [{"prompt": "sea"}, {"sampling": Sampling(negative_prompt="text")}]
)
def test_painter_refuses_words_the_model_did_not_learn(
    model: Checkpoint, changes: dict[str, Any]
) -> None:
    """It names a text encoder that is not the one installed."""
    other = replace(model, text_encoder="0" * 64)
    with pytest.raises(SpecMismatch, match="text encoder 0000"):
        Painter(other, canvas_of(model, **changes))


@pytest.mark.parametrize(
    ("world", "tile"),
    [("scroll", Tile(2, -2, 0)), ("scroll", Tile(0, 2, 0)), ("planet", Tile(3, 0, 0))],
)
def test_painter_refuses_tiles_outside_the_canvas(
    model: Checkpoint, world: str, tile: Tile
) -> None:
    with Painter(model, canvas_of(model, world)) as painter, pytest.raises(InvalidRequest):
        painter.tile(tile)


def test_painter_refuses_frames_the_canvas_has_not(model: Checkpoint) -> None:
    canvas = canvas_of(model, sampling=Sampling(group=256))
    with Painter(model, canvas) as painter, pytest.raises(InvalidRequest):
        painter.tile(Tile(0, 0, 0, frame=1))


def test_painter_honours_bfloat16(model: Checkpoint) -> None:
    region = Region(0, 0, 0, 40, 40)
    canvas = canvas_of(model, sampling=Sampling("bfloat16", group=64))
    found = picture(model, canvas, region)
    np.testing.assert_array_equal(found, picture(model, canvas, region))
    assert not np.array_equal(found, picture(model, canvas_of(model), region))


class Stopped(Exception):
    """Somebody stops the command."""


def test_what_was_drawn_before_a_stop_is_not_drawn_again(
    model: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A branch's patches and its parent's; but one that a power cut emptied is."""
    parent = canvas_of(model)
    branch = replace(parent, seed=8, branch=Branch(parent.id, 128, 128, 256, 256))
    drawn, most, draw = 0, 10**6, PatchSampler.draw

    def counted(self: PatchSampler, batch: list[Context]) -> list[tuple[Patch, Codes]]:
        nonlocal drawn
        if drawn == most:
            raise Stopped
        drawn += 1
        return draw(self, batch)

    def painted(folder: Path | None) -> Pixels:
        nonlocal drawn
        drawn = 0
        with (
            Painter(model, parent, drawn=folder) as below,
            Painter(model, branch, parent=below, drawn=folder) as painter,
        ):
            return np.concatenate(list(painter.region(Region(2, 0, 0, 512, 512))))

    monkeypatch.setattr(PatchSampler, "draw", counted)
    whole = painted(None)
    cost, most = drawn, 5
    with pytest.raises(Stopped):
        painted(tmp_path)
    most = 10**6
    np.testing.assert_array_equal(painted(tmp_path), whole)
    assert drawn == cost - 5
    next(tmp_path.glob("*/*.npy")).write_bytes(b"")
    np.testing.assert_array_equal(painted(tmp_path), whole)
    assert drawn == 1
    assert {one.name for one in tmp_path.iterdir()} == {parent.id, branch.id}
