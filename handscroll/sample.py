"""The inner loop: the tokens of one patch, a group at a time.

Every token's noise has a name (seed, patch, token, code, value), so what is drawn does not depend
on when, where or beside which other patch it was drawn. All frames have that of the first, and what
moves takes its own along: so what sees the same is drawn the same, and does not flicker.

The network's own rounding might depend on it, and so every call has a canonical shape: contexts are
padded to lengths that follow from the patch alone, and patches go through the decoder
``Sampling.rows`` at a time, short batches filled up.

Shape suffixes as in `decoder`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handscroll.canvas import Sampling, TokenOrder
from handscroll.context import Codes, Context, Floats, Source
from handscroll.decoder import Batch, Decoder, DecoderConfig
from handscroll.field import CELL_VALUES
from handscroll.geometry import Mask, Patch, cell_of
from handscroll.seeds import gumbels, patch_key

FIELD_GUIDANCE = 1.75
"""How far level 0 moves from the logits without a field to those with it: a small model believes
the field too little, and paints mist where there should be hills."""

LATER = 0.5
"""The share of the temperature at which later frames are drawn: most of what they show is there
already, and a code that is drawn off by chance is a speck."""


def token_order(inside_ss: Mask, name: TokenOrder) -> NDArray[np.int64]:
    """The tokens to draw, as flat indices (T,) in the order they are drawn.

    ``spread`` is the order of Bayer's dither matrix: any 4**n first tokens stand on a regular grid,
    so tokens drawn in one step are as far apart as can be. The matrix is shifted, so that the first
    of them are about as far from every border: else two borders are left to the last, which must
    mend what the patch and the neighbours beyond have come to differ in.
    """
    side = len(inside_ss)
    flat = np.arange(side * side)
    if name == "spread":
        rows, cols = (np.stack(np.divmod(flat, side)) - side // 8) % side
        threshold = np.zeros_like(flat)
        for bit in range(side.bit_length() - 1):
            row, col = rows >> bit & 1, cols >> bit & 1
            threshold = threshold * 4 + (2 * (row ^ col) + row)
        flat = flat[np.argsort(threshold, kind="stable")]
    return flat[inside_ss.reshape(-1)[flat]]


def collate(
    contexts: Sequence[Context],
    worlds: Sequence[int],
    texts: Sequence[Floats | None],
    config: DecoderConfig,
    length: int,
) -> Batch:
    """Contexts, with the world and the prompt's embedding of each, padded to ``length`` entries."""
    count = len(contexts)
    batch_codes = np.zeros((count, length, config.codes), np.int64)
    source = np.full((count, length), Batch.PAD, np.int64)
    place = np.zeros((count, length, 2), np.float32)
    field = np.zeros((count, length, CELL_VALUES), np.float32)
    text = np.zeros((count, config.text_width), np.float32)
    for row, (context, prompt) in enumerate(zip(contexts, texts, strict=True)):
        tokens, cells = len(context.codes_NK), len(context.field_MV)
        if tokens:
            batch_codes[row, :tokens] = context.codes_NK
            source[row, :tokens] = context.source_N
            place[row, :tokens] = context.place_N2
        if cells:
            field[row, tokens : tokens + cells] = context.field_MV
            source[row, tokens : tokens + cells] = Source.FIELD
            place[row, tokens : tokens + cells] = context.field_place_M2
        if prompt is not None:
            text[row] = prompt
    return Batch(
        codes_BCK=torch.from_numpy(batch_codes),
        source_BC=torch.from_numpy(source),
        place_BC2=torch.from_numpy(place),
        field_BCV=torch.from_numpy(field),
        text_BW=torch.from_numpy(text),
        has_text_B=torch.tensor([prompt is not None for prompt in texts]),
        world_B=torch.tensor(list(worlds)),
        level_B=torch.tensor([context.patch.level for context in contexts]),
        frame_B=torch.tensor([context.patch.frame for context in contexts]),
    )


class PatchSampler:
    """Draws patches of one canvas with one decoder. Holds no state between calls.

    Args:
        decoder: the model, in the dtype that ``sampling`` names.
        seed: of the canvas.
        world: index of the world.
        sampling: how tokens are drawn.
        words: tells the embedding (W,) of a patch's prompt, or None; None if no patch has any.
        negative_W: the negative prompt's; None for none.
    """

    def __init__(
        self,
        decoder: Decoder,
        seed: int,
        world: int,
        sampling: Sampling,
        words: Callable[[Patch], Floats | None] | None = None,
        negative_W: Floats | None = None,
    ) -> None:
        self.decoder, self.seed, self.world, self.sampling = decoder, seed, world, sampling
        self.words, self.negative_W = words, negative_W

    def __call__(self, contexts: Sequence[Context]) -> Iterator[tuple[Patch, Codes]]:
        """Draw patches that do not see each other; yields (side, side, K) uint8 codes."""
        for batch in self.batches(contexts):
            yield from self.draw(batch)

    def batches(self, contexts: Sequence[Context]) -> list[list[Context]]:
        """Split contexts into batches of one shape, at most ``Sampling.rows`` each."""
        alike: dict[tuple[object, ...], list[Context]] = defaultdict(list)
        for context in contexts:
            alike[context.shape].append(context)
        rows = self.sampling.rows
        return [
            members[start : start + rows]
            for members in alike.values()
            for start in range(0, len(members), rows)
        ]

    def draw(
        self, batch: list[Context], pause: Callable[[], None] = lambda: None
    ) -> list[tuple[Patch, Codes]]:
        """Draw one batch, filled up to its canonical size.

        Args:
            batch: contexts of one shape.
            pause: called before every step of the decoder; what it raises stops the drawing.
        """
        filled = batch + batch[-1:] * (self.sampling.rows - len(batch))
        drawn = self._draw(filled, batch[0].padded_length, pause)
        return list(zip((one.patch for one in batch), drawn, strict=False))

    @torch.inference_mode()
    def _draw(self, contexts: list[Context], length: int, pause: Callable[[], None]) -> Codes:
        """Codes (B, side, side, K) of patches with one shape of context and of canvas."""
        config, sampling, count = self.decoder.config, self.sampling, len(contexts)
        device = self.decoder.query.device
        asked, texts, guidance = self._asked(contexts)
        ways = len(asked) // count  # with guidance, every patch is asked twice
        worlds = [self.world] * len(asked)
        batch = collate(asked, worlds, texts, config, length).to(device)
        order = token_order(contexts[0].inside_ss, sampling.token_order)
        is_known = contexts[0].known_ss.reshape(-1)[order]
        if contexts[0].patch.frame > 0:
            sampling = replace(sampling, temperature=LATER * sampling.temperature)
        order, known = np.concatenate((order[is_known], order[~is_known])), int(is_known.sum())
        place_T2 = torch.from_numpy(np.stack(np.divmod(order, config.side), axis=-1)).to(device)
        place_BT2 = place_T2.float().expand(len(texts), -1, -1)
        own_BTKV = torch.from_numpy(
            np.stack([self._noise(one.patch, (0, 0))[order] for one in contexts])
        ).to(device)
        moved = self._moved(contexts, order)
        drawn_BTK = torch.zeros(count, len(order), config.codes, dtype=torch.long, device=device)

        if known:
            flat = np.stack([one.known_ssK.reshape(config.side**2, -1) for one in contexts])
            drawn_BTK[:, :known] = torch.from_numpy(flat[:, order[:known]]).to(device)

        cache = self.decoder.prefill(batch, len(order) + sampling.group)
        condition = self.decoder.condition(batch)
        last = slice(0, known)  # given tokens are as if drawn in a step before the first
        for start in range(known, len(order), sampling.group):
            pause()
            now = slice(start, start + sampling.group)
            before = drawn_BTK[:, last].repeat(ways, 1, 1)
            answer = self.decoder.step(
                cache, condition, before, place_BT2[:, last], place_BT2[:, now]
            )
            for code in range(config.codes):
                logits = self.decoder.code_logits(answer, code).float()
                if ways == 2:
                    logits = guided(logits, guidance)
                noise = own_BTKV[:, now, code]
                if moved is not None:
                    noise = moved.noise(noise, logits, now, code)
                value = choose(logits, noise, sampling)
                drawn_BTK[:, now, code] = value
                answer = self.decoder.choose(answer, code, value.repeat(ways, 1))
            last = now

        codes = np.zeros((count, config.side**2, config.codes), np.uint8)
        codes[:, order] = drawn_BTK.cpu().numpy()
        return codes.reshape(count, config.side, config.side, config.codes)

    def _noise(self, patch: Patch, moved_tok: tuple[int, int]) -> Floats:
        """The first frame's noise (T, K, V) of a patch's tokens, which have moved so far since."""
        config = self.decoder.config
        side = config.side
        shape = (side**2, config.codes, config.vocabulary)
        place_T2 = np.stack(np.divmod(np.arange(side**2), side), axis=-1) - np.array(moved_tok)
        offset_T2 = cell_of(place_T2, side)
        found = np.empty(shape, np.float32)
        for down, right in np.unique(offset_T2, axis=0):
            here = (offset_T2 == (down, right)).all(axis=1)
            rows, cols = (place_T2[here] - (down * side, right * side)).T
            home = Patch(patch.level, 0, patch.row + int(down), patch.col + int(right))
            found[here] = gumbels(patch_key(self.seed, home), shape)[rows * side + cols]
        return found

    def _moved(self, contexts: Sequence[Context], order: NDArray[np.int64]) -> Moved | None:
        """What has come to the tokens of later frames; None where nothing moves."""
        if not any(any(one.moved_tok) for one in contexts):
            return None
        noise, came, stood, shown = [], [], [], []
        for one in contexts:
            first, from_first = one.at(Source.FIRST)
            before, from_before = one.at(Source.PREVIOUS)
            noise.append(self._noise(one.patch, one.moved_tok)[order])
            came.append(first.reshape(-1, first.shape[-1])[order])
            stood.append(before.reshape(-1, before.shape[-1])[order])
            shown.append((from_first & from_before).reshape(-1)[order])
        device = self.decoder.query.device
        return Moved(
            *(torch.from_numpy(np.stack(part)).to(device) for part in (noise, came, stood, shown))
        )

    def _asked(
        self, contexts: list[Context]
    ) -> tuple[list[Context], list[Floats | None], list[float]]:
        """What patches of one shape see and hear, then what they are moved away from, and how far.

        Each has one guidance: that of the prompt, or of the field. Later frames have none: it
        dissolves a film.
        """
        patches, guidance = [context.patch for context in contexts], self.sampling.guidance
        first, led = patches[0].frame == 0, len(contexts[0].field_MV) > 0
        hear = [self.words and self.words(patch) for patch in patches]
        silent = (self.words is None and self.negative_W is None) or guidance == 1
        if not first or (silent and not led):
            return contexts, hear, []
        away, other, far = list[Context](), list[Floats | None](), list[float]()
        for context, said in zip(contexts, hear, strict=True):
            told = guidance != 1 and (said is not None or self.negative_W is not None)
            told = told or not led
            away.append(context if told else without_field(context))
            other.append(self.negative_W if told else said)
            far.append(guidance if told else FIELD_GUIDANCE)
        return contexts + away, hear + other, far


class Moved(NamedTuple):
    """What has come to the tokens of patches of later frames, by the course of their canvas.

    Attributes:
        noise_BTKV: by which it was drawn in the first frame.
        came_BTK: its codes.
        stood_BTK: codes of what was there in the frame before.
        shown_BT: whether both are seen.
    """

    noise_BTKV: Tensor
    came_BTK: Tensor
    stood_BTK: Tensor
    shown_BT: Tensor

    def noise(self, own_BQV: Tensor, logits_BQV: Tensor, now: slice, code: int) -> Tensor:
        """The noise of some tokens: their place's, or that of what came, if it is the likelier."""
        came, stood = (
            logits_BQV.gather(-1, codes[:, now, code, None].long())
            for codes in (self.came_BTK, self.stood_BTK)
        )
        follows = self.shown_BT[:, now, None] & (came > stood)
        return torch.where(follows, self.noise_BTKV[:, now, code], own_BQV)


def without_field(context: Context) -> Context:
    """What a patch of level 0 would see if there were no field."""
    none = context.field_MV[:0], context.field_place_M2[:0]
    return replace(context, field_MV=none[0], field_place_M2=none[1])


def guided(logits_BQV: Tensor, guidance: Sequence[float]) -> Tensor:
    """Logits moved away from those in the second half of a batch to those in the first."""
    here, there = logits_BQV.chunk(2)
    return there + logits_BQV.new_tensor(guidance)[:, None, None] * (here - there)


def choose(logits_BQV: Tensor, noise_BQV: Tensor, sampling: Sampling) -> Tensor:
    """One value (B, Q) of each distribution, by the Gumbel-max trick on named noise."""
    if sampling.temperature == 0:
        return logits_BQV.argmax(-1)
    logits = logits_BQV / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        ranked, index = logits.softmax(-1).sort(dim=-1, descending=True)
        beyond = ranked.cumsum(-1) - ranked >= sampling.top_p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, index, beyond), -torch.inf)
    return (logits + noise_BQV).argmax(-1)
