"""The laws of tiles, streams and regions as they come over the wire."""

import asyncio
import io
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import aio
from PIL import Image

from handscroll.assemble import Pixels
from handscroll.canvas import Canvas
from handscroll.checkpoint import Checkpoint
from handscroll.errors import InvalidRequest, NotFound, Overloaded, SpecMismatch, Unavailable
from handscroll.geometry import Extent, Patch, Region, Tile, tile_to_xyz
from handscroll.paint import Painter
from handscroll_api.generator.v1 import generator_service_pb2 as generator_pb
from handscroll_api.tiler.v1 import tiler_service_pb2 as pb
from svckit import store as stores
from svckit.client import calling
from svckit.deadline import within
from svckit.keys import canvas_key, patch_key, tile_key
from svckit.server import started
from svckit.settings import ServiceSettings
from svckit.store import Store
from tests.tiler_svc.fakes import House, house, until

pytestmark = pytest.mark.anyio

PREFETCH = generator_pb.PRIORITY_PREFETCH


def address(tile: Tile) -> pb.TileAddress:
    x, y, z = tile_to_xyz(tile)
    return pb.TileAddress(x=x, y=y, z=z)


def wanted(canvas: Canvas, tile: Tile, **more: Any) -> pb.GetTileRequest:
    more = {"format": pb.IMAGE_FORMAT_PNG} | more
    return pb.GetTileRequest(canvas=canvas.id, tile=address(tile), frame=tile.frame, **more)


def rectangle(canvas: Canvas, first: Tile, last: Tile, **more: Any) -> pb.StreamTilesRequest:
    return pb.StreamTilesRequest(
        canvas=canvas.id, first=address(first), last=address(last), frame=first.frame, **more
    )


async def get(home: House, canvas: Canvas, tile: Tile, **more: Any) -> bytes:
    with calling("the tiler"):
        return (await home.tiles.GetTile(wanted(canvas, tile, **more))).image


async def stream(home: House, request: pb.StreamTilesRequest) -> list[pb.StreamTilesResponse]:
    with calling("the tiler"):
        return [answer async for answer in home.tiles.StreamTiles(request)]


async def region(home: House, canvas: Canvas, wanted: Region) -> Pixels:
    request = pb.RenderRegionRequest(
        canvas=canvas.id,
        level=wanted.level,
        frame=wanted.frame,
        top_px=wanted.top,
        left_px=wanted.left,
        height_px=wanted.height,
        width_px=wanted.width,
    )
    parts: list[Pixels] = []
    with calling("the tiler"):
        async for strip in home.tiles.RenderRegion(request):
            assert strip.top_px == sum(map(len, parts))
            assert strip.ByteSize() < 4 * 2**20
            rows = np.frombuffer(strip.rgb, np.uint8)
            parts.append(rows.reshape(strip.height_px, wanted.width, 3))
    return np.concatenate(parts)


def pixels(file: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(file)))


async def test_tiles_that_are_looked_at_are_kept(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read of the store is written again once it is old."""
    canvas, tile = await home.canvas(), Tile(0, 0, 0)
    image = await get(home, canvas, tile)
    kept = list[str]()
    monkeypatch.setattr(stores, "RENEWED_AFTER", timedelta(days=-1))
    monkeypatch.setattr(Store, "_renew", lambda _, key, value: kept.append(key))
    assert await get(home, canvas, tile) == image
    key = tile_key(canvas.id, tile, "png")
    assert kept == [key]
    request = rectangle(canvas, tile, tile, format=pb.IMAGE_FORMAT_PNG)
    assert [answer.image for answer in await stream(home, request)] == [image]
    assert kept == [key, key]


@pytest.mark.parametrize(
    ("world", "tile"),
    [("planet", Tile(0, -1, 3)), ("planet", Tile(1, 2, -4)), ("scroll", Tile(1, 0, 5))],
)
async def test_tile_is_what_a_painter_paints(
    model: Checkpoint, tmp_path: Path, world: str, tile: Tile
) -> None:
    """Byte for byte, through three services."""
    async with house(model, tmp_path, paint=True) as home:
        canvas = await home.canvas(world)
        found = pixels(await get(home, canvas, tile))
    with Painter(model, canvas) as painter:
        np.testing.assert_array_equal(found, painter.tile(tile), strict=True)


async def test_region_is_what_a_painter_paints(model: Checkpoint, tmp_path: Path) -> None:
    """Across borders of tiles and patches, and at a scroll's lower edge."""
    async with house(model, tmp_path, paint=True) as home:
        for world, wanted in (
            ("planet", Region(0, -250, 60, 400, 300)),
            ("scroll", Region(1, 200, -33, 152, 130)),
        ):
            canvas = await home.canvas(world)
            found = await region(home, canvas, wanted)
            with Painter(model, canvas) as painter:
                expected = np.concatenate(list(painter.region(wanted)))
            np.testing.assert_array_equal(found, expected, strict=True)


async def test_region_is_what_its_tiles_show(home: House) -> None:
    canvas = await home.canvas()
    whole = await region(home, canvas, Region(2, 340 - 256, 340, 512, 256))
    for row, tile in enumerate((Tile(2, -1, 0), Tile(2, 0, 0))):
        shown = pixels(await get(home, canvas, tile))
        np.testing.assert_array_equal(whole[256 * row : 256 * row + 256], shown, strict=True)


async def test_wide_region_comes_in_messages_below_the_limit(home: House) -> None:
    """A row of tiles of this width would be 12 MiB; `region` looks at the size of each message."""
    canvas = await home.canvas("scroll")
    found = await region(home, canvas, Region(0, 3, 5, 90, 16384))
    assert found.shape == (90, 16384, 3)


async def test_twenty_who_ask_at_once_share_one_job(home: House) -> None:
    canvas = await home.canvas()
    images = await asyncio.gather(*(get(home, canvas, Tile(0, 0, 0)) for _ in range(20)))
    assert len(set(images)) == 1
    assert len(home.generator.requests) == home.tokenizer.decoded == 1


async def test_tile_is_painted_once_and_then_served_from_the_store(home: House) -> None:
    canvas, tile = await home.canvas(), Tile(1, 3, 4)
    first = await get(home, canvas, tile)
    assert await home.store.get(tile_key(canvas.id, tile, "png")) == first
    assert await get(home, canvas, tile) == first
    assert home.tokenizer.decoded == 1
    # Tiles are a cache: dropped, they come back the same, and no patch is drawn again.
    await home.store.delete(tile_key(canvas.id, tile, "png"))
    assert await get(home, canvas, tile) == first
    assert len(home.generator.requests) == 1


async def test_tile_that_another_committed_first_is_adopted(home: House) -> None:
    canvas, tile = await home.canvas(), Tile(1, 3, 4)
    home.generator.go.clear()
    asked = asyncio.create_task(get(home, canvas, tile))
    await until(lambda: bool(home.generator.requests))
    await home.store.create(tile_key(canvas.id, tile, "png"), b"the winner's")
    home.generator.go.set()
    assert await asked == b"the winner's"


async def test_only_missing_patches_are_asked_for(home: House) -> None:
    canvas = await home.canvas()
    await get(home, canvas, Tile(0, 0, 0))
    await get(home, canvas, Tile(0, 0, 1))
    first, second = ([tuple(p.ListFields()) for p in r.patches] for r in home.generator.requests)
    assert len(first) == 4 and len(second) == 2


async def test_last_one_to_leave_stops_the_work_and_the_first_does_not(home: House) -> None:
    canvas = await home.canvas()
    home.generator.go.clear()
    one, two = (home.tiles.GetTile(wanted(canvas, Tile(0, 0, 0))) for _ in range(2))
    waits = [asyncio.ensure_future(call) for call in (one, two)]
    await until(lambda: bool(home.generator.requests))
    one.cancel()
    await asyncio.sleep(0.1)
    assert not home.generator.left
    two.cancel()
    await until(lambda: home.generator.left == 1)
    await asyncio.gather(*waits, return_exceptions=True)
    # Who comes later begins anew.
    home.generator.go.set()
    assert await get(home, canvas, Tile(0, 0, 0))
    assert len(home.generator.requests) == 2


async def test_first_to_leave_takes_nothing_from_the_second(home: House) -> None:
    """The job has a deadline and a request id of its own."""
    canvas = await home.canvas()
    home.generator.go.clear()
    request = wanted(canvas, Tile(0, 0, 0))
    hasty = home.tiles.GetTile(request, timeout=0.5, metadata=[("x-request-id", "hasty")])
    await until(lambda: bool(home.generator.requests))
    patient = asyncio.create_task(get(home, canvas, Tile(0, 0, 0)))
    with pytest.raises(aio.AioRpcError) as failure:
        await hasty
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    home.generator.go.set()
    assert await patient
    assert len(home.generator.requests) == 1
    assert home.generator.deadlines[0] > 500
    assert home.generator.metadata[0]["x-request-id"] != "hasty"


async def test_prefetch_is_hurried_when_somebody_looks(home: House) -> None:
    canvas, tile = await home.canvas(), Tile(0, 0, 0)
    home.generator.go.clear()
    early = asyncio.create_task(get(home, canvas, tile, priority=PREFETCH))
    await until(lambda: len(home.generator.requests) == 1)
    late = asyncio.create_task(get(home, canvas, tile))
    await until(lambda: len(home.generator.requests) == 2)
    home.generator.go.set()
    assert await early == await late
    priorities = [request.priority for request in home.generator.requests]
    assert priorities == [PREFETCH, generator_pb.PRIORITY_VIEWPORT]
    assert home.tokenizer.decoded == 1


@pytest.mark.parametrize("number", [0, 1])
async def test_peer_that_dies_at_work_and_comes_back_is_asked_again(
    home: House, number: int
) -> None:
    canvas, peer = await home.canvas(), (home.generator, home.tokenizer)[number]
    peer.go.clear()
    asked = asyncio.create_task(get(home, canvas, Tile(0, 0, 0)))
    await until(lambda: bool((home.generator.requests, home.tokenizer.decoding)[number]))
    await home.servers[number].aclose()
    await asyncio.sleep(0.3)
    assert not asked.done()
    peer.go.set()
    settings = ServiceSettings(port=home.ports[number], drain_s=0)
    async with started([peer.servicer()], settings):
        assert await asked


@pytest.mark.parametrize("peer", ["generator", "tokenizer"])
async def test_who_has_too_much_to_do_is_not_asked_again(home: House, peer: str) -> None:
    canvas = await home.canvas()
    getattr(home, peer).failures.append(Overloaded("busy", retry_after_s=7))
    with pytest.raises(Overloaded, match="busy") as failure:
        await get(home, canvas, Tile(0, 0, 0))
    assert failure.value.retry_after_s == 7
    assert await get(home, canvas, Tile(0, 0, 0))


async def test_peer_that_says_it_cannot_is_believed(home: House) -> None:
    """Either side of the tiler, gRPC itself asks four times, and that is all."""
    canvas = await home.canvas()
    home.generator.failures += 99 * [Unavailable("no painter")]
    with pytest.raises(Unavailable, match="no painter"):
        await get(home, canvas, Tile(0, 0, 0))
    assert len(home.generator.requests) <= 16


async def test_stream_brings_each_tile_once_and_what_is_there_first(home: House) -> None:
    canvas = await home.canvas()
    there = {Tile(1, -2, 5), Tile(1, 1, 2)}
    for tile in there:
        await get(home, canvas, tile, format=pb.IMAGE_FORMAT_WEBP)
    before = len(home.generator.requests)
    answers = await stream(home, rectangle(canvas, Tile(1, -2, 2), Tile(1, 1, 5)))
    found = [(answer.tile.x, answer.tile.y, answer.tile.z) for answer in answers]
    assert len(set(found)) == 16
    assert set(found[:2]) == {tile_to_xyz(tile) for tile in there}
    assert [answer.ready for answer in answers] == list(range(1, 17))
    assert {answer.total for answer in answers} == {16}
    assert len(home.generator.requests) == before + 1
    for answer, place in zip(answers, found, strict=True):
        request = pb.GetTileRequest(canvas=canvas.id, tile=answer.tile)
        assert (await home.tiles.GetTile(request)).image == answer.image, place
    assert home.tokenizer.decoded == 16


async def test_stream_asks_for_patches_from_the_middle_outwards(home: House) -> None:
    canvas = await home.canvas()
    await stream(home, rectangle(canvas, Tile(1, 0, 0), Tile(1, 4, 4), names_only=True))
    [request] = home.generator.requests
    middle = [(patch.row, patch.col) for patch in request.patches][:4]
    # Level 1 is shifted by 170 px: the tile in the middle lies on patches 2 and 3.
    assert sorted(middle) == [(2, 2), (2, 3), (3, 2), (3, 3)]


async def test_stream_of_names_leaves_pictures_out_but_paints_them(home: House) -> None:
    canvas = await home.canvas()
    request = rectangle(canvas, Tile(0, 0, 0), Tile(0, 0, 1), names_only=True)
    assert [answer.image for answer in await stream(home, request)] == [b"", b""]
    for col in (0, 1):
        assert await home.store.get(tile_key(canvas.id, Tile(0, 0, col), "webp"))


async def test_stream_leaves_out_what_lies_outside(home: House) -> None:
    canvas = await home.canvas("scroll")
    answers = await stream(home, rectangle(canvas, Tile(1, -1, 0), Tile(1, 3, 1)))
    half = 2**14
    assert {(one.tile.y, one.tile.x) for one in answers} == {
        (half + row, half + col) for row in (0, 1) for col in (0, 1)
    }
    assert {one.total for one in answers} == {4}
    assert await stream(home, rectangle(canvas, Tile(5, 0, 0), Tile(5, 1, 1))) == []


async def test_stream_that_is_left_stops_its_work_but_not_that_of_others(home: House) -> None:
    canvas = await home.canvas()
    home.generator.go.clear()
    call = home.tiles.StreamTiles(rectangle(canvas, Tile(0, 0, 0), Tile(0, 3, 3)))
    reading = asyncio.create_task(call.read())
    await until(lambda: len(home.generator.requests) == 1)
    other = asyncio.create_task(get(home, canvas, Tile(0, 0, 0)))
    await until(lambda: len(home.generator.requests) == 2)
    call.cancel()
    await until(lambda: home.generator.left == 1)
    home.generator.go.set()
    assert await other
    assert home.generator.left == 1 and home.tokenizer.decoded == 1
    await asyncio.gather(reading, return_exceptions=True)


async def test_stream_decodes_no_more_at_once_than_it_may(
    model: Checkpoint, tmp_path: Path
) -> None:
    async with house(model, tmp_path, decodes=3) as home:
        canvas = await home.canvas()
        await stream(home, rectangle(canvas, Tile(0, 0, 0), Tile(0, 3, 3), names_only=True))
        assert home.tokenizer.most_at_once <= 3


async def test_failure_in_a_stream_ends_it(home: House) -> None:
    canvas = await home.canvas()
    home.tokenizer.failures.append(Overloaded("busy"))
    with pytest.raises(Overloaded, match="busy"):
        await stream(home, rectangle(canvas, Tile(0, 0, 0), Tile(0, 3, 3)))


async def test_pixels_outside_are_transparent_and_in_jpeg_white(home: House) -> None:
    canvas, tile = await home.canvas("scroll"), Tile(1, 1, 0)
    edge = 352 - 256
    shown = await region(home, canvas, Region(1, 256, 170, edge, 256))
    png = pixels(await get(home, canvas, tile))
    np.testing.assert_array_equal(png[:edge, :, :3], shown)
    for format in (pb.IMAGE_FORMAT_PNG, pb.IMAGE_FORMAT_WEBP):
        alpha = pixels(await get(home, canvas, tile, format=format))[..., 3]
        assert (alpha[:edge] == 255).all() and (alpha[edge:] == 0).all()
    jpeg = pixels(await get(home, canvas, tile, format=pb.IMAGE_FORMAT_JPEG))
    assert jpeg.shape == (256, 256, 3) and (jpeg[edge + 8 :] > 250).all()
    whole = pixels(await get(home, canvas, Tile(1, 0, 0)))
    assert whole.shape == (256, 256, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tile": pb.TileAddress(z=13)}, "zoom must be 14 to 20, not 13"),
        ({"tile": pb.TileAddress(z=14, x=2**14)}, "x and y must be 0 to 16383"),
        ({"tile": None}, "zoom"),
        ({"frame": 1}, "frame must be 0 to 0, not 1"),
        ({"format": 9}, "format must be 0 to 3, not 9"),
        ({"canvas": "../../etc/passwd"}, "a canvas id must be 64 characters"),
        ({"canvas": "A" * 64}, "a canvas id must be 64 characters"),
    ],
)
async def test_tile_that_cannot_be_is_refused(
    home: House, change: dict[str, Any], message: str
) -> None:
    canvas = await home.canvas()
    request: dict[str, Any] = {"canvas": canvas.id, "tile": address(Tile(0, 0, 0))} | change
    with pytest.raises(InvalidRequest, match=message), calling("the tiler"):
        await home.tiles.GetTile(pb.GetTileRequest(**request))


@pytest.mark.parametrize("tile", [Tile(1, 2, 0), Tile(0, -1, 0), Tile(3, 0, 0)])
async def test_tile_outside_the_canvas_is_not_found(home: House, tile: Tile) -> None:
    with pytest.raises(NotFound, match="outside this scroll"):
        await get(home, await home.canvas("scroll"), tile)


async def test_canvas_that_nobody_made_is_not_found(home: House) -> None:
    canvas = Canvas(home.model.digest, "planet", 1, Extent("plane", 0))
    with pytest.raises(NotFound, match=canvas.id):
        await get(home, canvas, Tile(0, 0, 0))
    with pytest.raises(NotFound, match=canvas.id):
        await stream(home, rectangle(canvas, Tile(0, 0, 0), Tile(0, 0, 0)))
    with pytest.raises(NotFound, match=canvas.id):
        await region(home, canvas, Region(0, 0, 0, 1, 1))


async def test_tile_of_a_model_not_served_is_shown_only_if_it_is_there(home: House) -> None:
    canvas = Canvas("f" * 64, "planet", 1, Extent("plane", 0))
    await home.store.create(canvas_key(canvas.id), canvas.canonical())
    with pytest.raises(SpecMismatch, match="painted by model ffffffffffffffff…; served"):
        await get(home, canvas, Tile(0, 0, 0))
    await home.store.create(tile_key(canvas.id, Tile(0, 0, 0), "png"), b"old")
    assert await get(home, canvas, Tile(0, 0, 0)) == b"old"


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        (Tile(0, 0, 1), Tile(0, 0, 0), "first must lie neither"),
        (Tile(0, 1, 0), Tile(0, 0, 0), "first must lie neither"),
        (Tile(0, 0, 0), Tile(1, 0, 0), "same zoom"),
        (Tile(0, 0, 0), Tile(0, 0, 256), "256 tiles, not 1 x 257"),
    ],
)
async def test_rectangle_that_cannot_be_is_refused(
    home: House, first: Tile, last: Tile, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        await stream(home, rectangle(await home.canvas(), first, last))


@pytest.mark.parametrize(
    ("wanted", "kind", "message"),
    [
        (Region(0, 0, 0, 0, 5), InvalidRequest, "empty"),
        (Region(0, 0, 0, 8_000_000, 1), InvalidRequest, "may touch 2048 tiles"),
        (Region(0, 0, 0, 1, 16385), InvalidRequest, "16384 px wide"),
        (Region(0, 0, 0, 4097, 16384), InvalidRequest, "67108864 pixels"),
        (Region(0, 0, 2**40, 1, 1), InvalidRequest, "outside the world"),
        (Region(0, 0, -(2**62), 1, 1), InvalidRequest, "outside the world"),
        (Region(1, 300, 0, 53, 1), NotFound, "300 px to 353 px, where it has 352 px at level 1"),
        (Region(1, -1, 0, 2, 1), NotFound, "beyond the canvas"),
        (Region(3, 0, 0, 1, 1), NotFound, "levels 0 to 2, not 3"),
        (Region(0, 0, 0, 1, 1, 1), InvalidRequest, "frame must be 0 to 0"),
    ],
)
async def test_region_that_cannot_be_is_refused(
    home: House, wanted: Region, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        await region(home, await home.canvas("scroll"), wanted)


async def test_time_left_reaches_the_generator(home: House) -> None:
    canvas = await home.canvas()
    with within(20):
        await region(home, canvas, Region(0, 0, 0, 1, 1))
    assert 10 < home.generator.deadlines[0] <= 20


def test_tiler_runs_without_torch() -> None:
    program = "import sys, tiler_svc.service as s; assert not {'torch', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


# What a power cut leaves.


async def test_patch_and_tile_cut_short_are_made_again(home: House) -> None:
    canvas, tile = await home.canvas(), Tile(0, 2, 3)
    right = await get(home, canvas, tile)
    for patch in (Patch(0, 0, 2, 3), Patch(0, 0, 3, 4)):
        key = patch_key(canvas.id, patch)
        await home.store.delete(key)
        await home.store.create(key, b"stub")
    key = tile_key(canvas.id, tile, "png")
    await home.store.delete(key)
    await home.store.create(key, b"")
    before = len(home.generator.requests)
    assert await get(home, canvas, tile) == right == await home.store.get(key)
    asked = {(one.row, one.col) for one in home.generator.requests[before].patches}
    assert asked == {(2, 3), (3, 4)}
    await home.store.delete(key)
    await home.store.create(key, b"")
    (one,) = await stream(home, rectangle(canvas, tile, tile, format=pb.IMAGE_FORMAT_PNG))
    assert one.image == right
