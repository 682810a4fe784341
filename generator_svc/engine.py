"""The outer loop for many askers at once.

The same loop as `handscroll.render`, turned around: instead of walking waves, every patch that is
asked for becomes one piece of *work* that first looks into the store, then waits for the patches it
depends on, then is drawn and committed. Works are shared: whoever asks for a patch that is being
obtained joins in, and so does a patch that depends on it. A work lives as long as somebody asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from cachetools import LRUCache
from prometheus_client import Gauge, Histogram

from generator_svc.easel import PRIORITIES, Drawing, Easel, Urgency
from generator_svc.scene import Scene, Served, load_scene
from handscroll.canvas import Canvas
from handscroll.context import Codes, gather
from handscroll.errors import InvalidRequest, Overloaded
from handscroll.geometry import ROOT_ZOOM, Patch
from svckit import trace
from svckit.cones import Place, standing
from svckit.jobs import READS, at_once
from svckit.keys import patch_key
from svckit.refusal import Refusal
from svckit.specs import Specs
from svckit.store import Store

_log = logging.getLogger(__name__)

MAX_PATCHES = 1024
VIEWPORT, PREFETCH = 0, 1
"""Priorities: lower goes first."""
NEVER = (2, 0, 0)
LONGEST_RETRY_S = 30.0

_CONE = (1, 4, 9, 18, 27, 45, 85, 135, 256, 512, 1024, 4096)
_ASKED = Histogram(
    "handscroll_request_patches",
    "Patches that a request stands on, drawn or not; of earlier frames those not drawn",
    buckets=_CONE,
)
_MISSING = Histogram(
    "handscroll_request_missing_patches",
    "Patches that were not there yet when a request came to need them",
    buckets=(0, *_CONE),
)
_ADMITTED = Gauge(
    "handscroll_patches_admitted",
    "Patches that the requests being served stand on, drawn or not",
    ["priority"],
)
_WORKS = Gauge("handscroll_works", "Patches being obtained")
_BACKLOG, _TOO_LARGE = Refusal("backlog"), Refusal("too_large")


@dataclass(frozen=True, eq=False)
class _Asker:
    """One request: lower urgency goes first."""

    urgency: tuple[int, int]
    works: list[_Work] = field(default_factory=list)


@dataclass(eq=False)
class _Work:
    """One patch being obtained.

    ``askers`` are the requests that need it, each with the place, in its list of wanted patches, of
    the first that this one is for. ``began`` is the span of whoever came first, and ``span``, the
    work's own, a step of that.
    """

    scene: Scene
    patch: Patch
    askers: dict[_Asker, int] = field(default_factory=dict)
    needs: list[_Work] = field(default_factory=list)
    missing: bool = False
    began: trace.Span = field(default_factory=trace.current)
    span: trace.Span = field(default_factory=trace.Span)
    task: asyncio.Task[Codes] = field(init=False)

    def join(self, asker: _Asker, place: int) -> None:
        """Let an asker have a part in this and in all that it stands on."""
        if self.askers.get(asker, place + 1) <= place:
            return
        if asker not in self.askers:
            asker.works.append(self)
        self.askers[asker] = place
        for need in self.needs:
            need.join(asker, place)

    def link(self) -> None:
        """Link the current span to the work, unless it is a step of that one anyway."""
        if trace.current() is not self.began:
            trace.current().link(self.span)

    def urgency(self) -> Urgency:
        """The most urgent asker decides, then the place in its list."""
        return min(((*asker.urgency, place) for asker, place in self.askers.items()), default=NEVER)


class Engine:
    """Obtains patches: from memory, from the store, or drawn and committed.

    Args:
        store: where patches are committed.
        easel: where they are drawn.
        served: the model that is drawn with.
        backlog: patches that the requests of a priority, and of those before it, may stand on.
        keep: patches kept in memory.
    """

    def __init__(self, store: Store, easel: Easel, served: Served, backlog: int, keep: int) -> None:
        self.store, self.easel, self.served, self.backlog = store, easel, served, backlog
        self._memory: LRUCache[tuple[str, Patch], Codes] = LRUCache(keep)
        self._specs = Specs(store)
        self._scenes: LRUCache[str, Scene] = LRUCache(256)
        self._works: dict[tuple[str, Patch], _Work] = {}
        self._admitted = [0, 0]  # by priority: patches that its requests stand on
        self._numbers = count()

    async def patches(
        self, canvas_id: str, wanted: Sequence[Patch], priority: int = VIEWPORT
    ) -> AsyncGenerator[tuple[Patch, Codes]]:
        """Yield the patches wanted, each as it is committed; (side, side, K) codes.

        Closing the iterator gives up the interest in what is still to come.

        Raises:
            InvalidRequest: no patch or too many, one twice, one outside the canvas or the world, or
                they stand on more than may be drawn for one request.
            NotFound: no such canvas.
            SpecMismatch: the canvas is painted by another model.
            Overloaded: too many patches are being obtained.
        """
        scene = await self._scene(canvas_id)
        _check(wanted, scene.canvas)
        cost = len(await standing(scene.line, wanted, partial(self._absent, scene)))
        _ASKED.observe(cost)
        self._admit(cost, priority)
        asker = _Asker((priority, next(self._numbers)))
        self._hold(priority, cost)
        try:
            works = [self._work(scene, patch, {asker: place}) for place, patch in enumerate(wanted)]
            tasks = {work.task: work for work in works}
            while tasks:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    work = tasks.pop(task)
                    work.link()
                    yield work.patch, task.result()
        finally:
            self._hold(priority, -cost)
            _MISSING.observe(sum(work.missing for work in asker.works))
            self._leave(asker)

    def _admit(self, cost: int, priority: int) -> None:
        """Refuse a request that there is no room for; work ahead takes no room from viewports.

        Args:
            cost: patches that the request stands on, see `standing`.
            priority: of the request.
        """
        if cost > self.backlog:
            raise _TOO_LARGE(
                InvalidRequest(
                    f"these patches stand on {cost} patches; those of one request may stand on "
                    f"{self.backlog}"
                )
            )
        taken = sum(self._admitted[: priority + 1])
        if taken + cost > self.backlog:
            raise _BACKLOG(
                Overloaded(
                    f"requests for {taken} patches are being served, {self.backlog} may; this one "
                    f"stands on {cost}",
                    min(LONGEST_RETRY_S, self.easel.seconds_for(taken)),
                )
            )

    def _hold(self, priority: int, cost: int) -> None:
        self._admitted[priority] += cost
        _ADMITTED.labels(PRIORITIES[priority]).set(self._admitted[priority])

    def __len__(self) -> int:
        return len(self._works)

    def _work(self, scene: Scene, patch: Patch, askers: Mapping[_Asker, int]) -> _Work:
        """The work that obtains a patch, joined by these askers."""
        scene = scene.home(patch)
        key = (scene.canvas_id, patch)
        work = self._works.get(key)
        if work is None:
            work = self._works[key] = _Work(scene, patch)
            # In a context of its own: it belongs to nobody, so no asker's deadline is its own.
            work.task = asyncio.create_task(self._obtain(work), context=trace.detached())
            work.task.add_done_callback(lambda _: self._forget(work))
            _WORKS.set(len(self._works))
        for asker, place in askers.items():
            work.join(asker, place)
        return work

    def _leave(self, asker: _Asker) -> None:
        """Take an asker out of its works, and end those that nobody else asks for."""
        for work in asker.works:
            work.askers.pop(asker, None)
            if not work.askers and not work.task.done():
                self._forget(work)
                work.task.cancel()

    def _forget(self, work: _Work) -> None:
        key = (work.scene.canvas_id, work.patch)
        if self._works.get(key) is work:
            del self._works[key]
            _WORKS.set(len(self._works))
        if work.task.done() and not work.task.cancelled():
            work.task.exception()  # whoever asked has been told; nobody may have waited to the end

    async def _obtain(self, work: _Work) -> Codes:
        key = patch_key(work.scene.canvas_id, work.patch)
        with trace.span("patch", {"patch": key}) as work.span:
            return await self._found_or_drawn(work)

    async def _found_or_drawn(self, work: _Work) -> Codes:
        scene, patch = work.scene, work.patch
        codes = await self._committed(scene, patch)
        if codes is None and scene.known and scene.known.whole(patch):
            codes = await self._commit(scene, patch, scene.known.tokens(patch)[0])
        if codes is None:
            work.missing = True
            seen, below = await self._dependencies(work)
            model = self.served.model
            given = scene.given(model, below)
            context = gather(
                patch, scene.order, model.side_tok, seen.__getitem__, scene.field, given
            )
            codes = await self.easel.draw(
                Drawing(
                    scene,
                    context,
                    urgency=work.urgency,
                    committed=lambda: self._committed(scene, patch),
                    commit=lambda drawn: self._commit(scene, patch, drawn),
                )
            )
        self._memory[scene.canvas_id, patch] = codes
        return codes

    async def _dependencies(self, work: _Work) -> tuple[dict[Patch, Codes], dict[Patch, Codes]]:
        """Obtain all that a patch sees, and of a branch's patch what it sees of the parent's."""
        scene, needs = work.scene, list[_Work]()
        seen, below = scene.order.dependencies(work.patch), scene.below(work.patch)
        for home, patches in ((scene, seen), (scene.parent, below)):
            if home is not None:
                needs += (self._work(home, one, work.askers) for one in patches)
        work.needs = needs
        if needs:
            # Not `gather`: that would cancel works that others ask for when this one is cancelled.
            await asyncio.wait([need.task for need in needs], return_when=asyncio.FIRST_EXCEPTION)
        for need in needs:
            need.link()
        work.needs = []
        codes = [need.task.result() for need in needs if need.task.done()]  # raises if one failed
        count = len(seen)
        return dict(zip(seen, codes[:count], strict=True)), dict(
            zip(below, codes[count:], strict=True)
        )

    async def _committed(self, scene: Scene, patch: Patch) -> Codes | None:
        """A patch that is there already."""
        codes = self._memory.get((scene.canvas_id, patch))
        if codes is not None:
            return codes
        content = await self.store.get(patch_key(scene.canvas_id, patch))
        return None if content is None else await self._whole(scene, patch, content)

    async def _absent(self, scene: Scene, places: Iterable[Place]) -> list[Place]:
        """Those that are not there yet; the others are in memory from now on."""
        wanted = list(places)
        found = await at_once(
            READS, lambda one: self._committed(scene.member(one[0]), one[1]), wanted
        )
        for place, codes in zip(wanted, found, strict=True):
            if codes is not None:
                self._memory[place] = codes
        return [place for place, codes in zip(wanted, found, strict=True) if codes is None]

    async def _commit(self, scene: Scene, patch: Patch, drawn: Codes) -> Codes:
        """Make a patch part of the canvas; what comes back is what it is from now on."""
        while True:
            content = await self.store.create(patch_key(scene.canvas_id, patch), drawn.tobytes())
            codes = await self._whole(scene, patch, content)
            if codes is not None:
                return codes

    async def _whole(self, scene: Scene, patch: Patch, content: bytes) -> Codes | None:
        """The codes of a committed patch; None if it was cut short and had to be taken away.

        A folder may lose the end of what was written just before the power went. Nobody has seen
        such a patch, as its bytes are no patch; drawn again it is what it was.
        """
        model = self.served.model
        if len(content) == model.patch_bytes:
            return model.codes_of(content)
        _log.warning("cut short in the store", extra={"patch": patch, "bytes": len(content)})
        await self.store.delete(patch_key(scene.canvas_id, patch))
        return None

    async def _scene(self, canvas_id: str) -> Scene:
        canvas = await self._specs.get(canvas_id)  # always, as it may have been deleted
        scene = self._scenes.get(canvas_id)
        if scene is None:
            parent = await self._scene(canvas.branch.parent) if canvas.branch else None
            scene = await load_scene(self.store, self.served, canvas, parent)
            self._scenes[canvas_id] = scene
        return scene


def _check(wanted: Sequence[Patch], canvas: Canvas) -> None:
    if not 1 <= len(wanted) <= MAX_PATCHES:
        raise InvalidRequest(f"a request is for 1 to {MAX_PATCHES} patches, not {len(wanted)}")
    if len(set(wanted)) < len(wanted):
        raise InvalidRequest("a patch is asked for twice")
    for patch in wanted:
        edge = 2 ** (ROOT_ZOOM + patch.level)  # no tile reaches so far
        if max(abs(patch.row), abs(patch.col)) > edge:
            raise InvalidRequest(f"{patch} lies outside the world: row and col are at most {edge}")
        if not (canvas.extent.contains(patch) and 0 <= patch.frame < canvas.frames):
            raise InvalidRequest(f"{patch} is not in this {canvas.extent.kind}")
