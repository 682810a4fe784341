"""The laws of `tiler_svc.admission`: what painting costs, and whom."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from handscroll.canvas import Canvas, Known
from handscroll.checkpoint import Checkpoint
from handscroll.errors import Forbidden, InvalidRequest, OverBudget, Unavailable
from handscroll.geometry import Patch, Tile, tile_to_xyz, window_patches
from handscroll.order import Lattice
from handscroll.tokenizer import RADIUS_TOK
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from svckit.access import AccessSettings
from svckit.client import calling
from svckit.keyring import RoleName, changed_keys, new_key
from svckit.keys import patch_key, tile_key
from tests.tiler_svc.fakes import House, house

pytestmark = pytest.mark.anyio

COLD = 27
"""Patches that a tile of a plane stands on at level 2."""


@asynccontextmanager
async def keyed(model: Checkpoint, folder: Path, **told: Any) -> AsyncIterator[House]:
    """A house whose tiler knows the keys in the folder."""
    access = AccessSettings(keys_file=folder / "keys.json", anonymous="none", **told)
    async with house(model, folder / "store", access=access) as home:
        yield home


def make_key(folder: Path, role: RoleName = "paint", **budgets: int) -> Sequence[tuple[str, str]]:
    """Metadata with a key."""
    shown, key = new_key("Anna", role, **budgets)
    with changed_keys(folder / "keys.json") as keys:
        keys[key.id] = key
    return (("authorization", f"Bearer {shown}"),)


async def ask(home: House, canvas: Canvas, tile: Tile, key: Sequence[tuple[str, str]]) -> bytes:
    x, y, z = tile_to_xyz(tile)
    request = tiler_pb.GetTileRequest(canvas=canvas.id, tile=tiler_pb.TileAddress(x=x, y=y, z=z))
    with calling("the tiler"):
        return (await home.tiles.GetTile(request, metadata=key)).image


async def watch(
    home: House, canvas: Canvas, first: Tile, last: Tile, key: Sequence[tuple[str, str]]
) -> int:
    (x1, y1, z), (x2, y2, _) = tile_to_xyz(first), tile_to_xyz(last)
    request = tiler_pb.StreamTilesRequest(
        canvas=canvas.id,
        first=tiler_pb.TileAddress(x=x1, y=y1, z=z),
        last=tiler_pb.TileAddress(x=x2, y=y2, z=z),
    )
    with calling("the tiler"):
        return len([one async for one in home.tiles.StreamTiles(request, metadata=key)])


async def draw(home: House, canvas: Canvas, tile: Tile) -> set[Patch]:
    """Have the store hold all that a tile stands on, as the real generator would leave it."""
    under = window_patches(tile, canvas.extent, 16, RADIUS_TOK)
    cone = Lattice(canvas.extent).cone(under)
    for patch in cone:
        await home.store.create(patch_key(canvas.id, patch), bytes(1024))
    return cone


async def test_tile_costs_what_is_missing_of_all_that_it_stands_on(
    model: Checkpoint, tmp_path: Path
) -> None:
    key = make_key(tmp_path, patches_per_minute=COLD + 8)
    async with keyed(model, tmp_path) as home:
        canvas = await home.canvas()
        await ask(home, canvas, Tile(2, 40, 40), key)
        with pytest.raises(OverBudget, match=f"is {COLD + 8} patches a minute; this takes {COLD}"):
            await ask(home, canvas, Tile(2, 90, 90), key)
        # Of its neighbour nearly all is paid for; what is there costs nothing at all.
        await ask(home, canvas, Tile(2, 40, 41), key)
        await draw(home, canvas, Tile(2, -60, 7))
        await ask(home, canvas, Tile(2, -60, 7), key)
        assert len(home.generator.requests) == 2


async def test_patch_is_paid_for_once_a_minute_by_each(model: Checkpoint, tmp_path: Path) -> None:
    """Who moves a window asks again for what is still being painted."""
    anna, bert = (make_key(tmp_path, patches_per_minute=COLD) for _ in range(2))
    async with keyed(model, tmp_path) as home:
        canvas, tile = await home.canvas(), Tile(2, 40, 40)
        for key in (anna, bert, anna):
            await ask(home, canvas, tile, key)
            for patch in window_patches(tile, canvas.extent, 16, RADIUS_TOK):
                await home.store.delete(patch_key(canvas.id, patch))
            await home.store.delete(tile_key(canvas.id, tile, "webp"))
        with pytest.raises(OverBudget):
            await ask(home, canvas, Tile(2, 90, 90), anna)


async def test_view_that_no_minute_pays_for_is_refused_for_good(
    model: Checkpoint, tmp_path: Path
) -> None:
    key = make_key(tmp_path, patches_per_minute=COLD)
    async with keyed(model, tmp_path) as home:
        canvas = await home.canvas()
        with pytest.raises(InvalidRequest, match=f"your budget is {COLD} a minute: ask for less"):
            await watch(home, canvas, Tile(2, 40, 40), Tile(2, 43, 43), key)
        assert not home.generator.requests
        assert await watch(home, canvas, Tile(2, 40, 40), Tile(2, 40, 40), key) == 1


async def test_reader_gets_what_needs_no_painting(model: Checkpoint, tmp_path: Path) -> None:
    """Pictures are a cache: where the patches are there, a lost one is made again."""
    reader = make_key(tmp_path, "read")
    async with keyed(model, tmp_path) as home:
        canvas, tile = await home.canvas(), Tile(2, 40, 40)
        with pytest.raises(Forbidden):
            await ask(home, canvas, tile, reader)
        await draw(home, canvas, tile)
        assert await ask(home, canvas, tile, reader)
        with pytest.raises(Forbidden):
            await watch(home, canvas, tile, Tile(2, 40, 44), reader)
        assert await watch(home, canvas, tile, tile, reader) == 1
        assert not home.generator.requests


async def test_job_of_one_caller_is_no_way_in_for_another(
    model: Checkpoint, tmp_path: Path
) -> None:
    painter, reader = make_key(tmp_path), make_key(tmp_path, "read")
    async with keyed(model, tmp_path) as home:
        canvas, tile = await home.canvas(), Tile(2, 40, 40)
        home.generator.go.clear()
        x, y, z = tile_to_xyz(tile)
        request = tiler_pb.GetTileRequest(
            canvas=canvas.id, tile=tiler_pb.TileAddress(x=x, y=y, z=z)
        )
        painting = home.tiles.GetTile(request, metadata=painter)
        while not home.generator.requests:
            with pytest.raises(Forbidden):
                await ask(home, canvas, tile, reader)
        home.generator.go.set()
        assert (await painting).image == await ask(home, canvas, tile, reader)


async def test_admin_deletes_what_is_nobodys(model: Checkpoint, tmp_path: Path) -> None:
    admin, painter = make_key(tmp_path, "admin"), make_key(tmp_path)
    told = AccessSettings(keys_file=tmp_path / "keys.json", anonymous="paint")
    async with house(model, tmp_path / "store", access=told) as home:

        async def delete(canvas: str, key: Sequence[tuple[str, str]]) -> grpc.StatusCode:
            try:
                await home.canvases.DeleteCanvas(
                    canvas_pb.DeleteCanvasRequest(canvas=canvas), metadata=key
                )
            except aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        async def make(seed: int, key: Sequence[tuple[str, str]] = ()) -> str:
            wish = canvas_pb.CreateCanvasRequest(world="planet", seed=seed)
            return (await home.canvases.CreateCanvas(wish, metadata=key)).canvas.id

        nobodys, somebodys = await make(1), await make(2, painter)
        assert await make(3) == await make(3, painter)
        both = await make(3)
        assert await delete(nobodys, painter) is grpc.StatusCode.NOT_FOUND
        for canvas in (somebodys, both, "0" * 64):
            assert await delete(canvas, admin) is grpc.StatusCode.NOT_FOUND
        first = (await home.canvases.ListWorlds(canvas_pb.ListWorldsRequest())).worlds[0].canvas
        assert await delete(first, admin) is grpc.StatusCode.NOT_FOUND
        assert await delete(nobodys, admin) is grpc.StatusCode.OK
        with pytest.raises(aio.AioRpcError, match="there is no canvas"):
            await home.canvases.GetCanvas(canvas_pb.GetCanvasRequest(canvas=nobodys))
        assert await delete(somebodys, painter) is grpc.StatusCode.OK


async def test_what_is_known_of_a_picture_costs_nothing_and_is_for_readers_too(
    model: Checkpoint, tmp_path: Path
) -> None:
    """A tile inside a picture stands on patches that nobody draws."""
    known = Known("a" * 64, -2048, -2048, 4096, 4096)
    painter = make_key(tmp_path, patches_per_minute=3)
    reader = make_key(tmp_path, "read")
    async with keyed(model, tmp_path) as home:
        canvas = await home.canvas(known=known)
        for key in (painter, reader):
            with pytest.raises(Unavailable, match="the picture that the canvas"):  # admitted
                await ask(home, canvas, Tile(2, 0, 0), key)
        with pytest.raises(InvalidRequest, match="this takes 27 patches"):
            await ask(home, canvas, Tile(2, 90, 90), painter)
        with pytest.raises(Forbidden):
            await ask(home, canvas, Tile(2, 90, 90), reader)
