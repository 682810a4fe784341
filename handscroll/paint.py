"""A canvas and the model that paints it, put together in one process.

The services of a deployment make the same pieces run on many machines; this is the short form for
the command line, for notebooks and for tests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path

import torch

from handscroll.assemble import Pixels, strips
from handscroll.branch import BranchField, BranchTokens, Lineage
from handscroll.canvas import Canvas, check_learned
from handscroll.checkpoint import Checkpoint, World
from handscroll.context import Codes, Context, Field, Given, NearbyContextPool
from handscroll.detail import Detail
from handscroll.drawn import DrawnPatches
from handscroll.errors import InvalidRequest, SpecMismatch
from handscroll.field import ProceduralField, statistics
from handscroll.geometry import Patch, Region, Tile, tiles_of
from handscroll.known import KnownField, KnownPixels, known_pixels, known_tokens
from handscroll.render import render
from handscroll.sample import PatchSampler
from handscroll.text import TextEncoder
from handscroll.tokenizer import RADIUS_TOK, from_rgb, to_rgb
from handscroll.view import Tokens, View
from handscroll.words import Vectors, layouts_of, prompts_of, words_of


class Painter:
    """Paints patches, tiles and regions of one canvas.

    Each worker is a thread that runs the networks on one core, so that no result depends on how
    many there are.

    Args:
        checkpoint: the model that the canvas names.
        canvas: what to paint.
        workers: how many patches or tiles are worked on at a time.
        keep: how many patches stay in memory when nothing needs them.
        on_patch: called as each patch is drawn.
        picture: the pixels (H, W, 3) that the canvas is painted around, if it is around any.
        parent: paints what the canvas was branched from, if it was; it must outlive this one.
        drawn: a folder of patches; those there are not drawn again, and others are put there.

    Raises:
        SpecMismatch: the canvas names another model, does not fit its world or its parent, or text
            was learned with another encoder.
        NotFound: the model has no such world.
        Unavailable: there is a prompt, and the text encoder is not installed.
        InvalidRequest: the picture or the parent is not the one that the canvas names.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        canvas: Canvas,
        workers: int = 1,
        keep: int = 4096,
        on_patch: Callable[[Patch], None] = lambda patch: None,
        picture: Pixels | None = None,
        parent: Painter | None = None,
        drawn: Path | None = None,
    ) -> None:
        vectors = _embed(checkpoint, prompts_of(canvas))
        self.sampler = sampler_of(checkpoint, canvas, vectors)
        world = checkpoint.world(canvas.world)
        self.tokenizer, self.canvas, self.on_patch = checkpoint.tokenizer, canvas, on_patch
        self.side = checkpoint.decoder.config.side
        self.parent = parent
        self.line: Lineage = Lineage(canvas, self.side, parent.line if parent else None)
        self.order = self.line.order
        self.f = checkpoint.tokenizer.config.downsampling
        torch.set_num_threads(1)
        field: Field = ProceduralField(
            canvas.seed, canvas.extent, world.palette, self.f, layouts_of(canvas, vectors)
        )
        self.known: KnownPixels | None = None
        given: Given | None = None
        if self.line.place is not None and parent is not None:
            field = BranchField(self.line.place, parent.field, canvas.seed, field)
        if canvas.known is not None:
            if picture is None:
                raise InvalidRequest("the canvas is painted around a picture, and none is given")
            self.known = known_pixels(canvas, picture, self.side)
            given = tokens = known_tokens(self.known, self._encode)
            self.details: Mapping[int, Detail] = {
                level: self.known.detail(level, tokens.decoded(level, self._pixels))
                for level in range(canvas.extent.finest + 1)
            }
            field = KnownField(field, self.known.place, statistics(self.known.levels[0], self.f))
        else:
            self.details = parent.details if parent else _details(world)
        if self.line.place is not None and parent is not None:
            codes = checkpoint.decoder.config.codes
            given = BranchTokens(self.line.place, codes, parent.pool.__getitem__, given)
        self.field: Field = field
        self.pool: NearbyContextPool = NearbyContextPool(self.order, self.side, field, keep, given)
        self.drawn = DrawnPatches(drawn, canvas.id) if drawn else None
        self.workers = ThreadPoolExecutor(workers)

    def patches(self, wanted: Sequence[Patch]) -> Iterator[tuple[Patch, Codes]]:
        """Draw patches and all they stand on, as far as the pool does not hold them.

        Those of a branch's parent are drawn first, and not among what is yielded.
        """
        with self._parents_held(wanted):
            yield from render(wanted, self.order, self.pool, self._sample)

    def tile(self, tile: Tile) -> Pixels:
        """One tile: (TILE_PX, TILE_PX, 3) uint8."""
        return next(iter(self._tiles([tile])))

    def region(self, region: Region) -> Iterator[Pixels]:
        """A region's pixels from top to bottom, in strips (rows, width, 3) uint8."""
        return strips(region, self.canvas.extent, self._tiles)

    def cone(self, region: Region) -> set[Patch]:
        """Every patch that must be drawn for a region to stand, and is not there yet."""
        return self.order.cone(self._under(tiles_of(region, self.canvas.extent)), self.pool)

    def cost(self, region: Region) -> int:
        """How many patches that is, those of a branch's ancestors among them."""
        painter: Painter | None = self
        wanted: Collection[Patch] = self._under(tiles_of(region, self.canvas.extent))
        found = 0
        while painter is not None:
            cone = painter.order.cone(wanted, painter.pool)
            found, wanted = found + len(cone), painter._below(wanted)
            painter = painter.parent
        return found

    def close(self) -> None:
        """Stop the workers; patches not yet begun are not drawn."""
        self.workers.shutdown(cancel_futures=True)

    def __enter__(self) -> Painter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _under(self, tiles: Iterable[Tile]) -> list[Patch]:
        """The patches that tiles are decoded from, each once."""
        extent = self.canvas.extent
        found: dict[Patch, None] = {}
        for tile in tiles:
            there = 0 <= tile.level <= extent.finest and 0 <= tile.frame < self.canvas.frames
            patches = self.line.view(tile, RADIUS_TOK).patches() if there else []
            if not patches:
                raise InvalidRequest(f"{tile} is not in this {extent.kind}")
            found.update(dict.fromkeys(patches))
        return list(found)

    def _tiles(self, tiles: Sequence[Tile]) -> Iterator[Pixels]:
        with self._held(self._under(tiles)):
            yield from self.workers.map(self._decode, tiles)

    @contextmanager
    def _held(self, patches: Collection[Patch]) -> Iterator[None]:
        """Have patches in the pool, drawn if they are not there, until they were read."""
        self.pool.claim(patches)
        try:
            with self._parents_held(patches):
                for _ in render(patches, self.order, self.pool, self._sample):
                    pass
                yield
        finally:
            self.pool.release(patches)

    def _parents_held(self, wanted: Collection[Patch]) -> AbstractContextManager[None]:
        """Have what these patches are, or are drawn from, in the pool of the parent, if any."""
        if self.parent is None:
            return nullcontext()
        return self.parent._held(self._below(wanted))

    def _below(self, wanted: Collection[Patch]) -> set[Patch]:
        """The parent's patches that a branch's are, or see."""
        if self.line.place is None:
            return set()
        seen = set(wanted)
        found = set[Patch]()
        for patch in self.order.cone(wanted, self.pool):
            seen.update(self.order.dependencies(patch))
            found.update(self.line.place.below(patch))
        return found | {patch for patch in seen if not self.line.place.touches(patch)}

    def _decode(self, tile: Tile) -> Pixels:
        view = self.line.view(tile, RADIUS_TOK)
        pixels = [self._pixels(one) for one in view.tokens(self.pool.__getitem__)]
        return view.cut(self._shown(view, pixels))

    def _pixels(self, tokens: Tokens) -> Pixels:
        codes, inside = torch.from_numpy(tokens.codes)[None], torch.from_numpy(tokens.inside)[None]
        return to_rgb(self.tokenizer.decode(codes, inside, tokens.crop)[0]).numpy()

    def _shown(self, view: View, pixels: Sequence[Pixels]) -> Pixels:
        """What is to be seen, with the pictures that are known; outside a branch the parent's."""
        painted = view.painted(pixels, self.details.get(view.tile.level))
        own = self.known.lay_over(painted) if self.known else painted.shown()
        if self.line.place is None or self.parent is None:
            return own
        return self.line.place.laid(view.region, self.parent._shown(view, pixels), own)

    def _encode(self, pixels: Pixels) -> Codes:
        codes = self.tokenizer.encode(from_rgb(torch.from_numpy(pixels)[None]))
        return codes[0].to(torch.uint8).numpy()

    def _sample(self, contexts: Sequence[Context]) -> Iterator[tuple[Patch, Codes]]:
        """Draw a wave, its batches spread over the workers, but what was drawn before."""
        left = []
        for context in contexts:
            found = self.drawn.get(context.patch) if self.drawn else None
            if found is None:
                left.append(context)
            else:
                self.on_patch(context.patch)
                yield context.patch, found
        batches = self.sampler.batches(left)
        for done in as_completed([self.workers.submit(self.sampler.draw, one) for one in batches]):
            for patch, codes in done.result():
                if self.drawn:
                    self.drawn.put(patch, codes)
                self.on_patch(patch)
                yield patch, codes


def sampler_of(checkpoint: Checkpoint, canvas: Canvas, vectors: Vectors) -> PatchSampler:
    """What draws the patches of a canvas.

    Args:
        checkpoint: the model that the canvas names.
        canvas: what to paint.
        vectors: embeddings of all its prompts.

    Raises:
        SpecMismatch: the canvas names another model, or does not fit its world.
        NotFound: the model has no such world.
    """
    if canvas.model != checkpoint.digest:
        raise SpecMismatch(
            f"the canvas wants model {canvas.model[:16]}…, this is {checkpoint.digest[:16]}…"
        )
    world = checkpoint.world(canvas.world)
    check_learned(world.name, world.extent, canvas.extent)
    decoder = checkpoint.decoder
    if canvas.sampling.dtype == "bfloat16":
        decoder = deepcopy(decoder).to(torch.bfloat16)
    return PatchSampler(
        decoder,
        canvas.seed,
        world.index,
        canvas.sampling,
        words_of(canvas, vectors),
        vectors.get(canvas.sampling.negative_prompt),
    )


def _details(world: World) -> dict[int, Detail]:
    """What the tokenizer loses, by level, as far as there are pieces of pictures of the world."""
    return {level: Detail(pieces) for level, pieces in world.pieces.items()}


def _embed(checkpoint: Checkpoint, prompts: Sequence[str]) -> Vectors:
    if not prompts:
        return {}
    encoder = TextEncoder()
    if encoder.digest != checkpoint.text_encoder:
        raise SpecMismatch(
            f"the model was trained with text encoder {checkpoint.text_encoder[:16]}…, "
            f"the one installed is {encoder.digest[:16]}…"
        )
    return {prompt: encoder.embed([prompt])[0] for prompt in prompts}
