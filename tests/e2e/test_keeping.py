"""Deleting and keeping through the whole system."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time

import httpx
import numpy as np
from PIL import Image

from tests.support.stack import PATIENCE_S, ROOT, Stack

PIXELS = np.random.default_rng(6).integers(0, 256, (64, 128, 3), np.uint8)


def prune(stack: Stack, *flags: str) -> str:
    """What the command says of the store that is being served."""
    told = [sys.executable, "-m", "launcher", "prune", "--store", str(stack.data / "store")]
    done = subprocess.run([*told, *flags], cwd=ROOT, capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split())


def test_picture_is_ones_own_until_it_is_deleted(stack: Stack) -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    with httpx.Client(base_url=stack.url, timeout=PATIENCE_S) as client:
        told = {"Content-Type": "image/png"}
        picture = client.post("/pictures", content=file.getvalue(), headers=told).json()["picture"]
        known = {"picture": picture, "top": 64}
        wish = {"world": "planet", "seed": 66, "known": known, "sampling": {"group": 64}}
        canvas = client.post("/canvases", json=wish).json()["id"]
        held = client.get("/usage").json()
        assert held["canvases"] == {"held": 1, "most": None}
        (mine,) = client.get("/pictures").json()["pictures"]
        assert (mine["picture"], mine["bytes"]) == (picture, held["picture_bytes"]["held"])
        needed = client.delete(f"/pictures/{picture}")
        assert needed.status_code == 409
        assert f"canvas {canvas} stands on picture {picture}" in needed.json()["detail"]
        assert client.delete(f"/canvases/{canvas}").status_code == 204
        assert client.delete(f"/pictures/{picture}").status_code == 204
        assert client.get("/usage").json()["picture_bytes"]["held"] == 0
        assert client.post("/canvases", json=wish).status_code == 404
    left = [path for path in (stack.data / "store").rglob("*") if picture in str(path)]
    assert not left


def test_tiles_that_were_pruned_come_back(stack: Stack) -> None:
    """What somebody has looked at stays, and the rest is painted again."""
    with httpx.Client(base_url=stack.url, timeout=PATIENCE_S) as client:
        wish = {"world": "planet", "seed": 67, "sampling": {"group": 64}}
        canvas = client.post("/canvases", json=wish).json()["id"]
        tiles = [f"/tiles/{canvas}/14/{x}/8192.png" for x in (8192, 8193)]
        first = [client.get(tile).content for tile in tiles]
        folder = stack.data / "store" / "tiles" / canvas
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        patches = sorted((stack.data / "store" / "patches").rglob("*"))
        assert len(files) == 2
        painted = [path for path in patches if path.is_file() and canvas in path.parts]
        held = client.get("/usage").json()["canvas_bytes"]["held"]
        assert held == sum(path.stat().st_size for path in painted) > 0
        files.sort(key=lambda path: first.index(path.read_bytes()))
        then = time.time() - 3 * 86400
        for file in files:
            os.utime(file, (then, then))
    stack.child("gateway").kill()  # it has them in its memory
    stack.heal()
    with httpx.Client(base_url=stack.url, timeout=PATIENCE_S) as client:
        assert client.get(tiles[1]).content == first[1]
        assert prune(stack, "--days", "2", "--dry-run").startswith("would go tiles 1 ")
        assert all(file.exists() for file in files)
        assert prune(stack, "--days", "2").startswith("deleted tiles 1 ")
        assert not files[0].exists() and files[1].exists()
        assert sorted((stack.data / "store" / "patches").rglob("*")) == patches
    stack.child("gateway").kill()  # it has them in its memory
    stack.heal()
    with httpx.Client(base_url=stack.url, timeout=PATIENCE_S) as client:
        assert [client.get(tile).content for tile in tiles] == first
    assert all(file.exists() for file in files)
