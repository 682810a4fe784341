"""Painters and a ledger without Ray."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from generator_svc.scene import Scene, Served
from handscroll.checkpoint import Checkpoint
from handscroll.context import Codes, Context
from handscroll.geometry import Patch
from handscroll.paint import sampler_of
from handscroll.tokenizer import RADIUS_TOK
from svckit.keys import Key
from svckit.wire import Model


class ToyPainters:
    """Draw codes that are a digest of what the patch sees, in an event loop's time.

    Attributes:
        drawn: how often each patch was drawn to its end.
        started: patches in the order they were begun.
        gate: awaited by every drawing; close it to hold them all up.
        pace_s: how long each drawing takes.
    """

    away = 0

    def __init__(self, slots: int = 2, pace_s: float = 0.0) -> None:
        self.slots, self.pace_s = slots, pace_s
        self.drawn: Counter[Patch] = Counter()
        self.started: list[Patch] = []
        self.stopped: list[Patch] = []
        self.batches: list[int] = []
        self.running = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail: Callable[[Patch], None] = lambda patch: None

    async def draw(self, scene: Scene, contexts: Sequence[Context]) -> list[Codes]:
        patches = [one.patch for one in contexts]
        self.started += patches
        self.batches.append(len(patches))
        self.running += 1
        assert self.running <= self.slots
        try:
            await asyncio.sleep(self.pace_s)
            await self.gate.wait()
            for patch in patches:
                self.fail(patch)
        except asyncio.CancelledError:
            self.stopped += patches
            raise
        finally:
            self.running -= 1
        self.drawn.update(patches)
        return [toy_codes(scene, one) for one in contexts]


def toy_codes(scene: Scene, context: Context) -> Codes:
    """Codes that change with anything that a patch sees."""
    seen = (
        scene.canvas.canonical(),
        repr(context.patch).encode(),
        context.codes_NK.tobytes(),
        context.place_N2.tobytes(),
        context.source_N.tobytes(),
        context.field_MV.tobytes(),
    )
    seed = int.from_bytes(hashlib.sha256(b"|".join(seen)).digest()[:8], "big")
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 4), np.uint8)


class ModelPainters:
    """Draw with a real model, in threads."""

    away = 0

    def __init__(self, checkpoint: Checkpoint, slots: int = 2) -> None:
        self.checkpoint, self.slots = checkpoint, slots
        self.threads = ThreadPoolExecutor(slots)

    async def draw(self, scene: Scene, contexts: Sequence[Context]) -> list[Codes]:
        sampler = sampler_of(self.checkpoint, scene.canvas, scene.vectors)
        drawn = await asyncio.get_running_loop().run_in_executor(
            self.threads, sampler.draw, list(contexts)
        )
        return [codes for _, codes in drawn]


class ToyLedger:
    """The ledger of several engines in one process.

    Attributes:
        answers: awaited by every claim before it answers; what was free is taken by then.
    """

    def __init__(self) -> None:
        self.owners: dict[Key, object] = {}
        self.changed = asyncio.Condition()
        self.answers = asyncio.Event()
        self.answers.set()

    def of(self, owner: object) -> ToyLedger.Side:
        return ToyLedger.Side(self, owner)

    class Side:
        """The ledger as one engine sees it."""

        def __init__(self, ledger: ToyLedger, owner: object) -> None:
            self.ledger, self.owner = ledger, owner

        async def claim(self, keys: Sequence[Key]) -> list[bool]:
            owners, granted = self.ledger.owners, []
            for key in keys:
                granted.append(key not in owners)
                owners.setdefault(key, self.owner)
            await self.ledger.answers.wait()
            return granted

        async def release(self, keys: Sequence[Key]) -> None:
            for key in keys:
                if self.ledger.owners.get(key) is self.owner:
                    del self.ledger.owners[key]
            async with self.ledger.changed:
                self.ledger.changed.notify_all()

        async def released(self, key: Key) -> None:
            async with self.ledger.changed:
                await self.ledger.changed.wait_for(lambda: key not in self.ledger.owners)


def served_by(checkpoint: Checkpoint) -> Served:
    """What painters with this model would say of it."""
    config = checkpoint.decoder.config
    model = Model(
        checkpoint.digest,
        {name: world.extent for name, world in checkpoint.worlds.items()},
        checkpoint.sampling,
        config.side,
        config.codes,
        RADIUS_TOK,
        checkpoint.text_encoder,
    )
    return Served(
        model,
        {name: one.palette for name, one in checkpoint.worlds.items()},
    )
