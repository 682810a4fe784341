"""What is measured of repainting is the rectangle's own border; nothing else is painted anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handscroll.canvas import Canvas
from handscroll.checkpoint import Checkpoint
from handscroll.detail import BLOCK_PX
from handscroll.geometry import Extent, Region
from handscroll.tokenizer import RADIUS_TOK
from training import repainting, samples
from training.evaluate import Report
from training.joins import WAYS, strip
from training.repainting import middle, repainted
from training.samples import view


@given(
    st.sampled_from([Extent("scroll", 2, 704), Extent("scroll", 1, 352), Extent("plane", 2)]),
    st.integers(-5000, 5000),
)
def test_the_middle_lies_on_tokens_with_something_all_around(extent: Extent, at_px: int) -> None:
    shown = view(extent, extent.finest, at_px)
    place, step = middle(shown), 16 * 2**extent.finest
    assert {size % step for size in place[1:5]} == {0}
    for way in WAYS:
        found = strip(np.zeros((shown.height, shown.width, 3), np.uint8), shown, place, way)
        assert found is not None and found.join > 32
        assert found.pixels.shape[1] - found.join > 32


def test_nothing_but_the_middle_is_painted_anew(model: Checkpoint) -> None:
    """But for a rim: pixels depend on the tokens around them, and detail on a block of them."""
    extent = model.world("planet").extent
    shown = Region(extent.finest, 0, 0, 512, 512)
    canvas = Canvas(model.digest, "planet", 1, extent, sampling=model.sampling)
    before, after = repainted(model, canvas, "", shown, 1)
    place = middle(shown)
    assert place == Region(extent.finest, 128, 128, 256, 256)
    changed = (before != after).any(axis=-1)
    assert changed[160:352, 160:352].mean() > 0.5
    rim = RADIUS_TOK * model.tokenizer.config.downsampling + BLOCK_PX
    changed[128 - rim : 384 + rim, 128 - rim : 384 + rim] = False
    assert not changed.any()
    sheet = samples.compared(before, after, shown, place)
    assert sheet.shape == (512, 256, 3)
    assert (sheet[64, 70:180, 0] > 150).all(), "the rectangle is outlined"


def test_the_report_tells_all_four_sides(
    model: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Region(2, 0, 0, 512, 512)
    monkeypatch.setattr(samples, "view", lambda extent, level: shown)
    report = Report("Repainting")
    repainting.measure(report, model, "planet", "another try", 2, 1, tmp_path)
    assert (tmp_path / "planet_another_try.webp").exists()
    assert [what for what, *_ in report.targets] == [
        f"planet, another try: seam {way}" for way in WAYS
    ]
    assert "256 × 256 px in the middle of 2 seeds" in report.text()
