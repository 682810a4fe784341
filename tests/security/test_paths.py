"""What names a place in a request names nothing in a file system, however it is spelt."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest
from grpc import aio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import queries
from gateway.pictures import FORMATS, Place
from gateway.protocol import MAX_HEAD_BYTES
from handscroll.checkpoint import Checkpoint
from handscroll.errors import InvalidRequest
from handscroll.geometry import MAX_LEVEL, ROOT_ZOOM, Tile, tile_to_xyz
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from svckit.keys import tile_key
from tests.gateway.conftest import Launch, Loop, Stack, path
from tests.security.raw import get, say, status
from tests.tiler_svc.fakes import house

SECRET = b"nobody may read this"
LADDERS = ("../", "..\\", "%2e%2e/", "%2e%2e%2f", "..%2f", "%252e%252e%252f", "..%c0%af", "..%00/")
STRANGE = [
    *(ladder * steps + "secret" for ladder in LADDERS for steps in (1, 3, 9)),
    *("/secret", "//secret", "file:///secret", "\\\\host\\secret", "C:\\secret", "~/secret"),
    *("", ".", "..", "...", "%00", "a%00b", "%0a", "%0d%0aX: y", "*", "#1", "a" * 5000, "%" * 99),
    *("%ff", "%F0%9F%98%80", "%ed%a0%80", "%u0030", "%e2%80%ae"),
]
NUMBERS = [
    *("-0", "+0", "00", "0x0", "0b1", "0o7", "1e3", "1.0", "1_0", " 1", "1 ", "١", "１", "²", "Ⅷ"),
    *("NaN", "inf", "-1", "9" * 19, "9" * 20, "9" * 5000, "18446744073709551616", "1%00", "1%0a"),
]


class Watched:
    """A folder with a store in it and secrets around it.

    Attributes:
        store: the store's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"
        self.store.mkdir()
        for place in (self.folder, self.store):
            (place / "secret").write_bytes(SECRET)
        self.before = self.outside()

    def outside(self) -> dict[str, tuple[int, int]]:
        """Everything that is not in the store: changed when, and how large."""
        found = {}
        for parent, folders, names in os.walk(self.folder):
            if Path(parent) == self.store:
                folders.clear()
                names = [name for name in names if name == "secret"]
            for name in names:
                told = (Path(parent) / name).stat()
                found[str(Path(parent) / name)] = (told.st_mtime_ns, told.st_size)
        return found

    def check(self) -> None:
        """Nothing outside has changed, and inside is what keys can name."""
        assert self.outside() == self.before
        kinds = {"canvases", "texts", "patches", "tiles", "owners", "holders", "branches", "probe"}
        kinds |= {"exports", "exported", "uploads", "uploaders", "pictures", "making"}
        assert {one.name for one in self.store.iterdir()} <= kinds | {"secret"}
        for kind in self.store.iterdir():
            for one in kind.rglob("*"):
                assert one.name.replace("-", "").replace(".", "").isalnum() and one.name.isascii()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)  # where `launch` puts its store, too
    yield watched
    watched.check()


def test_no_spelling_of_a_path_leaves_the_store_or_the_viewer(
    launch: Launch, watched: Watched
) -> None:
    stack = launch()
    canvas = stack.canvas()
    good = path(canvas, Tile(0, 0, 0))
    assert stack.get(good).status_code == 200
    _, _, name, z, x, last = good.split("/")
    y, _, format = last.partition(".")
    raw = [quote(one, safe="%/~*:+") for one in STRANGE]
    numbers = [quote(one, safe="%+") for one in NUMBERS]
    paths = [
        *(f"/tiles/{one}/{z}/{x}/{y}.{format}" for one in raw),
        *(f"/tiles/{name}/{z}/{x}/{y}.{one}" for one in raw),
        *(f"/tiles/{name}/{one}/{x}/{y}.{format}" for one in numbers),
        *(f"/tiles/{name}/{z}/{one}/{y}.{format}" for one in numbers),
        *(f"/tiles/{name}/{z}/{x}/{one}.{format}" for one in numbers),
        *(f"{good}?frame={one}" for one in numbers),
        *(f"/canvases/{one}" for one in raw),
        *(f"/canvases/{one}/tilejson.json" for one in raw),
        *(f"/canvases/{one}/events?z=14&left=0&right=0&top=0&bottom=0" for one in raw),
        *(f"/exports/{one}" for one in raw),
        *(f"/exports/{one}/file" for one in raw),
        *(f"/static/{one}" for one in raw),
        *(f"/{one}" for one in raw if one not in ("", ".")),
    ]
    for where in paths:
        assert len(where) < MAX_HEAD_BYTES
        answer = say(stack, get(where))
        assert status(answer) in (400, 404), (where[:100], answer[:200])
        assert SECRET not in answer


def test_owners_and_pages_leave_only_digests(launch: Launch, watched: Watched) -> None:
    stack = launch()
    with stack.client() as client:
        for odd in STRANGE:
            headers = {"X-Owner": odd.ljust(16, "x")[:128]}
            if not odd.isascii() or not odd.isprintable() or " " in odd:
                continue
            made = client.post("/canvases", json={"world": "planet"}, headers=headers)
            assert made.status_code in (200, 201)
            told = client.get("/canvases", headers=headers, params={"page_token": odd})
            assert told.status_code in (200, 400)
            body = {"world": odd, "model": odd, "order": odd}
            assert client.post("/canvases", json=body).status_code in (400, 404)


def test_services_take_no_path_either(loop: Loop, model: Checkpoint, watched: Watched) -> None:
    odd = [*STRANGE, *NUMBERS, "\x00", "é/../x"]

    async def ask() -> None:
        async with house(model, watched.store) as home:
            assert await home.canvas()
            for one in odd:
                owner = one.encode("ascii", "ignore").decode().ljust(16, "x")[:128]
                metadata = (("x-owner", owner),) if owner.isprintable() else ()
                # Whoever gives any name may have canvases; their name is no place.
                wish = canvas_pb.CreateCanvasRequest(world="planet", seed=1)
                await _answered(home.canvases.CreateCanvas(wish, metadata=metadata))
                for call in (
                    home.tiles.GetTile(tiler_pb.GetTileRequest(canvas=one)),
                    home.canvases.GetCanvas(canvas_pb.GetCanvasRequest(canvas=one)),
                    home.canvases.DeleteCanvas(
                        canvas_pb.DeleteCanvasRequest(canvas=one), metadata=metadata
                    ),
                    home.canvases.DeletePicture(
                        canvas_pb.DeletePictureRequest(picture=one), metadata=metadata
                    ),
                    home.canvases.CreateCanvas(
                        canvas_pb.CreateCanvasRequest(
                            world="planet", known=canvas_pb.Known(picture=one)
                        )
                    ),
                    home.canvases.CreateCanvas(canvas_pb.CreateCanvasRequest(world=one)),
                    home.canvases.CreateCanvas(
                        canvas_pb.CreateCanvasRequest(world="planet", model=one or "?")
                    ),
                ):
                    assert await _answered(call) is not grpc.StatusCode.OK, one
                page = canvas_pb.ListCanvasesRequest(page_token=one)
                await _answered(home.canvases.ListCanvases(page, metadata=metadata))
                pictures = canvas_pb.ListPicturesRequest(page_token=one)
                await _answered(home.canvases.ListPictures(pictures, metadata=metadata))

    loop.run(ask())


async def _answered(call: aio.Call) -> grpc.StatusCode:
    """What a call comes to: an answer, or one of the refusals that are meant for people."""
    code = await call.code()
    assert code in (
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
    ), await call.details()
    return code


# A place has one name, and a name one place.

levels = st.integers(0, MAX_LEVEL)


@st.composite
def places(draw: st.DrawFn) -> Place:
    level = draw(levels)
    half = 2 ** (ROOT_ZOOM + level - 1)
    row, col = (draw(st.integers(-half, half - 1) | st.integers(-2, 2)) for _ in range(2))
    tile = Tile(level, row, col, draw(st.integers(0, 31)))
    canvas = draw(st.sampled_from(["a" * 64, "b" * 64, "0123456789abcdef" * 4]))
    return Place(canvas, tile, draw(st.sampled_from(sorted(FORMATS))))


@given(places(), places())
@settings(max_examples=300)
def test_two_pictures_never_share_a_name(one: Place, other: Place) -> None:
    """In memory, in the store, in the cache of a browser."""
    same = one == other
    assert (one.path == other.path) is same
    assert (tile_key(*one) == tile_key(*other)) is same
    for place in (one, other):
        address, _, query = place.path.partition("?frame=")
        _, kind, canvas, z, x, last = address.split("/")
        y, _, format = last.partition(".")
        frame = queries.whole("frame", query or "0", 0, 31)
        found = queries.tile(z, x, y)._replace(frame=frame)
        assert (kind, Place(canvas, found, format)) == ("tiles", place)  # type: ignore[arg-type]
        assert tile_to_xyz(found) == (int(x), int(y), int(z))


@given(st.one_of(st.text(max_size=25), st.sampled_from(NUMBERS), st.integers().map(str)))
@settings(max_examples=500, suppress_health_check=list(HealthCheck))
def test_number_has_one_spelling(text: str) -> None:
    try:
        value = queries.whole("x", text, 0, 2**62)
    except InvalidRequest as error:
        assert len(str(error)) < 200
    else:
        assert str(value) == text


def test_what_memory_holds_has_one_spelling(stack: Stack) -> None:
    canvas, tile = stack.canvas(frames=3), Tile(0, 0, 0)
    for frame in range(3):
        stack.keep(canvas, tile._replace(frame=frame), b"picture %d" % frame)
        assert stack.get(f"{path(canvas, tile)}?frame={frame}").content == b"picture %d" % frame
    spelt = f"{path(canvas, tile)}%3Fframe=2"
    for query in ("", "?wait=0"):
        assert status(say(stack, get(spelt + query))) == 400
