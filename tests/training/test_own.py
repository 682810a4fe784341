"""Pictures of one's own become a world that serves; killed, the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from handscroll import checkpoint
from handscroll.canvas import Canvas
from handscroll.errors import InvalidRequest, SpecMismatch
from handscroll.geometry import Extent, Tile
from handscroll.paint import Painter
from tests.e2e.asking import Visitor, assert_painted, new_canvas
from tests.support.stack import Stack, running
from training import train_decoder
from training.folder import WorldKind
from training.own import Commission, begin_with
from training.run import steps_made

ROOT = Path(__file__).parents[2]


@pytest.fixture
def paintings(tmp_path: Path) -> Path:
    """Three small paintings, and a file that is none."""
    folder = tmp_path / "paintings"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        blots = Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8))
        blots.resize((520, 520)).save(folder / f"{number}.png")
    (folder / "torn.png").write_bytes(b"no picture")
    return folder


@pytest.mark.slow
def test_own_pictures_become_a_world_though_killed_on_the_way(
    paintings: Path, tiny: Path, tmp_path: Path
) -> None:
    (paintings / "captions.csv").write_text("file,caption\n0.png,blots of paint\n")
    out = tmp_path / "my world"
    script = (
        "import sys; from pathlib import Path; from training.own import Commission\n"
        "pictures, out, base = map(Path, sys.argv[1:])\n"
        "Commission(pictures, out, 'plane', 'my world', False, 2, base).carry_out(\n"
        "    lambda line: print(line, flush=True))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, paintings, out, tiny],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "steps are made" in line:
                break
        process.send_signal(signal.SIGKILL)
    assert not (out / "config.json").exists()
    made, plan = steps_made(out / "work" / "decoder"), out / "work" / "decoder" / "plan.json"
    planned = json.loads(plan.read_text())["steps"]
    assert 0 < made < planned
    plan.write_text(json.dumps({"steps": made + 4, "minutes": 2}))  # the test shall come to its end

    told: list[str] = []
    commission = Commission(paintings, out, "plane", "my world", False, 2, tiny)
    commission.carry_out(told.append)
    assert steps_made(out / "work" / "decoder") == made + 4
    assert not any("torn.png" in line for line in told), "pictures are looked at once"
    assert f"--model '{out}' --world 'my world'" in told[-1]
    with Image.open(out / "samples.png") as sheet:
        assert sheet.size == (3 * 512, 512)

    model = checkpoint.load(out)
    assert model.world("my world").extent == Extent("plane", 1), "520 px hold two levels"
    canvas = Canvas(model.digest, "my world", 7, Extent("plane", 1), sampling=model.sampling)
    with Painter(model, canvas) as painter:
        assert painter.tile(Tile(1, -3, 5)).std() > 0
    with pytest.raises(SpecMismatch, match="has levels 0 to 1"):
        Painter(model, Canvas(model.digest, "my world", 7, Extent("plane", 2)))
    with running(Stack(tmp_path / "served", out)) as stack, Visitor(stack) as visitor:
        served = new_canvas(stack, "my world")
        assert_painted(model, served, visitor.tiles(served.id, [Tile(1, -3, 5)]))

    with pytest.raises(InvalidRequest, match="begun with other kind, name: name another --out"):
        Commission(paintings, out, "scroll", "theirs", False, 2, tiny).carry_out(print)
    (paintings / "3.png").write_bytes((paintings / "0.png").read_bytes())
    with pytest.raises(InvalidRequest, match="begun with other pictures"):
        commission.carry_out(print)
    assert checkpoint.load(out).digest == model.digest


@pytest.mark.slow
def test_a_world_from_nothing_has_a_tokenizer_of_its_own(paintings: Path, tmp_path: Path) -> None:
    out = tmp_path / "world"
    Commission(paintings, out, "scroll", "world", True, 0.1).carry_out(print)
    model, shipped = checkpoint.load(out), checkpoint.load()
    assert model.world("world").extent == Extent("scroll", 1, 352)
    ours, theirs = (one.tokenizer.state_dict() for one in (model, shipped))
    assert any((ours[name] != theirs[name]).any() for name in ours)


@pytest.mark.parametrize(("kind", "nearest"), [("scroll", "scroll"), ("plane", "planet")])
def test_a_new_world_starts_as_the_one_most_like_it(
    tiny: Path, tmp_path: Path, kind: WorldKind, nearest: str
) -> None:
    base = checkpoint.load(tiny)
    base.decoder.config = replace(base.decoder.config, guided=(2.0, 1.0))
    begin_with(base, kind, tmp_path / "tokenizer", tmp_path / "decoder")
    start = train_decoder.load(tmp_path / "decoder")
    there, theirs = start.state_dict(), base.decoder.state_dict()
    assert start.config.worlds == 1
    assert start.config.guided == (base.decoder.config.guided[base.world(nearest).index],)
    torch.testing.assert_close(
        there.pop("world.weight")[0], theirs.pop("world.weight")[base.world(nearest).index]
    )
    torch.testing.assert_close(there, theirs)


def test_what_will_not_do_is_refused_and_nothing_is_left(
    paintings: Path, tiny: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def refused(why: str, pictures: Path, out: Path = out, name: str = "mine") -> None:
        with pytest.raises(InvalidRequest, match=why):
            Commission(pictures, out, "plane", name, False, 1.0, tiny).carry_out(print)

    refused("there is no folder", tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    refused("no pictures", tmp_path / "empty")
    (tmp_path / "empty" / "torn.png").write_bytes(b"no picture")
    refused("none of the 1 pictures", tmp_path / "empty")
    refused("--name has 1 to 64 letters", paintings, name="a/b")
    refused("is not empty", paintings, out=paintings)
    (tmp_path / "file").touch()
    refused("cannot write .*: Not a directory", paintings, out=tmp_path / "file")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["empty", "file", "paintings"]
    assert sorted(one.name for one in paintings.iterdir()) == [
        "0.png",
        "1.png",
        "2.png",
        "torn.png",
    ]


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_are_more_than_none(paintings: Path, tmp_path: Path, minutes: float) -> None:
    with pytest.raises(InvalidRequest, match="--minutes must be above 0"):
        Commission(paintings, tmp_path / "out", "plane", "mine", False, minutes)


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "train", tmp_path / "nothing", "-o", tmp_path / "out"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr == f"handscroll: there is no folder {tmp_path / 'nothing'}\n"
    assert not (tmp_path / "out").exists()
