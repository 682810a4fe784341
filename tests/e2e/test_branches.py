"""Repainting through the whole system: by HTTP, held to what the command line paints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np

from handscroll.geometry import Region
from tests.e2e.asking import canvas_of, pixels
from tests.e2e.test_exports import made
from tests.support.stack import PATIENCE_S, ROOT, Stack

SHOWN = Region(2, -256, -64, 512, 640)
RECTANGLE = {"top": -64, "left": 192, "height": 128, "width": 192}
REACH_PX = 80
"""How far beside the rectangle pixels change."""


def test_a_rectangle_is_repainted_and_all_else_stays(
    stack: Stack, tiny: Path, tmp_path: Path
) -> None:
    with httpx.Client(base_url=stack.url, timeout=PATIENCE_S) as client:
        wish = {"world": "planet", "seed": 881}
        parent = canvas_of(client.post("/canvases", json=wish).json())
        asked = {"seed": 882, "branch": {"parent": parent.id, **RECTANGLE}}
        answer = client.post("/canvases", json=asked)
        assert answer.status_code == 201, answer.text
        child = canvas_of(answer.json())
        before = pixels(made(stack, parent, SHOWN, "png"))
        after = pixels(made(stack, child, SHOWN, "png"))

        out = tmp_path / "out.png"
        place = ",".join(str(RECTANGLE[name]) for name in ("left", "top", "width", "height"))
        command = [
            *(sys.executable, "-m", "launcher", "render", "--world", "planet", "--seed", "881"),
            *("--at", f"{SHOWN.left},{SHOWN.top}", "--model", str(tiny), "-o", str(out)),
            *("--width", str(SHOWN.width), "--height", str(SHOWN.height)),
            *("--repaint", place, "--repaint-seed", "882"),
        ]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert child.id[:16] in said.stdout
        np.testing.assert_array_equal(after, pixels(out.read_bytes()))

        differs = (before != after).any(-1)
        top, left = RECTANGLE["top"] - SHOWN.top, RECTANGLE["left"] - SHOWN.left
        bottom, right = top + RECTANGLE["height"], left + RECTANGLE["width"]
        assert differs[top:bottom, left:right].mean() > 0.5
        differs[top - REACH_PX : bottom + REACH_PX, left - REACH_PX : right + REACH_PX] = False
        assert not differs.any()

        refused = client.delete(f"/canvases/{parent.id}")
        assert refused.status_code == 409, refused.text
        assert "branches off" in refused.json()["detail"]
        for one in (child, parent):
            assert client.delete(f"/canvases/{one.id}").status_code == 204
            assert client.get(f"/canvases/{one.id}").status_code == 404
