"""The laws of `handscroll.known`: what is given stays, and everybody near sees it."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from handscroll.assemble import Pixels
from handscroll.branch import NEAR_KNOWN_PX, Lineage
from handscroll.canvas import Canvas, Known, Sampling
from handscroll.checkpoint import Checkpoint
from handscroll.context import RING_TOK, Codes, Source, gather
from handscroll.detail import STEP_PX, Detail
from handscroll.errors import InvalidRequest
from handscroll.field import ProceduralField, statistics
from handscroll.geometry import (
    PATCH_PX,
    STANDS,
    TILE_PX,
    Extent,
    Moved,
    Patch,
    Region,
    Tile,
    tile_region,
    window_patches,
)
from handscroll.known import (
    BESIDE_PX,
    INWARDS,
    MARGIN_TOK,
    MIXED_PX,
    OTHER,
    RIM_PX,
    TONE_PX,
    TONE_STEP,
    WINDOW_TOK,
    KnownField,
    KnownPixels,
    KnownTokens,
    digest_of,
    known_pixels,
    known_tokens,
    windows,
)
from handscroll.order import Lattice, Order, Outward, Raster
from handscroll.paint import Painter
from handscroll.tokenizer import to_rgb
from handscroll.view import AROUND_PX, First, Painted, View

SIDE, F, FINEST = 16, 16, 2
PLANE, SCROLL = Extent("plane", FINEST), Extent("scroll", FINEST, 704)
STEP = F * 2**FINEST


def noise(height: int, width: int, seed: int = 5) -> Pixels:
    """A picture of which no pixel is like the next."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> Pixels:
    """A picture that gets redder downwards and greener to the right."""
    down, right = np.mgrid[0:height, 0:width]
    blue = np.full_like(down, 90)
    return np.stack((255 * down // height, 255 * right // width, blue), -1).astype(np.uint8)


def canvas_of(model: Checkpoint, pixels: Pixels, top: int, left: int, **changes: Any) -> Canvas:
    """A canvas of the tiny model around a picture."""
    world = changes.pop("world", "planet")
    spec: dict[str, Any] = {"seed": 7, "extent": model.worlds[world].extent} | changes
    known = Known(digest_of(pixels), top, left, *pixels.shape[:2])
    return Canvas(model.digest, world, sampling=Sampling(group=64), known=known, **spec)


def marks(pixels: Pixels) -> Codes:
    """Stands in for a tokenizer: a token's codes are its first pixel."""
    return pixels[::F, ::F].copy()


def pixels_on(extent: Extent, top: int, left: int, pixels: Pixels) -> KnownPixels:
    """A picture that lies on a canvas."""
    known = Known(digest_of(pixels), top, left, *pixels.shape[:2])
    return known_pixels(Canvas("0" * 64, "any", 1, extent, known=known), pixels, SIDE)


def known_on(extent: Extent, top: int, left: int, pixels: Pixels) -> KnownTokens:
    """The tokens of a picture, encoded by `marks`."""
    return known_tokens(pixels_on(extent, top, left, pixels), marks)


@st.composite
def placed(draw: st.DrawFn) -> KnownTokens:
    """A picture somewhere on a canvas."""
    extent = draw(st.sampled_from([PLANE, SCROLL]))
    height, width = draw(st.integers(STEP, 600)), draw(st.integers(STEP, 900))
    left = STEP * (draw(st.integers(-20, 20)) + draw(st.sampled_from([0, 10**5])))
    most = (704 - height) // STEP if extent is SCROLL else 20
    least = 0 if extent is SCROLL else -20
    return known_on(extent, STEP * draw(st.integers(least, most)), left, noise(height, width))


def near(picture: KnownTokens, level: int) -> list[Patch]:
    """The patches of a level that a picture touches, and those around."""
    place, extent = picture.place.region(level), picture.place.extent
    rows = range(place.top // PATCH_PX - 1, (place.top + place.height) // PATCH_PX + 2)
    cols = range(place.left // PATCH_PX - 1, (place.left + place.width) // PATCH_PX + 2)
    found = (Patch(level, 0, row, col) for row, col in product(rows, cols))
    return [patch for patch in found if extent.contains(patch)]


@settings(max_examples=20)
@given(placed(), st.integers(0, FINEST))
def test_a_token_is_known_where_it_lies_wholly_inside(picture: KnownTokens, level: int) -> None:
    finest, step = picture.place.region(FINEST), F * 2 ** (FINEST - level)
    for patch in near(picture, level):
        codes, known = picture.tokens(patch)
        for row, col in np.ndindex(SIDE, SIDE):
            top = (patch.row * SIDE + row) * step - finest.top
            left = (patch.col * SIDE + col) * step - finest.left
            inside = 0 <= top <= finest.height - step and 0 <= left <= finest.width - step
            assert known[row, col] == inside
            assert codes[row, col].any() <= inside
        in_canvas = picture.place.extent.inside(
            level, patch.row * SIDE, patch.col * SIDE, (SIDE, SIDE), F
        )
        assert picture.whole(patch) == (known | ~in_canvas).all()
        later = patch._replace(frame=1)
        assert not picture.tokens(later)[1].any(), "what moves is drawn"


def test_levels_are_means_and_tokens_are_those_of_their_level() -> None:
    pixels = noise(130, 200)
    picture = pixels_on(PLANE, -STEP, 2 * STEP, pixels)
    tokens = known_tokens(picture, marks)
    for level, (shrunk, codes) in enumerate(zip(picture.levels, tokens.codes, strict=True)):
        step = 2 ** (FINEST - level)
        height, width = 130 // step, 200 // step
        assert picture.place.region(level) == Region(
            level, -STEP // step, 2 * STEP // step, height, width
        )
        blocks = pixels[: height * step, : width * step].reshape(height, step, width, step, 3)
        assert np.abs(shrunk - blocks.mean((1, 3))).max() <= 0.5
        assert codes.shape == (height // F, width // F, 3)
        np.testing.assert_array_equal(codes, shrunk[: height // F * F : F, : width // F * F : F])


ORDERS = [Lattice(PLANE), Lattice(SCROLL), Raster(Extent("picture", FINEST, 704, 1216))]
ORDERS.append(Outward(Extent("picture", FINEST, 704, 1216), Region(FINEST, 64, 128, 300, 400)))


def code_at(patch: Patch) -> Codes:
    """Codes that tell the patch, unlike those of `noise`."""
    return np.full((SIDE, SIDE, 3), (patch.level, patch.row % 256, patch.col % 256), np.uint8)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("level", range(FINEST + 1))
def test_known_tokens_are_seen_by_all_near_them_whatever_the_order(
    order: Order, level: int
) -> None:
    """Token by token, of the ring: drawn neighbours as ever, and of the others what is known."""
    picture = known_on(order.extent, 64, 128, noise(300, 400))
    for patch in near(picture, level):
        context = gather(patch, order, SIDE, code_at, None, picture)
        ring = {
            (int(down), int(right)): tuple(codes)
            for source, (down, right), codes in zip(
                context.source_N, context.place_N2, context.codes_NK.tolist(), strict=True
            )
            if source == Source.RING
        }
        expected: dict[tuple[int, int], tuple[int, ...]] = {}
        for down, right in product(range(-RING_TOK, SIDE + RING_TOK), repeat=2):
            if 0 <= down < SIDE and 0 <= right < SIDE:
                continue
            row, col = patch.row * SIDE + down, patch.col * SIDE + right
            other = patch._replace(row=row // SIDE, col=col // SIDE)
            at = row % SIDE, col % SIDE
            if not order.extent.inside(level, row, col, (1, 1), F).all():
                continue
            codes, known = picture.tokens(other)
            if other in order.seen(patch):
                expected[down, right] = tuple(code_at(other)[at].tolist())
            elif known[at]:
                expected[down, right] = tuple(codes[at].tolist())
        assert ring == expected
        codes, known = picture.tokens(patch)
        np.testing.assert_array_equal(context.known_ss, known & context.inside_ss)
        np.testing.assert_array_equal(context.known_ssK, codes)


@pytest.mark.parametrize(
    ("world", "top", "changes"),
    [
        ("planet", -128, {}),
        ("scroll", 64, {}),
        ("planet", 128, {"extent": Extent("picture", FINEST, 704, 896), "order": "outward"}),
    ],
)
def test_what_is_given_stays_and_the_rest_is_drawn(
    model: Checkpoint, world: str, top: int, changes: dict[str, Any]
) -> None:
    pixels = noise(300, 450)
    canvas = canvas_of(model, pixels, top, 192, world=world, **changes)
    around = Region(FINEST, top - 64, 64, 460, 700)
    with Painter(model, canvas, picture=pixels) as painter:
        assert isinstance(painter.pool.given, KnownTokens)
        drawn = dict(painter.patches(near(painter.pool.given, FINEST)))
        painted = np.concatenate(list(painter.region(around)))
        known = painter.pool.given
    assert drawn, "patches at the picture's rim are drawn"
    for patch, codes in drawn.items():
        given_codes, is_given = known.tokens(patch)
        np.testing.assert_array_equal(codes[is_given], given_codes[is_given])
        assert not known.whole(patch), "what is wholly known is not drawn"
    np.testing.assert_array_equal(painted[64:364, 128:578], pixels)
    outside = np.ones(painted.shape[:2], bool)
    outside[64:364, 128:578] = False
    assert painted[outside].std() > 5


def test_a_place_is_the_same_alone_and_among_others(model: Checkpoint) -> None:
    """Random access holds around a picture too: whoever looks where first changes nothing."""
    pixels = noise(300, 450)
    canvas = canvas_of(model, pixels, -128, 192)
    large = Region(FINEST, -200, 0, 500, 800)
    with Painter(model, canvas, picture=pixels) as painter:
        whole = np.concatenate(list(painter.region(large)))
    for down, right in ((0, 0), (100, 500), (380, 650)):
        part = Region(FINEST, large.top + down, large.left + right, 100, 120)
        with Painter(model, canvas, picture=pixels) as painter:
            alone = np.concatenate(list(painter.region(part)))
        np.testing.assert_array_equal(alone, whole[down : down + 100, right : right + 120])


def test_the_picture_decides_what_is_drawn_near_it_and_not_what_is_far(model: Checkpoint) -> None:
    painted = []
    for pixels in (noise(300, 450, 1), noise(300, 450, 2)):
        canvas = canvas_of(model, pixels, -128, 192)
        with Painter(model, canvas, picture=pixels) as painter:
            near_it, far = Patch(FINEST, 0, -1, 0), Patch(FINEST, 0, 40, 40)
            painted.append([dict(painter.patches([one]))[one] for one in (near_it, far)])
    (near_one, far_one), (near_other, far_other) = painted
    assert (near_one != near_other).any()
    np.testing.assert_array_equal(far_one, far_other)


def test_what_is_decoded_of_a_picture_in_windows_is_as_if_it_were_one(model: Checkpoint) -> None:
    pixels = noise(64 * F, 70 * F)
    with Painter(model, canvas_of(model, pixels, 0, 0), picture=pixels) as painter:
        assert painter.known
        tokens = known_tokens(painter.known, painter._encode)
        for level, codes in enumerate(tokens.codes):
            whole = to_rgb(painter.tokenizer.decode(torch.from_numpy(codes)[None])[0]).numpy()
            np.testing.assert_array_equal(tokens.decoded(level, painter._pixels), whole)


@settings(max_examples=50)
@given(st.integers(1, 150), st.integers(1, 150))
def test_windows_cover_each_token_once_with_all_that_it_depends_on(rows: int, cols: int) -> None:
    covered = np.zeros((rows, cols), int)
    for seen, inner, part in windows(rows, cols):
        covered[part] += 1
        for size, wide, own, at in zip((rows, cols), seen, inner, part, strict=True):
            assert (own.start + wide.start, own.stop + wide.start) == (at.start, at.stop)
            assert wide.start == max(0, at.start - MARGIN_TOK)
            assert wide.stop == min(size, at.stop + MARGIN_TOK)
    assert (covered == 1).all()


def test_a_picture_in_windows_is_encoded_as_if_it_were_one(model: Checkpoint) -> None:
    def encode(part: Pixels) -> Codes:
        pixels = torch.from_numpy(part).float()[None] / 127.5 - 1
        return model.tokenizer.encode(pixels)[0].to(torch.uint8).numpy()

    pixels = noise((WINDOW_TOK + 9) * F, (WINDOW_TOK + 5) * F)
    canvas = canvas_of(model, pixels, 0, 0)
    found = known_tokens(known_pixels(canvas, pixels, SIDE), encode)
    np.testing.assert_array_equal(found.codes[FINEST], encode(pixels))


def test_the_field_is_the_pictures_own_inside_and_itself_far_away(model: Checkpoint) -> None:
    world = model.worlds["planet"]
    picture = pixels_on(PLANE, 0, 0, smooth(2048, 2048))
    wild = ProceduralField(3, PLANE, world.palette, F)
    field = KnownField(wild, picture.place, statistics(picture.levels[0], F))
    values, places = field.around(Patch(0, 0, 0, 0))
    down, right = ((places + 0.5) * F).T
    inside = (down > 32) & (right > 32) & (down < 480) & (right < 480)
    np.testing.assert_allclose(values[inside, 0], down[inside] / 256 - 1, atol=0.02)
    np.testing.assert_allclose(values[inside, 1], right[inside] / 256 - 1, atol=0.02)
    far = Patch(0, 0, 9, -9)
    for found, expected in zip(field.around(far), wild.around(far), strict=True):
        np.testing.assert_array_equal(found, expected)
    beside = Patch(0, 0, 0, 2)
    (own, _), (other, _) = field.around(beside), wild.around(beside)
    assert (np.abs(own - other).max(axis=1) > 0).all(), "it passes from one into the other"


def painting(view: View, now: Pixels, first: Pixels, detail: Detail | None = None) -> Painted:
    """What came of a view, cut from two pictures that repeat without end: later than frame 0, all
    moves in the lower half of them."""
    region = view.region
    rows, cols = (
        np.arange(start, start + size) % 512
        for start, size in ((region.top, region.height), (region.left, region.width))
    )
    change = np.zeros((len(rows), len(cols)), np.float32)
    change[rows >= 256] = OTHER if region.frame else 0
    shown = [one[np.ix_(rows, cols)] for one in (now, first)]
    inside, corner = np.ones(change.shape, bool), (view.margin_px, view.margin_px)
    lost = [detail.of(one, inside, corner) if detail else np.zeros(one.shape) for one in shown]
    stands = First(STANDS, shown[1], lost[1], change, np.ones_like(change))
    return Painted(view, shown[0], lost[0], (stands,))


def faded(distance: float) -> float:
    """From 1 at 0 to 0 at 1 and beyond."""
    gone = min(1, distance)
    return float((1 - gone) ** 2 * (1 + 2 * gone))


def blurred(picture: KnownPixels, level: int) -> Detail:
    """The detail of a picture of which the means of squares of 16 px are kept alone."""
    pixels, squares = picture.levels[level], np.ones((16, 16, 1), np.uint8)
    height, width = (size // 16 for size in pixels.shape[:2])
    cells = pixels[: 16 * height, : 16 * width].reshape(height, 16, width, 16, 3)
    return picture.detail(level, np.kron(cells.mean(axis=(1, 3)).astype(np.uint8), squares))


def compared(picture: KnownPixels, level: int, at: Any, first: Pixels) -> Any:
    """By how much a picture is brighter around a pixel than what is painted not far outside."""
    place, size = picture.place.region(level), 2 * BESIDE_PX + 1
    rows, cols = np.indices((size, size)) + (at - BESIDE_PX)[:, None, None]
    down, right = (
        np.maximum(-one, one - last + 1)
        for one, last in ((rows, place.height), (cols, place.width))
    )
    away = np.hypot(np.maximum(0, down), np.maximum(0, right))
    own = picture.levels[level][rows[away == 0], cols[away == 0]].mean(axis=0)
    painted = first[(rows + place.top) % 512, (cols + place.left) % 512]
    return own - painted[away > MIXED_PX].mean(axis=0)


def laid(
    picture: KnownPixels,
    tile: Tile,
    *paintings: Pixels,
    detail: Detail | None = None,
    margin_px: int | None = None,
) -> Any:
    """A tile with a picture laid over, seen with so much around it; as much as it takes if None."""
    if margin_px is None:
        margin_px = NEAR_KNOWN_PX if picture.place.shows(tile) else STEP_PX
    view = View(tile, picture.place.extent, SIDE, 4, margin_px)
    now, first = paintings
    painted = painting(view, now, first, detail)
    return view.cut(picture.lay_over(painted)), view.cut(painted.pixels)


@settings(max_examples=15)
@given(st.integers(0, FINEST), st.integers(-2, 1), st.integers(-1, 2), st.integers(0, 1))
def test_a_tile_shows_the_picture_and_what_it_gives_to_its_rim(
    level: int, row: int, col: int, frame: int
) -> None:
    """Untouched inside; beside it, its tones and what is lost in the mirror; else as painted."""
    picture = pixels_on(PLANE, -STEP, STEP, noise(200, 300))
    now, first = noise(512, 512, 8), noise(512, 512, 9)
    if frame == 0:
        now = first
    place, tile = picture.place.region(level), Tile(level, row, col, frame)
    shown, painted = laid(picture, tile, now, first)
    _, top, left, _, _, _ = tile_region(tile, PLANE)
    for down, right in product(range(0, TILE_PX, 5), repeat=2):
        at = np.array((top + down - place.top, left + right - place.left))
        last = np.array((place.height, place.width)) - 1
        away = np.hypot(*np.maximum(0, np.maximum(-at, at - last)))
        mirrors = [
            np.where(at < 0, -1 - at + to, np.where(at > last, 2 * last + 1 - to - at, at))
            for to in (0, 1)
        ]
        inside, inwards = (np.clip(one, 0, last) for one in mirrors)
        back = inside + (place.top, place.left)
        moves = frame == 1 and max((top + down) % 512, back[0] % 512) >= 256
        expected = painted[down, right].astype(float)
        lost = np.zeros(3)
        for (row_at, u), (col_at, v) in product(
            ((inside[0], 1 - INWARDS), (inwards[0], INWARDS)),
            ((inside[1], 1 - INWARDS), (inwards[1], INWARDS)),
        ):
            decoded = first[(row_at + place.top) % 512, (col_at + place.left) % 512]
            lost += u * v * (picture.levels[level][row_at, col_at] - decoded.astype(float))
        if away > 0:
            step = compared(picture, level, np.clip(at, 0, last), first)
            alike = faded(np.abs(step).max() / TONE_STEP)
            expected += (faded(away / TONE_PX) - faded(away / MIXED_PX)) * alike * step
        elif frame == 0:
            np.testing.assert_array_equal(shown[down, right], picture.levels[level][tuple(at)])
        if not moves:
            expected += faded(away / RIM_PX) * lost
        assert np.abs(shown[down, right] - np.clip(expected, 0, 255)).max() <= 0.51


@pytest.mark.parametrize(("level", "moved_px"), [(2, (0, -96)), (2, (48, 16)), (1, (-16, 32))])
def test_what_has_come_shows_the_pictures_own_pixels(level: int, moved_px: Moved) -> None:
    """Where it has come to, also beyond where the picture lies; and what has not, does not."""
    picture = pixels_on(PLANE, -STEP, STEP, noise(200, 300))
    place = picture.place.region(level)
    for row, col in product((-1, 0), (-1, 0, 1)):
        tile = Tile(level, row, col, 3)
        view = View(tile, PLANE, SIDE, 4, NEAR_KNOWN_PX, moved_px)
        shape = (view.region.height, view.region.width)
        now, stood = noise(*shape, seed=8), noise(*shape, seed=9)
        painted = view.painted([now, stood, now])
        shown = view.cut(picture.lay_over(painted)).astype(int)
        own = tile_region(tile, PLANE)
        rows, cols = (
            np.arange(start, start + TILE_PX) - moved - corner
            for start, moved, corner in zip(
                (own.top, own.left), moved_px, (place.top, place.left), strict=True
            )
        )
        inside = np.ix_((rows >= 0) & (rows < place.height), (cols >= 0) & (cols < place.width))
        there = [
            at[(at >= 0) & (at < size)] for at, size in zip((rows, cols), place[3:5], strict=True)
        ]
        assert np.abs(shown[inside] - picture.levels[level][np.ix_(*there)]).max(initial=0) <= 4
        new = view.painted([noise(*shape, seed=7), stood, now])
        down, right = (
            slice(max(0, corner - start), max(0, corner + size - start))
            for corner, size, start in zip(place[1:3], place[3:5], (own.top, own.left), strict=True)
        )
        np.testing.assert_array_equal(
            view.cut(picture.lay_over(new))[down, right], view.cut(new.pixels)[down, right]
        )


def test_a_strip_too_narrow_to_compare_keeps_its_tones() -> None:
    """At level 0 all 16 px between the picture and the canvas' end are mixed with it already."""
    picture = pixels_on(SCROLL, 0, 0, np.full((704 - STEP, 640, 3), 40, np.uint8))
    painting = np.full((512, 512, 3), 60, np.uint8)
    shown, painted = laid(picture, Tile(0, 0, 0), painting, painting)
    top, left = 160 - tile_region(Tile(0, 0, 0), SCROLL).top, 10
    for away in range(1, 16):
        expected = 60 + faded(away / RIM_PX) * (40 - 60)
        assert np.abs(shown[top + away - 1, left].astype(float) - expected).max() <= 0.51


@settings(max_examples=15)
@given(st.integers(0, FINEST), st.integers(-2, 1), st.integers(-1, 2), st.integers(0, 1))
def test_a_tile_is_the_same_however_much_is_seen_around_it(
    level: int, row: int, col: int, frame: int
) -> None:
    picture = pixels_on(PLANE, -STEP, STEP, noise(200, 300))
    tile, paintings = Tile(level, row, col, frame), (noise(512, 512, 8), noise(512, 512, 9))
    detail = blurred(picture, level)
    wide, _ = laid(picture, tile, *paintings, detail=detail, margin_px=400)
    np.testing.assert_array_equal(laid(picture, tile, *paintings, detail=detail)[0], wide)


def test_far_from_the_picture_no_more_is_drawn_than_of_any_canvas() -> None:
    given = Canvas("0" * 64, "any", 1, PLANE, known=Known("0" * 64, 0, 0, 256, 256), frames=3)
    line, other = Lineage(given, SIDE), Lineage(replace(given, known=None), SIDE)
    for frame in (0, 2):
        near_it = line.view(Tile(2, -1, -1, frame), 4)
        assert near_it.margin_px == NEAR_KNOWN_PX
        far = line.view(Tile(2, 0, 9, frame), 4)
        assert far == other.view(far.tile, 4)
        assert far.margin_px == STEP_PX >= AROUND_PX
    moving = Lineage(replace(given, motion="the camera moves left"), SIDE)
    for tile, moved_px in ((Tile(2, -1, 0, 2), (0, 64)), (far.tile, STANDS)):
        assert moving.view(tile, 4).moved_px == moved_px
    for level, frame in product(range(3), (0, 2)):  # what detail takes lies in the same patches
        view = line.view(Tile(level, 0, 9, frame), 4)
        under = window_patches(view.tile, PLANE, F, 4)
        first = [patch._replace(frame=0) for patch in under] if frame else []
        assert view.patches() == under + first


def test_another_picture_is_refused(model: Checkpoint) -> None:
    pixels = noise(100, 100)
    canvas = canvas_of(model, pixels, 0, 0)
    for wrong in (noise(100, 100, 6), pixels[:-1], None):
        with pytest.raises(InvalidRequest, match="picture"):
            Painter(model, canvas, picture=wrong)
    with pytest.raises(InvalidRequest, match="not the picture"):
        known_pixels(replace(canvas, known=None), pixels, SIDE)


def test_digest_tells_the_shape_too() -> None:
    pixels = noise(64, 128)
    assert digest_of(pixels) == digest_of(pixels.copy())
    assert digest_of(pixels) != digest_of(pixels.reshape(128, 64, 3))
