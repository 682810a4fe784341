"""The laws of exports: what one shows, who makes it, and what is left of it, whatever happens."""

import asyncio
import hashlib
import io
import json
import time
import zipfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from obstore.store import MemoryStore
from PIL import Image
from pmtiles.reader import MemorySource, all_tiles

from handscroll.archive import tiles_in
from handscroll.assemble import Pixels
from handscroll.canvas import Canvas
from handscroll.checkpoint import Checkpoint
from handscroll.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    Overloaded,
    OverQuota,
    SpecMismatch,
)
from handscroll.film import FilmFormat, film
from handscroll.geometry import Extent, Region, tile_to_xyz, tiles_of
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.generator.v1 import generator_service_pb2 as generator_pb
from handscroll_api.tiler.v1 import export_service_pb2 as pb
from svckit.access import AccessSettings
from svckit.client import calling
from svckit.keys import (
    Prefix,
    beat_key,
    beats_prefix,
    canvas_key,
    done_key,
    export_key,
    file_key,
    files_prefix,
    new_nonce,
    run_key,
)
from svckit.refusal import refused
from svckit.specs import Specs
from svckit.store import Store
from tests.handscroll.test_film import alike
from tests.tiler_svc.fakes import House, house, until
from tests.tiler_svc.test_admission import make_key
from tests.tiler_svc.test_tiles import get, region
from tiler_svc import exports
from tiler_svc.exports import Exports
from tiler_svc.press import Export

pytestmark = pytest.mark.anyio

PNG, JPEG, WEBP = pb.EXPORT_FORMAT_PNG, pb.EXPORT_FORMAT_JPEG, pb.EXPORT_FORMAT_WEBP
MP4, AWEBP, GIF = pb.EXPORT_FORMAT_MP4, pb.EXPORT_FORMAT_AWEBP, pb.EXPORT_FORMAT_GIF
DZI, PMTILES = pb.EXPORT_FORMAT_DZI, pb.EXPORT_FORMAT_PMTILES
RUNNING, DONE, STOPPED = (
    pb.EXPORT_STATE_RUNNING,
    pb.EXPORT_STATE_DONE,
    pb.EXPORT_STATE_STOPPED,
)
SOMEWHERE = Region(1, -300, -77, 520, 601)


def spec_of(canvas: Canvas, wanted: Region = SOMEWHERE, **more: Any) -> pb.ExportSpec:
    return pb.ExportSpec(
        canvas=canvas.id,
        level=wanted.level,
        frame=wanted.frame,
        top_px=wanted.top,
        left_px=wanted.left,
        height_px=wanted.height,
        width_px=wanted.width,
        **more,
    )


async def create(home: House, spec: pb.ExportSpec, key: Any = ()) -> pb.Export:
    with calling("the tiler"):
        request = pb.CreateExportRequest(spec=spec)
        return (await home.exports.CreateExport(request, metadata=key)).export


async def find(home: House, export: str, key: Any = ()) -> pb.Export:
    with calling("the tiler"):
        request = pb.GetExportRequest(export=export)
        return (await home.exports.GetExport(request, metadata=key)).export


async def delete(home: House, export: str, key: Any = ()) -> None:
    with calling("the tiler"):
        await home.exports.DeleteExport(pb.DeleteExportRequest(export=export), metadata=key)


async def download(home: House, export: str, offset: int = 0, length: int = 0) -> bytes:
    request = pb.DownloadExportRequest(export=export, offset=offset, length=length)
    with calling("the tiler"):
        return b"".join([one.content async for one in home.exports.DownloadExport(request)])


async def ended(home: House, export: str) -> pb.Export:
    """An export when it is not being made any more."""
    async with asyncio.timeout(60):
        while (found := await find(home, export)).state == RUNNING:
            await asyncio.sleep(0.02)
    return found


async def made(home: House, spec: pb.ExportSpec) -> bytes:
    found = await ended(home, (await create(home, spec)).id)
    assert (found.state, found.problem) == (DONE, "")
    return await download(home, found.id)


async def keys_of(home: House, *folders: str) -> list[str]:
    """What the store holds in some folders."""
    return sorted([key for one in folders async for key in home.store.keys(Prefix(one))])


async def nothing_but_its_file(home: House, export: pb.Export) -> None:
    """Wait until nothing is left of making an export; that takes a moment after it is done."""
    left = sorted([export_key(export.id), done_key(export.id), file_key(export.id, export.etag)])
    async with asyncio.timeout(10):
        while await keys_of(home, f"exports/{export.id}/") != left:
            await asyncio.sleep(0.02)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats that come as fast as tests want to wait for them."""
    monkeypatch.setattr(exports, "BEAT_S", 0.05)


def shown(content: bytes) -> Pixels:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


# What an export shows.


@pytest.mark.parametrize(
    ("world", "wanted"),
    [
        ("planet", SOMEWHERE),
        ("planet", Region(2, 10**6 + 5, -(10**6), 1, 1)),
        ("planet", Region(0, -3, 5, 300, 65 * 256)),  # more than a batch to a row
        ("scroll", Region(1, 100, -900, 252, 1300)),
    ],
)
async def test_png_is_the_region(home: House, world: str, wanted: Region) -> None:
    canvas = await home.canvas(world)
    content = await made(home, spec_of(canvas, wanted, format=PNG))
    narrow = wanted._replace(width=min(wanted.width, 16384))
    expected = await region(home, canvas, narrow)
    np.testing.assert_array_equal(shown(content)[:, : narrow.width], expected)
    assert shown(content).shape == (wanted.height, wanted.width, 3)


async def test_other_pictures_are_those_of_the_region(home: House) -> None:
    canvas = await home.canvas()
    pixels = await region(home, canvas, SOMEWHERE)

    def saved(part: Pixels, kind: str, **options: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(part).save(file, kind, **options)
        return file.getvalue()

    jpeg = await made(home, spec_of(canvas, format=JPEG, quality=33))
    assert jpeg == saved(pixels, "JPEG", quality=33, subsampling=0)
    assert await made(home, spec_of(canvas, format=WEBP)) == saved(
        pixels, "WEBP", quality=90, method=2
    )
    zoom = await made(home, spec_of(canvas, format=DZI))
    with zipfile.ZipFile(io.BytesIO(zoom)) as archive:
        tile = archive.read("handscroll_files/10/2_1.jpg")
        assert tile == saved(pixels[256:512, 512:], "JPEG", quality=90, subsampling=0)


@pytest.mark.parametrize(
    ("world", "wanted"),
    [("planet", Region(2, -700, -300, 900, 700)), ("scroll", Region(2, 600, 40, 104, 10))],
)
async def test_archive_holds_the_tiles_that_are_served(
    home: House, world: str, wanted: Region
) -> None:
    canvas = await home.canvas(world)
    content = await made(home, spec_of(canvas, wanted, format=PMTILES))
    found = {(x, y, z): image for (z, x, y), image in all_tiles(MemorySource(content))}
    tiles = tiles_in(wanted, canvas.extent)
    expected = {tile_to_xyz(tile): await get(home, canvas, tile, format=0) for tile in tiles}
    assert found == expected


@pytest.mark.parametrize("format", [MP4, AWEBP, GIF])
async def test_film_shows_all_frames(home: House, format: pb.ExportFormat.ValueType) -> None:
    canvas = await home.canvas(frames=3)
    wanted = Region(0, -10, 20, 30, 40)
    spec = spec_of(canvas, wanted, format=format, fps=5, back_and_forth=True)
    content = await made(home, spec)
    frames = [await region(home, canvas, wanted._replace(frame=frame)) for frame in range(3)]
    name: FilmFormat = {MP4: "mp4", AWEBP: "awebp", GIF: "gif"}[format]  # type: ignore[assignment]
    assert alike(name, content, film(name, frames, 5, back_and_forth=True))
    found = await create(home, spec)
    assert (found.spec.fps, found.spec.back_and_forth) == (5, True)
    assert found.done == found.total == 3 * len(list(tiles_of(wanted, canvas.extent)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fps": 31}, "fps must be 1 to 30, not 31"),
        ({"width_px": 41, "format": MP4}, "even sides"),
        ({"width_px": 2**13, "height_px": 2**12}, "67108864 pixels in all its frames"),
    ],
)
async def test_film_that_cannot_be_is_refused(
    home: House, change: dict[str, Any], words: str
) -> None:
    spec = spec_of(await home.canvas(frames=3), Region(1, 0, 0, 30, 40), format=GIF)
    for name, value in change.items():
        setattr(spec, name, value)
    with pytest.raises(InvalidRequest, match=words):
        await create(home, spec)
    assert await keys_of(home, "exports/", "exported/") == []


async def test_export_is_named_by_what_it_shows(home: House) -> None:
    canvas = await home.canvas()
    first = await create(home, spec_of(canvas))
    assert first.spec == spec_of(canvas, format=PNG)
    text = {
        "canvas": canvas.id,
        "format": "png",
        "frame": 0,
        "height": 520,
        "left": -77,
        "level": 1,
        "quality": 0,
        "top": -300,
        "width": 601,
    }
    plain = json.dumps(text, separators=(",", ":")).encode()
    assert first.id == hashlib.sha256(plain).hexdigest()
    assert await home.store.get(export_key(first.id)) == plain
    await ended(home, first.id)
    ids = {first.id}
    for change in ({"top_px": 0}, {"format": JPEG}, {"format": JPEG, "quality": 89}):
        other = pb.ExportSpec()
        other.CopyFrom(spec_of(canvas))
        for name, value in change.items():
            setattr(other, name, value)
        ids.add((await create(home, other)).id)
        await asyncio.gather(*(ended(home, one) for one in ids))
    assert len(ids) == 4
    usual = await create(home, spec_of(canvas, format=JPEG, quality=90))
    assert usual.id in ids


async def test_part_of_a_file_is_what_stands_there(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "PIECE_BYTES", 1000)
    spec = spec_of(await home.canvas())
    whole = await made(home, spec)
    found = await create(home, spec)
    assert found.size_bytes == len(whole) > 3000 and len(found.etag) == 32
    for offset, length in ((0, 1), (999, 2), (1000, 1000), (17, 2500), (17, 0)):
        end = offset + length if length else len(whole)
        assert await download(home, found.id, offset, length) == whole[offset:end]
    assert await download(home, found.id, 5, 10**12) == whole[5:]
    with pytest.raises(InvalidRequest, match=f"below the file's {len(whole)} bytes"):
        await download(home, found.id, len(whole))


# Who makes it.


async def test_same_export_is_made_once(home: House) -> None:
    home.generator.go.clear()
    spec = spec_of(await home.canvas())
    first, second = await asyncio.gather(create(home, spec), create(home, spec))
    assert first.id == second.id and first.state == second.state == RUNNING
    home.generator.go.set()
    done = await ended(home, first.id)
    assert (done.done, done.total) == (9, 9)
    assert home.tokenizer.decoded == 9
    assert (await create(home, spec)) == done
    assert home.tokenizer.decoded == 9
    await nothing_but_its_file(home, done)


async def test_making_goes_before_nobody_and_after_its_caller(home: House) -> None:
    home.generator.go.clear()
    started = await create(home, spec_of(await home.canvas()))
    await until(lambda: bool(home.generator.requests))
    assert {one.priority for one in home.generator.requests} == {generator_pb.PRIORITY_PREFETCH}
    # The deadline is that of the batch, not that of the call that began it.
    assert home.generator.deadlines[0] > 300
    home.generator.go.set()
    assert (await ended(home, started.id)).state == DONE


async def test_progress_is_told_here_and_elsewhere(
    model: Checkpoint, tmp_path: Path, quick: None
) -> None:
    async with house(model, tmp_path) as here, house(model, tmp_path) as there:
        canvas = await here.canvas()
        spec = spec_of(canvas, Region(0, 0, 0, 2, 70 * 256))
        here.tokenizer.go.clear()
        started = await create(here, spec)
        assert (started.state, started.done, started.total) == (RUNNING, 0, 71)
        assert (await create(there, spec)).state == RUNNING
        await until(lambda: here.tokenizer.decoding > 0)
        drawn = len(here.generator.requests[0].patches)
        async with asyncio.timeout(60):
            while len(await keys_of(here, f"patches/{canvas.id}/")) < drawn:
                await asyncio.sleep(0.02)
        here.generator.go.clear()
        here.tokenizer.go.set()  # the first batch comes through, the second waits
        async with asyncio.timeout(60):
            while (await find(there, started.id)).done < 64:
                await asyncio.sleep(0.02)
        assert (await find(here, started.id)).done == 64
        here.generator.go.set()
        assert (await ended(there, started.id)).done == 71
        assert there.tokenizer.decoded == 0


class Elsewhere(Store):
    """A store in which another process does something just before some request of ours.

    Attributes:
        requests: how many until then.
        act: what it does.
    """

    requests = 0
    act: Callable[[], Awaitable[None]]

    async def _call(self, what: str, key: str, request: Awaitable[Any]) -> Any:
        self.requests -= 1
        if self.requests == 0:
            await self.act()
        return await super()._call(what, key, request)


async def boundless() -> int | None:
    """The room of an owner without a limit."""
    return None


async def looking() -> tuple[Elsewhere, Exports, Export]:
    """A process that looks at an export of which it makes nothing."""
    store = Elsewhere(MemoryStore())
    canvas = Canvas("ab" * 32, "planet", 7, Extent("plane", 2))
    export = Export(canvas.id, SOMEWHERE, "png", 0)
    await store.create(canvas_key(canvas.id), canvas.canonical())
    await store.create(export_key(export.id), export.canonical())
    nobody: Any = None
    return store, Exports(store, Specs(store), nobody, nobody, 1, 2**28), export


@pytest.mark.parametrize("requests", range(1, 7))
async def test_run_that_ends_while_we_look_is_running_or_done(requests: int) -> None:
    store, ours, export = await looking()
    run = exports._Run(store, export.id, boundless)
    for _ in range(3):
        await run.beat()

    async def end() -> None:
        await store.create(file_key(export.id, run.name), b"file")
        await store.create(done_key(export.id), json.dumps([run.name, 4]).encode())
        await run.end("")

    store.requests, store.act = requests, end
    assert (await ours.get(export.id)).state in ("running", "done")
    assert (await ours.get(export.id)).state == "done"
    assert not [key async for key in store.keys(beats_prefix(export.id))]


@pytest.mark.parametrize("requests", range(1, 7))
async def test_run_that_goes_on_while_we_look_is_running(requests: int) -> None:
    store, ours, export = await looking()
    run = exports._Run(store, export.id, boundless)
    for _ in range(3):
        await run.beat()
    store.requests, store.act = requests, run.beat
    assert (await ours.get(export.id)).state == "running"
    assert len([key async for key in store.keys(beats_prefix(export.id))]) == 2


async def test_run_whose_process_died_is_gone_on_with(
    model: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process takes nothing back: its mark and its last beat stay, and its file may."""
    async with house(model, tmp_path) as home:
        spec = spec_of(await home.canvas())
        first = await create(home, spec)
        await ended(home, first.id)
        # As if it had been killed after its file was whole, and before it named it.
        await home.store.delete(done_key(first.id))
        dead, now = new_nonce(), time.time()
        await home.store.create(run_key(first.id, dead), b"")
        for number, age_s in ((6, 40.0), (7, exports.DEAD_S - 20)):
            beat = json.dumps([now - age_s, 3, ""]).encode()
            await home.store.create(beat_key(first.id, dead, number), beat)
        alive = await find(home, first.id)
        assert (alive.state, alive.done) == (RUNNING, 3)
        assert (await create(home, spec)).state == RUNNING
        assert home.tokenizer.decoded == 9
        monkeypatch.setattr(exports, "DEAD_S", 5.0)
        stopped = await find(home, first.id)
        assert (stopped.state, stopped.done, stopped.problem) == (STOPPED, 3, "")
        before = len(home.generator.requests)
        again = await create(home, spec)
        assert (again.state, again.done) == (RUNNING, 0)
        done = await ended(home, first.id)
        assert done.state == DONE
        assert len(home.generator.requests) == before  # its patches were there
        await nothing_but_its_file(home, done)


async def test_two_processes_agree_on_one_file(
    model: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes the other for dead; the file of one is the export's, and there is no other."""
    monkeypatch.setattr(exports, "DEAD_S", 0.0)
    async with house(model, tmp_path) as here, house(model, tmp_path) as there:
        spec = spec_of(await here.canvas())
        for home in (here, there):
            home.tokenizer.go.clear()
        first = await create(here, spec)
        await create(there, spec)
        # The second has taken the mark of the first away: it stops when it looks.
        await until(lambda: here.tokenizer.decoding > 0 and there.tokenizer.decoding > 0)
        for home in (here, there):
            home.tokenizer.go.set()
        async with asyncio.timeout(60):
            while (await find(here, first.id)).state != DONE:
                await asyncio.sleep(0.02)
        assert await download(here, first.id) == await download(there, first.id)
        await nothing_but_its_file(here, await find(here, first.id))


async def test_file_that_comes_second_goes(home: House) -> None:
    home.tokenizer.go.clear()
    started = await create(home, spec_of(await home.canvas()))
    await until(lambda: home.tokenizer.decoding > 0)
    other = new_nonce()
    await home.store.create(file_key(started.id, other), b"the first")
    await home.store.create(done_key(started.id), json.dumps([other, 9]).encode())
    home.tokenizer.go.set()
    done = await find(home, started.id)
    assert (done.state, done.etag) == (DONE, other)
    await until(lambda: home.tokenizer.decoded == 9)
    await nothing_but_its_file(home, done)
    assert await download(home, started.id) == b"the first"


async def test_process_that_stops_leaves_it_to_others_at_once(
    model: Checkpoint, tmp_path: Path
) -> None:
    async with house(model, tmp_path) as there:
        async with house(model, tmp_path) as here:
            spec = spec_of(await here.canvas())
            here.generator.go.clear()
            started = await create(here, spec)
            await until(lambda: bool(here.generator.requests))
        assert (await find(there, started.id)).state == STOPPED
        assert await keys_of(there, "exports/") == [export_key(started.id)]
        assert len(await made(there, spec)) > 0


async def test_no_more_are_made_at_a_time_than_may_be(model: Checkpoint, tmp_path: Path) -> None:
    async with house(model, tmp_path, exports=1) as home:
        canvas = await home.canvas()
        home.generator.go.clear()
        first = await create(home, spec_of(canvas))
        with pytest.raises(Overloaded, match="1 exports are being made here already") as refused:
            await create(home, spec_of(canvas, format=JPEG))
        assert refused.value.retry_after_s > 0
        assert (await create(home, spec_of(canvas))).state == RUNNING
        home.generator.go.set()
        await ended(home, first.id)
        async with asyncio.timeout(10):
            while True:  # that it has ended is told a moment before there is room
                with suppress(Overloaded):
                    assert len(await made(home, spec_of(canvas, format=JPEG))) > 0
                    break
                await asyncio.sleep(0.01)


async def test_no_room_is_waited_for(home: House) -> None:
    home.generator.failures = [Overloaded("too much is waiting", 0.1) for _ in range(2)]
    assert len(await made(home, spec_of(await home.canvas()))) > 0
    assert not home.generator.failures


async def test_budget_of_whoever_asked_is_spent_and_waited_for(
    model: Checkpoint, tmp_path: Path
) -> None:
    key = make_key(tmp_path, patches_per_minute=220)
    access = AccessSettings(keys_file=tmp_path / "keys.json", anonymous="read")
    async with house(model, tmp_path / "store", access=access) as home:
        # Rows of 81 tiles, painted 64 at a time: nearly what a minute pays for.
        wide = spec_of(await home.canvas(), Region(0, 0, 0, 300, 80 * 256))
        before = refused().get("budget", 0)
        started = await create(home, wide, key)
        await until(lambda: refused().get("budget", 0) > before, 60)
        waiting = await find(home, started.id)
        assert (waiting.state, waiting.done) == (RUNNING, 64)
        await delete(home, started.id, key)


async def test_batch_that_no_minute_pays_for_stops_it(model: Checkpoint, tmp_path: Path) -> None:
    key = make_key(tmp_path, patches_per_minute=20)
    access = AccessSettings(keys_file=tmp_path / "keys.json", anonymous="read")
    async with house(model, tmp_path / "store", access=access) as home:
        wide = spec_of(await home.canvas(), Region(0, 0, 0, 9, 80 * 256))
        stopped = await ended(home, (await create(home, wide, key)).id)
        assert stopped.state == STOPPED and "your budget is 20 a minute" in stopped.problem


async def test_what_goes_wrong_is_told_and_can_be_gone_on_with(home: House) -> None:
    spec = spec_of(await home.canvas())
    home.tokenizer.failures = [SpecMismatch("the tokenizer has other weights")]
    stopped = await ended(home, (await create(home, spec)).id)
    assert stopped.state == STOPPED
    assert stopped.problem == "the tokenizer has other weights"
    assert not await keys_of(home, files_prefix(stopped.id), f"exports/{stopped.id}/runs/")
    with pytest.raises(NotFound, match="no file yet: it is stopped"):
        await download(home, stopped.id)
    assert len(await made(home, spec)) > 0
    assert (await find(home, stopped.id)).problem == ""


# What is left of it.


async def test_deleted_export_is_gone_and_stops(home: House) -> None:
    canvas = await home.canvas()
    spec = spec_of(canvas)
    await made(home, spec)
    first = await create(home, spec)
    home.generator.go.clear()
    second = await create(home, spec_of(canvas, SOMEWHERE._replace(left=5000)))
    await until(lambda: len(home.generator.requests) > 1)
    for one in (first, second):
        await delete(home, one.id)
        for ask in (find, download, delete):
            with pytest.raises(NotFound, match=f"there is no export {one.id}"):
                await ask(home, one.id)
    await until(lambda: home.generator.left == 1)
    assert await keys_of(home, "exports/", "exported/") == []
    home.generator.go.set()
    assert len(await made(home, spec)) > 0


async def test_export_deleted_by_another_process_stops(
    model: Checkpoint, tmp_path: Path, quick: None
) -> None:
    async with house(model, tmp_path) as here, house(model, tmp_path) as there:
        here.generator.go.clear()
        started = await create(here, spec_of(await here.canvas()))
        await until(lambda: bool(here.generator.requests))
        await delete(there, started.id)
        await until(lambda: here.generator.left == 1)
        async with asyncio.timeout(30):
            while await keys_of(here, "exports/", "exported/"):
                await asyncio.sleep(0.02)


async def test_exports_of_a_canvas_go_with_it(home: House) -> None:
    who = (("x-owner", "o" * 16),)
    wish = canvas_pb.CreateCanvasRequest(world="planet", seed=3)
    canvas_id = (await home.canvases.CreateCanvas(wish, metadata=who)).canvas.id
    canvas = Canvas.parse(await home.store.get(canvas_key(canvas_id)) or b"")
    kept = await home.canvas()
    await made(home, spec_of(canvas))
    await made(home, spec_of(kept))
    left = (await create(home, spec_of(kept))).id
    gone = canvas_pb.DeleteCanvasRequest(canvas=canvas_id)
    await home.canvases.DeleteCanvas(gone, metadata=who)
    found = await keys_of(home, "exports/", "exported/")
    assert found and all(left in key for key in found)


@pytest.mark.parametrize("content", [b"", b"[", b'["ab', b'{"a": 1}'])
async def test_what_a_power_cut_left_is_made_again(home: House, content: bytes) -> None:
    spec = spec_of(await home.canvas())
    whole = await made(home, spec)
    found = await create(home, spec)
    await nothing_but_its_file(home, found)
    for key in (done_key(found.id), beat_key(found.id, new_nonce(), 0)):
        await home.store.delete(key)
        await home.store.create(key, content)
    assert (await find(home, found.id)).state == STOPPED
    await home.store.delete(export_key(found.id))
    await home.store.create(export_key(found.id), content)
    with pytest.raises(SpecMismatch, match="the spec stored for export"):
        await find(home, found.id)
    assert await made(home, spec) == whole


async def test_file_cut_short_is_no_file(home: House) -> None:
    spec = spec_of(await home.canvas())
    whole = await made(home, spec)
    found = await create(home, spec)
    await nothing_but_its_file(home, found)
    key = file_key(found.id, found.etag)
    await home.store.delete(key)
    await home.store.create(key, whole[:-1])
    assert (await find(home, found.id)).state == STOPPED
    assert await made(home, spec) == whole


# Whose it is, and how much.

ANNE, BERT = (("x-owner", "anne-has-a-secret"),), (("x-owner", "bert-has-a-secret"),)


async def own(home: House, key: Any, **page: Any) -> pb.ListExportsResponse:
    with calling("the tiler"):
        return await home.exports.ListExports(pb.ListExportsRequest(**page), metadata=key)


async def held(home: House, key: Any) -> int:
    told = await home.canvases.GetUsage(canvas_pb.GetUsageRequest(), metadata=key)
    return int(told.export_bytes.held)


def bounded(most_bytes: int) -> dict[str, Any]:
    return {"access": AccessSettings(anonymous="paint", own_export_bytes=most_bytes)}


async def test_exports_are_listed_to_their_owner_newest_first(home: House) -> None:
    canvas = await home.canvas()
    specs = [spec_of(canvas, Region(0, 0, left, 5, 5)) for left in range(3)]
    found = []
    for spec in specs:
        found.append(await ended(home, (await create(home, spec, ANNE)).id))
    await ended(home, (await create(home, specs[0], BERT)).id)
    await ended(home, (await create(home, spec_of(canvas, Region(0, 9, 9, 5, 5)))).id)
    assert [one.export for one in (await own(home, ANNE)).exports] == found[::-1]
    assert [one.export for one in (await own(home, BERT)).exports] == found[:1]
    first = await own(home, ANNE, page_size=2)
    rest = await own(home, ANNE, page_size=2, page_token=first.next_page_token)
    assert [one.export for one in (*first.exports, *rest.exports)] == found[::-1]
    assert not rest.next_page_token
    with pytest.raises(InvalidRequest, match="x-owner"):
        await own(home, ())


async def test_export_goes_with_its_last_owner_and_gives_the_bytes_back(home: House) -> None:
    canvas = await home.canvas()
    spec = spec_of(canvas)
    found = await ended(home, (await create(home, spec, ANNE)).id)
    assert (await create(home, spec, BERT)) == found
    assert await held(home, ANNE) == await held(home, BERT) == found.size_bytes > 0
    with pytest.raises(NotFound, match="not among your own"):
        await delete(home, found.id, (("x-owner", "mallory-has-a-secret"),))
    with pytest.raises(NotFound, match="not among your own"):
        await delete(home, found.id)
    await delete(home, found.id, ANNE)
    assert (await held(home, ANNE), await held(home, BERT)) == (0, found.size_bytes)
    assert await find(home, found.id) == found
    await delete(home, found.id, BERT)
    assert await held(home, BERT) == 0
    assert await keys_of(home, "exports/", "exported/", "saved/", "savers/") == []


async def test_export_that_others_want_is_made_though_who_began_it_left(home: House) -> None:
    home.generator.go.clear()
    spec = spec_of(await home.canvas())
    started = await create(home, spec, ANNE)
    await create(home, spec, BERT)
    await delete(home, started.id, ANNE)
    home.generator.go.set()
    assert (await ended(home, started.id)).state == DONE
    await delete(home, started.id, BERT)
    assert await keys_of(home, "exports/", "exported/", "saved/", "savers/") == []


async def test_export_asked_for_while_its_last_owner_leaves_is_there(home: House) -> None:
    """By who comes first to the process that makes it."""
    spec = spec_of(await home.canvas(), Region(0, 0, 0, 5, 5))
    for _ in range(20):
        found = await ended(home, (await create(home, spec, ANNE)).id)
        _, asked = await asyncio.gather(delete(home, found.id, ANNE), create(home, spec, BERT))
        assert (await ended(home, asked.id)).state == DONE
        assert await held(home, BERT) > 0
        await delete(home, asked.id, BERT)
        assert await keys_of(home, "exports/", "exported/", "saved/", "savers/") == []


async def test_deletion_of_an_export_cut_short_can_be_ended(home: House) -> None:
    """What it shows is gone, and the owner's mark is still there."""
    found = await ended(home, (await create(home, spec_of(await home.canvas()), ANNE)).id)
    await home.store.delete_all(Prefix(f"exports/{found.id}/"))
    await home.store.delete_all(Prefix("savers/"))
    assert not (await own(home, ANNE)).exports and await held(home, ANNE) == 0
    await delete(home, found.id, ANNE)
    assert await keys_of(home, "exports/", "saved/", "savers/") == []


async def test_exports_that_go_with_their_canvas_give_their_bytes_back(home: House) -> None:
    wish = canvas_pb.CreateCanvasRequest(world="planet", seed=3)
    canvas_id = (await home.canvases.CreateCanvas(wish, metadata=ANNE)).canvas.id
    canvas = Canvas.parse(await home.store.get(canvas_key(canvas_id)) or b"")
    await ended(home, (await create(home, spec_of(canvas), BERT)).id)
    gone = canvas_pb.DeleteCanvasRequest(canvas=canvas_id)
    await home.canvases.DeleteCanvas(gone, metadata=ANNE)
    assert await held(home, BERT) == 0
    assert await keys_of(home, "exports/", "exported/", "saved/", "savers/") == []


async def test_no_more_bytes_of_exports_than_may_be_held(model: Checkpoint, tmp_path: Path) -> None:
    async with house(model, tmp_path) as free:
        canvas = await free.canvas()
        size = len(await made(free, spec_of(canvas)))
        other = spec_of(canvas, Region(0, 0, 0, 300, 300))
        more = len(await made(free, other))
    async with house(model, tmp_path, **bounded(size + more - 1)) as home:
        assert (await create(home, spec_of(canvas), ANNE)).state == DONE  # another had it made
        before = await keys_of(home, "")
        with pytest.raises(OverQuota, match=f"hold {more - 1} bytes more, .* at least {more}:"):
            await create(home, other, ANNE)
        assert await keys_of(home, "") == before
        await create(home, spec_of(canvas), ANNE)  # held already
        told = await home.canvases.GetUsage(canvas_pb.GetUsageRequest(), metadata=ANNE)
        assert told.export_bytes == canvas_pb.Share(held=size, most=size + more - 1)
        await create(home, other, BERT)
        await create(home, other)  # nobody holds nothing
        await delete(home, (await create(home, spec_of(canvas), ANNE)).id, ANNE)
        assert (await create(home, other, ANNE)).state == DONE


@pytest.mark.parametrize("format", [PNG, JPEG, DZI, PMTILES, GIF])
async def test_export_that_turns_out_too_large_stops_and_keeps_no_file(
    model: Checkpoint, tmp_path: Path, format: pb.ExportFormat.ValueType
) -> None:
    async with house(model, tmp_path, **bounded(200)) as home:
        spec = spec_of(await home.canvas(frames=2), format=format)
        found = await ended(home, (await create(home, spec, ANNE)).id)
        assert (found.state, found.size_bytes) == (STOPPED, 0)
        assert "of exports you may hold 200 bytes more" in found.problem
        assert await keys_of(home, f"exports/{found.id}/files/") == []
        assert await held(home, ANNE) == 0
        await delete(home, found.id, ANNE)
        assert await keys_of(home, "exports/", "exported/", "saved/", "savers/") == []


async def test_who_holds_all_that_they_may_begins_nothing(
    model: Checkpoint, tmp_path: Path
) -> None:
    async with house(model, tmp_path) as free:
        canvas = await free.canvas()
        size = len(await made(free, spec_of(canvas)))
    async with house(model, tmp_path, **bounded(size)) as home:
        await create(home, spec_of(canvas), ANNE)
        with pytest.raises(OverQuota, match="hold 0 bytes more"):
            await create(home, spec_of(canvas, Region(0, 0, 0, 5, 5)), ANNE)
        assert home.generator.requests == []


async def test_two_made_at_a_time_are_not_both_kept_where_one_has_room(
    model: Checkpoint, tmp_path: Path
) -> None:
    wide, high = Region(0, 0, 0, 100, 300), Region(0, 0, 0, 300, 100)
    async with house(model, tmp_path / "free") as free:
        canvas = await free.canvas()
        sizes = [len(await made(free, spec_of(canvas, one))) for one in (wide, high)]
    async with house(model, tmp_path / "bound", **bounded(max(sizes) + 1)) as home:
        await home.store.create(canvas_key(canvas.id), canvas.canonical())
        home.generator.go.clear()
        started = [await create(home, spec_of(canvas, one), ANNE) for one in (wide, high)]
        home.generator.go.set()
        found = [await ended(home, one.id) for one in started]
        assert sorted(one.state for one in found) == [DONE, STOPPED]
        assert await held(home, ANNE) in sizes


BAD: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("planet", {"height_px": 0}, InvalidRequest, "must not be empty"),
    ("planet", {"width_px": 0}, InvalidRequest, "must not be empty"),
    ("planet", {"frame": 1}, InvalidRequest, "frame must be 0 to 0"),
    ("planet", {"level": 3}, NotFound, "levels 0 to 2, not 3"),
    ("planet", {"left_px": 2**62}, InvalidRequest, "outside the world"),
    ("planet", {"top_px": -(2**62)}, InvalidRequest, "outside the world"),
    ("planet", {"canvas": "0" * 64}, NotFound, "there is no canvas"),
    ("planet", {"canvas": "../x"}, InvalidRequest, "a canvas id must be"),
    ("planet", {"format": 9}, InvalidRequest, "format must be 0 to 8, not 9"),
    ("planet", {"format": MP4}, InvalidRequest, "at least 2 frames"),
    ("planet", {"format": GIF, "frame": 1}, InvalidRequest, "shows all frames, not frame 1"),
    ("planet", {"format": PNG, "fps": 8}, InvalidRequest, "png is no film"),
    ("planet", {"back_and_forth": True}, InvalidRequest, "png is no film"),
    ("planet", {"format": JPEG, "quality": 101}, InvalidRequest, "1 to 100, not 101"),
    ("planet", {"quality": 50}, InvalidRequest, "png has no quality; 50 was given"),
    ("planet", {"format": PMTILES, "quality": 1}, InvalidRequest, "pmtiles has no quality"),
    ("planet", {"width_px": 2**16 + 1}, InvalidRequest, "65536 px wide"),
    ("planet", {"height_px": 2**20, "width_px": 2**9}, InvalidRequest, "268435456 pixels"),
    (
        "planet",
        {"height_px": 2**13, "width_px": 2**13, "format": WEBP},
        InvalidRequest,
        "33554432 pixels",
    ),
    ("planet", {"width_px": 16384, "format": WEBP}, InvalidRequest, "16383 px to a side"),
    ("planet", {"height_px": 65501, "width_px": 1, "format": JPEG}, InvalidRequest, "65500 px"),
    ("scroll", {"level": 2, "top_px": -1}, NotFound, "beyond the canvas"),
    ("scroll", {"level": 2, "top_px": 700}, NotFound, "beyond the canvas"),
]


@pytest.mark.parametrize(("world", "change", "kind", "words"), BAD)
async def test_impossible_export_is_refused_and_leaves_nothing(
    home: House, world: str, change: dict[str, Any], kind: type[Exception], words: str
) -> None:
    spec = spec_of(await home.canvas(world), Region(1, 0, 0, 30, 30))
    for name, value in change.items():
        setattr(spec, name, value)
    with pytest.raises(kind, match=words):
        await create(home, spec)
    assert await keys_of(home, "exports/", "exported/") == []


async def test_canvas_of_another_model_is_refused_and_leaves_nothing(home: House) -> None:
    canvas = Canvas("f" * 64, "planet", 1, Extent("plane", 0))
    await home.store.create(canvas_key(canvas.id), canvas.canonical())
    with pytest.raises(SpecMismatch):
        await create(home, spec_of(canvas, Region(0, 0, 0, 3, 3)))
    assert await keys_of(home, "exports/", "exported/") == []


@pytest.mark.parametrize("wrong", ["", "zz", "A" * 64, "../../etc/passwd"])
async def test_what_is_no_id_is_refused(home: House, wrong: str) -> None:
    for ask in (find, download, delete):
        with pytest.raises(InvalidRequest, match="an export id must be 64 characters"):
            await ask(home, wrong)


async def test_reader_fetches_and_starts_nothing(model: Checkpoint, tmp_path: Path) -> None:
    painter, reader = make_key(tmp_path), make_key(tmp_path, "read")
    access = AccessSettings(keys_file=tmp_path / "keys.json", anonymous="none")
    async with house(model, tmp_path / "store", access=access) as home:
        spec = spec_of(await home.canvas(), Region(0, 0, 0, 5, 5))
        with pytest.raises(Forbidden, match="painting takes a key with the role paint"):
            await create(home, spec, reader)
        started = await create(home, spec, painter)
        async with asyncio.timeout(30):
            while (await find(home, started.id, reader)).state == RUNNING:
                await asyncio.sleep(0.02)
        with pytest.raises(Forbidden):
            await delete(home, started.id, reader)
        call = home.exports.DownloadExport(
            pb.DownloadExportRequest(export=started.id), metadata=reader
        )
        assert shown(b"".join([one.content async for one in call])).shape == (5, 5, 3)
        await delete(home, started.id, painter)


async def test_large_file_leaves_the_process_in_parts(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the store's multipart writing, in pieces smaller than a message may be."""
    monkeypatch.setattr("svckit.store.PART_BYTES", 2**16)
    canvas = await home.canvas()
    content = await made(home, spec_of(canvas, Region(0, 0, 0, 700, 900)))
    assert len(content) > 2**20
    np.testing.assert_array_equal(
        shown(content), await region(home, canvas, Region(0, 0, 0, 700, 900))
    )


def test_spec_is_read_as_it_is_written() -> None:
    export = Export("ab" * 32, SOMEWHERE, "jpg", 77)
    assert Export.parse(export.canonical()) == export
