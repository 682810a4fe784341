"""The laws of pictures that canvases are painted around: taken as they are, and seen untouched."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from handscroll.assemble import Pixels
from handscroll.branch import NEAR_KNOWN_PX
from handscroll.canvas import Canvas, Known
from handscroll.checkpoint import Checkpoint
from handscroll.context import Codes
from handscroll.detail import STEP_PX, Pieces
from handscroll.errors import InvalidRequest, NotFound, Overloaded
from handscroll.geometry import TILE_PX, Tile, tile_to_xyz
from handscroll.known import KnownPixels, digest_of
from handscroll.paint import Painter
from handscroll.picture import MAX_FILE_BYTES
from handscroll.view import Tokens, View
from handscroll_api.canvas.v1 import canvas_service_pb2 as pb
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from svckit import wire
from svckit.client import calling
from svckit.keys import Prefix, known_key, picture_key
from svckit.known import load_pixels, load_tokens
from svckit.store import Store
from svckit.wire import Model
from tests.tiler_svc.fakes import House, house
from tiler_svc import pictures
from tiler_svc.pictures import Pictures
from tokenizer_svc.engine import Engine

pytestmark = pytest.mark.anyio

PIXELS = np.random.default_rng(8).integers(0, 256, (200, 400, 3), np.uint8)
PIECE = 10_000


def png(pixels: Pixels) -> bytes:
    """A file."""
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


async def upload(home: House, content: bytes) -> pb.UploadPictureResponse:
    """Send a file in pieces."""

    async def pieces() -> AsyncIterator[pb.UploadPictureRequest]:
        for start in range(0, len(content), PIECE):
            yield pb.UploadPictureRequest(content=content[start : start + PIECE])

    with calling("the tiler"):
        return await home.canvases.UploadPicture(pieces())


async def create(home: House, **known: Any) -> Canvas:
    """A canvas around a picture."""
    request = pb.CreateCanvasRequest(world="planet", seed=4, known=pb.Known(**known))
    with calling("the tiler"):
        return wire.canvas_from_pb((await home.canvases.CreateCanvas(request)).canvas)


async def keys(home: House, prefix: str) -> list[str]:
    """What the store holds."""
    return [key async for key in home.store.keys(Prefix(prefix))]


async def test_a_canvas_is_painted_around_a_picture(model: Checkpoint, tmp_path: Path) -> None:
    """The tiles are those that the algorithm alone paints, the picture's own pixels in them."""
    async with house(model, tmp_path, paint=True) as home:
        told = await upload(home, png(PIXELS))
        assert (told.picture, told.height_px, told.width_px) == (digest_of(PIXELS), 200, 400)
        canvas = await create(home, picture=told.picture, top_px=256, left_px=384)
        assert canvas.known == Known(told.picture, 256, 384, 200, 400)
        whole = await create(
            home, picture=told.picture, top_px=256, left_px=384, height_px=200, width_px=400
        )
        assert whole.id == canvas.id
        for tile in (Tile(2, 0, 0), Tile(2, 0, 1), Tile(0, 0, 0)):
            x, y, z = tile_to_xyz(tile)
            reply = await home.tiles.GetTile(
                tiler_pb.GetTileRequest(
                    canvas=canvas.id,
                    tile=tiler_pb.TileAddress(x=x, y=y, z=z),
                    format=tiler_pb.IMAGE_FORMAT_PNG,
                )
            )
            found = np.asarray(Image.open(io.BytesIO(reply.image)).convert("RGB"))
            with Painter(model, canvas, picture=PIXELS) as painter:
                np.testing.assert_array_equal(found, painter.tile(tile))
        x, y, z = tile_to_xyz(Tile(2, 0, 0))  # begins at pixel 340
        reply = await home.tiles.GetTile(
            tiler_pb.GetTileRequest(
                canvas=canvas.id,
                tile=tiler_pb.TileAddress(x=x, y=y, z=z),
                format=tiler_pb.IMAGE_FORMAT_PNG,
            )
        )
        found = np.asarray(Image.open(io.BytesIO(reply.image)).convert("RGB"))
        np.testing.assert_array_equal(found[: 456 - 340, 44:], PIXELS[340 - 256 :, : 256 - 44])


async def test_the_same_pixels_are_kept_once(home: House) -> None:
    first = await upload(home, png(PIXELS))
    held = io.BytesIO()
    Image.fromarray(PIXELS).save(held, "WEBP", lossless=True)
    assert await upload(home, held.getvalue()) == first
    assert await keys(home, "pictures/") == [f"pictures/{first.picture}.png"]


async def test_what_a_power_cut_has_cut_short_is_whole_again(home: House) -> None:
    """Uploaded again, and made again."""
    told = await upload(home, png(PIXELS))
    picture = picture_key(told.picture)
    whole = await home.store.get(picture)
    assert whole is not None
    place = {"picture": told.picture, "top_px": 256, "left_px": 384}
    canvas = await create(home, **place)
    tokens = known_key(home.model.digest, told.picture, 2)
    encoded = await home.store.get(tokens)
    assert encoded is not None
    for key, content, mend in (
        (picture, whole, lambda: upload(home, png(PIXELS))),
        (tokens, encoded, lambda: create(home, **place)),
    ):
        for cut in (0, len(content) // 2):
            await home.store.delete(key)
            await home.store.create(key, content[:cut])
            await mend()
            assert await home.store.get(key) == content
    assert await load_tokens(home.store, canvas, home.model)


async def test_a_picture_is_read_once_and_decoded_once_at_each_level(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await upload(home, png(PIXELS))
    canvas = await create(home, picture=told.picture, top_px=256, left_px=384)
    reads, decoded, refused = list[str](), list[tuple[int, int]](), list[str]()

    async def counted(store: Store, canvas: Canvas, model: Model) -> KnownPixels:
        reads.append(canvas.id)
        await asyncio.sleep(0.05)
        return await load_pixels(store, canvas, model)

    class Grey:
        """A tokenizer of which all that is decoded is grey; at first it has too much to do."""

        async def pieces(self, model: Model, world: str, level: int) -> None:
            raise AssertionError("nobody needs those of the world beside a picture")

        async def decode(self, model: str, tokens: Tokens) -> Pixels:
            if not decoded and not refused:
                refused.append("once")
                raise Overloaded("too much to do", 0.01)
            decoded.append((tokens.height_px, tokens.width_px))
            await asyncio.sleep(0.05)
            return np.full((*decoded[-1], 3), 128, np.uint8)

    monkeypatch.setattr(pictures, "load_pixels", counted)
    kept = Pictures(home.store, Grey())  # type: ignore[arg-type]
    grey = np.full((TILE_PX + 2 * NEAR_KNOWN_PX,) * 2 + (3,), 128, np.uint8)

    async def shown(tile: Tile) -> Pixels:
        view = View(tile, canvas.extent, home.model.side_tok, home.model.radius_tok, NEAR_KNOWN_PX)
        return await kept.shown([canvas], home.model, view, [grey] * len(view.looks))

    places = [(2, 0, 0, 0), (2, 0, 0, 1), (2, 0, 1, 0), (2, 0, 10**5, 0)]
    for one in await asyncio.gather(*(shown(Tile(*place)) for place in places)):
        assert one.any() and (one != grey).any()
    assert len(reads) == 1 and decoded == [(192, 400)]
    await shown(Tile(1, 0, 10**5))
    await shown(Tile(1, 0, 0))
    assert len(reads) == 1 and decoded[1:] == [(96, 192)]
    await kept.close()


async def test_pieces_of_a_world_are_asked_for_once_at_each_level(
    home: House, model: Checkpoint
) -> None:
    """However many wait; also if there are none."""
    canvas, asked = await home.canvas(), list[tuple[str, int]]()

    class Slow:
        """A tokenizer that knows pieces of level 2 alone."""

        async def pieces(self, model_: Model, world: str, level: int) -> Pieces | None:
            asked.append((world, level))
            await asyncio.sleep(0.05)
            return model.world(world).pieces[2] if level == 2 else None

    kept = Pictures(home.store, Slow())  # type: ignore[arg-type]
    grey = np.full((TILE_PX + 2 * STEP_PX,) * 2 + (3,), 128, np.uint8)

    async def shown(level: int) -> Pixels:
        tile = Tile(level, 0, 0)
        view = View(tile, canvas.extent, home.model.side_tok, home.model.radius_tok, STEP_PX)
        return await kept.shown([canvas], home.model, view, [grey])

    for _ in range(2):
        *finer, coarse = await asyncio.gather(*(shown(level) for level in (2, 2, 2, 1)))
        np.testing.assert_array_equal(coarse, grey)
        assert all((one != grey).any() for one in finer)
    assert sorted(asked) == [("planet", 1), ("planet", 2)]
    await kept.close()


async def test_a_tokenizer_with_too_much_to_do_is_waited_for(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One window that is refused does not cost all the others."""
    told, encode = await upload(home, png(PIXELS)), Engine.encode
    refused = 0

    async def busy(engine: Engine, model: str, height: int, width: int, rgb: bytes) -> Codes:
        nonlocal refused
        if refused < 3:
            refused += 1
            raise Overloaded("too much to do", 0.01)
        return await encode(engine, model, height, width, rgb)

    monkeypatch.setattr(Engine, "encode", busy)
    canvas = await create(home, picture=told.picture, top_px=256, left_px=384)
    assert refused == 3
    assert await load_tokens(home.store, canvas, home.model)


async def test_more_pictures_at_a_time_are_refused(home: House) -> None:
    kept = Pictures(home.store, home.tokenizer)  # type: ignore[arg-type]
    async with kept.room(), kept.room():
        with pytest.raises(Overloaded, match="2 pictures are being taken in here already"):
            async with kept.room():
                pass
    async with kept.room():
        pass


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "this is none"),
        (b"<svg/>", "this is none"),
        (png(PIXELS)[:-9000], "cannot be read"),
        (bytes(MAX_FILE_BYTES + 1), f"may have {MAX_FILE_BYTES} bytes"),
    ],
)
async def test_what_is_no_picture_leaves_nothing(home: House, content: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        await upload(home, content)
    assert not await keys(home, "pictures/")


@pytest.mark.parametrize(
    ("known", "error", "words"),
    [
        ({"picture": "f" * 64}, NotFound, "there is no picture ffff"),
        ({"picture": "f" * 64, "height_px": 64, "width_px": 64}, NotFound, "no picture ffff"),
        ({"picture": "../"}, InvalidRequest, "64 characters"),
        ({}, InvalidRequest, "64 characters"),
        ({"picture": digest_of(PIXELS), "top_px": 1}, InvalidRequest, "multiple of 64"),
        ({"picture": digest_of(PIXELS), "height_px": 200}, InvalidRequest, "width must be 1 to"),
        (
            {"picture": digest_of(PIXELS), "height_px": 200, "width_px": 401},
            InvalidRequest,
            "is 200 x 400 px, not 200 x 401",
        ),
    ],
)
async def test_a_picture_that_cannot_be_painted_around_makes_no_canvas(
    home: House, known: dict[str, Any], error: type[Exception], words: str
) -> None:
    await upload(home, png(PIXELS))
    with pytest.raises(error, match=words):
        await create(home, **known)
    assert not await keys(home, "canvases/") and not await keys(home, "known/")
