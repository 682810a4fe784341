"""What was written and read and when, and whether a store of values written once can have done it.

Every operation has a beginning and an end on one clock, and took effect somewhere between them. For
values that are written once this is checked in linear time: of each key it is enough to know the
one value, the first moment at which it can have been there, and the first at which it must have
been. Whoever is shown a value by others, as a client is shown a tile, is a reader of it too.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from math import inf
from time import monotonic
from typing import NamedTuple

from obstore.exceptions import AlreadyExistsError, PreconditionError

from svckit.keys import Key
from svckit.store import Store


class Outcome(Enum):
    """What the writer was told: that it won, that something is there already, or nothing."""

    WON = "won"
    REFUSED = "refused"
    UNKNOWN = "unknown"


def digest(value: bytes) -> str:
    """What a history keeps of a value."""
    return hashlib.sha256(value).hexdigest()[:16]


class Put(NamedTuple):
    """A put-if-absent."""

    key: str
    value: str
    began: float
    ended: float
    outcome: Outcome


class Read(NamedTuple):
    """A read that was answered; ``value`` is None where there was nothing."""

    key: str
    value: str | None
    began: float
    ended: float


class History:
    """Operations in no order, on keys that nobody deletes.

    Attributes:
        operations: all of them.
    """

    def __init__(self, operations: Iterable[Put | Read] = ()) -> None:
        self.operations: list[Put | Read] = list(operations)

    def put(self, key: str, value: bytes, began: float, outcome: Outcome) -> None:
        """Note a put that ends now."""
        self.operations.append(Put(key, digest(value), began, monotonic(), outcome))

    def read(self, key: str, value: bytes | None, began: float) -> None:
        """Note a read that ends now."""
        found = None if value is None else digest(value)
        self.operations.append(Read(key, found, began, monotonic()))

    def faults(self) -> list[str]:
        """What cannot be, a sentence each; empty for a history that can."""
        by_key: defaultdict[str, tuple[list[Put], list[Read]]] = defaultdict(lambda: ([], []))
        for one in self.operations:
            if isinstance(one, Put):
                by_key[one.key][0].append(one)
            else:
                by_key[one.key][1].append(one)
        return [fault for key, of_key in by_key.items() for fault in _faults(key, *of_key)]


def _faults(key: str, puts: Sequence[Put], reads: Sequence[Read]) -> Iterator[str]:
    won = [put for put in puts if put.outcome is Outcome.WON]
    if len(won) > 1:
        yield f"{key}: {len(won)} writers were told that they had won"
    seen = {read.value for read in reads if read.value is not None} | {put.value for put in won}
    if len(seen) > 1:
        yield f"{key}: {len(seen)} values were committed or read: {sorted(seen)}"
    began: dict[str, float] = defaultdict(lambda: inf)
    for put in puts:
        if put.outcome is not Outcome.REFUSED:
            began[put.value] = min(began[put.value], put.began)
    possible = min(began.values(), default=inf)
    for value in sorted(seen - began.keys()):
        yield f"{key}: {value} was read, and nobody had written it"
    for read in reads:
        if read.value in began and read.ended < began[read.value]:
            yield f"{key}: {read.value} was read before anybody began to write it"
    for put in puts:
        if put.outcome is Outcome.REFUSED and put.ended < possible:
            yield f"{key}: a writer was refused before anybody else had begun"
    shown = [one.ended for one in puts if one.outcome is not Outcome.UNKNOWN]
    shown += [read.ended for read in reads if read.value is not None]
    there = min(shown, default=inf)
    for read in reads:
        if read.value is None and read.began > there:
            late_s = read.began - there
            yield f"{key}: nothing was read {late_s:.3f} s after it was known to be there"


class Witnessed(Store):
    """A store whose every put and read is noted. A read that fails says nothing."""

    history: History

    async def get(self, key: Key) -> bytes | None:
        """Read, and note what was found."""
        began = monotonic()
        value = await super().get(key)
        self.history.read(key, value, began)
        return value

    async def _put(self, key: Key, value: bytes) -> None:
        began, outcome = monotonic(), Outcome.UNKNOWN
        try:
            await super()._put(key, value)
            outcome = Outcome.WON
        except (AlreadyExistsError, PreconditionError):
            outcome = Outcome.REFUSED
            raise
        finally:
            self.history.put(key, value, began, outcome)
