"""Laws of the showpieces: their canvases can be painted, and what is measured is the process."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from benchmarks import showpieces
from benchmarks.showpieces import SHOWPIECES, Painted, Scale, Showpiece, chosen, timed
from handscroll.canvas import Canvas, check_learned
from handscroll.checkpoint import Checkpoint
from handscroll.errors import InvalidRequest
from handscroll.film import check_film
from handscroll.geometry import Extent

SCALES: tuple[Scale, ...] = ("paper", "small")


def option(command: list[str], name: str, otherwise: str = "") -> str:
    return command[command.index(name) + 1] if name in command else otherwise


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("piece", SHOWPIECES, ids=lambda piece: piece.name)
def test_showpieces_are_canvases_that_the_worlds_were_learned_for(
    model: Checkpoint, piece: Showpiece, scale: Scale
) -> None:
    command = piece.command(Path("out"), scale, Path("data"), Path("paintings"), None)
    world = model.world(option(command, "--world"))
    size = (int(option(command, name)) for name in ("--height", "--width"))
    extent = Extent("picture", world.extent.finest, *size)
    check_learned(world.name, world.extent, extent)
    assert "--bounded" in command
    canvas = Canvas(
        model.digest,
        world.name,
        int(option(command, "--seed")),
        extent,
        option(command, "--prompt"),
        option(command, "--order", "lattice"),
        int(option(command, "--frames", "1")),
        motion=option(command, "--motion"),
    )
    assert (piece.ending == "mp4") == (canvas.frames > 1)
    if piece.ending == "mp4":
        assert extent.height_px is not None
        assert extent.width_px is not None
        check_film("mp4", canvas.frames, extent.height_px, extent.width_px, 8)


def test_sizes_are_those_of_the_paper() -> None:
    sizes = {piece.name: (piece.width, piece.height) for piece in SHOWPIECES}
    assert sizes["endless"] == (38912, 2048)
    assert sizes["words"] == (4096, 1024)
    assert sizes["video"] == (1280, 1024)


def test_what_is_gone_on_from_is_a_photograph_or_a_painting(tmp_path: Path) -> None:
    pictures = dict[str, str]()
    for piece in SHOWPIECES:
        command = piece.command(tmp_path, "small", Path("data"), Path("oils"), Path("mine"))
        assert option(command, "--model") == "mine"
        assert Path(option(command, "-o")).stem == piece.name
        pictures[piece.name] = option(command, "--picture")
    assert {name: path for name, path in pictures.items() if path} == {
        "painting-continued": f"oils/{showpieces.PAINTING}",
        "photograph-continued": f"data/{showpieces.PHOTOGRAPH}",
        "beach": f"data/{showpieces.BEACH}",
    }
    assert len(pictures) == len(SHOWPIECES)


def test_only_takes_names_in_the_order_in_which_they_are_painted() -> None:
    assert [piece.name for piece in chosen(["video", "words"])] == ["words", "video"]
    assert chosen([]) == list(SHOWPIECES)
    with pytest.raises(InvalidRequest, match="not 'castle'"):
        chosen(["castle"])


def test_time_and_memory_are_those_of_the_command() -> None:
    found = timed(["handscroll", "render", "--help"])
    assert found.seconds > 0.05
    assert 2**24 < found.peak_bytes < 2**32
    with pytest.raises(InvalidRequest, match="exit code 2: handscroll render"):
        timed(["handscroll", "render", "--width", "x"])


def test_table_has_the_command_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def pretend(command: list[str]) -> Painted:
        asked.append(shlex.join(command))
        return Painted(64.0, 300 * 2**20)

    monkeypatch.setattr(showpieces, "timed", pretend)
    showpieces.main(tmp_path, ["beach", "words"], "paper", Path("data"))
    words, beach = (tmp_path / "showpieces.md").read_text().splitlines()[-2:]
    assert asked[0] in words
    assert "houses in a field, clouds in the sky" in words
    assert "| 4096 × 1024 | 64 s | 15.3 s |  | 300 MiB |" in words
    assert "| 1408 × 704, 16 frames | 64 s | 4.0 s | 4.0 s | 300 MiB |" in beach
    assert capsys.readouterr().out.startswith(asked[0])
