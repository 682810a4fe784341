"""The error tree.

HandscrollError
├── InvalidRequest      the caller asked for something that cannot be: bad size, unknown world
├── NotFound            the thing named does not exist
├── SpecMismatch        two things that must agree do not
│   └── BrokenCheckpoint    a checkpoint that is truncated, altered, or not one of ours
└── Unavailable         it exists, but cannot be had now or here
"""


class HandscrollError(Exception):
    """Base of every error that Handscroll raises on purpose; its text is meant for people."""


class InvalidRequest(HandscrollError):
    """The request cannot be served however often it is tried; the text says what to change."""


class NotFound(HandscrollError):
    """The thing that the request names does not exist."""


class SpecMismatch(HandscrollError):
    """Two things that must agree, such as a canvas and a model, do not."""


class BrokenCheckpoint(SpecMismatch):
    """A checkpoint is truncated, altered, of another format, or not a checkpoint at all."""


class Unavailable(HandscrollError):
    """The thing exists but cannot be had now; trying again later, or installing it, may help."""
