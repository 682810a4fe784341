"""Known pictures of canvases, as the store keeps them.

Pixels are a PNG. What painting takes is kept beside it, for each model and number of levels: the
tokens of all levels one after the other, and the statistics that the field takes, as float32.
"""

from __future__ import annotations

import asyncio
import math

import numpy as np

from handscroll.canvas import Canvas
from handscroll.context import Floats
from handscroll.errors import InvalidRequest, Unavailable
from handscroll.known import KnownPixels, KnownPlace, KnownTokens, known_pixels
from handscroll.picture import from_png
from svckit.keys import known_key, picture_key
from svckit.store import Store
from svckit.wire import Model

_STATISTICS = 4


def place_of(canvas: Canvas, model: Model) -> KnownPlace:
    """Where a canvas' known picture lies."""
    assert canvas.known is not None
    return KnownPlace(canvas.extent, canvas.known, model.side_tok)


async def load_pixels(store: Store, canvas: Canvas, model: Model) -> KnownPixels:
    """The picture that a canvas is painted around.

    Raises:
        Unavailable: it is not in the store, or was cut short.
    """
    assert canvas.known is not None
    content = await store.get(picture_key(canvas.known.picture))
    if content is None:
        raise Unavailable("the picture that the canvas is painted around is not in the store")
    try:
        return await asyncio.to_thread(
            lambda: known_pixels(canvas, from_png(content), model.side_tok)
        )
    except (OSError, SyntaxError, ValueError, InvalidRequest) as error:
        raise Unavailable(
            "the picture that the canvas is painted around was cut short in the store; uploaded "
            "again, it is whole again"
        ) from error


async def load_tokens(store: Store, canvas: Canvas, model: Model) -> tuple[KnownTokens, Floats]:
    """Its tokens, which were committed before the canvas, and the statistics (h, w, 4) of level 0.

    Raises:
        Unavailable: they are not in the store, or were cut short.
    """
    assert canvas.known is not None
    key = known_key(model.digest, canvas.known.picture, canvas.extent.finest)
    content = await store.get(key)
    if content is None or len(content) != content_bytes(canvas, model):
        raise Unavailable(
            "the tokens of the picture that the canvas is painted around are not in the store; the "
            "same canvas made again has them"
        )
    place, levels, start = place_of(canvas, model), [], 0
    for level in range(canvas.extent.finest + 1):
        shape = (*place.shape_tok(level), model.codes)
        size = math.prod(shape)
        levels.append(np.frombuffer(content, np.uint8, size, start).reshape(shape))
        start += size
    statistics = np.frombuffer(content, "<f4", offset=start).astype(np.float32)
    return KnownTokens(place, levels), statistics.reshape(*place.shape_tok(0), _STATISTICS)


def tokens_content(tokens: KnownTokens, statistics_hw4: Floats) -> bytes:
    """Tokens and statistics as the store keeps them."""
    levels = (codes.tobytes() for codes in tokens.codes)
    return b"".join((*levels, statistics_hw4.astype("<f4").tobytes()))


def content_bytes(canvas: Canvas, model: Model) -> int:
    """How many bytes these are."""
    place = place_of(canvas, model)
    shapes = [place.shape_tok(level) for level in range(canvas.extent.finest + 1)]
    tokens = sum(height * width for height, width in shapes)
    return tokens * model.codes + math.prod(shapes[0]) * _STATISTICS * 4
