"""Each of the five tasks through each of the doors: the same wish is the same canvas and pixels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser

from handscroll.assemble import Pixels
from handscroll.canvas import Canvas, Known, PromptRegion
from handscroll.checkpoint import Checkpoint
from handscroll.formats import QUALITY, StillFormat, encode_tile
from handscroll.geometry import TILE_PX, Extent, Region, Tile, tile_region, tile_to_xyz
from handscroll.known import digest_of
from handscroll.paint import Painter
from handscroll.picture import to_png
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.canvas.v1.canvas_service_pb2_grpc import CanvasServiceStub
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from handscroll_api.tiler.v1.tiler_service_pb2_grpc import TilerServiceStub
from svckit.wire import extent_to_pb, region_to_pb
from tests.e2e.asking import path_of, pixels
from tests.e2e.test_viewer import IN_WINDOW, READY, viewer_in
from tests.support.stack import PATIENCE_S, ROOT, Stack

GIVEN = np.random.default_rng(1900).integers(0, 256, (704, 256, 3), np.uint8)
"""A picture of one's own, as high as a scroll."""
FRAMES = 12
"""Of every film, as the viewer makes them."""
LATER = 2
"""The frame that is looked at besides the first."""
WINDOW = {"viewport": {"width": 320, "height": 336}}
# The file of a tile in the window.
TILE = f"""async (key) => {{
  const shown = ({IN_WINDOW})(0).find((image) => image.dataset.key === key);
  return [...new Uint8Array(await window.blobs.get(shown.src).arrayBuffer())];
}}"""

# Before the page has drawn itself anew it is as ready as it was before.
DRAWN = "() => new Promise(requestAnimationFrame)"


@dataclass(frozen=True)
class Wish:
    """What somebody wants to see.

    Attributes:
        world: one of the model's.
        tile: what is looked at; in the viewer's window.
        prompt: what it shows.
        negative: what it should not show.
        guidance: how far it follows words and layout; None for the model's own.
        regions: places with words of their own.
        frames: more than 1 for a film.
        motion: what moves in it.
        around: whether it is painted around GIVEN.
        corner: top and left of GIVEN; 0, 0 is where the viewer puts it on a canvas without end.
        sides: height and width of a picture with an end on all sides; None for the world's extent.
        order: in which it is painted.
    """

    world: str
    tile: Tile
    prompt: str = ""
    negative: str = ""
    guidance: float | None = None
    regions: tuple[PromptRegion, ...] = ()
    frames: int = 1
    motion: str = ""
    around: bool = False
    corner: tuple[int, int] = (0, 0)
    sides: tuple[int, int] | None = None
    order: str = "lattice"
    seed: int = 2107

    @property
    def tiles(self) -> list[Tile]:
        """The tile in every frame that is looked at."""
        frames = (0, LATER) if self.frames > 1 else (0,)
        return [self.tile._replace(frame=frame) for frame in frames]

    @property
    def sampling(self) -> dict[str, Any]:
        """What is said of it; the rest is the model's own."""
        said = {"negative_prompt": self.negative, "guidance": self.guidance}
        return {name: value for name, value in said.items() if value}

    def extent(self, model: Checkpoint) -> Extent:
        """What its canvas covers."""
        own = model.world(self.world).extent
        return Extent("picture", own.finest, *self.sides) if self.sides else own


WORDS = Wish(
    "scroll",
    Tile(1, 0, -1),
    prompt="snowy mountains under a clear sky",
    negative="a stormy sea",
    guidance=3.5,
)
# It ends on all sides; the soft border of its region goes through the tile.
PLACES = replace(
    WORDS,
    tile=Tile(2, 1, 1),
    sides=(704, 1024),
    regions=(PromptRegion("houses in a field", 0, 0, 704, 256),),
)
AROUND = Wish("scroll", Tile(2, 1, -2), around=True)
# GIVEN is in its middle, where the viewer puts it. Its tile is a patch of the first ring, above.
RINGS = replace(AROUND, tile=Tile(2, 0, 0), corner=(384, 128), sides=(1408, 512), order="outward")
TASKS = {
    "unconditional, of a plane": Wish("planet", Tile(1, -1, -1)),
    "unconditional, of a scroll": Wish("scroll", Tile(1, 0, -1)),
    "text to image": WORDS,
    "text to image, place by place": PLACES,
    "unconditional, row by row": Wish("planet", Tile(2, 1, 1), sides=(512, 576), order="raster"),
    "outpainting": AROUND,
    "outpainting, ring by ring": RINGS,
    "animation": replace(AROUND, frames=FRAMES, motion="waves roll"),
    "text to video": replace(WORDS, frames=FRAMES, motion="clouds drift left"),
}


@dataclass(frozen=True)
class House:
    """What stands behind the doors.

    Attributes:
        stack: serves the model.
        browser: looks at it.
        tiny: folder of the model.
        model: the same, loaded.
        folder: for files.
    """

    stack: Stack
    browser: Browser
    tiny: Path
    model: Checkpoint
    folder: Path

    @property
    def picture(self) -> Path:
        """The file of GIVEN."""
        return self.folder / "given.png"


class Shown(NamedTuple):
    """What a door shows: the canvas' id, or how it begins, and the files of the tiles."""

    canvas: str
    images: list[bytes]


class Painted(NamedTuple):
    """What every door has to show."""

    canvas: Canvas
    tiles: list[Pixels]


def by_command_line(house: House, wish: Wish) -> Shown:
    """`handscroll render`, a frame at a time; a picture with an end is painted whole."""
    region = tile_region(wish.tile, wish.extent(house.model))
    whole = Region(region.level, 0, 0, *wish.sides) if wish.sides else region
    down, right = region.top - whole.top, region.left - whole.left
    out, images, said = house.folder / "out.png", [], ""
    command = [
        *(sys.executable, "-m", "launcher", "render", "--model", str(house.tiny), "-o", str(out)),
        *("--world", wish.world, "--seed", str(wish.seed), "--prompt", wish.prompt),
        *("--level", str(whole.level), "--at", f"{whole.left},{whole.top}"),
        *("--width", str(whole.width), "--height", str(whole.height), "--order", wish.order),
        *("--frames", str(wish.frames), "--motion", wish.motion),
    ]
    for name, value in wish.sampling.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    for one in wish.regions:
        place = f"{one.left},{one.top},{one.width},{one.height}"
        command += ["--region", f"{place} {one.prompt}"]
    if wish.sides and wish.order == "lattice":  # the other orders say so themselves
        command.append("--bounded")
    if wish.around:
        top, left = wish.corner
        command += ["--picture", str(house.picture), "--picture-at", f"{left},{top}"]
    for tile in wish.tiles:
        done = subprocess.run(
            [*command, "--frame", str(tile.frame)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        said = done.stdout.split()[-1]
        painted = pixels(out.read_bytes())
        images.append(to_png(painted[down : down + TILE_PX, right : right + TILE_PX]))
    return Shown(said, images)


def by_grpc(house: House, wish: Wish) -> Shown:
    """UploadPicture, CreateCanvas and GetTile."""
    with grpc.insecure_channel(house.stack.grpc) as channel:
        canvases, tiles = CanvasServiceStub(channel), TilerServiceStub(channel)
        known = None
        if wish.around:
            pieces = [canvas_pb.UploadPictureRequest(content=house.picture.read_bytes())]
            given = canvases.UploadPicture(iter(pieces), timeout=PATIENCE_S)
            top, left = wish.corner
            known = canvas_pb.Known(picture=given.picture, top_px=top, left_px=left)
        asked = canvas_pb.CreateCanvasRequest(
            world=wish.world,
            seed=wish.seed,
            extent=extent_to_pb(wish.extent(house.model)) if wish.sides else None,
            prompt=wish.prompt,
            sampling=canvas_pb.Sampling(**wish.sampling),
            regions=[region_to_pb(one) for one in wish.regions],
            order=wish.order,
            frames=wish.frames,
            motion=wish.motion,
            known=known,
        )
        canvas = canvases.CreateCanvas(asked, timeout=PATIENCE_S).canvas.id
        x, y, z = tile_to_xyz(wish.tile)
        images = []
        for tile in wish.tiles:
            request = tiler_pb.GetTileRequest(
                canvas=canvas,
                tile=tiler_pb.TileAddress(z=z, x=x, y=y),
                frame=tile.frame,
                format=tiler_pb.IMAGE_FORMAT_PNG,
            )
            images.append(tiles.GetTile(request, timeout=PATIENCE_S).image)
        return Shown(canvas, images)


def by_http(house: House, wish: Wish) -> Shown:
    """POST /pictures, POST /canvases and GET /tiles."""
    asked: dict[str, Any] = {
        "world": wish.world,
        "seed": wish.seed,
        "prompt": wish.prompt,
        "sampling": wish.sampling,
        "regions": [asdict(one) for one in wish.regions],
        "order": wish.order,
        "frames": wish.frames,
        "motion": wish.motion,
    }
    if wish.sides:
        asked["extent"] = asdict(wish.extent(house.model))
    with httpx.Client(base_url=house.stack.url, timeout=PATIENCE_S) as client:
        if wish.around:
            content, headers = house.picture.read_bytes(), {"Content-Type": "image/png"}
            given = client.post("/pictures", content=content, headers=headers).json()
            top, left = wish.corner
            asked["known"] = {"picture": given["picture"], "top": top, "left": left}
        canvas = client.post("/canvases", json=asked).json()["id"]
        images = []
        for tile in wish.tiles:
            wanted = {"wait": 60, "frame": tile.frame}
            answer = client.get(path_of(canvas, tile, "jpg"), params=wanted)
            assert answer.status_code == 200, answer.text
            images.append(answer.content)
        return Shown(canvas, images)


def by_viewer(house: House, wish: Wish) -> Shown:
    """The panel's form for a new canvas; one around a picture is animated once it is in sight."""
    x, y, z = tile_to_xyz(wish.tile)
    with viewer_in(house.browser, WINDOW) as viewer:
        page, images = viewer.page, []

        def make(button: str) -> None:
            before = viewer.canvas
            page.get_by_role("button", name=button).click()
            viewer.until(
                f"(before) => ({READY})() && document.documentElement.dataset.canvas !== before",
                before,
            )

        viewer.open(house.stack.url)
        page.click("#seal")
        page.locator("#worlds").get_by_text(wish.world, exact=True).click()
        page.get_by_label("Seed", exact=True).fill(str(wish.seed))
        page.get_by_label("Prompt").fill(wish.prompt)
        if wish.sampling:
            page.get_by_text("More about words").click()
            page.get_by_label("What it should not show").fill(wish.negative)
            page.get_by_label("Guidance").fill(str(wish.guidance or ""))
        if wish.sides:
            page.get_by_label("with an end on all sides").check()
            for side, size_px in zip(("Height", "Width"), wish.sides, strict=True):
                page.get_by_label(side, exact=True).fill(str(size_px))
            page.locator("#order").select_option(wish.order)
        if wish.around:
            page.get_by_label("Around a picture of yours").set_input_files(house.picture)
            make("Unroll it")
            if wish.motion:
                page.click("#seal")
                page.locator("#motion").fill(wish.motion)
                page.locator("#motion-frames").fill(str(wish.frames))
                make("Animate")
        else:
            page.locator("#moves").fill(wish.motion)
            if wish.motion:
                page.locator("#frames").fill(str(wish.frames))
            make("Unroll it")
        if wish.sides:  # it opens as a whole, so the tile is gone to
            region = tile_region(wish.tile, wish.extent(house.model))
            x_px, y_px = region.left + TILE_PX // 2, region.top + TILE_PX // 2
            page.evaluate(f"location.hash = '#{viewer.canvas}/{z}/{x_px}/{y_px}'")
            page.evaluate(DRAWN)
            viewer.until(READY)
        for tile in wish.tiles:
            if tile.frame:
                page.get_by_label("Frame", exact=True).fill(str(tile.frame))
                page.evaluate(DRAWN)
                viewer.until(READY)
            images.append(bytes(page.evaluate(TILE, f"{z}/{x}/{y}")))
        return Shown(viewer.hash[1:].partition("/")[0], images)


DOORS: dict[str, tuple[Callable[[House, Wish], Shown], StillFormat]] = {
    "command line": (by_command_line, "png"),
    "gRPC": (by_grpc, "png"),
    "HTTP": (by_http, "jpg"),
    "viewer": (by_viewer, "webp"),
}
"""Each with the format of its pictures: none is shown what was made for another."""
# Places with words of their own are dragged over in the viewer: tests/gateway/test_panel.py.
WAYS = [
    (task, door)
    for task, wish in TASKS.items()
    for door in DOORS
    if door != "viewer" or not wish.regions
]


@pytest.fixture
def house(stack: Stack, browser: Browser, tiny: Path, model: Checkpoint, tmp_path: Path) -> House:
    found = House(stack, browser, tiny, model, tmp_path)
    found.picture.write_bytes(to_png(GIVEN))
    return found


@pytest.fixture(scope="module")
def paint(model: Checkpoint) -> Callable[[Wish], Painted]:
    """Paints a wish in this process, once."""

    @cache
    def paint(wish: Wish) -> Painted:
        canvas = Canvas(
            model.digest,
            wish.world,
            wish.seed,
            wish.extent(model),
            wish.prompt,
            wish.order,
            wish.frames,
            sampling=replace(model.sampling, **wish.sampling),
            regions=wish.regions,
            known=Known(digest_of(GIVEN), *wish.corner, *GIVEN.shape[:2]) if wish.around else None,
            motion=wish.motion,
        )
        with Painter(model, canvas, picture=GIVEN if wish.around else None) as painter:
            return Painted(canvas, [painter.tile(tile) for tile in wish.tiles])

    return paint


@pytest.mark.parametrize(("task", "door"), WAYS)
def test_every_task_through_every_door_is_what_a_painter_paints(
    task: str, door: str, house: House, paint: Callable[[Wish], Painted]
) -> None:
    wish, (show, format) = TASKS[task], DOORS[door]
    canvas, tiles = paint(wish)
    shown = show(house, wish)
    assert shown.canvas in (canvas.id, canvas.id[:16])
    for image, tile, painted in zip(shown.images, wish.tiles, tiles, strict=True):
        expected = pixels(encode_tile(painted, tile, canvas.extent, format, QUALITY))
        np.testing.assert_array_equal(pixels(image), expected, err_msg=str(tile))


def test_all_that_is_wished_is_seen(paint: Callable[[Wish], Painted]) -> None:
    """Else the same could come through every door, and nothing of what was wished."""

    def tiles(task: str, **changes: object) -> list[Pixels]:
        return paint(replace(TASKS[task], **changes)).tiles  # type: ignore[arg-type]

    def differ(one: Pixels, other: Pixels) -> bool:
        return bool((one != other).any())

    def assert_seen(task: str, *others: dict[str, object]) -> None:
        for one in others:
            assert differ(tiles(task)[0], tiles(task, **one)[0]), (task, one)

    assert_seen("text to image", {"prompt": ""}, {"negative": ""}, {"guidance": None})
    assert_seen("text to image, place by place", {"regions": ()})
    assert_seen("unconditional, row by row", {"order": "lattice"}, {"order": "outward"})
    rings = "outpainting, ring by ring"
    assert_seen(rings, {"order": "lattice"}, {"order": "raster"}, {"around": False})
    for film, still in (("animation", "outpainting"), ("text to video", "text to image")):
        first, later = tiles(film)
        np.testing.assert_array_equal(first, tiles(still)[0])
        assert differ(first, later)
        assert differ(later, tiles(film, motion="")[1])
    region = tile_region(AROUND.tile, paint(AROUND).canvas.extent)
    around, alone = tiles("outpainting")[0], tiles("outpainting", around=False)[0]
    given = GIVEN[region.top : region.top + region.height, : region.left + region.width]
    np.testing.assert_array_equal(around[:, -region.left :], given)
    assert differ(around[:, : -region.left], alone[:, : -region.left])
