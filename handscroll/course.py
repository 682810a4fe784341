"""Courses: which way the words of a film send what they move.

The decoder hears the words and knows what moves: clouds and not the hills below them. Where to is
read from the words here, since embeddings of "left" and "right" are nearly alike. What moves has
then been at a known place in the first frame, whole tokens away at every level, and its tokens are
shown to the decoder where they have come to (`Source.FIRST` of `handscroll.context`).
"""

from __future__ import annotations

import re
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
_CAMERA = frozenset("camera pan pans panning view".split())
_WAVES = frozenset("ripple ripples surf swell tide wave waves".split())


class Course(NamedTuple):
    """Where things go, in steps of STEP_PX at the finest level.

    Attributes:
        down, right: how far in a frame.
        swings: whether they go down and up again instead.
    """

    down: int = 0
    right: int = 0
    swings: bool = False

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
    it sees goes the other way. Waves without a way roll to and fro.
    """
    words = frozenset(re.findall("[a-z]+", motion.lower()))
    ways = [way for way, names in _WAYS.items() if words & set(names.split())]
    rate = -PAN_STEPS if words & _CAMERA else 1
    if ways:
        return Course(*(rate * sum(steps) for steps in zip(*ways, strict=True)))
    return Course(swings=True) if words & _WAVES else STILL


def _rounded(steps: int, halvings: int) -> int:
    """The nearest whole number of a coarser level's steps, in pixels; halves go towards 0."""
    size, scale = abs(steps), 1 << halvings
    whole = -((scale - 2 * size) // (2 * scale))
    return STEP_PX * (whole if steps > 0 else -whole)
