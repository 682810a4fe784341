"""The inner loop: the tokens of one patch, a group at a time.

Every token's noise has a name (seed, patch, token, code, value), so what is drawn does not depend
on when, where or beside which other patch it was drawn. All frames have that of the first: what
sees the same is drawn the same, and does not flicker. Most of a later frame is not drawn at all:
the decoder is first asked which tokens are new, and the others are kept, as they stood or came.
Where snow falls, a noise of the canvas has a say in it.

The network's own rounding might depend on it, and so every call has a canonical shape: contexts are
padded to lengths that follow from the patch alone, and patches go through the decoder
``Sampling.rows`` at a time, short batches filled up.

Shape suffixes as in `decoder`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from handscroll.canvas import Sampling, TokenOrder
from handscroll.context import Codes, Context, Floats, Source
from handscroll.course import Kind
from handscroll.decoder import Batch, Decoder, DecoderConfig
from handscroll.field import CELL_VALUES, smooth_noise
from handscroll.geometry import Mask, Patch
from handscroll.seeds import gumbels, patch_key

LATER = 0.5
"""The share of the temperature at which later frames are drawn: most of what they show is there
already, and a code that is drawn off by chance is a speck."""
IS_NEW = 1.0
"""The logit from which on a token is new: one too many is a blot."""
HAS_COME = -1.0
"""The logit from which on one that is not has come. At level 0 this finds 93 % of what has, and
nothing that stood; 0 would find 71 %, and what it missed of a grey sky would hold the rest."""
SNOWS = -4.0
"""The least logit from which on a token is new where snow falls. Nothing tells where the first of
it does, so each place is unlikely, and a threshold would leave all of them bare: it is as low as
this at some, the same in every frame, and rises to `IS_NEW` between them. Where it thaws the same
would leave marks in snow that stays."""
SNOWS_APART_TOK, SNOWS_WITHIN = 3, 0.6
"""How far apart such places may be, in tokens of level 0, and the share of the noise around them in
which the threshold rises."""
UNLIKE = 2.0
"""How far the logit of a new token's code goes down that what is gone from there had, too: of real
ones three in four differ. A small decoder leaves ground bare where it knows that snow falls."""
AROUND_TOK = 1
"""How many tokens to each side have a say in what becomes of one."""

_SNOW = 7  # a stream of random numbers, beside the field's


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
        kind_B=torch.tensor([int(context.kind) for context in contexts]),
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
        config, side = self.decoder.config, self.decoder.config.side
        nothing = np.zeros((side, side, config.codes), np.uint8)
        kept = Tokens.of(
            (one.known_ssK if one.known_ss.any() else nothing, one.known_ss) for one in contexts
        )
        if contexts[0].patch.frame > 0:
            pause()
            kept = self._kept(contexts, length, kept)
            new_Bss = ~kept.there_BS.reshape(-1, side, side)
            contexts = [one.forget(new_ss) for one, new_ss in zip(contexts, new_Bss, strict=True)]
        drawn_BSK = self._fill(contexts, length, kept, pause)
        return drawn_BSK.reshape(len(contexts), side, side, -1)

    def _fill(
        self, contexts: list[Context], length: int, kept: Tokens, pause: Callable[[], None]
    ) -> Codes:
        """Draw what is not kept: codes (B, S, K) of whole patches."""
        config, sampling, count = self.decoder.config, self.sampling, len(contexts)
        later = contexts[0].patch.frame > 0
        if later:
            sampling = replace(sampling, temperature=LATER * sampling.temperature)
        order = token_order(contexts[0].inside_ss, sampling.token_order)
        missing_BT = ~kept.there_BS[:, order]
        if not missing_BT.any():
            return kept.codes_BSK
        # What is kept comes first, so that what is drawn sees all of it.
        order_BT = order[np.argsort(missing_BT, axis=1, kind="stable")]
        device = self.decoder.query.device
        kept_BTK, is_kept_BT = kept.ordered(order_BT, device)
        if later:
            gone = Tokens.of(one.at(Source.GONE) for one in contexts)
            gone_BTK, is_gone_BT = gone.ordered(order_BT, device)
        noise_BTKV = self._noise(contexts, order_BT).to(device)
        drawn_BTK = kept_BTK.clone()

        asked, texts = self._asked(contexts)
        ways = len(asked) // count  # with guidance, every patch is asked twice
        batch = self._collated(asked, texts, length)
        place_BT2 = _places(order_BT, config.side).to(device).repeat(ways, 1, 1)
        cache = self.decoder.prefill(batch, len(order) + sampling.group)
        condition = self.decoder.condition(batch)
        known = int(contexts[0].known_ss.sum())
        last = slice(0, known)  # known tokens are as if drawn in a step before the first
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
                    logits = guided(logits, sampling.guidance)
                if later:
                    logits = unlike(logits, gone_BTK[:, now, code], is_gone_BT[:, now])
                value = choose(logits, noise_BTKV[:, now, code], sampling)
                value = torch.where(is_kept_BT[:, now], kept_BTK[:, now, code], value)
                drawn_BTK[:, now, code] = value
                answer = self.decoder.choose(answer, code, value.repeat(ways, 1))
            last = now

        codes_BSK = np.zeros((count, config.side**2, config.codes), np.uint8)
        np.put_along_axis(codes_BSK, order_BT[..., None], drawn_BTK.cpu().numpy(), axis=1)
        return codes_BSK

    def _collated(
        self, contexts: Sequence[Context], texts: Sequence[Floats | None], length: int
    ) -> Batch:
        worlds = [self.world] * len(contexts)
        batch = collate(contexts, worlds, texts, self.decoder.config, length)
        return batch.to(self.decoder.query.device)

    def _noise(self, contexts: Sequence[Context], order_BT: NDArray[np.int64]) -> Tensor:
        """Of every frame that of the first (B, T, K, V)."""
        config = self.decoder.config
        shape = (config.side**2, config.codes, config.vocabulary)
        keys = [patch_key(self.seed, one.patch._replace(frame=0)) for one in contexts]
        noise = [gumbels(key, shape)[order] for key, order in zip(keys, order_BT, strict=True)]
        return torch.from_numpy(np.stack(noise))

    def _kept(self, contexts: list[Context], length: int, known: Tokens) -> Tokens:
        """What later frames do not draw: what is known, what stood, and what has come.

        Before any token is drawn, all are asked at once: is it new? If not, has it come from the
        first frame, or did it stand in the one before? One alone hardly knows; sky lies beside
        sky, and so those around it have a say.
        """
        side, count = self.decoder.config.side, len(contexts)
        inside_S = contexts[0].inside_ss.reshape(-1)
        order_BT = np.tile(np.flatnonzero(inside_S), (count, 1))
        batch = self._collated(contexts, [self._heard(one.patch) for one in contexts], length)
        place_BT2 = _places(order_BT, side).to(batch.place_BC2.device)
        answer = self.decoder.step(
            self.decoder.prefill(batch, order_BT.shape[1]),
            self.decoder.condition(batch),
            batch.codes_BCK[:, :0],
            place_BT2[:, :0],
            place_BT2,
        )
        odds_B2S = np.zeros((count, 2, side * side), np.float32)
        odds_B2S[..., inside_S] = self.decoder.fate_logits(answer).float().mT.cpu().numpy()
        stood, came = (
            Tokens.of(one.at(source) for one in contexts)
            for source in (Source.PREVIOUS, Source.FIRST)
        )
        differ_BS = ~(came.there_BS & stood.there_BS) | (came.codes_BSK != stood.codes_BSK).any(-1)
        odds_BS = around(odds_B2S[:, 0], np.broadcast_to(inside_S, differ_BS.shape))
        new_BS = odds_BS > np.stack([self._is_new(one.patch, one.kind) for one in contexts])
        moved_BS = differ_BS & (around(odds_B2S[:, 1], differ_BS & inside_S) > HAS_COME)
        old = came.where(moved_BS & ~new_BS).over(stood.where(~moved_BS & ~new_BS))
        return known.over(old)

    def _is_new(self, patch: Patch, kind: Kind) -> Floats:
        """The logit from which on each token (S,) of a patch is new."""
        side = self.decoder.config.side
        if kind != Kind.FREEZE:
            return np.full(side * side, IS_NEW, np.float32)
        apart = SNOWS_APART_TOK << patch.level
        rows, cols = ((at * side + np.arange(side) + 0.5) / apart for at in (patch.row, patch.col))
        noise_S = smooth_noise(self.seed, _SNOW, rows, cols)[..., 0].reshape(-1)
        rise_S = np.minimum(noise_S / SNOWS_WITHIN, 1)
        return (SNOWS + (IS_NEW - SNOWS) * rise_S).astype(np.float32)

    def _heard(self, patch: Patch) -> Floats | None:
        return self.words(patch) if self.words is not None else None

    def _asked(self, contexts: list[Context]) -> tuple[list[Context], list[Floats | None]]:
        """What patches of one shape see and hear, then, if any, what they are moved away from.

        Level 0 of the first frame, which lays a canvas out, is moved away from what would be drawn
        without a field and without words, or with the negative prompt's: a small model believes
        both too little, and paints mist where there should be hills. Finer levels have learned to
        answer guided (`DecoderConfig.guided`).
        """
        hear = [self._heard(context.patch) for context in contexts]
        if self.sampling.guidance == 1 or not len(contexts[0].field_MV):
            return contexts, hear
        away = [without_field(context) for context in contexts]
        return contexts + away, hear + [self.negative_W] * len(away)


class Tokens(NamedTuple):
    """Some tokens of patches: those that are not drawn, or, where others are, what is gone.

    Attributes:
        codes_BSK: their codes; 0 elsewhere.
        there_BS: which tokens of a patch, in reading order, they are.
    """

    codes_BSK: Codes
    there_BS: Mask

    @classmethod
    def of(cls, grids: Iterable[tuple[Codes, Mask]]) -> Tokens:
        """Of codes (side, side, K) and masks (side, side) of patches."""
        codes, there = (np.stack(parts) for parts in zip(*grids, strict=True))
        count, side = there.shape[:2]
        return cls(codes.reshape(count, side**2, -1), there.reshape(count, side**2))

    def ordered(self, order_BT: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Their codes (B, T, K) in the order of drawing, and which are there (B, T)."""
        codes_BTK = np.take_along_axis(self.codes_BSK, order_BT[..., None], axis=1)
        there_BT = np.take_along_axis(self.there_BS, order_BT, axis=1)
        return torch.from_numpy(codes_BTK).long().to(device), torch.from_numpy(there_BT).to(device)

    def where(self, these_BS: Mask) -> Tokens:
        """Of all tokens these."""
        there_BS = self.there_BS & these_BS
        return Tokens(np.where(there_BS[..., None], self.codes_BSK, 0).astype(np.uint8), there_BS)

    def over(self, other: Tokens) -> Tokens:
        """These, and where there are none, others."""
        return Tokens(
            np.where(self.there_BS[..., None], self.codes_BSK, other.codes_BSK),
            self.there_BS | other.there_BS,
        )


def around(odds_BS: Floats, counts_BS: Mask) -> Floats:
    """The mean (B, S) of the odds around each token, of those that count; 0 where none does."""
    side = math.isqrt(odds_BS.shape[1])
    both = np.stack((np.where(counts_BS, odds_BS, 0), counts_BS), axis=1)
    near = F.avg_pool2d(
        torch.from_numpy(both.astype(np.float32)).unflatten(-1, (side, side)),
        2 * AROUND_TOK + 1,
        stride=1,
        padding=AROUND_TOK,
    )
    total, count = near.flatten(2).unbind(1)
    mean: Floats = torch.where(count > 0, total / count, 0).numpy()
    return mean


def _places(order_BT: NDArray[np.int64], side: int) -> Tensor:
    """Rows and columns (B, T, 2) of tokens."""
    return torch.from_numpy(np.stack(np.divmod(order_BT, side), axis=-1)).float()


def without_field(context: Context) -> Context:
    """What a patch of level 0 would see if there were no field."""
    none = context.field_MV[:0], context.field_place_M2[:0]
    return replace(context, field_MV=none[0], field_place_M2=none[1])


def guided(logits_BQV: Tensor, guidance: float) -> Tensor:
    """Logits moved away from those in the second half of a batch to those in the first."""
    here, there = logits_BQV.chunk(2)
    return there + guidance * (here - there)


def unlike(logits_BQV: Tensor, gone_BQ: Tensor, is_gone_BQ: Tensor) -> Tensor:
    """Logits of new codes: those of what is gone from there are less likely by `UNLIKE`."""
    down_BQ1 = -UNLIKE * is_gone_BQ[..., None].to(logits_BQV.dtype)
    return logits_BQV.scatter_add(-1, gone_BQ[..., None], down_BQ1)


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
