"""What a store need not keep: old tiles and exports, which can be made again; what is nobody's.

Old is what was written long ago, and tiles are written again now and then when somebody looks at
them (`Store.look`). One that is looked at after it went is painted again from its patches, which
stay as long as their canvas.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import datetime
from typing import NamedTuple

from handscroll.canvas import Canvas
from handscroll.errors import InvalidRequest, StillNeeded
from svckit.keys import (
    CANVASES,
    EXPORTED,
    EXPORTS,
    PICTURES,
    TILES,
    canvas_of,
    export_of,
    patches_prefix,
    picture_of,
    uploaders_prefix,
)
from svckit.store import Entry, Store
from tiler_svc import canvases, exports, pictures


class Pruned(NamedTuple):
    """How much of a kind went, or would go.

    Attributes:
        number: how many.
        size_bytes: of their files.
    """

    number: int = 0
    size_bytes: int = 0


async def prune_tiles(store: Store, before: datetime, really: bool) -> Pruned:
    """Delete the tiles that nobody has looked at since a time.

    Args:
        store: the store.
        before: with its time zone.
        really: whether to; else only count.
    """
    count = size_bytes = 0
    async for batch in store.batches(TILES):
        old = [entry for entry in batch if entry.written < before]
        count, size_bytes = count + len(old), size_bytes + _size(old)
        if really:
            await store.delete_many([entry.key for entry in old])
    return Pruned(count, size_bytes)


async def prune_exports(store: Store, before: datetime, really: bool) -> Pruned:
    """Delete the exports that nobody has worked at since a time; see `prune_tiles`."""
    count = size_bytes = 0
    marks = {export_of(key): key async for key in store.keys(EXPORTED)}
    for export, entries in (await _by_export(store)).items():
        if all(entry.written < before for entry in entries):
            count, size_bytes = count + 1, size_bytes + _size(entries)
            if really:
                await exports.wipe(store, export)
                if export in marks:
                    await store.delete(marks[export])
    return Pruned(count, size_bytes)


async def prune_canvases(store: Store, before: datetime, really: bool) -> Pruned:
    """Delete old canvases that nobody wants, with their patches; see `prune_tiles`."""
    count = size_bytes = 0
    entries = [entry async for batch in store.batches(CANVASES) for entry in batch]
    for entry in entries:
        canvas_id = canvas_of(entry.key)
        if entry.written < before and not await canvases.wanted(store, canvas_id):
            count, size_bytes = count + 1, size_bytes + entry.size_bytes
            async for patches in store.batches(patches_prefix(canvas_id)):
                size_bytes += _size(patches)
            if really:
                await canvases.wipe(store, canvas_id, lambda _: None)
    return Pruned(count, size_bytes)


async def prune_pictures(store: Store, before: datetime, really: bool) -> Pruned:
    """Delete old pictures that nobody holds and no canvas stands on; see `prune_tiles`."""
    entries = [entry async for batch in store.batches(PICTURES) for entry in batch]
    free = [
        entry
        for entry in entries
        if entry.written < before and not await store.any(uploaders_prefix(picture_of(entry.key)))
    ]
    # Read from specs and not from marks: canvases that were made before there were any have none.
    known = {picture async for picture in _known(store)} if free else set()
    count = size_bytes = 0
    for entry in free:
        picture = picture_of(entry.key)
        if picture not in known:
            try:
                await (pictures.wipe if really else pictures.check_free)(store, picture)
            except StillNeeded:
                continue  # a canvas is being made around it
            count, size_bytes = count + 1, size_bytes + entry.size_bytes
    return Pruned(count, size_bytes)


async def _by_export(store: Store) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = defaultdict(list)
    async for batch in store.batches(EXPORTS):
        for entry in batch:
            found[entry.key.split("/")[1]].append(entry)
    return found


async def _known(store: Store) -> AsyncIterator[str]:
    """The pictures that canvases stand on."""
    async for key in store.keys(CANVASES):
        spec = await store.get(key)
        try:
            canvas = Canvas.parse(spec or b"")
        except InvalidRequest:
            continue  # cut short; made again, its picture is asked for again
        if canvas.known is not None:
            yield canvas.known.picture


def _size(entries: list[Entry]) -> int:
    return sum(entry.size_bytes for entry in entries)
