"""The laws of `training.captions`: captions are repeatable, quick, and say what is to be seen."""

import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import training
from training.captions import earth_caption, landscapes, outlines
from training.pictures import WATER

Pixels = NDArray[np.uint8]

CSV = Path(training.__file__).with_name("landscape_captions.csv")

# A colour and a grey level of height, as the map has them.
OCEAN = ((10, 25, 60), 30)
FOREST = ((40, 62, 12), 120)
SAND = ((225, 185, 143), 145)
RED = ((150, 100, 70), 150)
GRASS = ((95, 95, 48), 150)
LAKES = ((86, 141, 171), 139)
ICE = ((200, 201, 203), 217)
SHELF = ((232, 233, 232), 90)  # floating ice: white at sea level


def crop(
    *grounds: tuple[tuple[int, int, int], int], axis: int = 1, size: int = 256
) -> tuple[Pixels, Pixels]:
    """A crop in equal bands, left to right or (axis 0) top to bottom: colour and heights."""
    band = np.arange(size) * len(grounds) // size
    shape = (size, size)
    index = np.broadcast_to(band if axis == 1 else band[:, None], shape)
    colour = np.array([ground[0] for ground in grounds], np.uint8)[index]
    return colour, np.array([ground[1] for ground in grounds], np.uint8)[index]


def test_earth_caption_is_deterministic() -> None:
    colour, heights = crop(FOREST, SAND)
    assert earth_caption(colour, heights, 10) == earth_caption(colour.copy(), heights.copy(), 10)


def test_earth_caption_is_one_known_sentence() -> None:
    caption = earth_caption(*crop(OCEAN, FOREST), -3)
    assert caption == (
        "satellite view of green forest in a flat lowland, coast on the left, tropical"
    )


def test_all_sea_says_sea_and_no_coast() -> None:
    assert earth_caption(*crop(OCEAN), 0) == "satellite view of deep dark ocean, tropical"


def test_white_near_the_pole_says_ice() -> None:
    caption = earth_caption(*crop(ICE), -80)
    assert "snow and ice" in caption
    assert caption.endswith("polar")


def test_ice_shelf_is_ice_and_not_sea() -> None:
    assert "snow and ice" in earth_caption(*crop(SHELF), -80)


@pytest.mark.parametrize(
    ("axis", "sea_first", "place"),
    [
        (1, True, "on the left"),
        (1, False, "on the right"),
        (0, True, "at the top"),
        (0, False, "at the bottom"),
    ],
)
def test_coast_is_where_the_sea_is(axis: int, sea_first: bool, place: str) -> None:
    grounds = (OCEAN, SAND) if sea_first else (SAND, OCEAN)
    assert f"coast {place}" in earth_caption(*crop(*grounds, axis=axis), 20)


@pytest.mark.parametrize("land_first", [True, False])
def test_little_land_is_placed_in_the_sea(land_first: bool) -> None:
    grounds = [OCEAN] * 5
    grounds[0 if land_first else -1] = FOREST
    side = "left" if land_first else "right"
    assert f"ocean with green forest on the {side}" in earth_caption(*crop(*grounds), 0)


def test_land_amid_the_sea_is_in_the_middle() -> None:
    colour, heights = crop(OCEAN)
    colour[100:156, 100:156], heights[100:156, 100:156] = SAND
    assert "sandy desert in the middle" in earth_caption(colour, heights, 0)


@pytest.mark.parametrize(
    ("ground", "words"),
    [
        (FOREST, "green forest"),
        (SAND, "sandy desert"),
        (RED, "red desert"),
        (GRASS, "grassland"),
        (LAKES, "blue lakeland"),
        (ICE, "snow and ice"),
    ],
)
def test_cover_is_named_by_its_colour(ground: tuple[tuple[int, int, int], int], words: str) -> None:
    assert f"satellite view of {words}" in earth_caption(*crop(ground), 40)


def test_two_covers_of_different_kinds_are_both_named() -> None:
    assert "green forest and sandy desert" in earth_caption(*crop(FOREST, FOREST, SAND), 40)


def test_rough_high_ground_is_high_mountains_and_smooth_is_a_plateau() -> None:
    colour, heights = crop(SAND)
    heights[:] = 215
    assert "on a high plateau" in earth_caption(colour, heights, 33)
    heights[:] = np.random.default_rng(0).integers(180, 235, heights.shape)
    assert "with high mountains" in earth_caption(colour, heights, 33)


@pytest.mark.parametrize(
    ("latitude", "climate"),
    [(0, "tropical"), (-30, "subtropical"), (45, "temperate"), (-60, "subpolar"), (80, "polar")],
)
def test_latitude_names_the_climate(latitude: float, climate: str) -> None:
    assert earth_caption(*crop(FOREST), latitude).endswith(f", {climate}")


def test_heights_may_be_coarser_than_colours() -> None:
    colour, heights = crop(OCEAN, FOREST)
    assert earth_caption(colour, heights[::4, ::4], 5) == earth_caption(colour, heights, 5)


def test_earth_caption_takes_less_than_a_millisecond() -> None:
    colour, heights = crop(OCEAN, FOREST, SAND)
    times = []
    for _ in range(50):
        start = time.thread_time()
        earth_caption(colour, heights, 5)
        times.append(time.thread_time() - start)
    assert min(times) < 1e-3


def test_outlines_of_water_are_those_of_photographs_and_lie_in_them() -> None:
    found = outlines(WATER)
    assert set(found) <= set(landscapes(CSV)) and len(found) == 45
    corners = [place for drawn in found.values() for outline in drawn for place in outline]
    assert all(0 <= right <= 1 and 0 <= down <= 1 for right, down in corners)
    assert found["fog3"] == [[(0, 0.485), (1, 0.485), (1, 1), (0, 1)]]
    assert len(found["beach3"]) == 2  # a rock in it


def test_every_landscape_has_a_caption_tags_and_a_horizon() -> None:
    about = landscapes(CSV)
    assert len(about) == 220
    assert all(one.caption and 0 <= one.horizon <= 1 for one in about.values())
    assert about["badlands0"].tags == ("badlands", "desert", "dune", "clouds")
    assert about["badlands0"].clouds
