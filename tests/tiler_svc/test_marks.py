"""The laws of holding pictures and canvases: whose they are, how much, and when they go."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from grpc import aio
from obstore.store import MemoryStore

from handscroll.assemble import Pixels
from handscroll.canvas import Canvas, Known
from handscroll.checkpoint import Checkpoint
from handscroll.context import Codes
from handscroll.errors import HandscrollError, InvalidRequest, NotFound, OverQuota, StillNeeded
from handscroll.geometry import Patch
from handscroll_api.canvas.v1 import canvas_service_pb2 as pb
from svckit.access import AccessSettings
from svckit.client import calling
from svckit.keys import (
    PICTURES,
    Key,
    Prefix,
    canvas_key,
    known_key,
    making_key,
    new_nonce,
    patch_key,
    picture_key,
    upload_key,
    uploader_key,
    uploads_prefix,
    use_key,
)
from svckit.specs import Specs
from svckit.store import Entry, Store
from svckit.wire import Model
from tests.tiler_svc.fakes import House, house, model_of
from tests.tiler_svc.test_pictures import PIXELS, png
from tiler_svc.canvases import Canvases
from tiler_svc.pictures import MAKING_S, Pictures, wipe

pytestmark = pytest.mark.anyio

ANNE, BERT = "anne-has-a-secret", "bert-has-a-secret"
FILE = png(PIXELS)


def says(owner: str | None) -> Any:
    return None if owner is None else aio.Metadata(("x-owner", owner))


async def upload(home: House, owner: str | None, content: bytes = FILE) -> str:
    with calling("the tiler"):
        pieces = [pb.UploadPictureRequest(content=content)]
        return (await home.canvases.UploadPicture(iter(pieces), metadata=says(owner))).picture


async def around(home: House, picture: str, owner: str | None = ANNE, seed: int = 4) -> str:
    known = pb.Known(picture=picture, top_px=256, left_px=384)
    request = pb.CreateCanvasRequest(world="planet", seed=seed, known=known)
    with calling("the tiler"):
        return (await home.canvases.CreateCanvas(request, metadata=says(owner))).canvas.id


async def drop(home: House, owner: str | None, picture: str) -> None:
    with calling("the tiler"):
        request = pb.DeletePictureRequest(picture=picture)
        await home.canvases.DeletePicture(request, metadata=says(owner))


async def drop_canvas(home: House, owner: str, canvas: str) -> None:
    with calling("the tiler"):
        request = pb.DeleteCanvasRequest(canvas=canvas)
        await home.canvases.DeleteCanvas(request, metadata=says(owner))


async def own(home: House, owner: str | None, **page: Any) -> pb.ListPicturesResponse:
    with calling("the tiler"):
        request = pb.ListPicturesRequest(**page)
        return await home.canvases.ListPictures(request, metadata=says(owner))


async def usage(home: House, owner: str | None) -> pb.GetUsageResponse:
    with calling("the tiler"):
        return await home.canvases.GetUsage(pb.GetUsageRequest(), metadata=says(owner))


async def there(store: Store) -> list[str]:
    return sorted([key async for key in store.keys(Prefix(""))])


def other(number: int) -> bytes:
    """Another picture's file."""
    return png(np.full((64, 64, 3), number, np.uint8))


async def test_pictures_are_listed_to_their_owner_newest_first(home: House) -> None:
    given = [await upload(home, ANNE, other(number)) for number in range(5)]
    await upload(home, BERT, other(9))
    await upload(home, None, other(8))
    await upload(home, ANNE, other(0))  # again: it keeps its place
    page = (await own(home, ANNE)).pictures
    assert [one.picture for one in page] == given[::-1]
    for one in page:
        stored = await home.store.get(picture_key(one.picture))
        assert stored is not None
        assert (one.height_px, one.width_px, one.size_bytes) == (64, 64, len(stored))
    times = [one.made_at.ToDatetime() for one in page]
    assert times == sorted(times, reverse=True)
    found, token = list[str](), ""
    while True:
        shown = await own(home, ANNE, page_size=2, page_token=token)
        found += [one.picture for one in shown.pictures]
        token = shown.next_page_token
        if not token:
            break
    assert found == given[::-1]
    assert not [key for key in await there(home.store) if "anne" in key]


@pytest.mark.parametrize("page", [{"page_size": 1001}, {"page_token": "x"}, {"page_token": "eA=="}])
async def test_page_that_cannot_be_is_refused(home: House, page: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(page))):
        await own(home, ANNE, **page)


async def test_picture_goes_with_its_last_owner(home: House) -> None:
    picture = await upload(home, ANNE)
    assert await upload(home, BERT) == picture
    await drop(home, ANNE, picture)
    assert not (await own(home, ANNE)).pictures
    assert await home.store.get(picture_key(picture))
    with pytest.raises(NotFound, match="not among your own"):
        await drop(home, ANNE, picture)
    await drop(home, BERT, picture)
    assert await there(home.store) == []
    with pytest.raises(NotFound, match="there is no picture"):
        await around(home, picture)
    assert await there(home.store) == []


async def test_picture_stays_while_canvases_stand_on_it(home: House) -> None:
    picture = await upload(home, ANNE)
    canvases = [await around(home, picture, BERT, seed) for seed in (1, 2)]
    await upload(home, BERT)
    await drop(home, BERT, picture)  # it stays Anne's
    for canvas in canvases:
        with pytest.raises(StillNeeded, match=f"canvas .* stands on picture {picture}"):
            await drop(home, ANNE, picture)
        assert [one.picture for one in (await own(home, ANNE)).pictures] == [picture]
        await drop_canvas(home, BERT, canvas)
    assert await home.store.get(known_key(home.model.digest, picture, 2))
    await drop(home, ANNE, picture)
    assert await there(home.store) == []


async def test_what_came_without_a_name_is_for_admins_to_delete(home: House) -> None:
    picture = await upload(home, None)
    assert await upload(home, ANNE) == picture
    await drop(home, ANNE, picture)
    kept = Pictures(home.store, home.tokenizer)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        await kept.delete(picture, BERT)
    await kept.delete(picture, BERT, admin=True)
    assert await there(home.store) == []
    await upload(home, ANNE)
    with pytest.raises(NotFound):  # what is somebody's is not an admin's
        await kept.delete(picture, BERT, admin=True)


async def test_nobody_can_neither_list_nor_delete_pictures(home: House) -> None:
    picture = await upload(home, None)
    for call in (own(home, None), drop(home, None, picture), usage(home, None)):
        with pytest.raises(InvalidRequest, match="x-owner"):
            await call


@pytest.mark.parametrize("picture", ["", "g" * 64, "A" * 64, "../" * 20])
async def test_what_is_no_picture_is_refused(home: House, picture: str) -> None:
    with pytest.raises(InvalidRequest, match="64 characters"):
        await drop(home, ANNE, picture)


async def test_deletion_cut_short_can_be_ended(home: House) -> None:
    """The file is gone, the owner's mark and the tokens are still there."""
    picture = await upload(home, ANNE)
    await drop_canvas(home, ANNE, await around(home, picture))
    await home.store.delete(picture_key(picture))
    await home.store.delete(uploader_key(picture, ANNE))
    await drop(home, ANNE, picture)
    assert await there(home.store) == []


async def test_making_that_was_cut_short_keeps_no_picture(home: House) -> None:
    """Its canvas never came to be: one mark counts as long as it may still be made, one never."""
    picture = await upload(home, ANNE)
    making = making_key(picture, new_nonce())
    await home.store.create(use_key(picture, "c" * 64), b"")
    await home.store.create(making, b"%d" % (time.time() - MAKING_S + 60))
    with pytest.raises(StillNeeded, match="is being made or deleted"):
        await drop(home, ANNE, picture)
    for began in (b"%d" % (time.time() - MAKING_S - 60), b""):
        await home.store.delete(making)
        await home.store.create(making, began)
        await drop(home, ANNE, picture)
        assert await there(home.store) == []
        await upload(home, ANNE)


async def test_mark_cut_short_by_a_power_cut_is_made_again(home: House) -> None:
    picture = await upload(home, ANNE)
    mark = upload_key(ANNE, picture)
    for cut in (b"", b"2026-01-01T00:00:00.0", b"2026-01-01T00:00:00.000000+00:00 5 6"):
        await home.store.delete(mark)
        await home.store.create(mark, cut)
        assert not (await own(home, ANNE)).pictures
        await upload(home, ANNE)
        assert [one.width_px for one in (await own(home, ANNE)).pictures] == [400]


# How much.


def bounded(**most: Any) -> dict[str, Any]:
    return {"access": AccessSettings(anonymous="paint", **most)}


async def test_no_more_canvases_than_may_be_held(model: Checkpoint, tmp_path: Any) -> None:
    async with house(model, tmp_path, **bounded(own_canvases=2)) as home:
        picture = await upload(home, ANNE)
        made = [await around(home, picture, ANNE, seed) for seed in range(2)]
        before = await there(home.store)
        with pytest.raises(OverQuota, match="you hold 2 canvases, and may hold 2"):
            await around(home, picture, ANNE, 2)
        assert await there(home.store) == before
        assert await around(home, picture, ANNE, 1) == made[1]  # held already
        await around(home, picture, BERT, 2)
        told = await usage(home, ANNE)
        assert (told.canvases.held, told.canvases.most) == (2, 2)
        await drop_canvas(home, ANNE, made[0])
        await around(home, picture, ANNE, 2)


async def test_no_more_painted_than_may_be_held(model: Checkpoint, tmp_path: Any) -> None:
    async with house(model, tmp_path, **bounded(own_canvas_bytes=1000)) as home:
        picture = await upload(home, ANNE)
        made = []
        for seed, size in enumerate((999, 1)):
            made.append(await around(home, picture, ANNE, seed))
            await home.store.create(patch_key(made[-1], Patch(0, 0, 0, 0)), b"p" * size)
        words = "your canvases hold 1000 bytes of patches, and may hold 1000: delete some first"
        with pytest.raises(OverQuota, match=words):
            await around(home, picture, ANNE, 2)
        assert (await usage(home, ANNE)).canvas_bytes == pb.Share(held=1000, most=1000)
        assert await around(home, picture, ANNE, 1) == made[1]  # held already
        branch = pb.Branch(parent=made[0], height_px=64, width_px=64)
        with calling("the tiler"):
            request = pb.CreateCanvasRequest(world="planet", branch=branch)
            await home.canvases.CreateCanvas(request, metadata=says(BERT))
        assert (await usage(home, BERT)).canvas_bytes == pb.Share(held=0, most=1000)
        await home.store.create(patch_key(made[0], Patch(0, 0, 0, 1)), b"p")  # is counted later
        await drop_canvas(home, ANNE, made[1])
        assert (await usage(home, ANNE)).canvas_bytes.held == 999
        assert await around(home, picture, ANNE, 1) == made[1]  # another one, with nothing in it
        assert (await usage(home, ANNE)).canvas_bytes.held == 999
        await around(home, picture, ANNE, 2)


async def test_what_is_counted_when_nobody_waits_any_more_is_known_to_who_comes_next(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    canvas = await around(home, await upload(home, ANNE), ANNE)
    for number in range(3):
        await home.store.create(patch_key(canvas, Patch(0, 0, 0, number)), b"p" * 100)
    canvases = Canvases(
        home.store,
        Specs(home.store),
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        {},
    )
    listed, go_on, batches = 0, asyncio.Event(), home.store.batches

    async def slowly(prefix: Prefix) -> AsyncIterator[list[Entry]]:
        nonlocal listed
        listed += 1
        await go_on.wait()
        async for batch in batches(prefix):
            yield batch

    monkeypatch.setattr(home.store, "batches", slowly)
    size = partial(canvases._size, canvas)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(size(), 0.05)
    waiting = [asyncio.create_task(size()) for _ in range(2)]
    await asyncio.sleep(0)
    go_on.set()
    assert await asyncio.gather(*waiting) == [300, 300]
    assert await size() == 300 and listed == 1
    await canvases.close()


async def test_no_more_pictures_than_may_be_held(model: Checkpoint, tmp_path: Any) -> None:
    async with house(model, tmp_path, **bounded(own_picture_bytes=len(FILE) + 400)) as home:
        first = await upload(home, ANNE)
        await upload(home, ANNE, other(1))
        held = sum(
            [len(await home.store.get(key) or b"") async for key in home.store.keys(PICTURES)]
        )
        before = await there(home.store)
        words = f"you hold {held} bytes of pictures, and may hold {len(FILE) + 400}; this one has"
        with pytest.raises(OverQuota, match=words):
            await upload(home, ANNE, png(PIXELS[::-1]))
        assert await there(home.store) == before
        await upload(home, ANNE)  # held already
        told = await usage(home, ANNE)
        assert (told.picture_bytes.held, told.picture_bytes.most) == (held, len(FILE) + 400)
        await upload(home, BERT, png(PIXELS[::-1]))
        await drop(home, ANNE, first)
        await upload(home, ANNE, png(PIXELS[::-1]))


async def test_where_everybody_may_paint_there_is_no_limit(home: House) -> None:
    await upload(home, ANNE)
    told = await usage(home, ANNE)
    assert told.picture_bytes.held > 0 and told.picture_bytes.most == 0
    assert told.canvases == pb.Share(held=0, most=0)


# Races: what whoever was told that it is done has, they have.


STEPS = 20
"""Requests to the store after which the second of two comes: more than the first makes."""


class Jittery:
    """A back end whose answers take a while, and not always the same.

    Attributes:
        asked: how many requests there were.
    """

    def __init__(self, seed: int) -> None:
        self._raw, self._random = MemoryStore(), random.Random(seed)
        self.asked = 0

    async def _after(self, work: Awaitable[Any]) -> Any:
        self.asked += 1
        await asyncio.sleep(self._random.random() * 0.004)
        found = await work
        await asyncio.sleep(self._random.random() * 0.004)
        return found

    async def get_async(self, path: str) -> Any:
        return await self._after(self._raw.get_async(path))

    async def get_range_async(self, path: str, *, start: int, end: int) -> Any:
        return await self._after(self._raw.get_range_async(path, start=start, end=end))

    async def head_async(self, path: str) -> Any:
        return await self._after(self._raw.head_async(path))

    async def put_async(self, path: str, file: bytes, *, mode: Any) -> Any:
        return await self._after(self._raw.put_async(path, file, mode=mode))

    async def delete_async(self, paths: str | Sequence[str]) -> None:
        await self._after(self._raw.delete_async(paths))

    def list(self, prefix: str, *, chunk_size: int) -> Any:
        self.asked += 1
        return self._raw.list(prefix, chunk_size=chunk_size)


class Blank:
    """A tokenizer that sees nothing."""

    async def encode(self, model: Model, pixels: Pixels) -> Codes:
        height, width, _ = pixels.shape
        return np.zeros((height // 16, width // 16, model.codes), np.uint8)


class Race:
    """A store with a picture of Anne's in it, and what may be done to it."""

    def __init__(self, model: Model, seed: int) -> None:
        self.raw, self.model, self.seed = Jittery(seed), model, seed
        self.store = Store(self.raw)
        self.pictures = Pictures(self.store, Blank())  # type: ignore[arg-type]
        self.canvases = Canvases(
            self.store,
            Specs(self.store, 1e-9),
            None,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            self.pictures,
            {},
        )
        self.sampling = replace(model.sampling, group=64)

    async def begin(self) -> None:
        self.picture, height, width = await self.pictures.take(FILE, ANNE)
        known = Known(self.picture, 256, 384, height, width)
        extent = self.model.worlds["planet"]
        self.canvas = Canvas(
            self.model.digest, "planet", 4, extent, sampling=self.sampling, known=known
        )

    async def make(self, owner: str) -> None:
        await self.canvases.create(self.canvas, self.model, owner)

    async def check_canvas(self) -> None:
        """The canvas has what it stands on."""
        assert await self.store.get(canvas_key(self.canvas.id)) == self.canvas.canonical()
        assert await self.store.get(picture_key(self.picture))
        assert await self.store.get(known_key(self.model.digest, self.picture, 2))
        with pytest.raises(StillNeeded):
            await wipe(self.store, self.picture)


async def outcome(work: Awaitable[None]) -> type[HandscrollError] | None:
    """What came of it."""
    try:
        await work
    except HandscrollError as error:
        return type(error)
    return None


Two = tuple[type[HandscrollError] | None, type[HandscrollError] | None]


async def both(race: Race, one: Awaitable[None], other: Awaitable[None]) -> Two:
    """What came of two that race: either comes first, and the second at any step of the first."""
    first, second = (one, other) if race.seed % 2 else (other, one)
    begun, asked = asyncio.create_task(outcome(first)), race.raw.asked
    while not begun.done() and race.raw.asked < asked + race.seed // 2 % STEPS:
        await asyncio.sleep(0.0005)
    late = await outcome(second)
    return (await begun, late) if race.seed % 2 else (late, await begun)


async def races(model: Checkpoint) -> list[Race]:
    found = [Race(model_of(model), seed) for seed in range(4 * STEPS)]
    await asyncio.gather(*(race.begin() for race in found))
    return found


async def test_picture_given_while_it_is_deleted_is_there(model: Checkpoint) -> None:
    async def run(race: Race) -> None:
        deleting = race.pictures.delete(race.picture, ANNE)
        dropped, given = await both(race, deleting, _take(race, BERT))
        assert (dropped, given) == (None, None)
        assert await race.store.get(picture_key(race.picture))
        assert not await race.store.any(uploads_prefix(ANNE))
        await race.pictures.delete(race.picture, BERT)
        assert await there(race.store) == []

    await asyncio.gather(*map(run, await races(model)))


async def test_picture_given_and_deleted_by_the_same_owner_is_theirs_or_gone(
    model: Checkpoint,
) -> None:
    """In two windows, say."""

    async def run(race: Race) -> bool:
        deleting = race.pictures.delete(race.picture, ANNE)
        assert await both(race, deleting, _take(race, ANNE)) == (None, None)
        kept = bool(await there(race.store))
        if kept:
            assert [one.name for one in (await race.pictures.own(ANNE, 0, ""))[0]] == [race.picture]
            assert await race.store.get(picture_key(race.picture))
            await race.pictures.delete(race.picture, ANNE)
        assert await there(race.store) == []
        return kept

    assert set(await asyncio.gather(*map(run, await races(model)))) == {True, False}


async def test_who_lets_go_while_they_take_hold_again_still_holds(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = Race(model_of(model), 1)
    await race.begin()
    upon(race, monkeypatch, upload_key(ANNE, race.picture), _take(race, ANNE))
    await race.pictures.delete(race.picture, ANNE)
    assert [one.name for one in (await race.pictures.own(ANNE, 0, ""))[0]] == [race.picture]


async def _take(race: Race, owner: str) -> None:
    await race.pictures.take(FILE, owner)


async def test_canvas_made_while_its_picture_is_deleted_has_it_or_is_not_made(
    model: Checkpoint,
) -> None:
    async def run(race: Race) -> tuple[Any, Any]:
        deleting = race.pictures.delete(race.picture, ANNE)
        dropped, made = await both(race, deleting, race.make(BERT))
        if made is None:
            assert dropped is StillNeeded
            await race.check_canvas()
            await race.canvases.delete(race.canvas.id, BERT)
        if dropped is None:
            assert made is not None
        else:  # it can be tried again
            assert [one.name for one in (await race.pictures.own(ANNE, 0, ""))[0]] == [race.picture]
            await race.pictures.delete(race.picture, ANNE)
        assert await there(race.store) == []
        return dropped, made

    found = await asyncio.gather(*map(run, await races(model)))
    assert {dropped for dropped, _ in found} == {None, StillNeeded}


async def test_canvas_deleted_and_made_at_a_time_still_stands_on_its_picture(
    model: Checkpoint,
) -> None:
    async def run(race: Race) -> None:
        await race.make(ANNE)
        dropping = asyncio.create_task(outcome(race.pictures.delete(race.picture, ANNE)))
        going = race.canvases.delete(race.canvas.id, ANNE)
        gone, made = await both(race, going, race.make(BERT))
        dropped = await dropping
        assert gone is None
        if made is None:
            assert dropped is StillNeeded
            await race.check_canvas()
        else:
            assert await race.store.get(canvas_key(race.canvas.id)) is None

    await asyncio.gather(*map(run, await races(model)))


async def test_owners_who_leave_a_picture_together_leave_nothing(model: Checkpoint) -> None:
    async def run(race: Race) -> None:
        owners = [ANNE, *(f"owner-number-{number:04d}" for number in range(4))]
        for owner in owners:
            await race.pictures.take(FILE, owner)
        leaving = (race.pictures.delete(race.picture, owner) for owner in owners)
        await asyncio.gather(*leaving)
        assert await there(race.store) == []

    await asyncio.gather(*map(run, (await races(model))[:30]))


def upon(
    race: Race, patch: pytest.MonkeyPatch, key: Key, work: Awaitable[None], method: str = "delete"
) -> None:
    """Have something happen just before something is done to a value for the first time."""
    real, begun = getattr(race.store, method), list[Key]()

    async def doing(one: Key, *value: bytes) -> Any:
        if one == key and not begun:
            begun.append(one)
            await work
        return await real(one, *value)

    patch.setattr(race.store, method, doing)


async def test_picture_given_just_before_its_file_goes_is_put_back(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = Race(model_of(model), 1)
    await race.begin()
    upon(race, monkeypatch, picture_key(race.picture), _take(race, BERT))
    await race.pictures.delete(race.picture, ANNE)
    assert await race.store.get(picture_key(race.picture))
    assert not (await race.pictures.own(ANNE, 0, ""))[0]


async def test_who_takes_hold_while_they_let_go_holds_all_of_it(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = Race(model_of(model), 1)
    await race.begin()
    letting_go = race.pictures.delete(race.picture, ANNE)
    upon(race, monkeypatch, picture_key(race.picture), letting_go, "create")
    await race.pictures.take(FILE, ANNE)
    assert [one.name for one in (await race.pictures.own(ANNE, 0, ""))[0]] == [race.picture]
    assert await race.store.get(picture_key(race.picture))
    await race.make(ANNE)
    gone = race.canvases.delete(race.canvas.id, ANNE)
    upon(race, monkeypatch, canvas_key(race.canvas.id), gone, "get")
    await race.make(ANNE)
    await race.canvases.delete(race.canvas.id, ANNE)
    await race.pictures.delete(race.picture, ANNE)
    assert await there(race.store) == []


async def test_canvas_made_just_before_its_mark_goes_is_put_back_with_it(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = Race(model_of(model), 1)
    await race.begin()
    await race.make(ANNE)
    upon(race, monkeypatch, use_key(race.picture, race.canvas.id), race.make(BERT))
    await race.canvases.delete(race.canvas.id, ANNE)
    await race.check_canvas()


async def test_picture_stays_while_a_canvas_on_it_is_being_deleted(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may yet be put back."""
    race = Race(model_of(model), 1)
    await race.begin()
    await race.make(ANNE)
    refused = list[object]()

    async def drop() -> None:
        refused.append(await outcome(race.pictures.delete(race.picture, ANNE)))

    upon(race, monkeypatch, canvas_key(race.canvas.id), drop())
    await race.canvases.delete(race.canvas.id, ANNE)
    assert refused == [StillNeeded]
    await race.pictures.delete(race.picture, ANNE)
    assert await there(race.store) == []


async def test_who_is_too_late_to_delete_a_picture_still_holds_it(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = Race(model_of(model), 1)
    await race.begin()
    upon(race, monkeypatch, uploader_key(race.picture, ANNE), race.make(BERT))
    with pytest.raises(StillNeeded):
        await race.pictures.delete(race.picture, ANNE)
    await race.check_canvas()
    assert await race.store.get(uploader_key(race.picture, ANNE)) is not None
    await race.canvases.delete(race.canvas.id, BERT)
    await race.pictures.delete(race.picture, ANNE)
    assert await there(race.store) == []


async def test_canvas_made_anew_while_a_picture_is_wiped_keeps_all_of_it(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture is given again, and a canvas made, when the one who deletes it is nearly done."""
    race = Race(model_of(model), 1)
    await race.begin()
    await race.make(ANNE)
    await race.canvases.delete(race.canvas.id, ANNE)  # its tokens stay
    calls = 0
    real = race.store.delete_many

    async def deleting(keys: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await race.pictures.take(FILE, BERT)
            await race.make(BERT)
        await real(keys)

    monkeypatch.setattr(race.store, "delete_many", deleting)
    await race.pictures.delete(race.picture, ANNE)
    assert calls >= 1
    await race.check_canvas()
