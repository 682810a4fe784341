"""The inner loop: the tokens of one patch, a group at a time.

Every token's noise has a name (seed, patch, token, code, value), so what is drawn does not depend
on when, where or beside which other patch it was drawn. All frames have that of the first: what
sees the same is drawn the same, and does not flicker. What has moved is not drawn, but carried.

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
from torch.nn import functional as F

from handscroll.canvas import Sampling, TokenOrder
from handscroll.context import Codes, Context, Floats, Source
from handscroll.decoder import Batch, Cache, Decoder, DecoderConfig
from handscroll.field import CELL_VALUES
from handscroll.geometry import Mask, Patch
from handscroll.seeds import gumbels, patch_key

FIELD_GUIDANCE = 1.75
"""How far level 0 moves from the logits without a field to those with it: a small model believes
the field too little, and paints mist where there should be hills."""
LATER = 0.5
"""The share of the temperature at which later frames are drawn: most of what they show is there
already, and a code that is drawn off by chance is a speck."""
LEAN = 5.0
"""By how much (log-odds of a token) what has come is likelier than the decoder says. In what it
learned from, ten times as much stood as moved; a film is asked for to see something move."""
AROUND_TOK = 1
"""How many tokens to each side have a say in whether one has moved."""


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
        noise_BTKV = self._noise(contexts, order).to(device)
        drawn_BTK = torch.zeros(count, len(order), config.codes, dtype=torch.long, device=device)

        if known:
            flat = np.stack([one.known_ssK.reshape(config.side**2, -1) for one in contexts])
            drawn_BTK[:, :known] = torch.from_numpy(flat[:, order[:known]]).to(device)

        cache = self.decoder.prefill(batch, len(order) + sampling.group)
        condition = self.decoder.condition(batch)
        carried = self._carried(contexts, order, cache, condition, place_BT2)
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
                value = choose(logits, noise_BTKV[:, now, code], sampling)
                if carried is not None:
                    value = torch.where(
                        carried.there_BT[:, now], carried.codes_BTK[:, now, code], value
                    )
                drawn_BTK[:, now, code] = value
                answer = self.decoder.choose(answer, code, value.repeat(ways, 1))
            last = now

        codes = np.zeros((count, config.side**2, config.codes), np.uint8)
        codes[:, order] = drawn_BTK.cpu().numpy()
        return codes.reshape(count, config.side, config.side, config.codes)

    def _noise(self, contexts: Sequence[Context], order: NDArray[np.int64]) -> Tensor:
        """Of every frame that of the first (B, T, K, V)."""
        config = self.decoder.config
        shape = (config.side**2, config.codes, config.vocabulary)
        keys = [patch_key(self.seed, one.patch._replace(frame=0)) for one in contexts]
        return torch.from_numpy(np.stack([gumbels(key, shape)[order] for key in keys]))

    def _carried(
        self,
        contexts: Sequence[Context],
        order: NDArray[np.int64],
        cache: Cache,
        condition_BD: Tensor,
        place_BT2: Tensor,
    ) -> Carried | None:
        """What has moved to the tokens of later frames; None where the course moves nothing.

        Before any token is drawn, all are asked at once which is the likelier: what has come there
        from the first frame, or what stood there in the frame before. One alone hardly knows; sky
        lies beside sky, and so those around it have a say.
        """
        if not any(any(one.moved_tok) for one in contexts):
            return None
        config, device = self.decoder.config, place_BT2.device
        shown = []
        for source in (Source.FIRST, Source.PREVIOUS):
            codes, there = zip(*(one.at(source) for one in contexts), strict=True)
            flat = np.stack(codes).reshape(len(contexts), config.side**2, -1)[:, order]
            seen = np.stack(there).reshape(len(contexts), -1)[:, order]
            shown.append(
                (torch.from_numpy(flat).long().to(device), torch.from_numpy(seen).to(device))
            )
        (came_BTK, has_come), (stood_BTK, has_stood) = shown
        contested_BT = has_come & has_stood & (came_BTK != stood_BTK).any(-1)
        nothing = place_BT2[:, :0]
        answer = self.decoder.step(cache, condition_BD, came_BTK[:, :0], nothing, place_BT2)
        odds_BT = self._likelihood(answer, came_BTK) - self._likelihood(answer, stood_BTK)
        grid_B2ss = odds_BT.new_zeros(len(contexts), 2, config.side**2)
        grid_B2ss[:, :, order] = torch.stack((odds_BT * contested_BT, contested_BT.float()), 1)
        near = F.avg_pool2d(
            grid_B2ss.unflatten(-1, (config.side, config.side)),
            2 * AROUND_TOK + 1,
            stride=1,
            padding=AROUND_TOK,
        )
        odds, contested = near.flatten(2)[:, :, order].unbind(1)
        return Carried(came_BTK, contested_BT & (odds + LEAN * contested > 0))

    def _likelihood(self, answer_BTE: Tensor, codes_BTK: Tensor) -> Tensor:
        """Log-probabilities (B, T) of whole tokens."""
        found = answer_BTE.new_zeros(codes_BTK.shape[:2], dtype=torch.float32)
        for code in range(codes_BTK.shape[-1]):
            chosen = codes_BTK[..., code]
            logits = self.decoder.code_logits(answer_BTE, code).float()
            found += logits.log_softmax(-1).gather(-1, chosen[..., None])[..., 0]
            answer_BTE = self.decoder.choose(answer_BTE, code, chosen)
        return found

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
            heard = said is not None or self.negative_W is not None
            told = not led or (guidance != 1 and heard)
            away.append(context if told else without_field(context))
            other.append(self.negative_W if told else said)
            far.append(guidance if told else FIELD_GUIDANCE)
        return contexts + away, hear + other, far


class Carried(NamedTuple):
    """What has moved to the tokens of patches of later frames.

    Attributes:
        codes_BTK: of what has come to each.
        there_BT: which tokens it is.
    """

    codes_BTK: Tensor
    there_BT: Tensor


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
