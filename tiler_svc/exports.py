"""Exports: regions of canvases as files, made once and kept in the store.

What an export shows is its id, so whoever asks for the same finds it. Whoever makes its file has a
run of their own: a mark, and beats, which say how far they are and that they still are there. The
file is written under the run's name and becomes the export's when `done` names the run: of several
one wins, and the others delete theirs. A run whose beats have ceased counts for nothing. One whose
mark is gone was told to stop.

An export has owners (see `tiler_svc.marks`): all who asked for it with a name. It goes with the
last of them, or with its canvas.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Literal, NamedTuple, TypeVar

from prometheus_client import Counter, Gauge

from handscroll.archive import levels_of
from handscroll.canvas import Canvas
from handscroll.errors import (
    HandscrollError,
    InvalidRequest,
    NotFound,
    Overloaded,
    OverQuota,
    SpecMismatch,
    StoreUnavailable,
)
from handscroll.film import check_film, is_film
from handscroll.formats import check_side
from svckit import access, logs, trace
from svckit.jobs import READS, at_once
from svckit.keys import (
    Key,
    beat_key,
    beats_prefix,
    done_key,
    export_key,
    export_of,
    export_prefix,
    exported_key,
    file_key,
    files_prefix,
    new_nonce,
    run_key,
    runs_prefix,
    saved_of,
    saved_prefix,
    savers_prefix,
)
from svckit.refusal import Refusal
from svckit.specs import Specs
from svckit.store import Store
from tiler_svc import marks
from tiler_svc.engine import check_place
from tiler_svc.marks import Mark, Marks, token_after
from tiler_svc.peers import Models
from tiler_svc.press import Export, Press

MAX_WIDTH_PX = 2**16  # a row of tiles is held in memory: this one takes up to 290 MiB
MAX_WHOLE_PIXELS = 2**25  # of JPEG and WebP, which are held in memory: 330 MiB
BEAT_S = 5.0
DEAD_S = 30.0
"""After how long without a beat a run counts for nothing; clocks may differ by less than that."""
PIECE_BYTES = 2**20

_RUNNING = Gauge("handscroll_exports_running", "Exports being made")
_ENDED = Counter("handscroll_exports", "Exports no longer being made", ["format", "end"])
_TOO_MANY = Refusal("exports")
_log = logging.getLogger(__name__)

State = Literal["running", "done", "stopped"]


class Status(NamedTuple):
    """An export, and how far it is.

    Attributes:
        export: which.
        state: what became of it.
        done: tiles painted.
        total: tiles that it shows.
        size_bytes: of its file; 0 before there is one.
        run: that made the file; empty before there is one.
        problem: why it stopped, if that is known.
    """

    export: Export
    state: State
    done: int
    total: int
    size_bytes: int = 0
    run: str = ""
    problem: str = ""


class OwnExport(NamedTuple):
    """An export of the caller's own, and when the caller first asked for it."""

    status: Status
    made_at: datetime


class _Beat(NamedTuple):
    """What a run says of itself: when, tiles painted, and why it stopped, if it did."""

    time_s: float
    done: int
    problem: str = ""


class _Made(NamedTuple):
    """Which run made the file of an export, and how large it is."""

    run: str
    size_bytes: int


_Told = TypeVar("_Told", _Beat, _Made)


class _Run:
    """The making of a file by this process.

    Attributes:
        name: of the run.
        room: says how many bytes the file may have; None for any number.
        done: tiles painted.
        task: makes it.
    """

    task: asyncio.Task[None]

    def __init__(
        self, store: Store, export_id: str, room: Callable[[], Awaitable[int | None]]
    ) -> None:
        self.name, self.room, self.done = new_nonce(), room, 0
        self._store, self._export_id, self._beats = store, export_id, 0

    async def begin(self) -> None:
        """Announce it."""
        await self._store.create(run_key(self._export_id, self.name), b"")
        await self.beat()

    async def wanted(self) -> bool:
        """Whether nobody has said to stop."""
        return await self._store.get(run_key(self._export_id, self.name)) is not None

    async def beat(self, problem: str = "") -> None:
        """Say how far it is. The beat before stays as well, for whoever is looking at it."""
        told = json.dumps(_Beat(time.time(), self.done, problem)).encode()
        await self._store.create(self._key(self._beats), told)
        self._beats += 1
        if self._beats > 2:
            await self._store.delete(self._key(self._beats - 3))

    async def end(self, problem: str) -> None:
        """Take back the announcement, and what was said; a problem stays."""
        if problem and await self.wanted():
            await self.beat(problem)
        else:
            for number in range(max(0, self._beats - 2), self._beats):
                await self._store.delete(self._key(number))
        await self._store.delete(run_key(self._export_id, self.name))

    def _key(self, number: int) -> Key:
        return beat_key(self._export_id, self.name, number)


class Exports:
    """All exports of a store.

    Args:
        store: the store.
        specs: canvases.
        models: what is served.
        press: makes files.
        most: how many may be made here at a time.
        most_pixels: how many pixels one may have.
    """

    def __init__(
        self,
        store: Store,
        specs: Specs,
        models: Models,
        press: Press,
        most: int,
        most_pixels: int,
    ) -> None:
        self._store, self._specs, self._models, self._press = store, specs, models, press
        self._most, self._most_pixels = most, most_pixels
        self._marks = Marks(store, marks.EXPORTS)
        self._runs: dict[str, _Run] = {}
        self._starting, self._ending = asyncio.Lock(), asyncio.Lock()

    async def close(self) -> None:
        """Stop what is being made here; it can be gone on with at once."""
        tasks = [run.task for run in self._runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def create(self, export: Export, owner: str | None = None, most_bytes: int = 0) -> Status:
        """Have an export made, unless it is or has been.

        Args:
            export: which.
            owner: whose it becomes; None for nobody's.
            most_bytes: of exports that the owner may hold; 0 for no limit. A file that turns out to
                go beyond it is not kept.

        Raises:
            InvalidRequest, NotFound: see `check_place`; or it is too large.
            SpecMismatch: the canvas' model is not served.
            OverQuota: the owner holds as much as they may, or would hold more.
            Overloaded: there are enough being made here.
        """
        canvas = await self._specs.get(export.canvas)
        check_place(canvas, export.region)
        self._check_size(export, canvas)
        async with self._starting:
            found, room = await self._status(export, canvas), partial(self._room, owner, most_bytes)
            held = owner is not None and await self._marks.has(export.id, owner)
            if found.state == "stopped" or not held:
                _check_room(await room(), found.size_bytes or 1)
            if found.state != "stopped":
                await self._hold(export.id, owner)
                return found
            if len(self._runs) >= self._most:
                said = f"{self._most} exports are being made here already"
                raise _TOO_MANY(Overloaded(said, BEAT_S))
            await self._models.of(canvas.model)
            run = _Run(self._store, export.id, room)
            await self._hold(export.id, owner)
            await self._begin(export, run)
            # The caller pays, and nothing else of the call goes on: it ends now.
            context = trace.detached()
            context.run(access.caller.set, access.caller.get())
            run.task = asyncio.create_task(self._run(export, canvas, run), context=context)
            self._runs[export.id] = run
            return await self._status(export, canvas)

    async def get(self, export_id: str) -> Status:
        """An export by its id.

        Raises:
            InvalidRequest: not an id.
            NotFound: no such export.
            SpecMismatch: what is stored there is another one.
        """
        export = await self._find(export_id)
        return await self._status(export, await self._specs.get(export.canvas))

    async def own(self, owner: str, page_size: int, page_token: str) -> tuple[list[OwnExport], str]:
        """A page of an owner's exports, newest first, and the token of the next; empty at the end.

        Raises:
            InvalidRequest: see `Marks.page`.
        """
        held, size = await self._marks.page(owner, 0, page_size, page_token)
        page = held[:size]
        found = await at_once(READS, self._own, page)
        return [one for one in found if one], token_after(held, len(page))

    async def held_bytes(self, owner: str) -> int:
        """How many bytes the files of an owner's exports have."""
        held = [export_of(key) async for key in self._store.keys(saved_prefix(owner))]
        made = await at_once(READS, self._made, held)
        return sum(one.size_bytes for one in made if one)

    async def delete(self, export_id: str, owner: str | None = None) -> None:
        """Take an export from an owner's; delete it when it is nobody's any more.

        It is made no further then, neither here nor elsewhere.

        Raises:
            InvalidRequest: not an id.
            NotFound: no such export, or it is others'.
        """
        if owner is not None and await self._marks.has(export_id, owner):
            await self._marks.let_go(export_id, owner, False, _needed_by_nothing, self._wipe)
            return
        await self._find(export_id)
        if await self._marks.held(export_id):
            raise NotFound(f"export {export_id} is not among your own")
        await self._wipe(export_id)

    async def read(self, export_id: str, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """A part of the file of an export.

        Args:
            export_id: which.
            offset: where it begins, in bytes.
            length: how many bytes; 0 for all that follow.

        Raises:
            InvalidRequest: not an id, or the offset is beyond the end.
            NotFound: no such export, or it has no file.
        """
        status = await self.get(export_id)
        if status.state != "done":
            raise NotFound(f"export {export_id} has no file yet: it is {status.state}")
        if offset >= status.size_bytes:
            raise InvalidRequest(
                f"offset must be below the file's {status.size_bytes} bytes, not {offset}"
            )
        end = min(status.size_bytes, offset + length) if length else status.size_bytes
        key = file_key(export_id, status.run)
        for start in range(offset, end, PIECE_BYTES):
            piece = await self._store.part(key, start, min(end, start + PIECE_BYTES))
            if piece is None:
                raise NotFound(f"export {export_id} was deleted")
            yield piece

    def _check_size(self, export: Export, canvas: Canvas) -> None:
        _, _, _, height, width, _ = export.region
        if is_film(export.format):
            check_film(export.format, canvas.frames, height, width, export.fps)
            return
        most = self._most_pixels
        if export.format in ("jpg", "webp"):
            most = min(most, MAX_WHOLE_PIXELS)
        if width > MAX_WIDTH_PX or height * width > most:
            raise InvalidRequest(
                f"an export as {export.format} may be {MAX_WIDTH_PX} px wide and have {most} "
                f"pixels in all; this one is {height} x {width} px"
            )
        if export.format != "pmtiles":
            check_side(export.format, height, width)

    async def _room(self, owner: str | None, most_bytes: int) -> int | None:
        """How many bytes of exports an owner may hold besides theirs; None for any number."""
        if owner is None or not most_bytes:
            return None
        return max(0, most_bytes - await self.held_bytes(owner))

    async def _hold(self, export_id: str, owner: str | None) -> None:
        if owner is not None:
            await self._marks.hold(export_id, owner)

    async def _own(self, mark: Mark) -> OwnExport | None:
        try:
            return OwnExport(await self.get(mark.id), mark.made_at)
        except (NotFound, SpecMismatch):
            return None  # its making or its deletion was cut short

    async def _made(self, export_id: str) -> _Made | None:
        return _read(_Made, await self._store.get(done_key(export_id)))

    async def _wipe(self, export_id: str) -> None:
        """Delete all of an export that nobody holds, and stop making it."""
        async with self._starting:
            if await self._marks.held(export_id):
                return  # somebody has asked for it meanwhile
            run = self._runs.get(export_id)
            if run is not None:
                run.task.cancel()
                await asyncio.gather(run.task, return_exceptions=True)
            with suppress(NotFound, SpecMismatch):  # a deletion that was cut short is ended
                export = await self._find(export_id)
                await self._store.delete(exported_key(export.canvas, export_id))
            await wipe(self._store, export_id)

    async def _find(self, export_id: str) -> Export:
        content = await self._store.get(export_key(export_id))
        if content is None:
            raise NotFound(f"there is no export {export_id}")
        try:
            export = Export.parse(content)
        except (ValueError, TypeError, KeyError, InvalidRequest) as error:
            raise SpecMismatch(f"the spec stored for export {export_id}: {error}") from error
        if export.id != export_id:
            raise SpecMismatch(f"the spec stored for export {export_id} is that of {export.id}")
        return export

    async def _status(self, export: Export, canvas: Canvas) -> Status:
        """How an export is, as far as the store and this process know."""
        levels = levels_of(export.region, canvas.extent)
        shown = levels if export.format == "pmtiles" else levels[-1:]
        total = sum(len(rows) * len(cols) for _, rows, cols in shown)
        if is_film(export.format):
            total *= canvas.frames
        # What tells of a run is looked for first: it goes when the file is there, and not before.
        run = self._runs.get(export.id)
        keys = [key async for key in self._store.keys(beats_prefix(export.id))]
        found = await at_once(READS, self._store.get, keys)
        made = await self._made(export.id)
        # Else it is being deleted, or a power cut took what was written last.
        if made and made.size_bytes == await self._store.size(file_key(export.id, made.run)):
            return Status(export, "done", total, total, made.size_bytes, made.run)
        if run is not None:
            return Status(export, "running", run.done, total)
        beats = [beat for beat in (_read(_Beat, one) for one in found) if beat]
        last = max(beats, default=_Beat(0, 0))
        state: State = (
            "running" if time.time() - last.time_s < DEAD_S and not last.problem else "stopped"
        )
        return Status(export, state, last.done, total, problem=last.problem)

    async def _begin(self, export: Export, run: _Run) -> None:
        """Clear away what is left of runs that ended, and announce ours."""
        await self._store.delete_all(runs_prefix(export.id))
        await self._store.delete_all(beats_prefix(export.id))
        await self._store.delete(done_key(export.id))  # it names a file that is gone
        await self._store.create(exported_key(export.canvas, export.id), b"")
        key, content = export_key(export.id), export.canonical()
        if await self._store.create(key, content) != content:
            await self._store.delete(key)  # what a power cut left: only this spec has this id
            await self._store.create(key, content)
        await run.begin()

    async def _run(self, export: Export, canvas: Canvas, run: _Run) -> None:
        """Make a file and commit it, as long as nobody says to stop; what goes wrong is told."""
        logs.request_id.set(logs.new_request_id())
        told, end, problem = {"export": export.id, "canvas": export.canvas}, "stopped", ""
        _RUNNING.inc()
        making = asyncio.create_task(self._make(export, canvas, run))
        try:
            while not (await asyncio.wait({making}, timeout=BEAT_S))[0]:
                with suppress(StoreUnavailable):  # the next beat may succeed
                    if not await run.wanted():
                        return
                    await run.beat()
            if making.result():
                end = "done"
        except HandscrollError as error:
            problem = str(error)
            _log.info("an export stopped", extra=told | {"detail": problem})
        except Exception:
            problem = "something went wrong; it has been logged"
            _log.exception("an export failed", extra=told)
        finally:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)
            with suppress(StoreUnavailable):
                await run.end(problem)
            del self._runs[export.id]
            _RUNNING.dec()
            _ENDED.labels(export.format, end).inc()

    async def _make(self, export: Export, canvas: Canvas, run: _Run) -> bool:
        """Write a file, and have it be the export's, unless another is already.

        Returns:
            Whether the export has a file now; else it was deleted meanwhile.

        Raises:
            OverQuota: it is larger than whoever had it made may hold.
        """
        size_bytes, room = 0, await run.room()

        async def counted(piece: bytes) -> None:
            nonlocal size_bytes
            if piece:
                size_bytes += len(piece)
                _check_room(room, size_bytes)
                await write(piece)

        def painted(tiles: int) -> None:
            run.done += tiles

        key, won = file_key(export.id, run.name), False
        try:
            async with self._store.writing(key) as write:
                await self._press.make(canvas, export, counted, painted)
            async with self._ending:  # one after the other, so that each counts those before it
                _check_room(await run.room(), size_bytes)
                wanted = await run.wanted()
                if wanted:
                    ours = json.dumps(_Made(run.name, size_bytes)).encode()
                    won = await self._store.create(done_key(export.id), ours) == ours
        finally:
            if not won:
                await self._store.delete(key)
        if won:  # what others left who died before they could name theirs
            async for other in self._store.keys(files_prefix(export.id)):
                if other != key:
                    await self._store.delete(other)
        return wanted


async def wipe(store: Store, export_id: str) -> None:
    """Delete all of an export, whoever holds it; whoever makes it stops at their next beat."""
    await store.delete_all(runs_prefix(export_id))
    await store.delete(done_key(export_id))
    await store.delete_all(export_prefix(export_id))
    async for saver in store.keys(savers_prefix(export_id)):
        await store.delete(saver)
        await store.delete(saved_of(saver))


def _check_room(room: int | None, size_bytes: int) -> None:
    if room is not None and size_bytes > room:
        raise OverQuota(
            f"of exports you may hold {room} bytes more, and this one has at least {size_bytes}: "
            "delete some first"
        )


async def _needed_by_nothing(export_id: str) -> None:
    """Nothing stands on an export."""


def _read(kind: type[_Told], content: bytes | None) -> _Told | None:
    """What was noted in the store; None where nothing was, or a power cut has cut it short."""
    try:
        return kind(*json.loads(content or b""))
    except (ValueError, TypeError):
        return None
