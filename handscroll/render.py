"""The outer loop: patch after patch, in an order, from a pool, by a sampler.

This is the whole of "autoregressive over autoregressive" seen from outside (NUWA-Infinity,
section 3). A faster way to run it, with more workers or a shared store, must yield the same codes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol

from handscroll.context import Codes, Context
from handscroll.geometry import Patch
from handscroll.order import Order

Sampler = Callable[[Sequence[Context]], Iterable[tuple[Patch, Codes]]]
"""Draws patches that do not see each other, and gives each back when it is done."""


class Pool(Protocol):
    """Where drawn patches are kept while others may look at them."""

    def __contains__(self, patch: object) -> bool: ...

    def expect(self, patches: Iterable[Patch]) -> None:
        """Announce patches about to be drawn."""
        ...

    def dismiss(self, patches: Iterable[Patch]) -> None:
        """Take the announcement of patches back: they will not be drawn."""
        ...

    def around(self, patch: Patch) -> Context:
        """What a patch may see."""
        ...

    def add(self, patch: Patch, codes: Codes) -> None:
        """Take in a drawn patch."""
        ...


def render(
    wanted: Collection[Patch], order: Order, pool: Pool, sample: Sampler
) -> Iterator[tuple[Patch, Codes]]:
    """Draw what is wanted and all that it stands on, except what the pool holds.

    Yields:
        Each patch and its codes (side, side, K), as it joins the pool.
    """
    waves = order.waves(wanted, have=pool)
    to_do = {patch for wave in waves for patch in wave}
    pool.expect(to_do)
    try:
        for wave in waves:
            for patch, codes in sample([pool.around(patch) for patch in wave]):
                pool.add(patch, codes)
                to_do.remove(patch)
                yield patch, codes
    finally:
        pool.dismiss(to_do)  # some are left if the reader walked away
