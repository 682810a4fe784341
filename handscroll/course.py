"""Courses: what kind of motion the words of a film tell of, and which way they send what moves.

Both are read from the words here, since embeddings of "left" and "right", or of winter that turns
to summer and summer to winter, are nearly alike. The kind is told to the decoder, which knows what
moves then: clouds and not the hills below them. What moves has been at a known place in the first
frame, whole tokens away at every level, and its tokens are shown to the decoder where they have
come to (`Source.FIRST` of `handscroll.context`).
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple

STEP_PX = 16
"""Things move by multiples of this at every level, so that tokens stay what they are."""
PAN_STEPS = 2
"""A camera moves over so many steps of the finest level in a frame; other things over one."""
SWING_STEPS = (0, 1, 2, 1, 0, -1, -2, -1)
"""How far down waves are, in steps of the finest level; then they come again."""

_WAYS = {
    (-1, 0): "up upward upwards north northward northwards",
    (1, 0): "down downward downwards south southward southwards",
    (0, -1): "left leftward leftwards west westward westwards",
    (0, 1): "right rightward rightwards east eastward eastwards",
}


class Kind(IntEnum):
    """What kind of motion it is. The numbers are those of the decoder's embeddings."""

    OTHER = 0
    CAMERA = 1
    CLOUDS = 2
    WAVES = 3
    THAW = 4
    FREEZE = 5


_KINDS = {
    Kind.CAMERA: "camera pan pans panning view",
    Kind.CLOUDS: "cloud clouds fog mist smoke",
    Kind.WAVES: "ripple ripples surf swell tide wave waves",
}
_SNOW = {
    Kind.THAW: r"\b(melt|thaw)|snow goes",
    Kind.FREEZE: r"\bfreez|snow ?(falls?|comes|ing\b|s\b)",
}
_SEASONS = {Kind.THAW: "summer|to spring", Kind.FREEZE: "winter|autumn|to fall"}
"""The last one named is the one that comes."""


class Course(NamedTuple):
    """What goes, and where to, in steps of STEP_PX at the finest level.

    Attributes:
        down, right: how far in a frame.
        kind: of motion.
    """

    down: int = 0
    right: int = 0
    kind: Kind = Kind.OTHER

    @property
    def swings(self) -> bool:
        """Whether things go down and up again: waves without a way."""
        return self.kind == Kind.WAVES and (self.down, self.right) == (0, 0)

    def moved_px(self, level: int, frame: int, finest: int) -> tuple[int, int]:
        """How far down and right things of the first frame are, in pixels of a level."""
        steps = self.down * frame, self.right * frame
        if self.swings:
            steps = SWING_STEPS[frame % len(SWING_STEPS)], 0
        return _rounded(steps[0], finest - level), _rounded(steps[1], finest - level)


STILL = Course()


def course_of(motion: str) -> Course:
    """The course that words of motion name; STILL if they name none.

    "clouds drift left" and "the clouds move to the west" are one course. If the camera moves, all
    it sees goes the other way. Waves without a way roll to and fro. Seasons turn where nothing else
    is named, and have no way.
    """
    words = re.findall("[a-z]+", motion.lower())
    named = [kind for word in words for kind, names in _KINDS.items() if word in names.split()]
    if not named and (season := _season(" ".join(words))):
        return Course(kind=season)
    kind = Kind.CAMERA if Kind.CAMERA in named else named[0] if named else Kind.OTHER
    ways = [way for way, names in _WAYS.items() if set(words) & set(names.split())]
    rate = -PAN_STEPS if kind == Kind.CAMERA else 1
    down, right = (rate * sum(steps) for steps in zip((0, 0), *ways, strict=True))
    return Course(down, right, kind)


def _season(words: str) -> Kind | None:
    """What becomes of the snow, if words tell: of snow itself, else of seasons."""
    for kinds in (_SNOW, _SEASONS):
        found = [
            (one.start(), kind) for kind, said in kinds.items() for one in re.finditer(said, words)
        ]
        if found:
            return max(found)[1]
    return None


def _rounded(steps: int, halvings: int) -> int:
    """The nearest whole number of a coarser level's steps, in pixels; halves go towards 0."""
    size, scale = abs(steps), 1 << halvings
    whole = -((scale - 2 * size) // (2 * scale))
    return STEP_PX * (whole if steps > 0 else -whole)
