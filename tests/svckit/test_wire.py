"""The laws of `svckit.wire`: whatever is said is understood, and nothing is lost on the way."""

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handscroll.canvas import Canvas, Known, PromptRegion, Sampling
from handscroll.errors import InvalidRequest
from handscroll.geometry import MAX_LEVEL, Extent, ExtentKind, Patch
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from svckit import wire
from svckit.wire import Model

DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
COORDINATES = st.integers(-(2**63), 2**63 - 1)
SMALL = st.integers(0, 2**32 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@st.composite
def extents(draw: st.DrawFn) -> Extent:
    finest = draw(st.integers(0, MAX_LEVEL))
    sizes = st.integers(1, 40).map(lambda number: number * 16 * 2**finest)
    kind = draw(st.sampled_from(get_args(ExtentKind)))
    height = None if kind == "plane" else draw(sizes)
    return Extent(kind, finest, height, draw(sizes) if kind == "picture" else None)


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


SAMPLINGS = st.builds(
    Sampling,
    dtype=st.sampled_from(["float32", "bfloat16"]),
    rows=st.integers(1, 256),
    group=st.sampled_from([1, 2, 16, 256]),
    token_order=st.sampled_from(["spread", "raster"]),
    temperature=st.just(0.0) | floats(0.01, 4),
    top_k=st.integers(0, 65536),
    top_p=floats(0.001, 1),
    guidance=floats(0, 20),
    negative_prompt=TEXTS,
)

CANVASES = st.builds(
    Canvas,
    model=DIGESTS,
    world=TEXTS,
    seed=st.integers(0, 2**64 - 1),
    extent=extents(),
    prompt=TEXTS,
    frames=st.integers(1, 32),
    sampling=SAMPLINGS,
)
KNOWN = st.builds(
    Known,
    DIGESTS,
    st.integers(-100, 100).map(lambda at: 64 * at),
    st.integers(-100, 100).map(lambda at: 64 * at),
    st.integers(64, 4096),
    st.integers(64, 4096),
)
CANVASES |= st.builds(
    Canvas,
    model=DIGESTS,
    world=TEXTS,
    seed=st.integers(0, 2**64 - 1),
    extent=st.just(Extent("plane", 2)),
    known=st.none() | KNOWN,
    regions=st.lists(
        st.builds(
            PromptRegion,
            TEXTS,
            st.integers(-(2**30), 2**30),
            st.integers(-(2**30), 2**30),
            st.integers(1, 2**30),
            st.integers(1, 2**30),
            st.integers(0, 2**30),
        ),
        max_size=3,
    ).map(tuple),
    frames=st.just(2),
    motion=TEXTS,
)


def crossed(message: Any) -> Any:
    """A message as it arrives."""
    return type(message).FromString(message.SerializeToString())


@given(st.builds(Patch, st.integers(0, MAX_LEVEL), SMALL, COORDINATES, COORDINATES))
def test_patch_survives(patch: Patch) -> None:
    assert wire.patch_from_pb(crossed(wire.patch_to_pb(patch))) == patch


@given(extents())
def test_extent_survives(extent: Extent) -> None:
    assert wire.extent_from_pb(crossed(wire.extent_to_pb(extent))) == extent


@given(SAMPLINGS, SAMPLINGS)
def test_sampling_survives_whatever_the_default(sampling: Sampling, default: Sampling) -> None:
    assert wire.sampling_from_pb(crossed(wire.sampling_to_pb(sampling)), default) == sampling


@given(SAMPLINGS)
def test_sampling_that_says_nothing_is_the_default(default: Sampling) -> None:
    assert wire.sampling_from_pb(canvas_pb.Sampling(), default) == default
    cold = wire.sampling_from_pb(canvas_pb.Sampling(temperature=0), default)
    assert cold.temperature == 0 and cold.top_p == default.top_p


@given(CANVASES)
def test_canvas_survives_with_its_id(canvas: Canvas) -> None:
    message = crossed(wire.canvas_to_pb(canvas))
    assert wire.canvas_from_pb(message) == canvas
    assert message.id == wire.canvas_from_pb(message).id


@given(DIGESTS, st.dictionaries(TEXTS, extents()), SAMPLINGS, st.integers(1, 64), st.integers(1, 8))
def test_model_survives(
    digest: str, worlds: dict[str, Extent], sampling: Sampling, side: int, codes: int
) -> None:
    model = Model(digest, worlds, sampling, side, codes, 4, "e" * 64)
    assert wire.model_from_pb(crossed(wire.model_to_pb(model))) == model


def test_codes_have_the_shape_of_a_patch() -> None:
    model = Model("", {}, Sampling(), 16, 4, 4, "")
    content = bytes(range(256)) * 4
    codes = model.codes_of(content)
    assert codes.shape == (16, 16, 4) and codes.tobytes() == content
    assert codes[1, 2, 3] == 4 * (16 + 2) + 3
    assert codes.dtype == np.uint8 and model.patch_bytes == 1024


@pytest.mark.parametrize("kind", [0, 4, 77])
def test_kind_that_there_is_not_is_refused(kind: int) -> None:
    with pytest.raises(InvalidRequest, match=f"scroll, plane, picture, not {kind}"):
        wire.extent_from_pb(canvas_pb.Extent(kind=kind))  # type: ignore[arg-type]
