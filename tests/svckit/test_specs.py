"""Specs: read once in a while, and never another canvas' spec."""

import asyncio
from dataclasses import replace

import pytest

from handscroll.canvas import Canvas
from handscroll.errors import InvalidRequest, NotFound, SpecMismatch
from handscroll.geometry import Extent
from svckit.keys import canvas_key
from svckit.specs import Specs
from svckit.store import Store

CANVAS = Canvas("f" * 64, "planet", 1, Extent("plane", 0))

pytestmark = pytest.mark.anyio


async def test_spec_is_read_back_whole() -> None:
    store = Store.open("memory://")
    await store.create(canvas_key(CANVAS.id), CANVAS.canonical())
    assert await Specs(store).get(CANVAS.id) == CANVAS
    with pytest.raises(NotFound, match="there is no canvas 0000"):
        await Specs(store).get("0" * 64)
    with pytest.raises(InvalidRequest, match="64"):
        await Specs(store).get("../spec")


async def test_spec_under_a_wrong_key_is_not_served() -> None:
    for content in (replace(CANVAS, seed=2).canonical(), b"{}", b"\xff"):
        store = Store.open("memory://")
        await store.create(canvas_key(CANVAS.id), content)
        with pytest.raises(SpecMismatch, match=f"stored for canvas {CANVAS.id}"):
            await Specs(store).get(CANVAS.id)


async def test_spec_deleted_elsewhere_is_soon_forgotten() -> None:
    store = Store.open("memory://")
    specs = Specs(store, fresh_s=0.2)
    await store.create(canvas_key(CANVAS.id), CANVAS.canonical())
    await specs.get(CANVAS.id)
    await store.delete(canvas_key(CANVAS.id))
    assert await specs.get(CANVAS.id) == CANVAS
    await asyncio.sleep(0.2)
    with pytest.raises(NotFound):
        await specs.get(CANVAS.id)
