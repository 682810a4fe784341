"""Laws of courses: where to is read from words, and levels agree on it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handscroll.course import PAN_STEPS, STEP_PX, STILL, SWING_STEPS, Course, Kind, course_of
from handscroll.geometry import MAX_FRAMES, MAX_LEVEL

COURSES = st.builds(Course, st.integers(-2, 2), st.integers(-2, 2), st.sampled_from(Kind))


@pytest.mark.parametrize(
    ("words", "course"),
    [
        ("clouds drift left", Course(0, -1, Kind.CLOUDS)),
        ("The clouds move slowly to the WEST.", Course(0, -1, Kind.CLOUDS)),
        ("clouds drift right, over the waves", Course(0, 1, Kind.CLOUDS)),
        ("smoke rises upwards and east", Course(-1, 1, Kind.CLOUDS)),
        ("boats go left", Course(0, -1)),
        ("the camera moves left", Course(0, PAN_STEPS, Kind.CAMERA)),
        ("over the clouds the view pans down", Course(-PAN_STEPS, 0, Kind.CAMERA)),
        ("waves roll", Course(kind=Kind.WAVES)),
        ("waves roll to the right", Course(0, 1, Kind.WAVES)),
        ("a lefthanded man", STILL),
        ("left and right", STILL),
        ("winter turns to summer", Course(kind=Kind.THAW)),
        ("Summer turns to winter.", Course(kind=Kind.FREEZE)),
        ("winter comes down from the north", Course(kind=Kind.FREEZE)),
        ("the snow melts after a long winter", Course(kind=Kind.THAW)),
        ("snow falls", Course(kind=Kind.FREEZE)),
        ("from autumn to spring", Course(kind=Kind.THAW)),
        ("summer turns to fall", Course(kind=Kind.FREEZE)),
        ("winter turns to summer under a clear sky", Course(kind=Kind.THAW)),
        ("in winter, clouds drift to the left", Course(0, -1, Kind.CLOUDS)),
        ("a spring flows down", Course(1, 0)),
        ("leaves fall to the left", Course(0, -1)),
        ("snow lies on the hills", STILL),
        ("", STILL),
    ],
)
def test_words_name_a_course(words: str, course: Course) -> None:
    assert course_of(words) == course


@given(COURSES, st.integers(0, MAX_FRAMES - 1), st.integers(0, MAX_LEVEL), st.data())
def test_levels_agree_to_half_a_token_and_all_move_by_whole_ones(
    course: Course, frame: int, finest: int, data: st.DataObject
) -> None:
    level = data.draw(st.integers(0, finest))
    fine, coarse = (course.moved_px(at, frame, finest) for at in (finest, level))
    for exact, moved in zip(fine, coarse, strict=True):
        assert moved % STEP_PX == 0
        assert abs(moved * 2 ** (finest - level) - exact) <= STEP_PX * 2 ** (finest - level) / 2


@given(COURSES, st.integers(0, MAX_LEVEL), st.integers(0, MAX_LEVEL))
def test_the_first_frame_has_not_moved(course: Course, level: int, finest: int) -> None:
    assert course.moved_px(min(level, finest), 0, finest) == (0, 0)


@given(st.integers(0, MAX_FRAMES), st.integers(0, 2))
def test_the_other_way_is_its_mirror_image_and_waves_come_again(frame: int, level: int) -> None:
    left, right = (Course(0, way, Kind.WAVES).moved_px(level, frame, 2)[1] for way in (-1, 1))
    assert left == -right
    waves = Course(kind=Kind.WAVES)
    assert waves.moved_px(level, frame, 2) == waves.moved_px(level, frame + len(SWING_STEPS), 2)
