"""The laws of `handscroll.cli`: a picture or one line, never half of either."""

import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageFile
from pmtiles.reader import MemorySource, all_tiles

import handscroll
from handscroll import checkpoint
from handscroll.archive import tiles_in
from handscroll.assemble import Pixels
from handscroll.canvas import (
    MAX_KNOWN_PIXELS,
    MAX_KNOWN_PX,
    Branch,
    Canvas,
    Known,
    PromptRegion,
    Sampling,
)
from handscroll.checkpoint import Checkpoint
from handscroll.cli import MAX_GIVEN_PIXELS, MAX_PIXELS, region_of, run, write_file
from handscroll.errors import HandscrollError, InvalidRequest
from handscroll.film import FilmFormat, film
from handscroll.formats import encode_tile
from handscroll.geometry import Extent, Region, tile_to_xyz
from handscroll.known import digest_of
from handscroll.paint import Painter
from handscroll.sample import PatchSampler
from launcher.__main__ import main
from tests.handscroll.test_film import alike
from tests.support.nonsense import FILES

PLANE = Extent("plane", 2)
SCROLL = Extent("scroll", 2, 704)


class Result(NamedTuple):
    code: object
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line in this process: torch is loaded once for all."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["handscroll", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return Result(caught.value.code or 0, out, err)

    return call


def options(out: Path, tiny: Path, **changes: object) -> list[object]:
    """A render that succeeds, with some options changed; None leaves one out."""
    chosen = {
        "world": "planet",
        "width": 40,
        "height": 30,
        "level": 0,
        "at": "-20,-10",
        "seed": 3,
        "model": tiny,
        "out": out,
    } | changes
    return ["render", *(f"--{name}={value}" for name, value in chosen.items() if value is not None)]


def test_render_paints_the_region_into_a_png(
    command: Command, tiny: Path, model: Checkpoint, tmp_path: Path
) -> None:
    out = tmp_path / "picture.png"
    result = command(*options(out, tiny))
    canvas = Canvas(model.digest, "planet", 3, PLANE)
    assert result.code == 0 and result.err == ""
    assert result.out.strip().splitlines()[-1].startswith(f"{out}: 40 x 30 px")
    assert canvas.id[:16] in result.out
    with Painter(model, canvas) as painter:
        expected = np.concatenate(list(painter.region(Region(0, -10, -20, 30, 40))))
    with Image.open(out) as image:
        assert image.format == "PNG" and image.mode == "RGB" and image.size == (40, 30)
        np.testing.assert_array_equal(np.asarray(image), expected)
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("level", [0, 2, None])
def test_a_picture_with_an_end_is_painted_whole_at_any_level(
    command: Command, tiny: Path, model: Checkpoint, tmp_path: Path, level: int | None
) -> None:
    side = 64 * 2 ** (2 - (2 if level is None else level))
    canvas = Canvas(
        model.digest, "planet", 3, Extent("picture", 2, side, 2 * side), order="outward"
    )
    told = {"width": 128, "height": 64, "at": "0,0", "order": "outward", "level": level}
    result = command(*options(tmp_path / "picture.png", tiny, **told))
    assert result.code == 0 and canvas.id[:16] in result.out, result


def test_same_command_gives_the_same_bytes(command: Command, tiny: Path, tmp_path: Path) -> None:
    """Again, over what is there, and with any number of workers; another seed gives others."""
    out = tmp_path / "picture.png"
    found = []
    for workers in (None, 1, 3):
        assert command(*options(out, tiny, workers=workers)).code == 0
        found.append(out.read_bytes())
    assert len(set(found)) == 1
    assert command(*options(out, tiny, seed=4)).code == 0
    assert out.read_bytes() != found[0]


def test_render_keeps_what_it_draws_and_takes_it_from_there(
    command: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, kept = tmp_path / "picture.png", tmp_path / "kept"
    assert command(*options(out, tiny, keep=kept)).code == 0
    first = out.read_bytes()

    def never(*_: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(PatchSampler, "draw", never)
    assert command(*options(out, tiny, keep=kept)).code == 0
    assert out.read_bytes() == first


def test_render_of_a_scroll_begins_at_its_finest_level(
    command: Command, tiny: Path, tmp_path: Path
) -> None:
    """Without --at and --level: from pixel 0, at level 2, down to the last row."""
    outs = tmp_path / "default.PNG", tmp_path / "explicit.png"
    small = {"world": "scroll", "width": 5, "height": 10, "seed": None}
    assert command(*options(outs[0], tiny, **small, at=None, level=None)).code == 0
    assert command(*options(outs[1], tiny, **small, at="0,0", level=2)).code == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()


BAD: dict[str, dict[str, object]] = {
    "no width": {"width": 0},
    "negative width": {"width": -5},
    "no height": {"height": 0},
    "too many pixels": {"width": MAX_PIXELS // 30 + 1},
    "unknown world": {"world": "mars"},
    "empty world": {"world": ""},
    "half a place": {"at": "5"},
    "a place too many": {"at": "1,2,3"},
    "empty place": {"at": ""},
    "broken place": {"at": "1.5,2"},
    "wordy place": {"at": "left,top"},
    "beyond the world": {"at": f"{2**21 + 85 - 39},0"},
    "before the world": {"at": f"0,{-(2**21) - 1000}"},
    "far beyond the world": {"at": f"{10**30},0"},
    "level too fine": {"level": 3},
    "negative level": {"level": -1},
    "negative seed": {"seed": -1},
    "seed too large": {"seed": 2**64},
    "long prompt": {"prompt": "x" * 2001},
    "above a scroll": {"world": "scroll", "at": "0,-1"},
    "below a scroll": {"world": "scroll", "at": "0,147"},
    "higher than a scroll": {"world": "scroll", "at": "0,0", "height": 177},
    "no number of a place": {"at": "nan,inf"},
    "no guidance": {"guidance": "nan"},
    "endless guidance": {"guidance": "inf"},
    "no frames": {"frames": 0},
    "too many frames": {"frames": 33},
    "a frame that is not there": {"frames": 4, "frame": 4},
    "a frame before the first": {"frames": 4, "frame": -1},
    "motion of a still": {"motion": "waves roll"},
    "long motion": {"frames": 2, "motion": "x" * 2001},
    "unknown order": {"order": "spiral"},
    "speed of a picture": {"fps": 8},
    "no speed of a picture": {"fps": 0},
    "where no picture lies": {"picture-at": "0,0"},
    "height of no picture": {"picture-height": 64},
    "seed of nothing repainted": {"repaint-seed": 5},
    "words of nothing repainted": {"repaint-prompt": "sea"},
    "nothing to repaint": {"repaint": ""},
    "beyond what can be repainted": {"repaint": f"{2**70},0,64,64"},
    "beyond what can have words": {"region": f"{2**70},0,64,64"},
}


def assert_one_line(result: Result) -> None:
    """What was wrong, for people; no traceback, nothing painted."""
    assert result.code == 2
    assert result.err.startswith("handscroll: ") and len(result.err.splitlines()) == 1
    assert result.out.strip() == ""


def photo(path: Path, height: int = 80, width: int = 100) -> tuple[Path, Pixels]:
    """A picture file of noise, and its pixels."""
    pixels = np.random.default_rng(9).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path, pixels


@pytest.mark.parametrize(
    ("changes", "down", "right"),
    [
        ({"at": "-64,-64", "picture_at": "0,-64"}, 0, 64),
        ({"at": "-70,10", "width": 300, "height": 200}, 54, 70),
        ({"at": "0,0", "width": 320, "height": 256, "order": "outward"}, 64, 64),
    ],
)
def test_render_goes_on_from_a_picture(
    command: Command, tiny: Path, tmp_path: Path, changes: dict[str, object], down: int, right: int
) -> None:
    """Where it lies its own pixels come back; by default in the middle, on the grid of tokens."""
    file, pixels = photo(tmp_path / "photo.png")
    size: dict[str, object] = {"width": 200, "height": 160, "level": 2, "picture": file}
    told = {name.replace("_", "-"): value for name, value in (size | changes).items()}
    result = command(*options(tmp_path / "out.png", tiny, **told))
    assert result.code == 0, result.err
    painted = np.asarray(Image.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(painted[down : down + 80, right : right + 100], pixels)


def test_render_brings_a_picture_to_a_height(
    command: Command, tiny: Path, model: Checkpoint, tmp_path: Path
) -> None:
    """Also one that would be too large as it is."""
    file, pixels = photo(tmp_path / "photo.png", 128, MAX_KNOWN_PX + 64)
    brought = np.asarray(Image.fromarray(pixels).resize((4128, 64), Image.Resampling.LANCZOS))
    told = {"picture": file, "picture-at": "0,0", "picture-height": 64}
    result = command(*options(tmp_path / "out.png", tiny, **told))
    known = Known(digest_of(brought), 0, 0, 64, 4128)
    canvas = Canvas(model.digest, "planet", 3, PLANE, known=known)
    assert result.code == 0 and canvas.id[:16] in result.out, result


def test_render_takes_guidance(
    command: Command, tiny: Path, model: Checkpoint, tmp_path: Path
) -> None:
    result = command(*options(tmp_path / "out.png", tiny, guidance=3))
    canvas = Canvas(model.digest, "planet", 3, PLANE, sampling=Sampling(guidance=3))
    assert result.code == 0 and canvas.id[:16] in result.out, result
    for wrong in ({"guidance": 21}, {"negative-prompt": "x" * 2001}):
        assert_one_line(command(*options(tmp_path / "other.png", tiny, **wrong)))


def test_what_is_not_said_of_sampling_is_the_models_own(
    command: Command, tiny: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    config["sampling"] |= {"guidance": 2.0, "negative_prompt": "people"}
    (folder / "config.json").write_text(json.dumps(config))
    other = checkpoint.load(folder)
    assert other.sampling.guidance == 2
    for told, sampling in (
        ({}, other.sampling),
        ({"negative-prompt": ""}, replace(other.sampling, negative_prompt="")),
    ):
        result = command(*options(tmp_path / "out.png", folder, **told))
        canvas = Canvas(other.digest, "planet", 3, PLANE, sampling=sampling)
        assert result.code == 0 and canvas.id[:16] in result.out, result


def test_render_takes_regions_with_words_of_their_own(
    command: Command, tiny: Path, model: Checkpoint, tmp_path: Path
) -> None:
    told = [*options(tmp_path / "out.png", tiny), "--region=-9,5,700,80"]
    result = command(*told, "--region=0,0,64,64 a stormy sea")
    assert result.code == 0, result.err
    regions = (PromptRegion("", 5, -9, 80, 700), PromptRegion("a stormy sea", 0, 0, 64, 64))
    canvas = Canvas(model.digest, "planet", 3, PLANE, sampling=model.sampling, regions=regions)
    assert canvas.id[:16] in result.out


@pytest.mark.parametrize("text", ["", "sea", "1,2,3 sea", "1,2,3,4.5 sea", "0,0,0,5 sea"])
def test_regions_that_are_none_are_refused(
    command: Command, tiny: Path, tmp_path: Path, text: str
) -> None:
    assert_one_line(command(*options(tmp_path / "out.png", tiny), f"--region={text}"))
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("around", [False, True])
def test_render_repaints_a_rectangle(
    command: Command, tiny: Path, model: Checkpoint, tmp_path: Path, around: bool
) -> None:
    """What is painted is the branch; its parent is the canvas that the other options name."""
    out, told, known, pixels = tmp_path / "out.png", dict[str, object](), None, None
    if around:
        file, pixels = photo(tmp_path / "photo.png")
        told = {"picture": file, "picture-at": "-128,-64"}
        known = Known(digest_of(pixels), -64, -128, *pixels.shape[:2])
    result = command(*options(out, tiny, **told, **{"repaint": "-64,-128,192,256"}))
    assert result.code == 0, result.err
    parent = Canvas(model.digest, "planet", 3, PLANE, known=known)
    child = Canvas(model.digest, "planet", 1, PLANE, branch=Branch(parent.id, -128, -64, 256, 192))
    assert child.id[:16] in result.out
    with (
        Painter(model, parent, picture=pixels) as before,
        Painter(model, child, parent=before) as painter,
    ):
        expected = np.concatenate(list(painter.region(Region(0, -10, -20, 30, 40))))
    np.testing.assert_array_equal(np.asarray(Image.open(out)), expected)


@pytest.mark.parametrize(
    ("size", "lies"), [((160, 80), (64, 192, 192, 96)), ((60, 200), (128, 64, 96, 320))]
)
def test_render_puts_a_picture_into_a_rectangle(
    command: Command,
    model: Checkpoint,
    tiny: Path,
    tmp_path: Path,
    size: tuple[int, int],
    lies: tuple[int, int, int, int],
) -> None:
    """In its middle, as large as leaves a rim, over the picture that the canvas is around."""
    around, others = photo(tmp_path / "around.png")
    file, pixels = photo(tmp_path / "mine.png", *size)
    top, left, height, width = lies
    brought = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    parent = Canvas(
        model.digest, "planet", 3, PLANE, known=Known(digest_of(others), 0, 0, *others.shape[:2])
    )
    child = replace(
        parent,
        seed=1,
        known=Known(digest_of(np.asarray(brought)), *lies),
        branch=Branch(parent.id, 0, 0, 320, 448),
    )
    told = {"picture": around, "picture-at": "0,0", "repaint": "0,0,448,320"}
    place = {"at": f"{left},{top}", "width": width, "height": height, "level": 2}
    out = tmp_path / "out.png"
    result = command(*options(out, tiny, **told, **place, **{"repaint-picture": file}))
    assert result.code == 0, result.err
    assert child.id[:16] in result.out
    np.testing.assert_array_equal(np.asarray(Image.open(out)), np.asarray(brought))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"repaint": None}, "--repaint-picture say what --repaint paints"),
        ({"repaint": "0,0,192,128"}, "must be at least 192 x 192 px for a picture, not 192 x 128"),
        ({"repaint": "9,0,320,320"}, "multiples of 64 px"),
        ({"repaint-picture": "none.png"}, "cannot read none.png"),
        ({"repaint": "0,0,1024,192"}, "must be 64 px wide"),
    ],
)
def test_pictures_that_cannot_be_put_there_are_refused(
    command: Command, tiny: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    file, _ = photo(tmp_path / "mine.png", 80, 20)
    told = {"repaint": "0,0,320,320", "repaint-picture": file} | changes
    result = command(*options(tmp_path / "out.png", tiny, **told))
    assert_one_line(result)
    assert words in result.err
    assert not (tmp_path / "out.png").exists()


def test_repainting_takes_a_seed_and_words_of_its_own(
    command: Command, tiny: Path, model: Checkpoint, tmp_path: Path
) -> None:
    parent = Canvas(model.digest, "planet", 3, PLANE, regions=(PromptRegion("", 0, 0, 64, 64),))
    told = options(tmp_path / "out.png", tiny, region="0,0,64,64", repaint="0,0,64,64")
    branch = Branch(parent.id, 0, 0, 64, 64)
    result = command(*told, "--repaint-seed=9")
    assert replace(parent, seed=9, branch=branch).id[:16] in result.out
    result = command(*told, "--repaint-prompt=sea")
    child = replace(parent, seed=1, prompt="sea", regions=(), branch=branch)
    assert child.id[:16] in result.out, result.err


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("1,2,3", "--repaint must be X,Y,WIDTH,HEIGHT"),
        ("0,0,64,a", "--repaint must be X,Y,WIDTH,HEIGHT"),
        ("0,32,64,64", "multiples of 64 px"),
        ("0,0,64,0", "height must be 1 to 4096"),
        ("0,0,8192,64", "width must be 1 to 4096"),
    ],
)
def test_rectangles_that_cannot_be_repainted_are_refused(
    command: Command, tiny: Path, tmp_path: Path, place: str, words: str
) -> None:
    result = command(*options(tmp_path / "out.png", tiny, repaint=place))
    assert_one_line(result)
    assert words in result.err
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"picture": "none.png"}, "cannot read none.png"),
        ({"picture": __file__}, "must be a PNG, JPEG or WEBP file"),
        ({"picture-at": "1,0"}, "--picture-at must be multiples of 64, not '1,0'"),
        ({"picture-at": "0;0"}, "--picture-at must be X,Y"),
        ({"picture-at": "nan,0"}, "--picture-at must be X,Y"),
        ({"picture-at": ""}, "--picture-at must be X,Y"),
        ({"picture-height": -1}, "1 to 8192 px a side"),
        ({"picture-height": 10**9}, "1 to 8192 px a side"),
        ({"world": "scroll", "height": 100, "at": "0,0", "picture-at": "0,640"}, "640 to 720 px"),
    ],
)
def test_pictures_that_cannot_be_gone_on_from_are_refused(
    command: Command, tiny: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    file, _ = photo(tmp_path / "photo.png")
    result = command(*options(tmp_path / "out.png", tiny, **{"picture": file} | changes))
    assert_one_line(result)
    assert words in result.err
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("side", "changes", "words"),
    [
        (9000, {}, f"8192 px a side and {MAX_KNOWN_PIXELS} in all, not 9000 x 9000"),
        (
            12_000,
            {"picture-height": 704},
            f"32768 px a side and {MAX_GIVEN_PIXELS} in all, not 12000 x 12000",
        ),
        (
            12_000,
            {"picture": None, "repaint": "0,0,320,320", "repaint-picture": "given.png"},
            f"32768 px a side and {MAX_GIVEN_PIXELS} in all, not 12000 x 12000",
        ),
    ],
)
def test_pictures_that_are_too_large_are_refused_before_they_are_decoded(
    command: Command,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    side: int,
    changes: dict[str, object],
    words: str,
) -> None:
    """They are whole: of one colour, so that their files are small."""
    monkeypatch.chdir(tmp_path)
    Image.new("1", (side, side)).save("given.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    result = command(*options(tmp_path / "out.png", tiny, **{"picture": "given.png"} | changes))
    assert_one_line(result)
    assert words in result.err
    assert list(tmp_path.iterdir()) == [tmp_path / "given.png"]


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_pictures_are_refused(
    command: Command, tiny: Path, tmp_path: Path, name: str
) -> None:
    content, words = FILES[name]
    file, out = tmp_path / "given", tmp_path / "out.png"
    file.write_bytes(content)
    result = command(*options(out, tiny, **{"picture": file, "picture-at": "0,0"}))
    assert_one_line(result)
    assert words in result.err
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_and_no_file(
    command: Command, tiny: Path, tmp_path: Path, what: str
) -> None:
    assert_one_line(command(*options(tmp_path / "picture.png", tiny, **BAD[what])))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ending", "kind"), [("jpg", "JPEG"), ("webp", "WEBP"), ("WEBP", "WEBP")])
def test_ending_of_the_name_says_what_kind_of_file(
    command: Command, tiny: Path, tmp_path: Path, ending: str, kind: str
) -> None:
    outs = tmp_path / "picture.png", tmp_path / f"picture.{ending}"
    for out in outs:
        assert command(*options(out, tiny)).code == 0
    file = io.BytesIO()
    with Image.open(outs[0]) as image:
        image.save(
            file, kind, quality=90, **{"method": 2} if kind == "WEBP" else {"subsampling": 0}
        )
    assert outs[1].read_bytes() == file.getvalue()


def test_deep_zoom_is_a_zip(command: Command, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "picture.zip"
    assert command(*options(out, tiny)).code == 0
    with zipfile.ZipFile(out) as archive:
        assert {"handscroll.dzi", "handscroll_files/6/0_0.jpg"} <= set(archive.namelist())


@pytest.mark.parametrize("ending", [".mp4", ".webp", ".gif"])
def test_frames_become_a_film(
    command: Command, tiny: Path, model: Checkpoint, tmp_path: Path, ending: str
) -> None:
    out = tmp_path / f"film{ending}"
    result = command(*options(out, tiny, frames=3, fps=5), "--back-and-forth")
    assert result.code == 0 and result.err == ""
    canvas = Canvas(model.digest, "planet", 3, PLANE, frames=3)
    assert canvas.id[:16] in result.out
    with Painter(model, canvas) as painter:
        frames = [
            np.concatenate(list(painter.region(Region(0, -10, -20, 30, 40, frame))))
            for frame in range(3)
        ]
    format: FilmFormat = {".mp4": "mp4", ".webp": "awebp", ".gif": "gif"}[ending]  # type: ignore[assignment]
    assert alike(format, out.read_bytes(), film(format, frames, 5, back_and_forth=True))


def test_one_frame_of_a_canvas_that_moves_is_a_picture(
    command: Command, tiny: Path, model: Checkpoint, tmp_path: Path
) -> None:
    for frame in (0, 2):
        out = tmp_path / f"{frame}.png"
        assert command(*options(out, tiny, frames=3, frame=frame)).code == 0
        with Painter(model, Canvas(model.digest, "planet", 3, PLANE, frames=3)) as painter:
            shown = painter.region(Region(0, -10, -20, 30, 40, frame))
            np.testing.assert_array_equal(np.asarray(Image.open(out)), np.concatenate(list(shown)))
    still = tmp_path / "still.png"
    assert command(*options(still, tiny)).code == 0
    assert still.read_bytes() == (tmp_path / "0.png").read_bytes()  # what moves begins as it was


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frames": 1, "out": "film.mp4"}, "at least 2 frames"),
        ({"frames": 0}, "frames must be 1 to 32"),
        ({"frames": 33}, "frames must be 1 to 32"),
        ({"frames": 2, "frame": 2}, "--frame must be 0 to 1"),
        ({"frames": 2, "frame": -1}, "--frame must be 0 to 1"),
        ({"frames": 2, "fps": 0, "out": "film.gif"}, "fps must be 1 to 30"),
        ({"frames": 2, "fps": 31, "out": "film.mp4"}, "fps must be 1 to 30"),
        ({"frames": 2, "frame": 0, "out": "film.mp4"}, "a film shows all frames"),
        ({"frames": 2, "width": 41, "out": "film.mp4"}, "even sides"),
        ({"frames": 4, "width": 4096, "height": 4097, "out": "film.gif"}, "67108864 pixels in all"),
        ({"frames": 2, "out": "film.jpg", "fps": 8}, "film.jpg is a picture"),
    ],
)
def test_films_that_cannot_be_are_refused(
    command: Command, tiny: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    out = tmp_path / str(changes.pop("out", "picture.png"))
    result = command(*options(out, tiny, **changes))
    assert result.code == 2 and said in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("world", ["planet", "scroll"])
def test_archive_holds_the_tiles_that_a_painter_paints(
    command: Command, tiny: Path, model: Checkpoint, tmp_path: Path, world: str
) -> None:
    """From the coarsest level on, as the gateway serves them, and nothing else is left behind."""
    out = tmp_path / "tiles.pmtiles"
    place = {"world": world, "at": "60,300" if world == "scroll" else "-60,30", "height": 40}
    assert command(*options(out, tiny, **place, level=1)).code == 0
    assert list(tmp_path.iterdir()) == [out]
    extent = SCROLL if world == "scroll" else PLANE
    canvas = Canvas(model.digest, world, 3, extent, sampling=model.sampling)
    region = Region(1, 300 if world == "scroll" else 30, 60 if world == "scroll" else -60, 40, 40)
    with Painter(model, canvas) as painter:
        expected = {
            tile_to_xyz(tile): encode_tile(painter.tile(tile), tile, extent, "webp", 90)
            for tile in tiles_in(region, extent)
        }
    found = all_tiles(MemorySource(out.read_bytes()))
    assert {(x, y, z): image for (z, x, y), image in found} == expected
    assert {z for _, _, z in expected} == {14, 15}


def test_picture_that_its_format_cannot_hold_is_refused_before_it_is_painted(
    command: Command, tiny: Path, tmp_path: Path
) -> None:
    result = command(*options(tmp_path / "picture.webp", tiny, width=16384, height=1))
    assert_one_line(Result(result.code, "", result.err))
    assert "16383 px to a side" in result.err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["picture.tif", "picture", "png", ".png", "picture.png.txt"])
def test_out_of_no_known_kind_is_refused(
    command: Command, tiny: Path, tmp_path: Path, name: str
) -> None:
    result = command(*options(tmp_path / name, tiny))
    assert_one_line(result)
    assert ".png" in result.err
    assert list(tmp_path.iterdir()) == []


def test_missing_and_broken_checkpoints_are_refused(
    command: Command, tiny: Path, tmp_path: Path
) -> None:
    out, broken = tmp_path / "picture.png", tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((tiny / "config.json").read_bytes()[:-9])
    for model, said in (
        (tmp_path / "nowhere", "no checkpoint"),
        (tiny / "config.json", "no checkpoint"),
        (broken, "not a checkpoint's config"),
    ):
        result = command(*options(out, tiny, model=model))
        assert_one_line(result)
        assert said in result.err
    assert not out.exists()


def test_out_that_cannot_be_written_is_refused(
    command: Command, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.iterdir())
    for out in (tmp_path / "nowhere" / "picture.png", tmp_path / "folder.png"):
        result = command(*options(out, tiny))
        assert_one_line(Result(result.code, "", result.err))
        assert str(out) in result.err
    assert sorted(tmp_path.iterdir()) == before
    assert list((tmp_path / "folder.png").iterdir()) == []


@pytest.mark.parametrize("name", ["file/picture.png", f"{'x' * 260}.png"])
def test_out_that_cannot_be_named_is_refused(
    command: Command, tiny: Path, tmp_path: Path, name: str
) -> None:
    """Under a file as if it were a folder, or with a name that the system finds too long."""
    (tmp_path / "file").touch()
    result = command(*options(tmp_path / name, tiny))
    assert_one_line(Result(result.code, "", result.err))


def test_negative_workers_are_refused(command: Command, tiny: Path, tmp_path: Path) -> None:
    assert_one_line(command(*options(tmp_path / "picture.png", tiny, workers=-1)))


@pytest.mark.parametrize(
    "changes", [{"width": "wide"}, {"height": None}, {"level": "one"}, {"seed": "x"}, {"zoom": 3}]
)
def test_misspelt_options_are_refused(
    command: Command, tiny: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    """By typer, with a hint at the usage."""
    result = command(*options(tmp_path / "picture.png", tiny, **changes))
    assert result.code == 2 and result.out == ""
    assert "Usage" in result.err and "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []


def test_run_turns_errors_meant_for_people_into_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And hides no others: those are our own mistakes."""

    def refuse() -> None:
        raise HandscrollError("no such thing")

    def break_down() -> None:
        raise ArithmeticError

    with pytest.raises(SystemExit) as caught:
        run(refuse)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "handscroll: no such thing\n"
    with pytest.raises(ArithmeticError):
        run(break_down)


def test_help_answers_without_torch() -> None:
    """In a process of its own, where torch and Ray are not loaded yet."""
    program = (
        "import sys\n"
        "from launcher.__main__ import main\n"
        "sys.argv = ['handscroll', 'render', '--help']\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    assert not {'torch', 'ray'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(handscroll.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == ""
    for name in ("--world", "--width", "--height", "--out", "--at", "--level", "--model"):
        assert name in done.stdout


# region_of


def test_region_of_is_what_the_options_say() -> None:
    assert region_of(PLANE, 40, 30, "-5,7", 1) == Region(1, 7, -5, 30, 40)
    assert region_of(PLANE, 40, 30, " -5 , 7 ", 2) == Region(2, 7, -5, 30, 40)
    assert region_of(SCROLL, 9, 704, "-99,0", 2) == Region(2, 0, -99, 704, 9)
    assert region_of(SCROLL, 9, 76, "0,100", 0) == Region(0, 100, 0, 76, 9)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_region_of_ends_where_the_world_does(level: int) -> None:
    """The first and the last pixel that a map's tiles hold, and not one more."""
    half, shift = 256 * 2 ** (13 + level), 85 * 2**level
    first, end = shift - half, shift + half
    region_of(PLANE, 1, 1, f"{first},{first}", level)
    region_of(PLANE, 10, 10, f"{end - 10},{end - 10}", level)
    for at in (f"{first - 1},0", f"0,{first - 1}", f"{end - 9},0", f"0,{end - 9}"):
        with pytest.raises(InvalidRequest, match="outside the world"):
            region_of(PLANE, 10, 10, at, level)


# write_file


def some_pieces(error: type[BaseException] | None = None) -> Iterator[bytes]:
    yield b"pic"
    yield b""
    yield b"ture"
    if error:
        raise error


def test_write_file_puts_pieces_together(tmp_path: Path) -> None:
    out = tmp_path / "file"
    write_file(out, some_pieces())
    assert out.read_bytes() == b"picture"


@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt])
def test_write_file_leaves_what_was_there_until_it_is_whole(
    tmp_path: Path, error: type[BaseException]
) -> None:
    out = tmp_path / "file"
    for before in (None, b"an older picture"):
        if before is not None:
            out.write_bytes(before)
        with pytest.raises(error):
            write_file(out, some_pieces(error))
        assert [one.read_bytes() for one in tmp_path.iterdir()] == ([before] if before else [])
