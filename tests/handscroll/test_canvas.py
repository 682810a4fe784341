"""The laws of `handscroll.canvas`: one spelling, one id, and nothing that cannot be painted."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handscroll.canvas import (
    FORMAT,
    MAX_PROMPT_CHARACTERS,
    Branch,
    Canvas,
    Known,
    PromptRegion,
    Sampling,
    check_learned,
)
from handscroll.errors import InvalidRequest, SpecMismatch
from handscroll.geometry import MAX_FRAMES, MAX_LEVEL, Extent

PLAIN = Canvas("0" * 64, "planet", 5, Extent("plane", 2))
RICH = Canvas(
    "f" * 64,
    "scroll",
    2**64 - 1,
    Extent("scroll", 2, 704),
    prompt="雪山 at dusk",
    frames=3,
    sampling=Sampling("bfloat16", 4, 1, "raster", 0.9, 50, 0.95, 3.0, "text"),
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def extents(draw: st.DrawFn) -> Extent:
    finest = draw(st.integers(0, MAX_LEVEL))
    step = 16 * 2**finest
    height, width = (draw(st.integers(1, 40)) * step for _ in range(2))
    return draw(
        st.sampled_from(
            [
                Extent("plane", finest),
                Extent("scroll", finest, height),
                Extent("picture", finest, height, width),
            ]
        )
    )


SAMPLINGS = st.builds(
    Sampling,
    st.sampled_from(["float32", "bfloat16"]),
    st.integers(1, 256),
    st.sampled_from([2**i for i in range(9)]),
    st.sampled_from(["spread", "raster"]),
    st.integers(0, 4) | st.floats(0.01, 4),
    st.integers(0, 65536),
    st.just(1) | st.floats(0, 1, exclude_min=True),
    st.integers(0, 20) | st.floats(0, 20),
    TEXTS,
)
CANVASES = st.builds(
    Canvas,
    TEXTS,
    TEXTS,
    st.integers(0, 2**64 - 1),
    extents(),
    TEXTS,
    st.just("lattice"),
    st.integers(1, MAX_FRAMES),
    SAMPLINGS,
)
KNOWN = st.builds(
    Known,
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.integers(-(2**10), 2**10).map(lambda at: 64 * at),
    st.integers(-(2**10), 2**10).map(lambda at: 64 * at),
    st.integers(64, 4096),
    st.integers(64, 4096),
)
REGIONS = st.builds(
    PromptRegion, TEXTS, *[st.integers(-(2**20), 2**20)] * 2, *[st.integers(1, 2**20)] * 3
)
CANVASES |= st.builds(
    replace,
    st.just(PLAIN),
    known=st.none() | KNOWN,
    regions=st.lists(REGIONS, max_size=3).map(tuple),
)
CANVASES |= st.builds(replace, st.just(PLAIN), frames=st.integers(2, 32), motion=TEXTS)


def spec_of(canvas: Canvas) -> dict[str, Any]:
    """A canvas spec to change at will."""
    return json.loads(canvas.canonical())


def test_canvas_id_never_changes() -> None:
    """Golden ids: if this fails, every canvas ever made has lost its name."""
    assert PLAIN.canonical().decode() == (
        '{"extent":{"finest":2,"height_px":null,"kind":"plane","width_px":null},'
        '"format":"handscroll-canvas/1","frames":1,'
        f'"model":"{"0" * 64}","order":"lattice","prompt":"",'
        '"sampling":{"dtype":"float32","group":16,"guidance":1.0,"negative_prompt":"","rows":1,'
        '"temperature":1.0,"token_order":"spread","top_k":0,"top_p":1.0},'
        '"seed":5,"world":"planet"}'
    )
    assert PLAIN.id == "0be1d4641a3863eb6d2871f94de7594a75b388787eec56a8d5ce4047613023b3"
    assert RICH.id == "d8d02fb281322002dcb1a0e5ccc99e40cb49a5ddd8c3bf50684c9c95c13af11c"


@settings(max_examples=30)
@given(CANVASES)
def test_canvas_canonical_round_trip(canvas: Canvas) -> None:
    again = Canvas.parse(canvas.canonical())
    assert again == canvas
    assert again.canonical() == canvas.canonical()
    assert again.id == canvas.id


@settings(max_examples=30)
@given(CANVASES, st.randoms())
def test_canvas_id_does_not_depend_on_the_spelling(canvas: Canvas, random: Any) -> None:
    """Order of fields, blanks and escapes do not matter."""

    def shuffled(value: object) -> object:
        if isinstance(value, list):
            return [shuffled(one) for one in value]
        if not isinstance(value, dict):
            return value
        return {key: shuffled(value[key]) for key in random.sample(sorted(value), len(value))}

    text = json.dumps(shuffled(spec_of(canvas)), indent=1, ensure_ascii=True)
    assert Canvas.parse(text).id == canvas.id
    assert Canvas.parse(text.encode("utf-16")).id == canvas.id


@pytest.mark.parametrize("name", ["temperature", "top_p", "guidance"])
def test_canvas_whole_numbers_and_floats_are_one_spelling(name: str) -> None:
    spec = spec_of(PLAIN)
    spec["sampling"][name] = 1
    text = json.dumps(spec)
    assert type(json.loads(text)["sampling"][name]) is int
    assert Canvas.parse(text).id == PLAIN.id
    whole: dict[str, Any] = {name: 1}
    assert replace(PLAIN, sampling=Sampling(**whole)).id == PLAIN.id


@pytest.mark.parametrize("name", ["temperature", "guidance"])
def test_canvas_zero_has_one_spelling(name: str) -> None:
    ids = set()
    for zero in (0.0, -0.0):
        setting: dict[str, Any] = {name: zero}
        ids.add(replace(PLAIN, sampling=Sampling(**setting)).id)
    assert len(ids) == 1


def test_canvas_sampling_left_out_is_written_out() -> None:
    """Defaults stand in the canonical form, so a later default changes no old canvas."""
    spec = spec_of(PLAIN)
    del spec["sampling"], spec["prompt"], spec["order"], spec["frames"]
    assert Canvas.parse(json.dumps(spec)).canonical() == PLAIN.canonical()


CHANGES: list[tuple[str, object]] = [
    ("model", "1" * 64),
    ("world", "scroll"),
    ("seed", 6),
    ("extent", Extent("plane", 1)),
    ("extent", Extent("scroll", 2, 704)),
    ("extent", Extent("scroll", 2, 768)),
    ("prompt", "sea"),
    ("frames", 2),
    ("motion", "waves roll"),
    ("known", Known("a" * 64, 0, 64, 100, 90)),
    ("known", Known("b" * 64, 0, 64, 100, 90)),
    ("known", Known("a" * 64, 0, 0, 100, 90)),
    ("known", Known("a" * 64, 64, 64, 100, 90)),
    ("known", Known("a" * 64, 0, 64, 101, 90)),
    ("known", Known("a" * 64, 0, 64, 100, 91)),
    ("regions", (PromptRegion("sea", 0, 0, 5, 5, 5),)),
    ("regions", (PromptRegion("ice", 0, 0, 5, 5, 5),)),
    ("regions", (PromptRegion("sea", 1, 0, 5, 5, 5),)),
    ("regions", (PromptRegion("sea", 0, 1, 5, 5, 5),)),
    ("regions", (PromptRegion("sea", 0, 0, 6, 5, 5),)),
    ("regions", (PromptRegion("sea", 0, 0, 5, 6, 5),)),
    ("regions", (PromptRegion("sea", 0, 0, 5, 5, 6),)),
    ("regions", (PromptRegion("sea", 0, 0, 5, 5, 5), PromptRegion("ice", 0, 0, 5, 5, 5))),
    ("regions", (PromptRegion("ice", 0, 0, 5, 5, 5), PromptRegion("sea", 0, 0, 5, 5, 5))),
    ("branch", Branch("a" * 64, 0, 0, 64, 64)),
    ("branch", Branch("b" * 64, 0, 0, 64, 64)),
    ("branch", Branch("a" * 64, 64, 0, 64, 64)),
    ("branch", Branch("a" * 64, 0, 64, 64, 64)),
    ("branch", Branch("a" * 64, 0, 0, 128, 64)),
    ("branch", Branch("a" * 64, 0, 0, 64, 128)),
]
SAMPLING_CHANGES: list[tuple[str, object]] = [
    ("dtype", "bfloat16"),
    ("rows", 2),
    ("group", 32),
    ("token_order", "raster"),
    ("temperature", 0.5),
    ("top_k", 5),
    ("top_p", 0.5),
    ("guidance", 2.0),
    ("negative_prompt", "text"),
]


def test_canvas_id_tells_every_field() -> None:
    """Whatever could change one token changes the id."""
    assert {name for name, _ in CHANGES} | {"order", "sampling"} == set(asdict(PLAIN))
    assert {name for name, _ in SAMPLING_CHANGES} == set(asdict(Sampling()))
    made = [PLAIN]
    for name, value in CHANGES:
        change: dict[str, Any] = {name: value}
        if name == "motion":
            change |= {"frames": 2}
        made.append(replace(PLAIN, **change))
    for name, value in SAMPLING_CHANGES:
        setting: dict[str, Any] = {name: value}
        made.append(replace(PLAIN, sampling=Sampling(**setting)))
    picture = replace(PLAIN, extent=Extent("picture", 2, 704, 704))
    made += [replace(picture, order=order) for order in ("lattice", "raster", "outward")]
    assert len({one.id for one in made}) == len(made)


BAD: list[tuple[str, object]] = [
    ("model", None),
    ("model", 5),
    ("world", None),
    ("world", ["planet"]),
    ("seed", -1),
    ("seed", 2**64),
    ("seed", 5.0),
    ("seed", True),
    ("seed", "5"),
    ("seed", None),
    ("prompt", None),
    ("prompt", "x" * (MAX_PROMPT_CHARACTERS + 1)),
    ("order", "spiral"),
    ("order", "raster"),
    ("order", "outward"),
    ("order", None),
    ("frames", 0),
    ("frames", MAX_FRAMES + 1),
    ("frames", 1.0),
    ("frames", True),
    ("extent", None),
    ("extent", []),
    ("extent", "plane"),
    ("sampling", None),
    ("sampling", []),
]
BAD_EXTENTS: list[dict[str, object]] = [
    {},
    {"kind": "plane"},
    {"finest": 2},
    {"kind": "globe", "finest": 2},
    {"kind": None, "finest": 2},
    {"kind": "plane", "finest": -1},
    {"kind": "plane", "finest": MAX_LEVEL + 1},
    {"kind": "plane", "finest": 2.0},
    {"kind": "plane", "finest": True},
    {"kind": "plane", "finest": 2, "height_px": 704},
    {"kind": "plane", "finest": 2, "width_px": 704},
    {"kind": "scroll", "finest": 2},
    {"kind": "scroll", "finest": 2, "width_px": 704},
    {"kind": "scroll", "finest": 2, "height_px": 704, "width_px": 704},
    {"kind": "scroll", "finest": 2, "height_px": 0},
    {"kind": "scroll", "finest": 2, "height_px": -64},
    {"kind": "scroll", "finest": 2, "height_px": 704.0},
    {"kind": "scroll", "finest": 2, "height_px": "704"},
    {"kind": "scroll", "finest": 2, "height_px": True},
    {"kind": "scroll", "finest": 2, "height_px": 700},
    {"kind": "scroll", "finest": 3, "height_px": 704},
    {"kind": "picture", "finest": 2, "height_px": 704},
    {"kind": "picture", "finest": 2, "width_px": 704},
    {"kind": "picture", "finest": 2, "height_px": 704, "width_px": 705},
    {"kind": "plane", "finest": 2, "depth": 1},
]
BAD_SAMPLINGS: list[tuple[str, object]] = [
    ("dtype", "float16"),
    ("dtype", None),
    ("rows", 0),
    ("rows", 257),
    ("rows", 1.0),
    ("rows", True),
    ("group", 0),
    ("group", -16),
    ("group", 3),
    ("group", 512),
    ("group", 16.0),
    ("token_order", "spiral"),
    ("token_order", None),
    ("temperature", -0.1),
    ("temperature", 4.1),
    ("temperature", float("nan")),
    ("temperature", float("inf")),
    ("temperature", "1"),
    ("temperature", True),
    ("temperature", None),
    ("top_k", -1),
    ("top_k", 65537),
    ("top_k", 1.0),
    ("top_p", 0),
    ("top_p", 0.0),
    ("top_p", 1.1),
    ("top_p", -0.5),
    ("top_p", float("nan")),
    ("guidance", -1),
    ("guidance", 20.5),
    ("guidance", float("nan")),
    ("negative_prompt", None),
    ("negative_prompt", "x" * (MAX_PROMPT_CHARACTERS + 1)),
    ("temprature", 1.0),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_canvas_refuses_a_bad_field(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=name):
        Canvas.parse(json.dumps(spec_of(PLAIN) | {name: value}))


@pytest.mark.parametrize("extent", BAD_EXTENTS)
def test_canvas_refuses_a_bad_extent(extent: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        Canvas.parse(json.dumps(spec_of(PLAIN) | {"extent": extent}))


@pytest.mark.parametrize(("name", "value"), BAD_SAMPLINGS)
def test_canvas_refuses_a_bad_sampling(name: str, value: object) -> None:
    spec = spec_of(PLAIN)
    spec["sampling"][name] = value
    with pytest.raises(InvalidRequest, match=name):
        Canvas.parse(json.dumps(spec))


@pytest.mark.parametrize("name", ["model", "world", "seed", "extent", "format"])
def test_canvas_refuses_to_guess_what_is_missing(name: str) -> None:
    spec = spec_of(PLAIN)
    del spec[name]
    with pytest.raises(InvalidRequest, match=name):
        Canvas.parse(json.dumps(spec))


@pytest.mark.parametrize("name", ["Seed", "seed ", "canonical", "id", "region"])
def test_canvas_refuses_unknown_fields(name: str) -> None:
    """A misspelt or a future setting must not be painted as if it were not there."""
    with pytest.raises(InvalidRequest, match=f"canvas has no field {name}"):
        Canvas.parse(json.dumps(spec_of(PLAIN) | {name: 1}))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", '"canvas"', b"\xff\xfe\xfd", "{'seed': 5}"]
)
def test_canvas_refuses_what_is_no_spec(text: str | bytes) -> None:
    with pytest.raises(InvalidRequest, match="canvas spec is"):
        Canvas.parse(text)


@pytest.mark.parametrize("found", ["handscroll-canvas/2", "", None, 1])
def test_canvas_refuses_another_format(found: object) -> None:
    with pytest.raises(InvalidRequest, match=FORMAT):
        Canvas.parse(json.dumps(spec_of(PLAIN) | {"format": found}))


@pytest.mark.parametrize("name", ["prompt", "world", "model"])
def test_canvas_refuses_text_that_is_not_unicode(name: str) -> None:
    """JSON can spell half a surrogate pair, UTF-8 cannot."""
    with pytest.raises(InvalidRequest):
        Canvas.parse(json.dumps(spec_of(PLAIN) | {name: "\ud800"}))


@pytest.mark.parametrize("name", ["temperature", "top_p", "guidance"])
def test_canvas_refuses_whole_numbers_beyond_floats(name: str) -> None:
    spec = spec_of(PLAIN)
    spec["sampling"][name] = 10**400
    with pytest.raises(InvalidRequest, match=name):
        Canvas.parse(json.dumps(spec))


def test_canvas_refuses_motion_where_nothing_can_move() -> None:
    with pytest.raises(InvalidRequest, match="motion takes a canvas of at least 2 frames"):
        replace(PLAIN, motion="waves roll")
    with pytest.raises(InvalidRequest, match="a prompt and what moves may have 2000 characters"):
        replace(PLAIN, prompt="x" * 1999, frames=2, motion="waves roll")


def test_canvas_refuses_bottomless_specs() -> None:
    with pytest.raises(InvalidRequest):
        Canvas.parse('{"extent":' * 100_000)


def test_canvas_accepts_its_limits() -> None:
    sampling = Sampling(
        rows=256, group=256, temperature=4, top_k=65536, guidance=20, negative_prompt="x" * 2000
    )
    canvas = replace(
        PLAIN, seed=2**64 - 1, frames=MAX_FRAMES, prompt="山" * 2000, sampling=sampling
    )
    assert Canvas.parse(canvas.canonical()) == canvas


# Worlds: what was learned, and what may be asked.

PLANET, SCROLL = Extent("plane", 2), Extent("scroll", 2, 704)


@pytest.mark.parametrize(
    ("learned", "wanted"),
    [
        (PLANET, Extent("plane", 0)),
        (PLANET, Extent("picture", 2, 640, 64)),
        (PLANET, Extent("scroll", 2, 704)),
        (SCROLL, Extent("scroll", 1, 352)),
        (SCROLL, Extent("picture", 2, 704, 64)),
        (SCROLL, Extent("picture", 2, 1408, 640)),
        (SCROLL, Extent("picture", 2, 384, 640)),
        (SCROLL, Extent("picture", 1, 512, 640)),
    ],
)
def test_world_takes_the_extents_it_was_learned_for(learned: Extent, wanted: Extent) -> None:
    check_learned("a world", learned, wanted)


@pytest.mark.parametrize(
    ("learned", "wanted"),
    [
        (PLANET, Extent("plane", 3)),
        (SCROLL, Extent("scroll", 3, 1408)),
        (SCROLL, Extent("scroll", 2, 768)),
        (SCROLL, Extent("scroll", 1, 704)),
        (SCROLL, Extent("plane", 2)),
        (SCROLL, Extent("picture", 2, 1472, 640)),
        (SCROLL, Extent("picture", 2, 320, 640)),
        (SCROLL, Extent("picture", 1, 768, 640)),
    ],
)
def test_world_refuses_other_extents(learned: Extent, wanted: Extent) -> None:
    with pytest.raises(SpecMismatch, match="world mars"):
        check_learned("mars", learned, wanted)
