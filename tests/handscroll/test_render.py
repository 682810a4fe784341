"""The laws of `handscroll.render`: the same codes in whatever order, batch and company."""

import hashlib
import random
from collections.abc import Callable, Collection, Generator, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handscroll.context import Codes, Context, NearbyContextPool
from handscroll.field import Palette, ProceduralField
from handscroll.geometry import Extent, Patch, Region
from handscroll.order import Lattice, Order, Outward, Raster, order_named
from handscroll.render import render

SIDE, CODES = 16, 2
PLANE = Extent("plane", 2)
SCROLL = Extent("scroll", 2, 704)
PICTURE = Extent("picture", 2, 704, 768)
PALETTE = np.random.default_rng(3).uniform(-1, 1, (9, 1, 1, 4)).astype(np.float32)

ORDERS: list[Order] = [
    Lattice(PLANE),
    Lattice(SCROLL),
    Lattice(PICTURE),
    Raster(PICTURE, up=True),
    Outward(PICTURE, Region(2, 300, 300, 100, 100)),
]


def drawn_from(context: Context) -> Codes:
    """Codes that change with any bit of the context, or of the patch's name."""
    digest = hashlib.shake_256(repr(context.patch).encode())
    for part in (
        context.inside_ss,
        context.codes_NK,
        context.place_N2,
        context.source_N,
        context.field_MV,
        context.field_place_M2,
    ):
        digest.update(part.tobytes())
    codes = np.frombuffer(digest.digest(SIDE * SIDE * CODES), np.uint8)
    return codes.reshape(SIDE, SIDE, CODES)


class Sampler:
    """A sampler without a network; counts how often each patch was drawn."""

    def __init__(self, backwards: bool = False) -> None:
        self.drawn: list[Patch] = []
        self.backwards = backwards

    def __call__(self, contexts: Sequence[Context]) -> Iterator[tuple[Patch, Codes]]:
        for context in reversed(contexts) if self.backwards else contexts:
            self.drawn.append(context.patch)
            yield context.patch, drawn_from(context)


def new_pool(order: Order, keep: int = 4096, seed: int = 7) -> NearbyContextPool:
    field = ProceduralField(seed, order.extent, Palette(PALETTE, None, 5, layered=False), f=16)
    return NearbyContextPool(order, SIDE, field, keep)


def painted(
    order: Order, requests: Collection[Collection[Patch]], keep: int = 4096
) -> dict[Patch, bytes]:
    """All that comes of some requests, one after another, from one pool."""
    pool = new_pool(order, keep)
    found: dict[Patch, bytes] = {}
    for request in requests:
        for patch, codes in render(request, order, pool, Sampler()):
            # Where a small pool forgot a patch, it must come again as it was.
            assert found.setdefault(patch, codes.tobytes()) == codes.tobytes()
    return found


def block(order: Order) -> list[Patch]:
    """Patches of level 2 around the middle of a canvas, row by row."""
    square = (Patch(2, 0, row, col) for row in range(-2, 3) for col in range(-2, 3))
    return [patch for patch in square if order.extent.contains(patch)]


def spiral(patches: list[Patch]) -> list[Patch]:
    return sorted(
        patches, key=lambda one: (max(abs(one.row), abs(one.col)), np.arctan2(one.row, one.col))
    )


def shuffled(patches: list[Patch]) -> list[Patch]:
    return random.Random(20220720).sample(patches, len(patches))


WAYS: dict[str, Callable[[list[Patch]], list[list[Patch]]]] = {
    "reading": lambda patches: [[one] for one in patches],
    "backwards": lambda patches: [[one] for one in reversed(patches)],
    "shuffled": lambda patches: [[one] for one in shuffled(patches)],
    "spiral": lambda patches: [[one] for one in spiral(patches)],
    "by fives": lambda patches: [shuffled(patches)[i::5] for i in range(5)],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", range(len(ORDERS)))
def test_render_is_the_same_in_whatever_order_it_is_asked(number: int, way: str) -> None:
    order = ORDERS[number]
    at_once = painted(order, [block(order)])
    assert painted(order, WAYS[way](block(order))) == at_once


@pytest.mark.parametrize("keep", [0, 10])
def test_render_is_the_same_from_a_forgetful_pool(keep: int) -> None:
    order = ORDERS[0]
    wanted = block(order)[:9]
    assert painted(order, WAYS["shuffled"](wanted), keep) == painted(order, [wanted])


@pytest.mark.parametrize("number", range(len(ORDERS)))
def test_render_is_the_same_in_a_warm_pool(number: int) -> None:
    order = ORDERS[number]
    wanted = block(order)[3:9]
    alone = {patch: painted(order, [[patch]])[patch] for patch in wanted}
    warm = painted(order, [block(order)[::-2], wanted, block(order)])
    assert {patch: warm[patch] for patch in wanted} == alone


@settings(max_examples=8)
@given(
    st.lists(
        st.builds(
            Patch,
            st.integers(0, 2),
            st.integers(0, 1),
            st.integers(-(10**9), 10**9),
            st.integers(-(10**9), 10**9),
        ),
        min_size=1,
        max_size=2,
    )
)
def test_render_is_the_same_far_away(wanted: list[Patch]) -> None:
    order = Lattice(PLANE)
    together = painted(order, [wanted])
    for patch in wanted:
        assert painted(order, [[patch]])[patch] == together[patch]


@pytest.mark.parametrize("number", range(len(ORDERS)))
def test_render_does_not_mind_how_a_wave_comes_back(number: int) -> None:
    order = ORDERS[number]
    forth, back = (
        {one: codes.tobytes() for one, codes in render(block(order), order, new_pool(order), way)}
        for way in (Sampler(), Sampler(backwards=True))
    )
    assert list(forth) != list(back)
    assert forth == back


@pytest.mark.parametrize("number", range(len(ORDERS)))
def test_render_draws_every_patch_of_the_cone_once(number: int) -> None:
    order, sampler = ORDERS[number], Sampler()
    pool = new_pool(order)
    yielded = []
    for request in (block(order)[:5], block(order)[2:8], block(order), block(order)):
        for patch, codes in render(request, order, pool, sampler):
            np.testing.assert_array_equal(pool[patch], codes)
            assert all(one in yielded for one in order.dependencies(patch))
            yielded.append(patch)
    assert yielded == sampler.drawn
    assert len(yielded) == len(set(yielded))
    assert set(yielded) == order.cone(block(order))


def test_render_stands_on_what_the_pool_holds() -> None:
    """Known patches are not drawn again, and they change what looks at them, and nothing else."""
    order = Lattice(PLANE)
    wanted = block(order)
    plain = painted(order, [wanted])
    known = Patch(2, 0, 0, 0)
    pool = new_pool(order)
    pool.add(known, np.zeros((SIDE, SIDE, CODES), np.uint8))
    found = {one: codes.tobytes() for one, codes in render(wanted, order, pool, Sampler())}
    assert set(found) == set(plain) - {known}
    changed = {one for one in found if found[one] != plain[one]}
    assert changed == {one for one in found if known in order.cone([one])}
    assert len(changed) == 8  # four bridges and four fills


def test_render_differs_with_the_field() -> None:
    """The seed of the canvas reaches every patch through the field."""
    order = order_named("lattice", PLANE)
    one, other = (
        {
            patch: codes.tobytes()
            for patch, codes in render(block(order), order, new_pool(order, seed=seed), Sampler())
        }
        for seed in (7, 8)
    )
    assert all(one[patch] != other[patch] for patch in one)


@pytest.mark.parametrize("number", range(len(ORDERS)))
@pytest.mark.parametrize("taken", [0, 1, 3])
def test_render_left_early_claims_nothing(number: int, taken: int) -> None:
    """Whoever walks away leaves no patch behind that nobody can forget, and harms nobody."""
    order = ORDERS[number]
    pool = new_pool(order, keep=2)
    rendering = render(block(order), order, pool, Sampler())
    assert isinstance(rendering, Generator)
    for _ in range(taken):
        next(rendering)
    rendering.close()
    assert len(pool) <= 2
    again = {one: codes.tobytes() for one, codes in render(block(order), order, pool, Sampler())}
    assert again.items() <= painted(order, [block(order)]).items()
    assert len(pool) <= 2


def test_render_that_fails_claims_nothing() -> None:
    order = ORDERS[0]
    pool = new_pool(order, keep=2)

    def broken(contexts: Sequence[Context]) -> Iterator[tuple[Patch, Codes]]:
        yield from Sampler()(contexts[:1])
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        list(render(block(order), order, pool, broken))
    assert len(pool) <= 2


@pytest.mark.parametrize("number", range(len(ORDERS)))
@pytest.mark.parametrize("keep", [0, 4096])
def test_renders_may_be_read_in_turns(number: int, keep: int) -> None:
    """Two readers of one pool, each a patch at a time, on overlapping wishes."""
    order = ORDERS[number]
    pool = new_pool(order, keep)
    renders = [render(wish, order, pool, Sampler()) for wish in (block(order), block(order)[2:6])]
    expected = painted(order, [block(order)])
    while renders:
        for one in list(renders):
            drawn = next(one, None)
            if drawn is None:
                renders.remove(one)
            else:
                assert drawn[1].tobytes() == expected[drawn[0]]
    assert len(pool) == (0 if keep == 0 else len(expected))


def test_render_of_nothing_draws_nothing() -> None:
    sampler = Sampler()
    assert list(render([], ORDERS[0], new_pool(ORDERS[0]), sampler)) == []
    assert sampler.drawn == []
