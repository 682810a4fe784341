"""Each of the five tasks through each of the doors: the same wish is the same canvas and pixels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser

from handscroll.assemble import Pixels
from handscroll.canvas import Canvas, Known
from handscroll.checkpoint import Checkpoint
from handscroll.formats import QUALITY, StillFormat, encode_tile
from handscroll.geometry import Tile, tile_region, tile_to_xyz
from handscroll.known import digest_of
from handscroll.paint import Painter
from handscroll.picture import to_png
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.canvas.v1.canvas_service_pb2_grpc import CanvasServiceStub
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from handscroll_api.tiler.v1.tiler_service_pb2_grpc import TilerServiceStub
from tests.e2e.asking import path_of, pixels
from tests.e2e.test_viewer import IN_WINDOW, READY, viewer_in
from tests.support.stack import PATIENCE_S, ROOT, Stack

GIVEN = np.random.default_rng(1900).integers(0, 256, (704, 256, 3), np.uint8)
"""A picture of one's own, as high as a scroll. It lies at pixel 0, 0, where the viewer puts it."""
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
        frames: more than 1 for a film.
        motion: what moves in it.
        around: whether it is painted around GIVEN.
    """

    world: str
    tile: Tile
    prompt: str = ""
    frames: int = 1
    motion: str = ""
    around: bool = False
    seed: int = 2107

    @property
    def tiles(self) -> list[Tile]:
        """The tile in every frame that is looked at."""
        frames = (0, LATER) if self.frames > 1 else (0,)
        return [self.tile._replace(frame=frame) for frame in frames]


WORDS = Wish("scroll", Tile(1, 0, -1), prompt="snowy mountains under a clear sky")
AROUND = Wish("scroll", Tile(2, 1, -2), around=True)
TASKS = {
    "unconditional": Wish("planet", Tile(1, -1, -1)),
    "text to image": WORDS,
    "outpainting": AROUND,
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
    """`handscroll render`, a frame at a time."""
    region = tile_region(wish.tile, house.model.world(wish.world).extent)
    out, images, said = house.folder / "out.png", [], ""
    command = [
        *(sys.executable, "-m", "launcher", "render", "--model", str(house.tiny), "-o", str(out)),
        *("--world", wish.world, "--seed", str(wish.seed), "--prompt", wish.prompt),
        *("--level", str(region.level), "--at", f"{region.left},{region.top}"),
        *("--width", str(region.width), "--height", str(region.height)),
        *("--frames", str(wish.frames), "--motion", wish.motion),
    ]
    if wish.around:
        command += ["--picture", str(house.picture), "--picture-at", "0,0"]
    for tile in wish.tiles:
        done = subprocess.run(
            [*command, "--frame", str(tile.frame)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        said = done.stdout.split()[-1]
        images.append(out.read_bytes())
    return Shown(said, images)


def by_grpc(house: House, wish: Wish) -> Shown:
    """UploadPicture, CreateCanvas and GetTile."""
    with grpc.insecure_channel(house.stack.grpc) as channel:
        canvases, tiles = CanvasServiceStub(channel), TilerServiceStub(channel)
        known = None
        if wish.around:
            pieces = [canvas_pb.UploadPictureRequest(content=house.picture.read_bytes())]
            given = canvases.UploadPicture(iter(pieces), timeout=PATIENCE_S)
            known = canvas_pb.Known(picture=given.picture, top_px=0, left_px=0)
        asked = canvas_pb.CreateCanvasRequest(
            world=wish.world,
            seed=wish.seed,
            prompt=wish.prompt,
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
        "frames": wish.frames,
        "motion": wish.motion,
    }
    with httpx.Client(base_url=house.stack.url, timeout=PATIENCE_S) as client:
        if wish.around:
            content, headers = house.picture.read_bytes(), {"Content-Type": "image/png"}
            given = client.post("/pictures", content=content, headers=headers).json()
            asked["known"] = {"picture": given["picture"], "top": 0, "left": 0}
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
            model.world(wish.world).extent,
            wish.prompt,
            frames=wish.frames,
            known=Known(digest_of(GIVEN), 0, 0, *GIVEN.shape[:2]) if wish.around else None,
            motion=wish.motion,
        )
        with Painter(model, canvas, picture=GIVEN if wish.around else None) as painter:
            return Painted(canvas, [painter.tile(tile) for tile in wish.tiles])

    return paint


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("task", TASKS)
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


def test_words_a_picture_and_motion_are_seen(paint: Callable[[Wish], Painted]) -> None:
    """Else the same could come through every door, and nothing of what was wished."""

    def tiles(task: str, **changes: object) -> list[Pixels]:
        return paint(replace(TASKS[task], **changes)).tiles  # type: ignore[arg-type]

    def differ(one: Pixels, other: Pixels) -> bool:
        return bool((one != other).any())

    assert differ(tiles("text to image")[0], tiles("text to image", prompt="")[0])
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
