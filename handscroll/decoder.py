"""The decoder: one transformer that draws the tokens of a patch, any of them, in any order.

Position-query parallel decoding (LPD, arXiv 2507.01957; RandAR, arXiv 2412.01827). A sequence is

    [context] [tokens of the patch drawn so far] [queries: "what stands at this place?"]

The context sees itself; it is computed once and its keys and values kept. A token sees the
context and the groups up to its own. The queries of a group see the context, all earlier groups
and each other, and are forgotten once answered. So any number of tokens can be drawn in a step,
and one model serves every order; drawing one at a time in reading order is the paper's inner
autoregression, with the same weights.

Places enter by rotary embedding of rows and columns relative to the patch, nothing else, so what
was learned in one place holds everywhere. A token's K codes are drawn one after another by a
small head.

Shape suffixes: B patches, C context entries, T tokens, Q queries, N = C + T + Q, D width,
H heads, K codes of a token, V vocabulary, s tokens to a patch's side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handscroll.context import Source
from handscroll.course import Kind
from handscroll.field import CELL_VALUES
from handscroll.geometry import MAX_FRAMES, MAX_LEVEL

LAST = 1 << 20
"""Group of tokens that are never drawn: nobody sees them."""


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder.

    Attributes:
        layers, width, heads: the transformer's.
        head_width: width of the head that draws a token's codes.
        side: tokens to a patch's side.
        codes: K, codes of a token.
        vocabulary: V, values of a code.
        worlds: how many worlds it paints.
        text_width: length of a prompt's embedding.
        guided: for each world, how far it has learned to go, in finer levels of first frames, from
            what it would answer without the level above to what it would with it; 1 is as far as
            that.
    """

    layers: int
    width: int
    heads: int
    head_width: int = 192
    side: int = 16
    codes: int = 4
    vocabulary: int = 256
    worlds: int = 2
    text_width: int = 384
    guided: tuple[float, ...] = (1.0, 1.0)

    def __post_init__(self) -> None:
        sizes = {name: value for name, value in vars(self).items() if name != "guided"}
        if any(type(number) is not int or number < 1 for number in sizes.values()):
            raise ValueError("a decoder's sizes are positive whole numbers")
        object.__setattr__(self, "guided", tuple(self.guided))  # JSON knows lists alone
        if any(not isinstance(far, int | float) or not 1 <= far < math.inf for far in self.guided):
            raise ValueError(f"guided must be numbers from 1 on, not {self.guided!r}")
        if len(self.guided) != self.worlds:
            raise ValueError(f"guided must be {self.worlds} numbers, one for each world")
        if self.width % (4 * self.heads):
            raise ValueError(
                f"width must be a multiple of 4 times {self.heads} heads, not {self.width}"
            )


SIZES: dict[str, DecoderConfig] = {
    "XS": DecoderConfig(layers=4, width=256, heads=4),
    "S": DecoderConfig(layers=6, width=384, heads=6),
    "M": DecoderConfig(layers=8, width=512, heads=8),
}


@dataclass
class Batch:
    """Contexts of B patches, padded to one length C.

    Attributes:
        codes_BCK: codes of context tokens; 0 where there is none.
        source_BC: `Source`, or PAD.
        place_BC2: rows and columns relative to the patch, in tokens.
        field_BCV: values of field cells; 0 elsewhere.
        text_BW: prompt embeddings; 0 for none.
        has_text_B: whether there is a prompt.
        world_B: index of the world.
        level_B: the patch's level.
        frame_B: its frame.
        kind_B: the kind of motion that a later frame is told of.
    """

    codes_BCK: Tensor
    source_BC: Tensor
    place_BC2: Tensor
    field_BCV: Tensor
    text_BW: Tensor
    has_text_B: Tensor
    world_B: Tensor
    level_B: Tensor
    frame_B: Tensor
    kind_B: Tensor

    PAD = len(Source)

    def to(self, device: str | torch.device) -> Batch:
        """The same on another device."""
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass
class Cache:
    """Keys and values seen so far, one pair of tensors (B, H, length, D/H) for each layer.

    Of ``length`` places the first ``used`` are filled; ``bias_B11L`` hides a context's padding.
    """

    keys: list[Tensor]
    values: list[Tensor]
    bias_B11L: Tensor
    used: int = 0


def _rotary(place_BN2: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (B, 1, N, width/2): half for rows, half for columns.

    Wavelengths run from 4 tokens to 400, a little more than a patch and its ring.
    """
    count = width // 4
    power = torch.arange(count, device=place_BN2.device, dtype=torch.float32) / (count - 1)
    rate = (math.pi / 2) * 100.0**-power
    angle = (place_BN2.float()[..., None] * rate).flatten(-2)
    return angle.cos()[:, None], angle.sin()[:, None]


def _rotate(x_BHND: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = (part.to(x_BHND.dtype) for part in rotary)
    left, right = x_BHND.chunk(2, dim=-1)
    return torch.cat((left * cosine - right * sine, left * sine + right * cosine), dim=-1)


def _norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


def _attend(q_BHRD: Tensor, k_BHND: Tensor, v_BHND: Tensor, mask_B1RN: Tensor) -> Tensor:
    """Attention to the first N entries, where the mask allows it (training)."""
    seen = mask_B1RN.shape[-1]
    k, v = k_BHND[:, :, :seen], v_BHND[:, :, :seen]
    if q_BHRD.is_cuda:
        return F.scaled_dot_product_attention(q_BHRD, k, v, attn_mask=mask_B1RN)
    # On a CPU plain products take half the time of the fused kernel, forwards and backwards.
    bias = torch.zeros(mask_B1RN.shape, dtype=v.dtype).masked_fill_(~mask_B1RN, -1e9)
    bias = bias.expand(-1, q_BHRD.shape[1], -1, -1).flatten(0, 1)
    scale = 1 / math.sqrt(q_BHRD.shape[-1])
    scores = torch.baddbmm(bias, q_BHRD.flatten(0, 1), k.flatten(0, 1).mT, alpha=scale)
    return torch.bmm(scores.softmax(-1), v.flatten(0, 1)).view_as(q_BHRD)


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.wide = nn.Linear(width, 4 * width, bias=False)
        self.narrow = nn.Linear(4 * width, width, bias=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.narrow.weight)

    def project(
        self, x_BND: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, H, N, D/H)."""
        qkv = self.qkv(_norm(x_BND)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return _rotate(_norm(q), rotary), _rotate(_norm(k), rotary), v

    def finish(self, x_BND: Tensor, attended_BHND: Tensor) -> Tensor:
        """What follows the attention."""
        x_BND = x_BND + self.out(attended_BHND.transpose(1, 2).flatten(2))
        return x_BND + self.narrow(F.relu(self.wide(_norm(x_BND))).square())


class Decoder(nn.Module):
    """Context and drawn tokens in, logits of the asked-for tokens out."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        width, narrow = config.width, config.head_width
        self.token = nn.Embedding(config.codes * config.vocabulary, width)
        self.source = nn.Embedding(len(Source) + 1, width)
        self.field = nn.Linear(CELL_VALUES, width)
        self.text = nn.Linear(config.text_width, width)
        self.world = nn.Embedding(config.worlds, width)
        self.level = nn.Embedding(MAX_LEVEL + 1, width)
        self.frame = nn.Embedding(MAX_FRAMES, width)
        self.kind = nn.Embedding(len(Kind), width)
        nn.init.zeros_(self.frame.weight)
        nn.init.zeros_(self.kind.weight)
        self.told = nn.Linear(config.text_width, width, bias=False)
        nn.init.zeros_(self.told.weight)
        self.query = nn.Parameter(torch.randn(width) * 0.5)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers))
        self.answer = nn.Linear(width, narrow)
        self.chosen = nn.Embedding(config.codes * config.vocabulary, narrow)
        self.slot = nn.Parameter(torch.zeros(config.codes, narrow))
        self.head_wide = nn.Linear(narrow, 4 * narrow)
        self.head_narrow = nn.Linear(4 * narrow, narrow)
        self.logits = nn.Parameter(torch.zeros(config.codes, narrow, config.vocabulary))
        self.fate = nn.Linear(narrow, 2)
        nn.init.zeros_(self.fate.weight)
        offset = torch.arange(config.codes) * config.vocabulary
        self.register_buffer("offset_K", offset, persistent=False)
        for table, scale in ((self.token, 0.5 / math.sqrt(config.codes)), (self.chosen, 0.3)):
            nn.init.normal_(table.weight, std=scale)

    offset_K: Tensor

    def _blocks(self) -> Iterator[Block]:
        return (cast(Block, block) for block in self.blocks)

    def embed(self, codes_BTK: Tensor) -> Tensor:
        """Tokens (B, T, K) to vectors: the sum over their codes."""
        return self.token(codes_BTK.long() + self.offset_K).sum(-2)

    def embed_context(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Context vectors (B, 2 + C, D), places, and which are there.

        Two entries come first and stand in the patch's middle: the condition, and the prompt.
        """
        source = batch.source_BC
        is_field = (source == Source.FIELD)[..., None]
        cells = self.field(batch.field_BCV.to(self.query.dtype))
        entries = torch.where(is_field, cells, self.embed(batch.codes_BCK))
        entries = entries + self.source(source)
        first = torch.stack(
            (self.condition(batch), self.text(batch.text_BW.to(self.query.dtype))), dim=1
        )
        middle = first.new_full((len(first), 1, 2), (self.config.side - 1) / 2)
        there = torch.stack((torch.ones_like(batch.has_text_B), batch.has_text_B), dim=1)
        return (
            torch.cat((first, entries), dim=1),
            torch.cat((middle, middle, batch.place_BC2), dim=1),
            torch.cat((there, source != Batch.PAD), dim=1),
        )

    def condition(self, batch: Batch) -> Tensor:
        """What every token and query is told (B, D): world, level, frame, kind of motion, prompt.

        The prompt also stands in the context, for what looks there for it; but words that change
        what is seen of the context ("clouds drift left") must be known before looking.
        """
        told = self.told(batch.text_BW.to(self.query.dtype)) * batch.has_text_B[:, None]
        patch = self.world(batch.world_B) + self.level(batch.level_B)
        return patch + self.frame(batch.frame_B) + self.kind(batch.kind_B) + told

    def answer_logits(self, answer_BQE: Tensor, chosen_BQK: Tensor) -> Tensor:
        """Logits (B, Q, K, V) of every code, each given the codes before it (training)."""
        before = self.chosen(chosen_BQK.long() + self.offset_K).cumsum(-2)
        before = F.pad(before[..., :-1, :], (0, 0, 1, 0))
        hidden = self._think(answer_BQE[..., None, :] + before + self.slot)
        return torch.einsum("bqke,kev->bqkv", hidden, self.logits)

    def code_logits(self, answer_BQE: Tensor, code: int) -> Tensor:
        """Logits (B, Q, V) of one code; codes before it are in the answer (`choose`)."""
        return self._think(answer_BQE + self.slot[code]) @ self.logits[code]

    def choose(self, answer_BQE: Tensor, code: int, chosen_BQ: Tensor) -> Tensor:
        """The answer, told which value a code took."""
        return answer_BQE + self.chosen(chosen_BQ.long() + self.offset_K[code])

    def fate_logits(self, answer_BQE: Tensor) -> Tensor:
        """What becomes of tokens in a later frame: two logits (B, Q, 2).

        That a token is new, and that, if not, it has come from the first frame instead of having
        stood in the one before.
        """
        return self.fate(_norm(answer_BQE))

    def _think(self, x: Tensor) -> Tensor:
        x = x + self.head_narrow(F.relu(self.head_wide(_norm(x))).square())
        return _norm(x)

    def forward(
        self, batch: Batch, codes_BTK: Tensor, place_BT2: Tensor, group_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits of a whole patch, every group given the groups before it (training).

        Args:
            batch: the contexts.
            codes_BTK: the real tokens, in any order.
            place_BT2: where each stands.
            group_BT: the step at which each is drawn; LAST for tokens outside the canvas.

        Returns:
            Those of codes (B, T, K, V), and of fates (B, T, 2).
        """
        answer = self.answers(batch, codes_BTK, place_BT2, group_BT)
        return self.answer_logits(answer, codes_BTK), self.fate_logits(answer)

    def answers(
        self, batch: Batch, codes_BTK: Tensor, place_BT2: Tensor, group_BT: Tensor
    ) -> Tensor:
        """What `forward` makes its logits of (B, T, head_width)."""
        context, context_place, there_BC = self.embed_context(batch)
        condition = self.condition(batch)[:, None]
        tokens = self.embed(codes_BTK) + condition
        queries = (self.query + condition).expand_as(tokens)
        x = torch.cat((context, tokens, queries), dim=1)
        place = torch.cat((context_place, place_BT2, place_BT2), dim=1)
        rotary = _rotary(place, self.config.width // self.config.heads)
        views = self._views(there_BC, group_BT)
        for block in self._blocks():
            q, k, v = block.project(x, rotary)
            parts = q.split([mask.shape[2] for mask in views], dim=2)
            attended = [_attend(part, k, v, mask) for part, mask in zip(parts, views, strict=True)]
            x = block.finish(x, torch.cat(attended, dim=2))
        return self.answer(_norm(x[:, -codes_BTK.shape[1] :]))

    @staticmethod
    def _views(there_BC: Tensor, group_BT: Tensor) -> list[Tensor]:
        """What context, tokens and queries see of the first entries: masks (B, 1, rows, seen)."""
        context, tokens = there_BC.shape[1], group_BT.shape[1]
        asking, asked = group_BT[:, :, None], group_BT[:, None, :]
        drawn = asked < LAST
        to_context = there_BC[:, None, :].expand(-1, tokens, -1)
        earlier, now = (asked < asking) & drawn, (asked == asking) & drawn
        return [
            there_BC[:, None, None, :].expand(-1, -1, context, -1),
            torch.cat((to_context, earlier | now), dim=-1)[:, None],
            torch.cat((to_context, earlier, now), dim=-1)[:, None],
        ]

    def prefill(self, batch: Batch, tokens: int) -> Cache:
        """Compute the context once; leave room for ``tokens`` entries more."""
        x, place, there_BC = self.embed_context(batch)
        x = x.to(self.query.dtype)
        count, context, width = x.shape
        heads = self.config.heads
        shape = (count, heads, context + tokens, width // heads)
        keys, values = ([x.new_zeros(shape) for _ in self.blocks] for _ in range(2))
        bias = x.new_zeros(count, 1, 1, context + tokens)
        bias[..., :context].masked_fill_(~there_BC[:, None, None], -torch.inf)
        cache = Cache(keys, values, bias)
        self._run(cache, x, place, bias[..., :context].expand(-1, -1, context, -1))
        cache.used = context
        return cache

    def step(
        self,
        cache: Cache,
        condition_BD: Tensor,
        codes_BTK: Tensor,
        place_BT2: Tensor,
        query_place_BQ2: Tensor,
    ) -> Tensor:
        """Take in the tokens drawn last, and answer the next queries.

        Args:
            cache: from `prefill`; grows by the drawn tokens.
            condition_BD: from `condition`.
            codes_BTK: codes drawn in the step before; T is 0 at the first.
            place_BT2: their places.
            query_place_BQ2: the places asked for.

        Returns:
            (B, Q, head_width) answers, for `code_logits`.
        """
        drawn, asked = codes_BTK.shape[1], query_place_BQ2.shape[1]
        queries = (self.query + condition_BD)[:, None].expand(-1, asked, -1)
        tokens = self.embed(codes_BTK) + condition_BD[:, None]
        x = torch.cat((tokens, queries), dim=1)
        place = torch.cat((place_BT2, query_place_BQ2), dim=1)
        bias = cache.bias_B11L[..., : cache.used + drawn + asked].repeat(1, 1, drawn + asked, 1)
        bias[:, :, :drawn, cache.used + drawn :] = -torch.inf  # tokens do not see queries
        x = self._run(cache, x, place, bias)
        cache.used += drawn
        return self.answer(_norm(x[:, drawn:]))

    def _run(self, cache: Cache, x: Tensor, place: Tensor, bias: Tensor) -> Tensor:
        """Through all blocks, beside what the cache holds; keys and values are left in it."""
        rotary = _rotary(place, self.config.width // self.config.heads)
        end = cache.used + x.shape[1]
        for block, keys, values in zip(self._blocks(), cache.keys, cache.values, strict=True):
            q, keys[:, :, cache.used : end], values[:, :, cache.used : end] = block.project(
                x, rotary
            )
            attended = F.scaled_dot_product_attention(
                q, keys[:, :, :end], values[:, :, :end], attn_mask=bias
            )
            x = block.finish(x, attended)
        return x
