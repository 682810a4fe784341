"""What callers have spent lately, each in one number."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cachetools import LRUCache

from handscroll.errors import InvalidRequest, OverBudget
from svckit.refusal import Refusal

CALLERS = 2**16
"""Callers remembered; who has been away for longest is forgotten first."""
MINUTE_S = 60.0
_OVER = Refusal("budget")


class Meter:
    """Budgets by the minute, and of things held.

    By the generic cell rate algorithm (ITU-T I.371): of each caller one time is kept, by which all
    that was spent will have been earned again. It may lie up to a minute ahead, so that a minute's
    worth may be spent at once, after a minute without spending. Unlike a window it takes the same
    memory whatever the budget, and says to the moment when there is room again.

    Args:
        now: the clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._earned: LRUCache[tuple[str, str], float] = LRUCache(CALLERS)
        self._held: Counter[tuple[str, str]] = Counter()

    def spend(self, caller: str, what: str, cost: int, per_minute: int) -> None:
        """Take from a caller's budget.

        Args:
            caller: whose.
            what: is paid for, in the plural, for people.
            cost: how many.
            per_minute: the budget; 0 for no limit.

        Raises:
            OverBudget: there is not so much left now.
            InvalidRequest: there never will be.
        """
        if not per_minute or not cost:
            return
        if cost > per_minute:
            raise InvalidRequest(
                f"this takes {cost} {what}, and your budget is {per_minute} a minute: ask for less "
                "at a time"
            )
        now = self._now()
        earned = max(self._earned.get((caller, what), now), now) + cost * MINUTE_S / per_minute
        wait_s = earned - now - MINUTE_S
        if wait_s > 1e-6:  # what rounding may add up to
            said = f"your budget is {per_minute} {what} a minute; this takes {cost}"
            raise _OVER(OverBudget(said, wait_s))
        self._earned[caller, what] = earned

    @contextmanager
    def hold(self, caller: str, what: str, most: int) -> Iterator[None]:
        """Hold one of what a caller may have so many of at a time; 0 for no limit.

        Raises:
            OverBudget: the caller has as many already.
        """
        if self._held[caller, what] >= most > 0:
            raise _OVER(OverBudget(f"you have {most} {what} already, as many as you may"))
        self._held[caller, what] += 1
        try:
            yield
        finally:
            self._held[caller, what] -= 1
            if not self._held[caller, what]:
                del self._held[caller, what]
