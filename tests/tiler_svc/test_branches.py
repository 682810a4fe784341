"""The laws of branches in the tiler: what the algorithm alone paints, and what is shared found."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from handscroll.assemble import Pixels
from handscroll.branch import Lineage, shows_branch
from handscroll.canvas import Branch, Canvas, Known
from handscroll.checkpoint import Checkpoint
from handscroll.errors import Forbidden, InvalidRequest
from handscroll.geometry import Region, Tile, tile_to_xyz, window_patches
from handscroll.known import digest_of
from handscroll.paint import Painter
from handscroll.picture import to_png
from handscroll.tokenizer import RADIUS_TOK
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from svckit.client import connect
from svckit.keys import patch_key, patches_prefix, picture_key, tile_key, tiles_prefix
from tests.tiler_svc.fakes import House, house
from tests.tiler_svc.test_admission import ask, draw, keyed, make_key
from tiler_svc.peers import Tokenizer
from tiler_svc.pictures import Pictures

pytestmark = pytest.mark.anyio

PIXELS = np.random.default_rng(8).integers(0, 256, (200, 400, 3), np.uint8)
RECTANGLE = (-64, 64, 192, 256)
SHARED, CHANGED = Tile(2, -2, -4), Tile(2, -1, -1)


async def family(home: House, **changes: Any) -> tuple[Canvas, Canvas]:
    """A canvas and its branch."""
    parent = await home.canvas(**changes)
    branch = Branch(parent.id, *RECTANGLE)
    child = await home.canvas(seed=8, frames=parent.frames, branch=branch)
    return parent, child


async def tile_of(home: House, canvas: Canvas, tile: Tile) -> bytes:
    """A tile as PNG."""
    x, y, z = tile_to_xyz(tile)
    address = tiler_pb.TileAddress(x=x, y=y, z=z)
    request = tiler_pb.GetTileRequest(
        canvas=canvas.id, tile=address, format=tiler_pb.IMAGE_FORMAT_PNG, frame=tile.frame
    )
    return (await home.tiles.GetTile(request)).image


def seen(image: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


async def count(home: House, prefix: Any) -> int:
    return len([key async for key in home.store.keys(prefix)])


@pytest.mark.parametrize(("around", "frame"), [(False, 0), (True, 0), (True, 1)])
async def test_a_branch_is_painted_as_the_algorithm_alone_does(
    model: Checkpoint, tmp_path: Path, around: bool, frame: int
) -> None:
    """With a picture that the parent is painted around too: it stays outside the rectangle."""
    known = Known(digest_of(PIXELS), 0, 128, 200, 400) if around else None
    async with house(model, tmp_path, paint=True) as home:
        await home.store.create(picture_key(digest_of(PIXELS)), to_png(PIXELS))
        parent, child = await family(home, known=known, frames=frame + 1)
        if around:
            async with connect(f"127.0.0.1:{home.ports[1]}") as channel:
                await Pictures(home.store, Tokenizer(channel)).encode(parent, home.model)
        with (
            Painter(model, parent, picture=PIXELS if around else None) as before,
            Painter(model, child, parent=before) as painter,
        ):
            for shown_at in (CHANGED, SHARED, Tile(2, -1, 0), Tile(0, -1, -1)):
                tile = shown_at._replace(frame=frame)
                found = seen(await tile_of(home, child, tile))
                np.testing.assert_array_equal(found, painter.tile(tile))
            shown = Region(2, 0, 84, 200, 256, frame)
            strips = [
                np.frombuffer(one.rgb, np.uint8).reshape(one.height_px, 256, 3)
                async for one in home.tiles.RenderRegion(
                    tiler_pb.RenderRegionRequest(
                        canvas=child.id,
                        level=2,
                        frame=frame,
                        left_px=84,
                        height_px=200,
                        width_px=256,
                    )
                )
            ]
            np.testing.assert_array_equal(
                np.concatenate(strips), np.concatenate(list(painter.region(shown)))
            )


async def test_branches_with_and_without_pictures_of_their_own_are_painted_so_too(
    model: Checkpoint, tmp_path: Path
) -> None:
    """Outside its rectangle, and that of its child, is what its parent shows, of other detail."""
    pixels, tile = PIXELS[:128, :128], Tile(2, -1, -1)
    known = Known(digest_of(pixels), 0, 128, 128, 128)
    async with house(model, tmp_path, paint=True) as home:
        await home.store.create(picture_key(known.picture), to_png(pixels))
        parent, _ = await family(home)
        with_one = await home.canvas(seed=8, branch=Branch(parent.id, *RECTANGLE), known=known)
        without = await home.canvas(seed=9, branch=Branch(with_one.id, 64, 192, 64, 128))
        async with connect(f"127.0.0.1:{home.ports[1]}") as channel:
            await Pictures(home.store, Tokenizer(channel)).encode(with_one, home.model)
        with (
            Painter(model, parent) as first,
            Painter(model, with_one, picture=pixels, parent=first) as second,
            Painter(model, without, parent=second) as third,
        ):
            shown = [second.tile(tile), third.tile(tile)]
            assert (shown[0] != first.tile(tile)).any() and (shown[0] != shown[1]).any()
            for canvas, wanted in zip((with_one, without), shown, strict=True):
                np.testing.assert_array_equal(seen(await tile_of(home, canvas, tile)), wanted)


async def test_what_a_branch_shares_is_found_with_its_parent_and_kept_there(home: House) -> None:
    parent, child = await family(home)
    assert not shows_branch(child, SHARED) and shows_branch(child, CHANGED)
    first = await tile_of(home, parent, SHARED)
    asked = len(home.generator.requests)
    assert await tile_of(home, child, SHARED) == first
    assert len(home.generator.requests) == asked
    (x1, y1, z), (x2, y2, _) = tile_to_xyz(SHARED), tile_to_xyz(CHANGED)
    stream = home.tiles.StreamTiles(
        tiler_pb.StreamTilesRequest(
            canvas=child.id,
            first=tiler_pb.TileAddress(x=x1, y=y1, z=z),
            last=tiler_pb.TileAddress(x=x2, y=y2, z=z),
            format=tiler_pb.IMAGE_FORMAT_PNG,
        )
    )
    images = {(one.tile.x, one.tile.y): one.image async for one in stream}
    assert len(images) == 8 and images[x1, y1] == first
    own = [
        Tile(2, row, col)
        for row in (-2, -1)
        for col in range(-4, 0)
        if shows_branch(child, Tile(2, row, col))
    ]
    assert await count(home, tiles_prefix(child.id)) == len(own) < 8
    for tile in own:
        assert await home.store.get(tile_key(child.id, tile, "png"))
    place = Lineage.of([child, parent], 16).place
    assert place is not None
    under = {
        patch
        for row in (-2, -1)
        for col in range(-4, 0)
        for patch in window_patches(Tile(2, row, col), child.extent, 16, RADIUS_TOK)
    }
    touched = [patch for patch in under if place.touches(patch)]
    assert 0 < len(touched) < len(under)
    assert await count(home, patches_prefix(child.id)) == len(touched)
    for patch in touched:
        assert await home.store.get(patch_key(child.id, patch))


async def test_of_a_film_a_branch_shares_the_tiles_of_every_frame(home: House) -> None:
    parent, child = await family(home, frames=3)
    for frame in range(3):
        shared, changed = (one._replace(frame=frame) for one in (SHARED, CHANGED))
        assert await tile_of(home, child, shared) == await tile_of(home, parent, shared)
        assert await tile_of(home, child, changed) != await tile_of(home, parent, changed)
        assert not await home.store.get(tile_key(child.id, shared, "png"))
        assert await home.store.get(tile_key(child.id, changed, "png"))


async def test_a_reader_sees_what_is_there_of_a_branch_and_its_parent(
    model: Checkpoint, tmp_path: Path
) -> None:
    reader = make_key(tmp_path, "read")
    async with keyed(model, tmp_path) as home:
        parent, child = await family(home)
        await draw(home, parent, SHARED)
        await ask(home, child, SHARED, reader)
        with pytest.raises(Forbidden):
            await ask(home, child, CHANGED, reader)


async def test_a_branch_costs_what_is_missing_of_it_and_its_parent(
    model: Checkpoint, tmp_path: Path
) -> None:
    parent = Canvas(model.digest, "planet", 7, model.worlds["planet"].extent)
    child = replace(parent, branch=Branch(parent.id, *RECTANGLE))
    under = window_patches(CHANGED, child.extent, 16, RADIUS_TOK)
    cost = len(Lineage.of([child, parent], 16).cone(under))
    poor, rich = (make_key(tmp_path, patches_per_minute=cost - less) for less in (3, 2))
    async with keyed(model, tmp_path) as home:
        parent, child = await family(home)
        cone = Lineage.of([child, parent], 16).cone(under)
        for one in (min(cone), max(cone)):
            await home.store.create(patch_key(*one), bytes(1024))
        with pytest.raises(InvalidRequest, match=f"this takes {cost - 2}"):
            await ask(home, child, CHANGED, poor)
        await ask(home, child, CHANGED, rich)
