"""What tokenizer and decoder have learned, on pictures that they have not seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from handscroll.checkpoint import Checkpoint
from handscroll.context import Source
from handscroll.decoder import Decoder
from handscroll.sample import token_order
from training.examples import SERVED_STEPS, Dataset, Example, Examples
from training.pictures import Picture
from training.train_decoder import evaluate as mean_loss
from training.train_tokenizer import evaluate as reconstruct
from training.train_tokenizer import sheet, to_float

EXAMPLES = 96
"""How many held-out patches the decoder is asked about."""


def tokenizer_rows(
    model: Checkpoint, held: Sequence[Picture], out: Path
) -> Iterator[tuple[str, str]]:
    """PSNR and usage by world and level, and a sheet of both at the finest level."""
    rng = np.random.default_rng(0)
    shown = []
    for world in model.worlds:
        for level in range(model.worlds[world].extent.finest + 1):
            crops = []
            for picture in (one for one in held if one.world == world):
                pixels = picture.levels[level]
                size = 160
                for _ in range(8 if world == "scroll" else 128):
                    top, left = (rng.integers(side - size + 1) for side in pixels.shape[:2])
                    crops.append(pixels[top : top + size, left : left + size])
            psnr, usage, again = reconstruct(model.tokenizer, to_float(crops, "cpu"))
            yield f"{world}, level {level}: PSNR, dB", f"{psnr:.2f}"
            if level == model.worlds[world].extent.finest:
                yield f"{world}: code values in use, worst of K", f"{usage:.0%}"
                shown.append((to_float(crops[::8][:16], "cpu"), again[::8][:16]))
    real, painted = (torch.cat(part) for part in zip(*shown, strict=True))
    sheet(out / "reconstructions.png", real, painted)


def borrow(examples: Sequence[Example], source: str) -> list[Example]:
    """The same examples, one source of their context taken from the next one that has as much."""
    result = []
    for number, one in enumerate(examples):
        for other in (*examples[number + 1 :], *examples[:number]):
            mixed = _mixed(one, other, source)
            if mixed is not None:
                result.append(mixed)
                break
    return result


def _mixed(one: Example, other: Example, source: str) -> Example | None:
    """``one`` with a source of ``other``'s context; None if the two do not match."""
    mine, theirs = one.context, other.context
    if source == "text":
        same = one.text is not None and other.text is not None and one.world == other.world
        differ = same and not np.array_equal(one.text, other.text)  # type: ignore[arg-type]
        return one._replace(text=other.text) if differ else None
    if one.world != other.world or mine.patch.level != theirs.patch.level:
        return None
    if source == "field":
        if not len(mine.field_MV) or mine.field_MV.shape != theirs.field_MV.shape:
            return None
        return one._replace(context=replace(mine, field_MV=theirs.field_MV))
    wanted = Source[source.upper()]
    here, there = mine.source_N == wanted, theirs.source_N == wanted
    if not here.any() or not np.array_equal(mine.place_N2[here], theirs.place_N2[there]):
        return None
    codes = mine.codes_NK.copy()
    codes[here] = theirs.codes_NK[there]
    return one._replace(context=replace(mine, codes_NK=codes))


def together(one: Example, tokens: int) -> Example:
    """An example whose tokens are drawn so many at a time."""
    return one._replace(group_T=np.arange(len(one.codes_TK)) // tokens)


def unigram(data: Dataset, examples: Sequence[Example], vocabulary: int) -> float:
    """Nats per code of held-out tokens under the training tokens' own frequencies, by world."""
    loss, count = 0.0, 0
    for world in range(len(data.worlds)):
        codes = np.concatenate(
            [
                grid.reshape(-1, grid.shape[-1])
                for one in data.pictures
                if one.world == world and not one.held_out
                for grid in one.codes
            ]
        )
        for slot in range(codes.shape[1]):
            seen = np.bincount(codes[:, slot], minlength=vocabulary) + 1
            nats = -np.log(seen / seen.sum())
            for one in examples:
                if one.world == world:
                    loss += float(nats[one.codes_TK[:, slot]].sum())
                    count += len(one.codes_TK)
    return loss / count


def decoder_rows(model: Decoder, data: Dataset) -> Iterator[tuple[str, str]]:
    """What the decoder has learned, as held-out nats per code."""
    examples = Examples(data, held_out=True, clean=True).always(EXAMPLES)
    in_order = []
    for one in examples:
        order = token_order(one.context.inside_ss, "raster")
        spread = token_order(one.context.inside_ss, "spread")
        codes = one.codes_TK[np.argsort(spread)]  # back to reading order
        place = np.stack(np.divmod(order, model.config.side), axis=-1).astype(np.float32)
        in_order.append(together(one._replace(codes_TK=codes, place_T2=place), 1))
    yield "all codes as likely", f"{np.log(model.config.vocabulary):.3f}"
    unigrams = unigram(data, examples, model.config.vocabulary)
    yield "as frequent as in training, by world", f"{unigrams:.3f}"
    at_once = model.config.side**2 // SERVED_STEPS
    for count in (1, 4, 8, 16, 32, 64):
        some = [together(one, count) for one in examples]
        served = ", as served" if count == at_once else ""
        yield f"the decoder, tokens at a time: {count}{served}", f"{nats(model, some):.3f}"
    yield "one token at a time, in reading order", f"{nats(model, in_order):.3f}"
    alone = [one.without("ring", "field") for one in examples if one.context.patch.level == 0]
    for name, some in (
        ("ring", examples),
        ("parent", examples),
        ("field", examples),
        ("text", examples),
        ("text with no other context, level 0", alone),
    ):
        source = name.split()[0]
        own = [one for one in some if one.has(source)]
        mixed, none = borrow(own, source), [one.without(source) for one in own]
        yield (
            f"{name}: its own / none / another's ({len(own)} patches, {len(mixed)} with another's)",
            f"{nats(model, own):.3f} / {nats(model, none):.3f} / {nats(model, mixed):.3f}",
        )


def nats(model: Decoder, examples: Sequence[Example]) -> float:
    """Held-out nats per code."""
    return mean_loss(model, examples, "cpu")
