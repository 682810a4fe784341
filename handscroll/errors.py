"""The error tree.

HandscrollError
├── InvalidRequest      the caller asked for something that cannot be: bad size, unknown world
├── NotFound            the thing named does not exist
├── Unauthenticated     this takes a key, and none that is known came
├── Forbidden           the key that came is not enough
├── SpecMismatch        two things that must agree do not
│   └── BrokenCheckpoint    a checkpoint that is truncated, altered, or not one of ours
├── Mistaken            a service made a mistake; it is in its log
├── StillNeeded         it cannot go while something else stands on it
├── OverQuota           the caller holds as much as they may
└── Unavailable         it exists, but cannot be had now or here
    ├── Overloaded          too much is asked for at once; says when to try again
    │   └── OverBudget          by this one caller
    ├── OutOfTime           the caller's deadline passed
    ├── StoreUnavailable    the store does not answer, refuses us, or is full
    └── UnsafeStore         a store whose create is not atomic, which could lose patches
"""


class HandscrollError(Exception):
    """Base of every error that Handscroll raises on purpose; its text is meant for people."""


class InvalidRequest(HandscrollError):
    """The request cannot be served however often it is tried; the text says what to change."""


class NotFound(HandscrollError):
    """The thing that the request names does not exist."""


class Unauthenticated(HandscrollError):
    """The request takes a key, and came without one, or with one that is not known."""


class Forbidden(HandscrollError):
    """The caller is known, and may not do this."""


class SpecMismatch(HandscrollError):
    """Two things that must agree, such as a canvas and a model, do not."""


class BrokenCheckpoint(SpecMismatch):
    """A checkpoint is truncated, altered, of another format, or not a checkpoint at all."""


class Unavailable(HandscrollError):
    """The thing exists but cannot be had now; trying again later, or installing it, may help."""


class Mistaken(HandscrollError):
    """A service made a mistake of its own; its log tells, and trying again will not help."""


class StillNeeded(HandscrollError):
    """The thing cannot be deleted: something else stands on it."""


class OverQuota(HandscrollError):
    """The caller would hold more than they may; deleting something of theirs makes room."""


class Overloaded(Unavailable):
    """Too much is asked for at once; ``retry_after_s`` says when there may be room again."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OverBudget(Overloaded):
    """One caller asks for more than their budget, though there may be room for others."""


class OutOfTime(Unavailable):
    """The caller's deadline passed; what was committed until then stays."""


class StoreUnavailable(Unavailable):
    """The store does not answer in time, refuses our credentials, or cannot take more."""


class UnsafeStore(Unavailable):
    """A store whose create is not atomic: two writers could both win, and a patch be lost."""
