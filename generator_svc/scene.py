"""A canvas with all that its patches have in common, and the model they are drawn with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from handscroll.canvas import Canvas, order_of
from handscroll.context import Field, Floats
from handscroll.errors import SpecMismatch, Unavailable
from handscroll.field import Palette, ProceduralField
from handscroll.geometry import PATCH_PX
from handscroll.known import KnownField, KnownTokens
from handscroll.order import Order
from handscroll.words import Vectors, prompts_of, words_of
from svckit.keys import text_key
from svckit.known import load_tokens
from svckit.store import Store
from svckit.wire import Model


class Served(NamedTuple):
    """A model as its painters describe it, with the palette of each of its worlds."""

    model: Model
    palettes: Mapping[str, Palette]


class Scene(NamedTuple):
    """A canvas, its order and field, what is known of it, and the embeddings of its prompts."""

    canvas_id: str
    canvas: Canvas
    order: Order
    field: Field
    vectors: Vectors
    known: KnownTokens | None


async def load_scene(store: Store, served: Served, canvas: Canvas) -> Scene:
    """All that the patches of a canvas have in common.

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
    wild = ProceduralField(
        canvas.seed, canvas.extent, served.palettes[canvas.world], f, words_of(canvas, vectors)
    )
    field: Field = wild
    known = None
    if canvas.known is not None:
        known, statistics = await load_tokens(store, canvas, model)
        field = KnownField(wild, known.place, statistics)
    return Scene(canvas.id, canvas, order_of(canvas), field, vectors, known)


async def _embedding(store: Store, encoder: str, prompt: str) -> Floats:
    """A prompt's embedding, which was committed before its canvas."""
    content = await store.get(text_key(encoder, prompt))
    if content is None:
        raise Unavailable("the embedding of a prompt of the canvas is not in the store")
    return np.frombuffer(content, "<f4").astype(np.float32)
