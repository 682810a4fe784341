"""A canvas with all that its patches have in common, and the model they are drawn with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from handscroll.branch import BranchField, BranchTokens, Lineage
from handscroll.canvas import Canvas
from handscroll.context import Codes, Field, Floats, Given
from handscroll.errors import SpecMismatch, Unavailable
from handscroll.field import Palette, ProceduralField
from handscroll.geometry import PATCH_PX, Patch
from handscroll.known import KnownField, KnownTokens
from handscroll.order import Order
from handscroll.words import Vectors, layouts_of, prompts_of
from svckit.keys import text_key
from svckit.known import load_tokens
from svckit.store import Store
from svckit.wire import Model


class Served(NamedTuple):
    """A model as its painters describe it, with the palette of each of its worlds."""

    model: Model
    palettes: Mapping[str, Palette]


class Scene(NamedTuple):
    """A canvas, its order and field, what is known of it, and the embeddings of its prompts.

    Attributes:
        line: the canvas and those it was branched from.
        parent: the scene of what it was branched from, if it was.
    """

    canvas_id: str
    canvas: Canvas
    order: Order
    field: Field
    vectors: Vectors
    known: KnownTokens | None
    line: Lineage
    parent: Scene | None

    def home(self, patch: Patch) -> Scene:
        """The scene that a patch is drawn in: this one, or one that this was branched from."""
        return self.member(self.line.home(patch).id)

    def member(self, canvas_id: str) -> Scene:
        """This scene, or the one that this was branched from of that canvas."""
        scene = self
        while scene.canvas_id != canvas_id:
            assert scene.parent is not None
            scene = scene.parent
        return scene

    def below(self, patch: Patch) -> tuple[Patch, ...]:
        """The patches of the parent that one of this scene sees tokens of."""
        return self.line.place.below(patch) if self.line.place else ()

    def given(self, model: Model, below: Mapping[Patch, Codes]) -> Given | None:
        """What need not be drawn of a patch, or near it.

        Args:
            model: that draws.
            below: the codes of its `below`.
        """
        if self.line.place is None:
            return self.known
        return BranchTokens(self.line.place, model.codes, below.__getitem__, self.known)


async def load_scene(
    store: Store, served: Served, canvas: Canvas, parent: Scene | None = None
) -> Scene:
    """All that the patches of a canvas have in common.

    Args:
        store: the store.
        served: the model.
        canvas: the canvas.
        parent: the scene of what it was branched from, if it was.

    Raises:
        SpecMismatch: it is painted by another model.
        Unavailable: the embedding of a prompt is missing, or are the tokens of a known picture.
    """
    model = served.model
    if canvas.model != model.digest:
        raise SpecMismatch(
            f"the canvas wants model {canvas.model[:16]}…, served is {model.digest[:16]}…"
        )
    f = PATCH_PX // model.side_tok
    vectors = {
        prompt: await _embedding(store, model.text_encoder, prompt) for prompt in prompts_of(canvas)
    }
    line = Lineage(canvas, model.side_tok, parent.line if parent else None)
    field: Field = ProceduralField(
        canvas.seed, canvas.extent, served.palettes[canvas.world], f, layouts_of(canvas, vectors)
    )
    if parent is not None and line.place is not None:
        field = BranchField(line.place, parent.field, canvas.seed, field)
    known = None
    if canvas.known is not None:
        known, statistics = await load_tokens(store, canvas, model)
        field = KnownField(field, known.place, statistics)
    return Scene(line.id, canvas, line.order, field, vectors, known, line, parent)


async def _embedding(store: Store, encoder: str, prompt: str) -> Floats:
    """A prompt's embedding, which was committed before its canvas."""
    content = await store.get(text_key(encoder, prompt))
    if content is None:
        raise Unavailable("the embedding of a prompt of the canvas is not in the store")
    return np.frombuffer(content, "<f4").astype(np.float32)
