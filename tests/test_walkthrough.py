"""The walkthrough runs, and ends in the picture that the library paints."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_walkthrough_paints_what_the_library_paints(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "walkthrough.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the library paints the same picture" in done.stdout
    assert (tmp_path / "walkthrough.png").stat().st_size > 10_000
