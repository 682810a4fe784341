"""The Nearby Context Pool: what a patch may see, in space, in time and in scale.

A patch sees, of the patches it depends on (`Order.dependencies`) and of nothing else:

    RING      a ring of RING_TOK tokens around it, from neighbours of its own level
    PARENT    the level above: its footprint there and PARENT_TOK tokens around
    PREVIOUS  the frame before: its own place and the ring around
    FIRST     the first frame: what has moved from there to its own place, by the canvas' course
    GONE      the frame before, where a token is drawn anew: what it is no longer
    FIELD     at level 0, which has no parent: the cells of the procedural field, which tells of
              the first frame

A known picture (`handscroll.known`) is there from the start and costs nothing: its tokens are seen
by every patch near them, whatever the order.

Each entry comes with its place relative to the patch, in tokens of the patch's own level, the
patch's first token being (0, 0). What is absent is not in the context at all; nothing is faked.
Absolute positions never enter, so the canvas has no edge.

Shape suffixes: N entries, K codes of a token, M field cells, V values of a cell, s tokens to a
patch's side.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from handscroll.course import Kind
from handscroll.geometry import PATCH_PX, Mask, Patch, cell_of
from handscroll.order import Order

RING_TOK = 4
PARENT_TOK = 2
PAD_TO = 64

Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Source(IntEnum):
    """Where an entry of the context comes from."""

    RING = 0
    PARENT = 1
    PREVIOUS = 2
    FIELD = 3
    FIRST = 4
    GONE = 5


@dataclass(frozen=True)
class Context:
    """What one patch sees.

    Attributes:
        patch: the patch.
        inside_ss: which of its own tokens lie in the canvas; the others are never drawn.
        known_ss: which of these are given, and need not be drawn.
        known_ssK: their codes; 0 elsewhere.
        codes_NK: codes of the tokens it sees.
        place_N2: their centres, rows and columns relative to the patch's first token.
        source_N: where each comes from.
        field_MV: values of the field cells it sees; none but at level 0 of the first frame.
        field_place_M2: their centres.
        kind: of motion, that a later frame is told of.
    """

    patch: Patch
    inside_ss: Mask
    known_ss: Mask
    known_ssK: Codes
    codes_NK: Codes
    place_N2: Floats
    source_N: NDArray[np.uint8]
    field_MV: Floats
    field_place_M2: Floats
    kind: Kind

    @property
    def padded_length(self) -> int:
        """Entries, rounded up: the canonical length of a context, which the patch alone decides."""
        return -(-(len(self.codes_NK) + len(self.field_MV)) // PAD_TO) * PAD_TO

    def at(self, source: Source) -> tuple[Codes, Mask]:
        """What a source shows at the patch's own tokens: codes (side, side, K), and where."""
        side = len(self.inside_ss)
        own_N, rows, cols = self._own(source)
        codes = np.zeros((side, side, self.codes_NK.shape[1]), np.uint8)
        shown = np.zeros((side, side), bool)
        codes[rows, cols], shown[rows, cols] = self.codes_NK[own_N], True
        return codes, shown

    def _own(self, *sources: Source) -> tuple[Mask, NDArray[np.int64], NDArray[np.int64]]:
        """Which entries (N,) sources show at the patch's own tokens; rows and columns of these."""
        side = len(self.inside_ss)
        own_N = np.isin(self.source_N, sources) & (
            (self.place_N2 >= 0) & (self.place_N2 < side)
        ).all(axis=1)
        rows, cols = self.place_N2[own_N].astype(np.int64).T
        return own_N, rows, cols

    def forget(self, new_ss: Mask) -> Context:
        """The same where tokens are to be drawn anew: what stood there is gone, nothing has come.

        That there was grass still tells of the ground that snow covers, and that it is snow.
        """
        old_N, rows, cols = self._own(Source.PREVIOUS, Source.FIRST)
        old_N[old_N] = new_ss[rows, cols]
        source_N = np.where(old_N & (self.source_N == Source.PREVIOUS), Source.GONE, self.source_N)
        return replace(self, source_N=source_N.astype(np.uint8)).without(
            old_N & (self.source_N == Source.FIRST)
        )

    def without(self, gone_N: Mask) -> Context:
        """The same without some of the tokens that it sees."""
        return replace(
            self,
            codes_NK=self.codes_NK[~gone_N],
            place_N2=self.place_N2[~gone_N],
            source_N=self.source_N[~gone_N],
        )

    @property
    def shape(self) -> tuple[object, ...]:
        """What patches that go through the decoder together must have in common."""
        return (
            self.padded_length,
            self.inside_ss.tobytes(),
            self.known_ss.tobytes(),
            self.patch.frame > 0,
            len(self.field_MV) > 0,
        )


class Field(Protocol):
    """The parent of level 0: a pure function of the seed and the place."""

    def around(self, patch: Patch) -> tuple[Floats, Floats]:
        """Values (M, V) and relative places (M, 2) of the cells a level-0 patch sees."""
        ...


class Given(Protocol):
    """Tokens that need not be drawn."""

    def tokens(self, patch: Patch) -> tuple[Codes, Mask]:
        """Codes (side, side, K) of a patch, and which of them are given (side, side)."""
        ...

    def whole(self, patch: Patch) -> bool:
        """Whether all tokens of a patch that lie in the canvas are given."""
        ...


class _View(NamedTuple):
    """Places (in tokens from the first token of patch ``home``) of which some are visible.

    ``origin`` and ``scale`` turn them into places relative to the looking patch.
    """

    source: Source
    place_N2: NDArray[np.int64]
    visible: tuple[Patch, ...]
    home: Patch
    origin: NDArray[np.int64] | int = 0
    scale: int = 1


def _square(side: int, margin: int, hollow: bool) -> NDArray[np.int64]:
    """Places of a square of tokens and ``margin`` around it, without the square if hollow."""
    span = np.arange(-margin, side + margin)
    place = np.stack(np.meshgrid(span, span, indexing="ij"), axis=-1).reshape(-1, 2)
    own = ((place >= 0) & (place < side)).all(axis=1)
    return place[~own] if hollow else place


def gather(
    patch: Patch,
    order: Order,
    side: int,
    read: Callable[[Patch], Codes],
    field: Field | None,
    given: Given | None = None,
) -> Context:
    """Assemble what a patch sees.

    Args:
        patch: the patch.
        order: says what it may see.
        side: tokens to a patch's side.
        read: the codes (side, side, K) of a patch; called for dependencies only.
        field: the field; None if level 0 is to see none.
        given: what need not be drawn, if there is anything.
    """
    f = PATCH_PX // side
    near = (patch, *order.seen(patch))
    views = [_View(Source.RING, _square(side, RING_TOK, hollow=True), near[1:], patch)]
    if patch.level > 0:
        quarter = np.array([patch.row % 2, patch.col % 2]) * (side // 2)
        place = _square(side // 2, PARENT_TOK, hollow=False) + quarter
        parents = tuple(one.parent for one in near)
        views.append(_View(Source.PARENT, place, parents, patch.parent, quarter, 2))
    if patch.frame > 0:
        before = tuple(one._replace(frame=patch.frame - 1) for one in near)
        place = _square(side, RING_TOK, hollow=False)
        views.append(_View(Source.PREVIOUS, place, before, before[0]))
        moved = np.array(order.moved_px(patch)) // f
        place, origin = _square(side, 0, hollow=False) - moved, patch._replace(frame=0)
        views.append(_View(Source.FIRST, place, order.origins(patch), origin, -moved))

    codes, places, sources = [], [], []
    for view in views:
        offset = cell_of(view.place_N2, side)  # the patch of each place, from home
        for down, right in np.unique(offset, axis=0):
            one = view.home._replace(row=view.home.row + int(down), col=view.home.col + int(right))
            if one not in view.visible and given is None:
                continue
            there = view.place_N2[(offset == (down, right)).all(axis=1)]
            rows, cols = (there - (down * side, right * side)).T
            corner = (one.row * side, one.col * side)
            shown = order.extent.inside(one.level, *corner, (side, side), f)
            if one in view.visible:
                block = read(one)
            else:
                assert given is not None
                block, known = given.tokens(one)
                shown &= known
            shown = shown[rows, cols]
            codes.append(block[rows, cols][shown])
            # The centre of a parent's token lies between four of the patch's.
            centre = (there[shown] - view.origin) * view.scale + (view.scale - 1) / 2
            places.append(centre)
            sources.append(np.full(len(centre), view.source))

    none = np.zeros((0, 2))
    field_MV, field_place_M2 = none.astype(np.float32), none.astype(np.float32)
    if patch.level == 0 and patch.frame == 0 and field is not None:
        field_MV, field_place_M2 = field.around(patch)
    inside_ss = order.extent.inside(
        patch.level, patch.row * side, patch.col * side, (side, side), f
    )
    known_ssK, known_ss = np.zeros((side, side, 0), np.uint8), np.zeros_like(inside_ss)
    if given is not None:
        known_ssK, known_ss = given.tokens(patch)
    return Context(
        patch=patch,
        inside_ss=inside_ss,
        known_ss=known_ss & inside_ss,
        known_ssK=known_ssK,
        codes_NK=np.concatenate(codes or [none]).astype(np.uint8),
        place_N2=np.concatenate(places or [none]).astype(np.float32),
        source_N=np.concatenate(sources or [np.zeros(0)]).astype(np.uint8),
        field_MV=field_MV,
        field_place_M2=field_place_M2,
        kind=order.course.kind if patch.frame > 0 else Kind.OTHER,
    )


class NearbyContextPool:
    """The patches drawn so far, as far as they can still be needed.

    Before patches are drawn, `expect` counts for each patch how many of the planned ones will look
    at it (as in NUWA-Infinity, that follows from the order alone). Once nobody will, it may go:
    the ``keep`` most recently used such patches stay for the next request. A bounded picture
    painted in one go wants ``keep=0``, an endless one some thousands.

    Args:
        order: the order.
        side: tokens to a patch's side.
        field: the field that level 0 sees.
        keep: how many patches that no plan needs are kept.
        given: what need not be drawn, if there is anything; it is always in the pool.
    """

    def __init__(
        self,
        order: Order,
        side: int,
        field: Field | None,
        keep: int = 4096,
        given: Given | None = None,
    ) -> None:
        self.order, self.side, self.field, self.keep = order, side, field, keep
        self.given = given
        self._codes: dict[Patch, Codes] = {}
        self._claims: Counter[Patch] = Counter()
        self._idle: OrderedDict[Patch, None] = OrderedDict()

    def __contains__(self, patch: object) -> bool:
        return patch in self._codes or (
            self.given is not None and isinstance(patch, Patch) and self.given.whole(patch)
        )

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, patch: Patch) -> Codes:
        if patch in self._idle:
            self._idle.move_to_end(patch)
        if patch not in self._codes and self.given is not None and self.given.whole(patch):
            return self.given.tokens(patch)[0]
        return self._codes[patch]

    def claim(self, patches: Iterable[Patch]) -> None:
        """Keep these patches, there or still to come, until as many calls of `release`."""
        for patch in patches:
            self._claims[patch] += 1
            self._idle.pop(patch, None)

    def release(self, patches: Iterable[Patch]) -> None:
        """Give up one claim to each of these patches, and forget what can go."""
        for patch in patches:
            self._claims[patch] -= 1
            if self._claims[patch] == 0:
                del self._claims[patch]
                if patch in self._codes:
                    self._idle[patch] = None
        while len(self._idle) > self.keep:
            forgotten, _ = self._idle.popitem(last=False)
            del self._codes[forgotten]

    def expect(self, patches: Iterable[Patch]) -> None:
        """Announce patches about to be drawn: each claims what it will see."""
        for patch in patches:
            self.claim(self.order.dependencies(patch))

    def dismiss(self, patches: Iterable[Patch]) -> None:
        """Take back `expect`: these patches will not be drawn."""
        for patch in patches:
            self.release(self.order.dependencies(patch))

    def around(self, patch: Patch) -> Context:
        """What a patch sees; its dependencies must be in the pool."""
        return gather(patch, self.order, self.side, self.__getitem__, self.field, self.given)

    def add(self, patch: Patch, codes: Codes) -> None:
        """Take in a drawn, expected patch (side, side, K); its claims on others end."""
        self._codes[patch] = codes
        if patch not in self._claims:
            self._idle[patch] = None
        self.release(self.order.dependencies(patch))
