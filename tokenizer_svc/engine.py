"""The work: one checkpoint's tokenizer and sentence encoder, on threads of one core each.

A call is cheaper on one core than spread over several, and its result does not depend on how many
there are. Sizes are checked before anything is queued.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from prometheus_client import Histogram

from handscroll.assemble import Pixels
from handscroll.checkpoint import Checkpoint
from handscroll.context import Codes, Floats
from handscroll.detail import Pieces
from handscroll.errors import InvalidRequest, Overloaded, SpecMismatch
from handscroll.geometry import Mask
from handscroll.text import TextEncoder
from handscroll.tokenizer import from_rgb, to_rgb
from svckit.refusal import Refusal

MAX_PIXELS = 2**20
MAX_WINDOW_TOK = 64
MAX_PROMPTS = 32

_SECONDS = Histogram(
    "handscroll_tokenizer_seconds",
    "Time a worker takes for a call",
    ["work"],
    buckets=(0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.3, 1, 3),
)

_QUEUE_FULL = Refusal("tokenizer")

T = TypeVar("T")


class Crop(NamedTuple):
    """A rectangle of pixels."""

    top_px: int
    left_px: int
    height_px: int
    width_px: int


class Workers:
    """Threads of one core each, and a bounded queue before them.

    Args:
        count: how many.
        waiting: how many calls may wait for one.
    """

    def __init__(self, count: int, waiting: int) -> None:
        self._count, self._limit, self._waiting = count, waiting, 0
        self._free = asyncio.Semaphore(count)
        self._threads = ThreadPoolExecutor(count, "worker", torch.set_num_threads, (1,))
        self._mean_s = 0.02

    async def run(self, name: str, work: Callable[[], T]) -> T:
        """Do work on a free thread; what is cancelled before it has begun never begins.

        Args:
            name: of the kind of work.
            work: done with one core.

        Raises:
            Overloaded: too many calls wait already.
        """
        if self._free.locked() and self._waiting >= self._limit:
            raise _QUEUE_FULL(
                Overloaded(
                    f"{self._waiting} calls are waiting for {self._count} workers already",
                    retry_after_s=max(0.1, self._waiting * self._mean_s / self._count),
                )
            )
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._timed, name, work)
        # A thread cannot be stopped: whose caller left is free only when the work is done.
        running.add_done_callback(lambda _: self._free.release())
        return await asyncio.shield(running)

    def close(self) -> None:
        """Wait for what is running."""
        self._threads.shutdown()

    def _timed(self, name: str, work: Callable[[], T]) -> T:
        began = time.monotonic()
        try:
            return work()
        finally:
            took_s = time.monotonic() - began
            self._mean_s += 0.1 * (took_s - self._mean_s)
            _SECONDS.labels(name).observe(took_s)


class Engine:
    """Encodes, decodes and embeds with one checkpoint.

    Args:
        checkpoint: the model.
        workers: where the work is done.
    """

    def __init__(self, checkpoint: Checkpoint, workers: Workers) -> None:
        self._checkpoint, self._workers = checkpoint, workers
        self._tokenizer = checkpoint.tokenizer
        # Read when first asked for: many never ask, and it may not be installed.
        self._encoder: TextEncoder | None = None
        self._loading = asyncio.Lock()

    async def encode(self, model: str, height_px: int, width_px: int, rgb: bytes) -> Codes:
        """Pixels (height, width, 3), row by row, to codes (rows, cols, K).

        Raises:
            SpecMismatch: another model is served here.
            InvalidRequest: sizes that do not fit the bytes or the model, or above MAX_PIXELS.
            Overloaded: too many calls wait already.
        """
        self._check_model(model)
        f = self._tokenizer.config.downsampling
        if not (height_px and width_px) or height_px % f or width_px % f:
            raise InvalidRequest(
                f"height and width must be positive multiples of {f} px, not {height_px} and "
                f"{width_px}"
            )
        if height_px * width_px > MAX_PIXELS:
            raise InvalidRequest(
                f"a picture may have {MAX_PIXELS} pixels, not {height_px} x {width_px}"
            )
        pixels = _shaped("rgb", rgb, (height_px, width_px, 3))

        def work() -> Codes:
            codes = self._tokenizer.encode(from_rgb(torch.from_numpy(pixels.copy())[None]))
            return codes[0].to(torch.uint8).numpy()

        return await self._workers.run("encode", work)

    async def decode(
        self, model: str, rows: int, cols: int, codes: bytes, inside: bytes, crop: Crop | None
    ) -> Pixels:
        """Codes (rows, cols, K), row by row, to pixels (height, width, 3) uint8.

        Args:
            model: digest of the model.
            rows: height in tokens.
            cols: width in tokens.
            codes: of the tokens, a byte each.
            inside: 1 for each token in the canvas, else 0; empty if all are.
            crop: the part that is wanted; None for all.

        Raises:
            SpecMismatch: another model is served here.
            InvalidRequest: a window above MAX_WINDOW_TOK, or something that does not fit it.
            Overloaded: too many calls wait already.
        """
        self._check_model(model)
        config = self._tokenizer.config
        if not (1 <= rows <= MAX_WINDOW_TOK and 1 <= cols <= MAX_WINDOW_TOK):
            raise InvalidRequest(
                f"a window must have 1 to {MAX_WINDOW_TOK} rows and columns of tokens, not {rows} "
                f"and {cols}"
            )
        window = _shaped("codes", codes, (rows, cols, config.codes))
        if window.max() >= config.vocabulary:
            raise InvalidRequest(
                f"codes must be 0 to {config.vocabulary - 1}, not {int(window.max())}"
            )
        mask = self._mask(rows, cols, inside)
        f = config.downsampling
        whole = Crop(0, 0, rows * f, cols * f)
        top, left, height, width = crop or whole
        if not (
            1 <= height <= whole.height_px - top and 1 <= width <= whole.width_px - left
        ):  # neither top nor left can be negative on the wire
            raise InvalidRequest(
                f"a crop must lie inside {whole.height_px} x {whole.width_px} px; this one has "
                f"{height} x {width} px at {top}, {left}"
            )

        def work() -> Pixels:
            pixels = self._tokenizer.decode(
                torch.from_numpy(window.copy())[None],
                None if mask is None else torch.from_numpy(mask)[None],
                (slice(top, top + height), slice(left, left + width)),
            )
            return to_rgb(pixels[0]).numpy()

        return await self._workers.run("decode", work)

    async def embed(self, model: str, prompts: Sequence[str]) -> tuple[Floats, str]:
        """Prompts to vectors (n, 384) of length one, and the digest of the encoder.

        Raises:
            SpecMismatch: another model is served here, or it was trained with another encoder.
            InvalidRequest: no prompt or more than MAX_PROMPTS, or one that is empty or too long.
            Unavailable: the encoder is not installed.
            Overloaded: too many calls wait already.
        """
        self._check_model(model)
        if not 1 <= len(prompts) <= MAX_PROMPTS:
            raise InvalidRequest(f"there must be 1 to {MAX_PROMPTS} prompts, not {len(prompts)}")
        async with self._loading:
            if self._encoder is None:
                self._encoder = await self._workers.run("load", self._load_encoder)
        encoder = self._encoder
        return await self._workers.run("embed", lambda: encoder.embed(prompts)), encoder.digest

    def pieces(self, model: str, world: str, level: int) -> Pieces | None:
        """Pieces of pictures of a level of a world; None if there are none.

        Raises:
            SpecMismatch: another model is served here.
            NotFound: the model has no such world.
        """
        self._check_model(model)
        return self._checkpoint.world(world).pieces.get(level)

    def _load_encoder(self) -> TextEncoder:
        encoder, wanted = TextEncoder(), self._checkpoint.text_encoder
        if encoder.digest != wanted:
            raise SpecMismatch(
                f"the model was trained with text encoder {wanted[:16]}…, the one installed is "
                f"{encoder.digest[:16]}…"
            )
        return encoder

    def _check_model(self, model: str) -> None:
        if model != self._checkpoint.digest:
            raise SpecMismatch(
                f"the model served here is {self._checkpoint.digest[:16]}…, not {model[:16]}…"
            )

    def _mask(self, rows: int, cols: int, inside: bytes) -> Mask | None:
        if not inside:
            return None
        mask = _shaped("inside", inside, (rows, cols))
        if mask.max() > 1:
            raise InvalidRequest(f"inside must hold 0 and 1 only, not {int(mask.max())}")
        return mask.astype(bool)


def _shaped(name: str, content: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Bytes as an array, if there are as many as it takes."""
    if len(content) != math.prod(shape):
        raise InvalidRequest(
            f"{name} must be {' x '.join(map(str, shape))} = {math.prod(shape)} bytes, "
            f"not {len(content)}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)
