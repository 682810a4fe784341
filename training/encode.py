"""Encode the pictures once: ``python -m training.encode --data DATA --tokenizer RUN --out FILE``.

Writes one safetensors file with, for every picture and variant (shifted against the token grid,
narrower, and from nearer; photographs mirrored and in other light; the Earth turned), the codes of
every level, statistics of level 0 for the field, and captions with their embeddings; the same for
clips (`training.motion`), with the codes of a frame before and of the first; and the worlds'
palettes. What `training.train_decoder` reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from safetensors.numpy import save_file

from handscroll.cli import run
from handscroll.context import Floats
from handscroll.field import CELL_PX, cell_values, statistics
from handscroll.geometry import PATCH_PX, Extent
from handscroll.text import TextEncoder
from handscroll.tokenizer import Tokenizer, from_rgb
from training import motion, pictures, train_tokenizer
from training.captions import earth_caption
from training.folder import WorldKind
from training.motion import Clip
from training.pictures import Picture, Pixels
from training.run import precision

Grid = NDArray[np.int32]
Levels = tuple[Pixels, ...]
Enlarged = tuple[tuple[float, float], tuple[float, float]]

CAPTION_STRIDE_PX = 128
PALETTE = 512
ANCHOR_SPACING = 24
"""Cells between anchors of the field."""
BLOCK = {"scroll": 22, "plane": 34}
"""Cells to a side of what an anchor lays around itself: of a photograph, all its width; of a map,
as much as an anchor's borders may take in."""
ENLARGED = {"scroll": ((1.0, 1.3), (1.2, 1.8)), "plane": ((1.0, 1.6), (1.0, 1.6))}
"""How many times as high, and as wide, as its picture a layout is, at least and at most. So no
canvas is laid out quite as a picture is. Beyond twice it would be softer than level 0."""
BLANK = 0.03
"""The share of a map's block that may be `blank`."""
RAISED = 1.3
"""The exponent by which the rows of a landscape's layout are moved up or down, at most."""
HUE = 4.0
"""How much more hues count than brightness when landscapes are put next to each other."""
VARIANTS = {
    "scroll": ((False, 0, 0), (True, 0, 24)),
    "plane": ((False, 0, 0), (False, 24, 40)),
}
"""Mirrored or not, and pixels cut off at the top and the left, where a patch is left below them."""
NARROWED, NARROWER = 4, (0.75, 1.0)
"""Further variants, and how wide they are; maps are as much lower, too."""
NEARER = 12
"""Further variants of the two coarser levels, at most, seen from nearer: see `PARTS`."""
PARTS = {"scroll": ((1.0, 1.3), (1.0, 1.4)), "plane": ENLARGED["plane"]}
"""How many times as high, and as wide, what is seen from nearer is."""
COARSE_TOK = 200_000
"""Of a world's maps there are such variants until level 0 has so many tokens."""
GAMMA, WARMTH, COLOUR = 1.15, 1.05, 1.15
"""How much brighter or darker, warmer or cooler, and more or less colourful other light is."""


def variants(picture: Picture) -> list[Picture]:
    """A picture, shifted against the token grid; photographs are mirrored too.

    Maps are not mirrored: their relief is lit from one side.
    """
    if picture.held_out:
        return [picture]
    return [laid(picture, *variant) for variant in VARIANTS[picture.kind]]


def laid(picture: Picture, mirror: bool, down: int, right: int) -> Picture:
    """A picture mirrored or not, from so many pixels on where a patch is left below them."""
    whole, finest = picture.levels[-1], picture.extent.finest
    step = 16 << finest
    sides = zip((down, right), whole.shape[:2], strict=True)
    down, right = (cut if size - cut >= PATCH_PX << finest else 0 for cut, size in sides)
    rows, cols = np.arange(down, whole.shape[0]), np.arange(right, whole.shape[1])
    if mirror:
        cols = cols[::-1]
    lines = [line[: len(line) // step * step] for line in (rows, cols)]
    levels = pictures.pyramid(Image.fromarray(whole[np.ix_(*lines)]), len(picture.levels))
    water = None if picture.water is None else picture.water[np.ix_(*lines)]
    heights = picture.heights  # of the coarsest level
    if heights is not None:
        heights = heights[np.ix_(*(line[:: 1 << finest] >> finest for line in lines))]
    return replace(picture, levels=levels, water=water, heights=heights)


def further(picture: Picture, rng: np.random.Generator, near: int = NEARER) -> Iterator[Picture]:
    """More variants, of photographs in other light; no clips are made of them, nor layouts.

    There is but one Earth, and of each photograph two variants: a decoder learns them by heart.
    After 200,000 patches it knew photographs that it had learned from by 0.4 nats a code better
    than others at level 0. Small maps, of which several would be of one size, have fewer.

    Args:
        picture: whose variants these are.
        rng: says how narrow, how near, and in what light.
        near: how many of them are seen from nearer; of what has one level, how many are narrower.
    """
    if picture.held_out:
        return
    if len(picture.levels) == 1:
        ways = [narrowed] * near
    else:
        ways = [narrowed] * NARROWED + [from_nearer] * near
    sizes = {picture.levels[0].shape}
    for number, way in enumerate(ways):
        found = way(_in_other_light(picture, number, rng), rng)
        if picture.kind == "scroll" or found.levels[0].shape not in sizes:
            yield found
        sizes.add(found.levels[0].shape)


def _in_other_light(picture: Picture, number: int, rng: np.random.Generator) -> Picture:
    """A map as it is; a photograph in other light, every other one mirrored."""
    if picture.kind == "plane":
        return picture
    return relit(laid(picture, number % 2 == 1, 0, 0), rng)


def narrowed(picture: Picture, rng: np.random.Generator) -> Picture:
    """A picture made narrower, and a map lower: as sharp, and other tokens."""
    finest = picture.extent.finest
    least, step = PATCH_PX << finest, 16 << finest
    height, width = (
        max(least, int(size * rng.uniform(*NARROWER)) // step * step)
        for size in picture.levels[-1].shape[:2]
    )
    if picture.kind == "scroll":
        height = len(picture.levels[-1])
    image = Image.fromarray(picture.levels[-1]).resize((width, height), Image.Resampling.HAMMING)
    return _with(picture, pictures.pyramid(image, len(picture.levels)))


def from_nearer(picture: Picture, rng: np.random.Generator) -> Picture:
    """The two coarser levels of a map, or of a part of a photograph, from nearer.

    They are cut out of finer ones, so they are as sharp as their levels are.
    """
    state = rng.bit_generator.state
    levels = []
    for level in range(min(2, len(picture.levels) - 1)):
        rng.bit_generator.state = state  # every level the same part
        levels.append(redrawn(picture, level, PARTS[picture.kind], rng))
    return _with(picture, tuple(levels))


def _with(picture: Picture, levels: Levels) -> Picture:
    """A picture of other levels, its heights made to fit."""
    heights = picture.heights
    if heights is not None:
        size = levels[0].shape[1::-1]
        heights = np.asarray(Image.fromarray(heights).resize(size, Image.Resampling.HAMMING))
    return replace(picture, levels=levels, heights=heights, water=None)


def relit(picture: Picture, rng: np.random.Generator) -> Picture:
    """A picture in other light: brighter or darker, warmer or cooler, more or less colourful."""
    light = picture.levels[-1].astype(np.float32) / 255
    grey = light.mean(axis=-1, keepdims=True)
    gamma, warmth, colour = (most ** rng.uniform(-1, 1) for most in (GAMMA, WARMTH, COLOUR))
    light = (grey + (light - grey) * colour) * np.array((warmth, 1, 1 / warmth), np.float32)
    light = light.clip(0, 1) ** gamma
    image = Image.fromarray((255 * light).round().astype(np.uint8))
    return replace(picture, levels=pictures.pyramid(image, len(picture.levels)))


def turned(picture: Picture) -> Picture:
    """A map with its rows as columns: light from the north-west still comes from there."""
    levels = tuple(np.ascontiguousarray(one.transpose(1, 0, 2)) for one in picture.levels)
    return replace(picture, levels=levels, heights=None)


def nearer_variants(found: Sequence[Picture], f: int) -> int:
    """How many variants of each of a world's pictures are seen from nearer.

    Of maps, by how many tokens their level 0 has.
    """
    if found[0].kind == "scroll":
        return NEARER
    tokens = sum(one.levels[0][..., 0].size // f**2 for one in found if not one.held_out)
    return min(NEARER, COARSE_TOK // max(1, tokens))


@torch.inference_mode()
def encode(tokenizer: Tokenizer, pixels: Pixels, device: str, band: int = 1024) -> Pixels:
    """Codes (h, w, K) of a picture, band by band with enough around for the same result."""
    f, margin = tokenizer.config.downsampling, 8 * tokenizer.config.downsampling
    found = []
    for top in range(0, len(pixels), band):
        first, last = max(0, top - margin), min(len(pixels), top + band + margin)
        part = from_rgb(torch.from_numpy(pixels[first:last].copy()).to(device))
        with precision(device):
            codes = tokenizer.encode(part[None])[0].to(torch.uint8).cpu().numpy()
        found.append(codes[(top - first) // f : (min(len(pixels), top + band) - first) // f])
    return np.concatenate(found)


def captions(picture: Picture, level: int, sentences: dict[str, int]) -> Grid:
    """Index of the caption of the patch at each place, every CAPTION_STRIDE_PX; -1 for none."""
    pixels = picture.levels[level]
    rows, cols = (_places(size) for size in pixels.shape[:2])
    found = np.full((rows, cols), -1, np.int32)
    if picture.caption:
        found[:] = sentences.setdefault(picture.caption, len(sentences))
    elif picture.heights is not None:
        scale = 2**level
        for row in range(rows):
            for col in range(cols):
                top, left = row * CAPTION_STRIDE_PX, col * CAPTION_STRIDE_PX
                colour = pixels[top : top + PATCH_PX, left : left + PATCH_PX]
                part = picture.heights[
                    top // scale : (top + PATCH_PX) // scale,
                    left // scale : (left + PATCH_PX) // scale,
                ]
                south = (top + PATCH_PX / 2) / pixels.shape[0]
                latitude = picture.north_deg + south * (picture.south_deg - picture.north_deg)
                sentence = earth_caption(colour, part, latitude)
                found[row, col] = sentences.setdefault(sentence, len(sentences))
    return found


def _places(size: int) -> int:
    """How many captions there are along so many pixels."""
    return max(1, size // CAPTION_STRIDE_PX - 1)


def moving(grid: Grid, clip: Clip, shown: Pixels, level: int, sentences: dict[str, int]) -> Grid:
    """The captions of a clip's part of a picture, with the words that say what moves.

    Args:
        grid: the captions of the picture.
        clip: of it.
        shown: any frame of the clip, at the level.
        level: of the captions.
        sentences: all captions; those that are new are added.
    """
    scale = 2 ** (clip.film.finest - level)
    rows, cols = (
        slice(start := at // scale // CAPTION_STRIDE_PX, start + _places(size))
        for at, size in zip((clip.top, clip.left), shown.shape, strict=False)
    )
    spoken = list(sentences)
    found = grid[rows, cols].copy()
    for index in np.unique(found):
        moves = clip.film.words
        words = f"{spoken[index]}, {moves}" if index >= 0 else moves
        found[grid[rows, cols] == index] = sentences.setdefault(words, len(sentences))
    return found


def palette(
    extent: Extent, found: Sequence[tuple[Floats, Grid]], f: int
) -> tuple[Floats, NDArray[np.int32]]:
    """Blocks of real cells to lay the field out of, like next to like, and each one's caption.

    On a plane seven in eight are of the livelier half, so that open sea does not cover all, none
    shows much that is blank if half of them do not, and each is mirrored or not: there is but one
    Earth, and its continents are known by their shapes.
    Where entries are layered, none comes again before all have come, so that what few pictures
    show is there to be asked for.

    Args:
        extent: of the world.
        found: `statistics` (h, w, 4) and captions of level 0 of every picture, `redrawn`.
        f: pixels to a token's side.

    Returns:
        Blocks (PALETTE, R, C, 4), at most BLOCK wide, and indices (PALETTE,), -1 for none.
    """
    cell, layered = CELL_PX // f, extent.height_px is not None
    most = BLOCK["scroll" if layered else "plane"]
    rng = np.random.default_rng(0)
    pictures_hwV = [_cells(one, cell, layered) for one, _ in found]
    low, narrow = (min(cells.shape[axis] for cells in pictures_hwV) for axis in (0, 1))
    height, width = (low if layered else min(most, low)), min(most, narrow)
    blocks, told = [], []
    for cells, (_, grid) in zip(pictures_hwV, found, strict=True):
        rows = _caption_at(len(cells), grid.shape[0])
        cols = _caption_at(cells.shape[1], grid.shape[1])
        for top in range(len(cells) - height + 1):
            for left in range(cells.shape[1] - width + 1):
                blocks.append(cells[top : top + height, left : left + width])
                told.append(grid[rows[top + height // 2], cols[left + width // 2]])
    every, caption = np.stack(blocks), np.array(told, np.int32)
    if not layered:
        spread = every[..., :3].std(axis=(1, 2)).mean(axis=1)
        share = blank(every).mean(axis=(1, 2))
        shown = np.flatnonzero(share <= max(BLANK, np.median(share)))  # some maps are grey
        ranked = shown[np.argsort(spread[shown])]
        calm = PALETTE // 8
        picked = [rng.choice(ranked[len(ranked) // 2 :], PALETTE - calm), rng.choice(ranked, calm)]
    else:
        picked = [np.resize(rng.permutation(len(every)), PALETTE)]
    chosen = np.concatenate(picked)
    chosen = chosen[in_sequence(every[chosen]) if layered else by_warmth(every[chosen])]
    laid = every[chosen]
    if not layered:
        laid = np.stack([mirrored(block, int(rng.integers(4))) for block in laid])
    return laid, caption[chosen]


def blank(blocks_BRCV: Floats) -> NDArray[np.bool_]:
    """Which cells (B, R, C) of maps are plain grey: nobody has painted there (inner Greenland)."""
    colours = blocks_BRCV[..., :3]
    light = colours.mean(axis=-1)
    return (np.ptp(colours, axis=-1) < 0.11) & (light > -0.3) & (light < 0.37)


def by_warmth(blocks_BRCV: Floats) -> NDArray[np.int64]:
    """Blocks from cool to warm."""
    light = (blocks_BRCV[..., :3].mean(axis=(1, 2)) + 1) / 2
    warmth = (light[:, 0] - light[:, 2]) / (light.sum(axis=1) + 0.2)
    return np.argsort(warmth, kind="stable")


def in_sequence(blocks_BRCV: Floats) -> NDArray[np.int64]:
    """Blocks by what is how high in them, and in what hue: those next to each other are alike.

    Spectral seriation (Atkins, Boman and Hendrickson, 1998): the order of the second eigenvector of
    the normalised Laplacian of their similarities.
    """
    rows_BRV = blocks_BRCV.astype(np.float64).mean(axis=2)
    sky_BV, land_BV = (half.mean(axis=1) for half in np.array_split(rows_BRV[..., :3], 2, axis=1))
    hues = [half - half.mean(axis=1, keepdims=True) for half in (sky_BV, land_BV)]
    features = np.concatenate(
        [rows_BRV.reshape(len(rows_BRV), -1), *(HUE * hue for hue in hues)], 1
    )
    apart = ((features[:, None] - features) ** 2).sum(axis=-1)
    alike = np.exp(-4 * apart / np.median(apart))
    scale = 1 / np.sqrt(alike.sum(axis=1))
    _, vectors = np.linalg.eigh(np.eye(len(alike)) - scale[:, None] * alike * scale)
    return np.argsort(np.round(vectors[:, 1] * scale, 9), kind="stable")


def redrawn(picture: Picture, level: int, enlarged: Enlarged, rng: np.random.Generator) -> Pixels:
    """A level of a picture, enlarged: of a map all of it, of a landscape a part as large as all of
    it was, with its horizon a little higher or lower.

    Out of a finer level, so that it is as sharp as that level is.

    Args:
        picture: of a scroll or a plane.
        level: one of its levels.
        enlarged: how many times as high, and as wide, at least and at most.
        rng: says how many times, and which part.
    """
    finer = picture.levels[min(level + 1, len(picture.levels) - 1)]
    height, width = finer.shape[:2]
    tall, wide = picture.levels[level].shape[:2]
    down, across = (rng.uniform(*times) for times in enlarged)
    if picture.kind == "plane":
        step = 16 << level
        size = tuple(round(side / step) * step for side in (wide * across, tall * down))
        return np.asarray(Image.fromarray(finer).resize(size, Image.Resampling.HAMMING))
    rows = ((np.arange(height) + 0.5) / height) ** (RAISED ** rng.uniform(-1, 1))
    moved = Image.fromarray(_at(finer, rows * height - 0.5).round().astype(np.uint8))
    top, left = (rng.random() * side * (1 - 1 / a) for side, a in ((height, down), (width, across)))
    part = (left, top, left + width / across, top + height / down)
    return np.asarray(moved.resize((wide, tall), Image.Resampling.HAMMING, part))


def mirrored(block_RCV: Floats, way: int) -> Floats:
    """A block in one of four ways: as it is, from the other side, from below, or both.

    It is not turned: climates lie in belts from left to right.
    """
    down, right = (-1 if way & bit else 1 for bit in (1, 2))
    return block_RCV[::down, ::right]


def described(captions: Sequence[str], tags: Mapping[str, str], encoder: TextEncoder) -> Floats:
    """Embeddings (captions, W) by which words find entries of a palette.

    A caption's, and as much of its picture's tags': a dune before a strip of sea is said to be a
    dune first.
    """
    text = encoder.embed(captions)
    tagged = encoder.embed([tags.get(caption, caption) for caption in captions])
    both = text + tagged
    return both / np.linalg.norm(both, axis=1, keepdims=True)


def _at(values_N: Pixels, place_M: NDArray[np.float64]) -> Floats:
    """Values at places between those of the first axis."""
    place_M = np.clip(place_M, 0, len(values_N) - 1)
    before = np.floor(place_M).astype(np.int64)
    after = np.minimum(before + 1, len(values_N) - 1)
    share = (place_M - before).astype(np.float32).reshape(-1, *[1] * (values_N.ndim - 1))
    found: Floats = (1 - share) * values_N[before] + share * values_N[after]
    return found


def _cells(statistics_hw4: Floats, cell: int, layered: bool) -> Floats:
    """The cells of a picture of level 0; a last row of half a cell counts where it is layered."""
    height, width = (size // cell * cell for size in statistics_hw4.shape[:2])
    whole = statistics_hw4[:height, :width].reshape(-1, cell, width // cell, cell, 4)
    found = whole.mean(axis=(1, 3))
    if layered and len(statistics_hw4) > height:
        rest = statistics_hw4[height:, :width].reshape(-1, width // cell, cell, 4)
        found = np.concatenate((found, rest.mean(axis=(0, 2))[None]))
    return cell_values(found)


def _caption_at(cells: int, captions: int) -> NDArray[np.int64]:
    """Of each cell along an axis of level 0, the caption of a patch in whose middle it is.

    Captions stand at equal distances, and so does the first from the beginning.
    """
    place = (np.arange(cells) + 0.5) / cells * (captions + 1) - 1
    return np.clip(np.round(place), 0, captions - 1).astype(np.int64)


def main(
    data: Annotated[Path, typer.Option(help="packed data set, or any folder of pictures")],
    tokenizer: Annotated[Path, typer.Option(help="run folder of training.train_tokenizer")],
    out: Annotated[Path, typer.Option(help="file to write")],
    world: Annotated[str | None, typer.Option(help="world of a plain folder")] = None,
    kind: Annotated[
        WorldKind | None, typer.Option(help="of that world; default: scroll if it is called so")
    ] = None,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
) -> None:
    """Encode every picture with a trained tokenizer."""
    model = train_tokenizer.load(tokenizer).to(device)
    config = model.config
    everything = pictures.load(data, world, kind)
    extents = {picture.world: picture.extent for picture in everything}
    worlds = sorted(extents)
    arrays: dict[str, NDArray[Any]] = {}
    sentences: dict[str, int] = {}
    entries: list[dict[str, Any]] = []
    level0: dict[str, list[tuple[Floats, Grid]]] = {name: [] for name in worlds}

    def keep(
        picture: Picture,
        grids: list[Grid],
        frames: dict[str, Levels],
        seen: dict[bytes, Pixels],
        clip: Clip | None = None,
    ) -> None:
        number = len(entries)
        for name, levels in frames.items():
            for level, pixels in enumerate(levels):
                shown = hashlib.sha256(pixels.tobytes()).digest()  # many frames are alike
                if shown not in seen:
                    seen[shown] = encode(model, pixels, device)
                arrays[f"{name}.{number}.{level}"] = seen[shown]
        for level, grid in enumerate(grids):
            arrays[f"captions.{number}.{level}"] = grid
        arrays[f"statistics.{number}"] = statistics(frames["codes"][0], config.downsampling)
        words = clip.film.words if clip else ""
        entries.append(
            {
                "name": picture.name,
                "world": picture.world,
                "held_out": picture.held_out,
                "levels": len(grids),
                "moves": sentences.setdefault(words, len(sentences)) if words else None,
                "frame": clip.frame if clip else 0,
            }
        )

    def told(picture: Picture) -> list[Grid]:
        return [captions(picture, level, sentences) for level in range(len(picture.levels))]

    def turn(picture: Picture, grids: list[Grid]) -> None:
        keep(picture, [grid.T for grid in grids], {"codes": turned(picture).levels}, {})

    for index, picture in enumerate(track(everything, "encoding")):
        grids = told(picture)
        rng, out_of = (np.random.default_rng((kind, index)) for kind in (4, 5))
        for variant in variants(picture):
            seen: dict[bytes, Pixels] = {}
            keep(picture, grids, {"codes": variant.levels}, seen)
            if not picture.held_out:
                part = redrawn(variant, 0, ENLARGED[picture.kind], out_of)
                coarse = statistics(part, config.downsampling)
                level0[picture.world].append((coarse, grids[0]))
            for clip in motion.clips(variant, rng):
                frames = {"codes": clip.frame, "before": clip.before, "first": 0}
                shown = {name: clip.film.levels(frame) for name, frame in frames.items()}
                moved = [
                    moving(grid, clip, pixels, level, sentences)
                    for level, (grid, pixels) in enumerate(zip(grids, shown["codes"], strict=True))
                ]
                keep(picture, moved, shown, seen, clip)
    near = {
        name: nearer_variants([one for one in everything if one.world == name], config.downsampling)
        for name in worlds
    }
    for index, picture in enumerate(track(everything, "encoding more")):
        rng, is_map = np.random.default_rng((6, index)), picture.heights is not None
        for variant in further(picture, rng, near[picture.world]):
            grids = told(variant)
            keep(variant, grids, {"codes": variant.levels}, {})
            if is_map:
                turn(variant, grids)
        if is_map and not picture.held_out:
            for variant in variants(picture):
                turn(variant, told(variant))
    if sentences:
        encoder, spoken = TextEncoder(), list(sentences)
        arrays["text"] = encoder.embed(spoken)
    tags = {one.caption: ", ".join(one.tags) for one in everything if one.tags}
    for name in worlds:
        blocks, which = palette(extents[name], level0[name], config.downsampling)
        arrays[f"palette.{name}"] = blocks
        if (which >= 0).all():
            own = [spoken[index] for index in which]
            arrays[f"palette_text.{name}"] = described(own, tags, encoder)
    metadata = {
        "worlds": [
            {
                "name": name,
                "extent": asdict(extents[name]),
                "spacing": ANCHOR_SPACING,
            }
            for name in worlds
        ],
        "entries": entries,
        "sentences": list(sentences),
        "tokenizer": asdict(config),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(arrays, out, metadata={"handscroll": json.dumps(metadata)})


if __name__ == "__main__":
    run(lambda: typer.run(main))
