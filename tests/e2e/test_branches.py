"""Repainting through the whole system: by HTTP, held to what the command line paints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from handscroll.detail import BLOCK_PX
from handscroll.geometry import Region
from tests.e2e.asking import canvas_of, pixels
from tests.e2e.test_exports import made
from tests.support.stack import PATIENCE_S, ROOT, Stack

SHOWN = Region(2, -256, -64, 512, 640)
RECTANGLE = {"top": -64, "left": 192, "height": 128, "width": 192}
REACH_PX = 80 + BLOCK_PX
"""How far beside the rectangle pixels change: what is decoded, and a block of detail over it."""


def rendered(tiny: Path, out: Path, rectangle: dict[str, int], shown: Region, *options: str) -> str:
    """What the command line says of a region of planet 881, of which a rectangle is repainted."""
    place = ",".join(str(rectangle[name]) for name in ("left", "top", "width", "height"))
    command = [
        *(sys.executable, "-m", "launcher", "render", "--world", "planet", "--seed", "881"),
        *("--at", f"{shown.left},{shown.top}", "--model", str(tiny), "-o", str(out)),
        *("--level", str(shown.level), "--width", str(shown.width), "--height", str(shown.height)),
        *("--repaint", place, "--repaint-seed", "882", *options),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


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
        assert child.id[:16] in rendered(tiny, out, RECTANGLE, SHOWN)
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


def test_a_picture_is_put_into_a_film(stack: Stack, tiny: Path, tmp_path: Path) -> None:
    """The parent's frames and motion are the branch's; the first frame shows the picture."""
    mine = np.random.default_rng(9).integers(0, 256, (192, 64, 3), np.uint8)
    file, out = tmp_path / "mine.png", tmp_path / "out.png"
    Image.fromarray(mine).save(file)
    rectangle = {**RECTANGLE, "height": 320}
    with httpx.Client(base_url=stack.url, timeout=PATIENCE_S) as client:
        wish = {"world": "planet", "seed": 881, "frames": 2}
        parent = canvas_of(client.post("/canvases", json=wish).json())
        given = client.post(
            "/pictures", content=file.read_bytes(), headers={"Content-Type": "image/png"}
        ).json()
        known = {"picture": given["picture"], "top": 0, "left": 256}
        branch = {"parent": parent.id, **rectangle}
        answer = client.post("/canvases", json={"seed": 882, "branch": branch, "known": known})
        assert answer.status_code == 201, answer.text
        child = canvas_of(answer.json())
        assert child.frames == 2
        for frame in range(2):
            shown = Region(2, 0, 256, 192, 64, frame)
            after = pixels(made(stack, child, shown, "png"))
            said = rendered(
                *(tiny, out, rectangle, shown),
                *("--frames", "2", "--frame", str(frame), "--repaint-picture", str(file)),
            )
            assert child.id[:16] in said
            np.testing.assert_array_equal(after, pixels(out.read_bytes()))
            assert (after == mine).all() == (frame == 0)
        for one in (child, parent):
            assert client.delete(f"/canvases/{one.id}").status_code == 204
        assert client.delete(f"/pictures/{given['picture']}").status_code == 204
