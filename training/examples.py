"""Training examples for the decoder: a patch, what it may see, and its real tokens.

A virtual canvas is laid over an encoded picture so that one of its patches falls at a random
place, and `handscroll.context.gather` assembles what that patch sees, just as when painting. Which
neighbours it sees follows the orders to be served (design of the mix: 60 % the lattice as it is,
25 % any neighbours, 15 % raster in its eight directions and outward), and all of it is now and
then dropped or disturbed, as the model's own output will be.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from handscroll.checkpoint import World
from handscroll.context import Codes, Context, Floats, Source, gather
from handscroll.course import STILL, Course, Kind, course_of
from handscroll.errors import InvalidRequest
from handscroll.field import CELL_PX, MARGIN, Palette, cell_values
from handscroll.geometry import MAX_FRAMES, PATCH_PX, Extent, Mask, Patch, Region
from handscroll.order import Lattice, Order, Outward, Raster
from handscroll.sample import token_order
from training.encode import CAPTION_STRIDE_PX

SERVED_STEPS = 16
ENOUGH_PX = 32
FIELD_DROPPED, TEXT_DROPPED = 0.3, 0.3
"""Often enough that either alone is learned to be believed."""
PARENT_DROPPED = 0.1
PARENT_DRAWN = 0.7
"""How often a still's level above is as a decoder drew it, where one has: `training.parents`."""
MOTION_ALONE = 0.3
"""The share of moving examples whose words say what moves and nothing else."""
KIND_DROPPED = 0.2
"""The share of examples that are not told the kind: from them words of no kind are learned."""
BLIND = 0.6
"""The share of later frames that are asked for all tokens at once, as fates are when painting; half
of these see no neighbours either, which tell where things go before the words do."""
AT_ONCE = 0.5
"""The share of the others all of whose tokens are drawn at once: else what is new is told by what
is new beside it, and what comes first, snow or grass, is hardly learned from the motion."""
MISTAKEN = 0.25
"""The share of later frames in which some tokens are taken for new that are not."""
STEADY = 0.01
"""The share of a level's tokens that change at most where nothing moves."""
CAMERA_ODDS = 0.25
"""How often camera moves are drawn, of once for other words: they are soon learned."""
STILL_FRAMES = 0.08
"""The share of examples from stills that see a frame before, which is the same."""
LEVEL_ODDS = (0.4, 0.3, 0.3)
"""How often each level is drawn, the finest last."""


class Fate(IntEnum):
    """What became of a token of a later frame."""

    UNKNOWN = 0
    STOOD = 1
    CAME = 2
    EITHER = 3
    NEW = 4


class Encoded(NamedTuple):
    """One variant of one picture, or one clip, as `training.encode` wrote it.

    Of some there are the coarsest levels alone.
    ``moves`` is the index of the words that say what moves, None where nothing does; ``course`` is
    where to, and ``frame`` is the clip's place in its film. ``before`` are the codes of a frame
    before, and ``first`` those of the first; those of the picture itself where nothing moves.
    """

    name: str
    world: int
    held_out: bool
    moves: int | None
    course: Course
    frame: int
    codes: tuple[Codes, ...]
    before: tuple[Codes, ...]
    first: tuple[Codes, ...]
    captions: tuple[NDArray[np.int32], ...]
    statistics: Floats
    drawn: tuple[Codes, ...] = ()

    @property
    def stirring(self) -> NDArray[np.bool_]:
        """At which levels something moves; all of them if at none."""
        frames = zip(self.before, self.codes, strict=True)
        shares = [(before != now).any(-1).mean() for before, now in frames]
        found: NDArray[np.bool_] = np.array(shares) > STEADY
        return found if found.any() else ~found


@dataclass(frozen=True)
class Dataset:
    """Everything encoded.

    Attributes:
        worlds: in the order of their numbers.
        pictures: every variant of every picture, and every clip.
        text: caption embeddings (captions, 384), or None without captions.
        tokenizer: its configuration.
    """

    worlds: list[World]
    pictures: list[Encoded]
    text: Floats | None
    tokenizer: dict[str, Any]

    @classmethod
    def load(cls, path: Path, parents: Path | None = None) -> Dataset:
        """Read the file written by `training.encode`, and that by `training.parents`.

        Raises:
            InvalidRequest: the second was drawn from other tokens than the first.
        """
        with safe_open(path, framework="np") as file:
            about = json.loads(file.metadata()["handscroll"])
            text = file.get_tensor("text") if about["sentences"] else None
            worlds = []
            for index, one in enumerate(about["worlds"]):
                told = f"palette_text.{one['name']}"
                extent = Extent(**one["extent"])
                palette = Palette(
                    file.get_tensor(f"palette.{one['name']}"),
                    file.get_tensor(told) if told in file.keys() else None,
                    one["spacing"],
                    layered=extent.height_px is not None,
                )
                worlds.append(World(one["name"], index, extent, palette))
            names = [world.name for world in worlds]
            found = []
            for number, entry in enumerate(about["entries"]):
                levels = range(entry["levels"])
                codes = tuple(file.get_tensor(f"codes.{number}.{level}") for level in levels)
                moves, course, before, first = entry["moves"], STILL, codes, codes
                if moves is not None:
                    course = course_of(about["sentences"][moves])
                    before, first = (
                        tuple(file.get_tensor(f"{name}.{number}.{level}") for level in levels)
                        for name in ("before", "first")
                    )
                found.append(
                    Encoded(
                        entry["name"],
                        names.index(entry["world"]),
                        entry["held_out"],
                        moves,
                        course,
                        entry["frame"],
                        codes,
                        before,
                        first,
                        tuple(file.get_tensor(f"captions.{number}.{level}") for level in levels),
                        file.get_tensor(f"statistics.{number}"),
                    )
                )
        if parents is not None:
            found = with_drawn(found, parents)
        return cls(worlds, found, text, about["tokenizer"])


def with_drawn(pictures: Sequence[Encoded], path: Path) -> list[Encoded]:
    """The same pictures, with what a decoder has drawn of them."""
    found = list(pictures)
    with safe_open(path, framework="np") as file:
        for name in file.keys():
            number, level = (int(part) for part in name.split(".")[1:])
            codes = file.get_tensor(name)
            real = found[number].codes if number < len(found) else ()
            if level >= len(real) or codes.shape != real[level].shape:
                raise InvalidRequest(f"{path} was drawn from other tokens: {name} does not fit")
            found[number] = found[number]._replace(drawn=(*found[number].drawn, codes))
    return found


@dataclass(frozen=True)
class Placed(Extent):
    """A picture's part of a virtual canvas: pixel (top, left) of the finest level is its corner."""

    top: int = 0
    left: int = 0

    def contains(self, patch: Patch) -> bool:
        """Whether enough of the patch lies in the picture to show a part of its ring."""
        scale = 2 ** (self.finest - patch.level)
        for index, corner, size in zip(
            (patch.row, patch.col), (self.top, self.left), self.size(patch.level), strict=True
        ):
            assert size is not None
            start = index * PATCH_PX - corner // scale
            if min(start + PATCH_PX, size) - max(start, 0) < ENOUGH_PX:
                return False
        return True

    def inside(
        self, level: int, row_tok: int, col_tok: int, shape: tuple[int, int], f: int
    ) -> Mask:
        """Which tokens of a window lie in the picture."""
        scale = 2 ** (self.finest - level) * f
        return super().inside(
            level, row_tok - self.top // scale, col_tok - self.left // scale, shape, f
        )


@dataclass(frozen=True)
class PictureField:
    """The field that a picture lays out: its own cells.

    Attributes:
        statistics_hw4: of its tokens at level 0, see `handscroll.field.statistics`.
        extent: where it lies.
        side: tokens to a patch's side.
    """

    statistics_hw4: Floats
    extent: Placed
    side: int

    def around(self, patch: Patch) -> tuple[Floats, Floats]:
        """Values (M, V) and places (M, 2) of the cells that a patch of level 0 sees."""
        f = PATCH_PX // self.side
        cell, scale = CELL_PX // f, f * 2**self.extent.finest
        top = patch.row * self.side - self.extent.top // scale
        left = patch.col * self.side - self.extent.left // scale
        values, places = [], []
        around = range(-MARGIN * cell, self.side + MARGIN * cell, cell)
        for row in around:
            for col in around:
                if top + row < 0 or left + col < 0:
                    continue
                block = self.statistics_hw4[
                    top + row : top + row + cell, left + col : left + col + cell
                ]
                if block.size:
                    values.append(cell_values(block.mean(axis=(0, 1))))
                    places.append((row + (cell - 1) / 2, col + (cell - 1) / 2))
        return np.array(values, np.float32), np.array(places, np.float32)


@dataclass(frozen=True)
class Seen(Order):
    """An order in which one patch sees just these neighbours."""

    chosen: tuple[Patch, ...] = ()

    def rank(self, patch: Patch) -> tuple[int, ...]:
        """Chosen neighbours come before all else."""
        return (0 if patch in self.chosen else 1,)


class Example(NamedTuple):
    """One training example: T tokens of one patch, in the order they are drawn.

    ``drawn_T`` says which of them are: of a later frame only what is new.
    """

    context: Context
    world: int
    text: Floats | None
    codes_TK: Codes
    place_T2: Floats
    group_T: NDArray[np.int64]
    drawn_T: Mask
    fate_T: NDArray[np.int64]

    def has(self, source: str) -> bool:
        """Whether its context has a source."""
        if source == "text":
            return self.text is not None
        if source == "field":
            return len(self.context.field_MV) > 0
        return bool((self.context.source_N == Source[source.upper()]).any())

    def without(self, *sources: str) -> Example:
        """The same, which does not see some sources of its context."""
        context = self.context
        hidden = [Source[source.upper()] for source in sources if source != "text"]
        cells = slice(0 if Source.FIELD in hidden else None)
        return self._replace(
            context=replace(
                context.without(np.isin(context.source_N, hidden)),
                field_MV=context.field_MV[cells],
                field_place_M2=context.field_place_M2[cells],
            ),
            text=None if "text" in sources else self.text,
        )


class Examples:
    """Draws examples from encoded pictures.

    Args:
        data: the encoded pictures.
        held_out: draw from the held-out pictures instead of the others.
        clean: nothing dropped, disturbed or noised, lattice order, the served groups: what a
            served patch would see.
        moving: the share of examples that come from clips, of each world that has any. Nine in ten
            of them see the frame before, and so do some of the others, in which nothing moves.
    """

    def __init__(
        self, data: Dataset, held_out: bool = False, clean: bool = False, moving: float = 0.0
    ) -> None:
        self.data, self.clean = data, clean
        self.side = PATCH_PX // data.tokenizer["downsampling"]
        self.vocabulary = math.prod(data.tokenizer["levels"])
        self.moving = moving
        self.still: list[list[Encoded]] = [[] for _ in data.worlds]
        self.clips: list[dict[int, list[Encoded]]] = [{} for _ in data.worlds]
        for picture in data.pictures:
            if picture.held_out != held_out:
                continue
            if picture.moves is None:
                self.still[picture.world].append(picture)
            else:
                self.clips[picture.world].setdefault(picture.moves, []).append(picture)
        # By the root of how much there is: by all of it, the smaller world would hardly be learned.
        roots = np.sqrt([self._tokens(found) for found in self.still])
        self.odds = roots / max(1.0, roots.sum())

    def draw(self, rng: np.random.Generator) -> Example:
        """One example."""
        world = int(rng.choice(len(self.odds), p=self.odds))
        moves = bool(self.moving and self.clips[world]) and rng.random() < self.moving
        if moves:  # not by their number: there are fewer photographs of waves than of clouds
            kinds = list(self.clips[world].values())
            often = np.array(
                [CAMERA_ODDS if kind[0].course.kind == Kind.CAMERA else 1.0 for kind in kinds]
            )
            kind = kinds[rng.choice(len(kinds), p=often / often.sum())]
            picture = kind[rng.integers(len(kind))]
            level = self._level(rng, picture.stirring)
        else:
            finest = self.data.worlds[world].extent.finest
            level = self._level(rng, np.full(finest + 1, True))
            choice = [one for one in self.still[world] if level < len(one.codes)]
            picture = choice[rng.integers(len(choice))]
        extent, patch = self._place(rng, picture, level)
        later = self.moving and rng.random() < (0.9 if moves else STILL_FRAMES)
        blind = later and not self.clean and rng.random() < BLIND
        seen = () if blind and rng.random() < 0.5 else self._seen(rng, extent, patch)
        if later:
            frame = picture.frame if moves else int(rng.integers(1, MAX_FRAMES))
            patch = patch._replace(frame=frame)
            seen = tuple(one._replace(frame=frame) for one in seen)

        above = picture.codes
        if picture.drawn and not self.clean and rng.random() < PARENT_DRAWN:
            above = (*picture.drawn, picture.codes[-1])

        def read(one: Patch) -> Codes:
            then = picture.first
            if one.frame == patch.frame:
                then = picture.codes if one.level == patch.level else above
            elif one.frame == patch.frame - 1:
                then = picture.before
            return block(then, extent, one, self.side)

        order = Seen(extent, seen, course=picture.course)
        context = gather(patch, order, self.side, read, None)
        if level == 0 and not later:
            context = self._with_field(rng, context, picture, extent)
        if not self.clean:
            context = self._disturb(rng, context)
        codes_TK, place_T2, group_T = self._target(rng, context, read(patch))
        drawn_T, fate_T = np.full(len(group_T), True), np.full_like(group_T, Fate.UNKNOWN)
        if later:
            rows, cols = place_T2.astype(np.int64).T
            fate_ss = fates(context, read(patch))
            if blind:
                drawn_T, fate_T = ~drawn_T, fate_ss[rows, cols]
            else:
                new_ss = np.isin(fate_ss, (Fate.NEW, Fate.UNKNOWN))
                if not self.clean and rng.random() < MISTAKEN:
                    new_ss |= self._part(rng)
                context, drawn_T = context.forget(new_ss), new_ss[rows, cols]
            if blind or (not self.clean and rng.random() < AT_ONCE):
                group_T = np.zeros_like(group_T)
        text = self._text(rng, picture, extent, patch)
        return Example(context, world, text, codes_TK, place_T2, group_T, drawn_T, fate_T)

    def always(self, count: int) -> list[Example]:
        """The same examples at each call; none where there is nothing to draw from."""
        if not self.odds.any() or (self.moving == 1 and not any(self.clips)):
            return []
        rng = np.random.default_rng(1)
        return [self.draw(rng) for _ in range(count)]

    def _tokens(self, found: Sequence[Encoded]) -> int:
        """How many tokens pictures have at the finest level, each in its largest variant."""
        most: dict[str, int] = {}
        for one in found:
            if len(one.codes) > self.data.worlds[one.world].extent.finest:
                most[one.name] = max(most.get(one.name, 0), one.codes[-1][..., 0].size)
        return sum(most.values())

    def _level(self, rng: np.random.Generator, which: NDArray[np.bool_]) -> int:
        odds = np.array(LEVEL_ODDS[-len(which) :]) * which
        return int(rng.choice(len(odds), p=odds / odds.sum()))

    def _place(
        self, rng: np.random.Generator, picture: Encoded, level: int
    ) -> tuple[Placed, Patch]:
        """A patch at a random even token of a level, and the virtual canvas it belongs to."""
        world = self.data.worlds[picture.world].extent
        f, finest = PATCH_PX // self.side, world.finest
        height, width = picture.codes[level].shape[:2]
        row, col = (int(index) for index in rng.integers(2, size=2))
        left = 2 * int(rng.integers((width - self.side) // 2 + 1))
        scale = 2 ** (finest - level) * f
        if world.kind == "scroll":
            row, top = int(rng.integers(-(-height // self.side))), 0
        else:
            top = 2 * int(rng.integers((height - self.side) // 2 + 1)) - row * self.side
        coarser = finest + 1 - len(picture.codes)
        size = [count * f << coarser for count in picture.codes[-1].shape[:2]]
        extent = Placed(
            world.kind,
            finest,
            size[0],
            size[1],
            top=-top * scale,
            left=-(left - col * self.side) * scale,
        )
        return extent, Patch(level, 0, row, col)

    def _part(self, rng: np.random.Generator) -> Mask:
        """A rectangle of a patch's tokens."""
        rows, cols = np.sort(rng.integers(self.side + 1, size=(2, 2)), axis=1)
        part = np.zeros((self.side, self.side), bool)
        part[slice(*rows), slice(*cols)] = True
        return part

    def _seen(self, rng: np.random.Generator, extent: Placed, patch: Patch) -> tuple[Patch, ...]:
        share = 0.0 if self.clean else rng.random()
        if share < 0.60:
            return Lattice(extent).seen(patch)
        if share < 0.85:
            odds = rng.random()
            return tuple(
                one for one in patch.neighbours if extent.contains(one) and rng.random() < odds
            )
        if share < 0.95:
            return Raster(extent, *(bool(flag) for flag in rng.integers(2, size=3))).seen(patch)
        scale = PATCH_PX * 2 ** (extent.finest - patch.level)
        row, col = (int(away) for away in rng.integers(-3, 4, size=2))
        start = Region(
            extent.finest, (patch.row + row) * scale, (patch.col + col) * scale, scale, scale
        )
        return Outward(extent, start).seen(patch)

    def _with_field(
        self, rng: np.random.Generator, context: Context, picture: Encoded, extent: Placed
    ) -> Context:
        """The field's cells as they would be for this very place, blurred by noise."""
        if not self.clean and rng.random() < FIELD_DROPPED:
            return context
        noise = 0.0 if self.clean else rng.uniform(0, 0.2)
        field = PictureField(picture.statistics, extent, self.side)
        values_MV, place_M2 = field.around(context.patch)
        values_MV = (values_MV + rng.normal(0, noise, values_MV.shape)).astype(np.float32)
        return replace(context, field_MV=values_MV, field_place_M2=place_M2)

    def _disturb(self, rng: np.random.Generator, context: Context) -> Context:
        """Drop the parent now and then; replace some codes by random ones."""
        if rng.random() < PARENT_DROPPED:
            context = context.without(context.source_N == Source.PARENT)
        if rng.random() < KIND_DROPPED:
            context = replace(context, kind=Kind.OTHER)
        struck = rng.random(context.codes_NK.shape) < rng.uniform(0, 0.1)
        frames = np.isin(context.source_N, (Source.PREVIOUS, Source.FIRST))
        struck[frames] = False  # else nothing would stay still
        other = rng.integers(0, self.vocabulary, struck.shape).astype(np.uint8)
        return replace(context, codes_NK=np.where(struck, other, context.codes_NK))

    def _target(
        self, rng: np.random.Generator, context: Context, block: Codes
    ) -> tuple[Codes, Floats, NDArray[np.int64]]:
        """Tokens in the order they are drawn, their places, and the step of each."""
        share = 0.0 if self.clean else rng.random()
        order = token_order(context.inside_ss, "raster" if 0.5 <= share < 0.7 else "spread")
        if share >= 0.7:
            order = rng.permutation(order)
        if share < 0.5:
            group = np.arange(len(order)) // (self.side**2 // SERVED_STEPS)
        elif share < 0.7:
            group = np.arange(len(order))
        else:
            steps = int(rng.choice((8, 12, 16, 32, 64)))
            group = np.sort(rng.integers(0, steps, len(order)))
        place = np.stack(np.divmod(order, self.side), axis=-1).astype(np.float32)
        return block.reshape(self.side**2, -1)[order], place, group

    def _text(
        self, rng: np.random.Generator, picture: Encoded, extent: Placed, patch: Patch
    ) -> Floats | None:
        if self.data.text is None:
            return None
        if picture.moves is not None and patch.frame:  # what moves is always said
            if rng.random() < MOTION_ALONE:
                return self.data.text[picture.moves]
        elif not self.clean and rng.random() < TEXT_DROPPED:
            return None
        scale = 2 ** (extent.finest - patch.level)
        grid = picture.captions[patch.level]
        row = (patch.row * PATCH_PX - extent.top // scale) // CAPTION_STRIDE_PX
        col = (patch.col * PATCH_PX - extent.left // scale) // CAPTION_STRIDE_PX
        found = int(grid[min(max(row, 0), grid.shape[0] - 1), min(col, grid.shape[1] - 1)])
        return self.data.text[found] if found >= 0 else None


def block(levels: Sequence[Codes], extent: Placed, patch: Patch, side: int) -> Codes:
    """Codes (side, side, K) of a patch of the virtual canvas; 0 outside the picture."""
    codes = levels[patch.level]
    scale = PATCH_PX // side * 2 ** (extent.finest - patch.level)
    top = patch.row * side - extent.top // scale
    left = patch.col * side - extent.left // scale
    found = np.zeros((side, side, codes.shape[2]), np.uint8)
    rows = slice(max(0, top), max(0, top + side))
    cols = slice(max(0, left), max(0, left + side))
    part = codes[rows, cols]
    down, right = max(0, -top), max(0, -left)
    found[down : down + part.shape[0], right : right + part.shape[1]] = part
    return found


def fates(context: Context, codes_ssK: Codes) -> NDArray[np.int64]:
    """The `Fate` (side, side) of a patch's real tokens; unknown where a frame is not seen."""
    (stood, has_stood), (came, has_come) = (
        context.at(source) for source in (Source.PREVIOUS, Source.FIRST)
    )
    is_stood, is_come = ((shown == codes_ssK).all(axis=-1) for shown in (stood, came))
    found = np.select(
        [is_stood & is_come, is_stood, is_come], [Fate.EITHER, Fate.STOOD, Fate.CAME], Fate.NEW
    )
    return np.where(has_stood & has_come, found, Fate.UNKNOWN).astype(np.int64)
