"""Painting is asked for here before anything is done: may the caller, and is there budget left?"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cachetools import TTLCache

from handscroll.branch import Lineage
from handscroll.geometry import Patch
from svckit import access
from svckit.budgets import MINUTE_S
from svckit.cones import standing
from svckit.jobs import READS, at_once
from svckit.keyring import Role
from svckit.keys import patch_key
from svckit.store import Store

CHARGED = 2**16
"""Patches remembered as paid for."""


class Admission:
    """Lets callers have patches painted, at the cost of those that are missing.

    A request costs what it finds missing of all the patches that it stands on, each once a minute:
    a window that moves asks again for what is still being painted. A reader gets what needs no
    painting.

    Args:
        store: where committed patches are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._charged: TTLCache[tuple[str, str, Patch], bool] = TTLCache(CHARGED, MINUTE_S)

    async def paint(self, line: Lineage, patches: Collection[Patch]) -> None:
        """Go on only if these patches are there, or may be painted for the caller.

        Args:
            line: the canvas, and those it was branched from.
            patches: what is wanted.

        Raises:
            Unauthenticated: painting takes a key.
            Forbidden: the caller's key does not let it paint.
            OverBudget: there is not enough left of the caller's patches.
            InvalidRequest: they are more than the caller's budget for a whole minute.
        """
        caller = access.caller.get()
        if caller.role < Role.PAINT:
            homes = ((line.home(patch), patch) for patch in patches)
            if await self._missing((one.id, patch) for one, patch in homes if not one.gives(patch)):
                caller.require(Role.PAINT)
        elif caller.budgets.patches:
            cone = await standing(line, patches, self._missing)
            missing = await self._missing(
                one for one in cone if (caller.name, *one) not in self._charged
            )
            caller.spend("patches", len(missing))
            for one in missing:
                self._charged[caller.name, *one] = True

    async def _missing(self, patches: Iterable[tuple[str, Patch]]) -> list[tuple[str, Patch]]:
        """Those, each with the canvas it is of, that are not in the store."""
        wanted = list(patches)
        keys = [patch_key(*one) for one in wanted]
        found = await at_once(READS, self._store.get, keys)
        return [one for one, codes in zip(wanted, found, strict=True) if not codes]
