"""Films: the frames of a region as one file.

The same frames give the same bytes; as MP4 nearly always, since x264 is now and then of two minds.

A film has few frames and encoders look at all of them, so all are held: MAX_FILM_PIXELS at most.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
from PIL import Image
from typing_extensions import TypeIs

from handscroll.assemble import Pixels
from handscroll.errors import InvalidRequest

FilmFormat = Literal["mp4", "awebp", "gif"]
"""MP4 holds H.264; ``awebp`` is an animated WebP."""

FPS = 8
"""Frames a second, unless said otherwise."""
MAX_FPS = 30
MAX_FILM_PIXELS = 2**26
"""Of all frames together: 192 MiB of them."""

_PALETTE_PX = 256
_CRF = 18  # how much MP4 may lose: not to be seen


def is_film(format: str) -> TypeIs[FilmFormat]:
    """Whether a kind of file is a film."""
    return format in get_args(FilmFormat)


def check_film(format: FilmFormat, frames: int, height: int, width: int, fps: int) -> None:
    """Refuse a film that cannot be made.

    Raises:
        InvalidRequest: a still canvas, too many pixels, sides that the format cannot have, or no
            such speed.
    """
    if frames < 2:
        raise InvalidRequest("a film takes a canvas of at least 2 frames; this one is still")
    if not 1 <= fps <= MAX_FPS:
        raise InvalidRequest(f"fps must be 1 to {MAX_FPS}, not {fps}")
    if frames * height * width > MAX_FILM_PIXELS:
        raise InvalidRequest(
            f"a film may have {MAX_FILM_PIXELS} pixels in all its frames; {frames} frames of "
            f"{height} x {width} px have {frames * height * width}"
        )
    if format == "mp4" and (height % 2 or width % 2):
        raise InvalidRequest(f"an mp4 has even sides, not {height} x {width} px")


def played(frames: Sequence[Pixels], back_and_forth: bool) -> list[Pixels]:
    """Frames in the order that they are shown in; forth and back closes the loop.

    >>> [int(frame) for frame in played([0, 1, 2, 3], back_and_forth=True)]
    [0, 1, 2, 3, 2, 1]
    """
    return [*frames, *frames[-2:0:-1]] if back_and_forth else list(frames)


def film(format: FilmFormat, frames: Sequence[Pixels], fps: int, back_and_forth: bool) -> bytes:
    """A film as a file.

    Args:
        format: of the file.
        frames: (H, W, 3) each, two at least.
        fps: frames a second.
        back_and_forth: play them forth and back.

    Raises:
        InvalidRequest: see `check_film`.
    """
    height, width, _ = frames[0].shape
    check_film(format, len(frames), height, width, fps)
    shown = played(frames, back_and_forth)
    if format == "mp4":
        return _mp4(shown, fps)
    images = [Image.fromarray(frame) for frame in shown]
    if format == "gif":
        palette = _palette(frames)
        # Without dithering, which would move where nothing moves.
        images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    options = {"method": 2, "quality": 90} if format == "awebp" else {"disposal": 1}
    file = io.BytesIO()
    images[0].save(
        file,
        "WEBP" if format == "awebp" else "GIF",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / fps),
        loop=0,
        **options,
    )
    return file.getvalue()


def _palette(frames: Sequence[Pixels]) -> Image.Image:
    """One palette for all frames, so that what stays has one colour."""
    height, width = frames[0].shape[:2]
    step = max(1, max(height, width) // _PALETTE_PX)
    some = np.concatenate([frame[::step, ::step] for frame in frames])
    return Image.fromarray(some).quantize(256)


def _mp4(frames: Sequence[Pixels], fps: int) -> bytes:
    import av  # here, because it takes a while and few need it

    file = io.BytesIO()
    height, width = frames[0].shape[:2]
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "fflags": "+bitexact"}
    with av.open(file, "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.thread_count = 1  # more would make other bytes
        stream.options = {"crf": str(_CRF), "preset": "medium", "flags": "+bitexact"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()
