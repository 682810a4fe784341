"""Known pictures of canvases, as the store keeps them: pixels, and tokens level after level."""

from __future__ import annotations

import asyncio

import numpy as np

from handscroll.canvas import Canvas
from handscroll.errors import Unavailable
from handscroll.known import KnownPixels, KnownPlace, KnownTokens, known_pixels
from handscroll.picture import from_png
from svckit.keys import known_key, picture_key
from svckit.store import Store
from svckit.wire import Model


async def load_pixels(store: Store, canvas: Canvas, model: Model) -> KnownPixels:
    """The picture that a canvas is painted around.

    Raises:
        Unavailable: it is not in the store.
    """
    assert canvas.known is not None
    content = await store.get(picture_key(canvas.known.picture))
    if content is None:
        raise Unavailable("the picture that the canvas is painted around is not in the store")
    return await asyncio.to_thread(lambda: known_pixels(canvas, from_png(content), model.side_tok))


async def load_tokens(store: Store, canvas: Canvas, model: Model) -> KnownTokens:
    """Its tokens, which were committed before the canvas.

    Raises:
        Unavailable: they are not in the store.
    """
    known, finest = canvas.known, canvas.extent.finest
    assert known is not None
    content = await store.get(known_key(model.digest, known.picture, finest))
    if content is None:
        raise Unavailable("the tokens of the canvas' picture are not in the store")
    place = KnownPlace(canvas.extent, known, model.side_tok)
    levels, rest = [], np.frombuffer(content, np.uint8)
    for level in range(finest + 1):
        height, width = place.shape_tok(level)
        size = height * width * model.codes
        levels.append(rest[:size].reshape(height, width, model.codes))
        rest = rest[size:]
    return KnownTokens(place, levels)


def tokens_content(tokens: KnownTokens) -> bytes:
    """Tokens as the store keeps them."""
    return b"".join(codes.tobytes() for codes in tokens.codes)
