import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handscroll.errors import InvalidRequest
from handscroll.geometry import Patch, Tile
from svckit import keys

A, B = "a" * 64, "0123456789abcdef" * 4

ids = st.sampled_from([A, B])
runs = st.sampled_from(["0" * 32, "0123456789abcdef" * 2])
numbers = st.integers(-(2**40), 2**40) | st.integers(-2, 2)
patches = st.builds(Patch, numbers, numbers, numbers, numbers)
tiles = st.builds(Tile, numbers, numbers, numbers, numbers)
texts = st.text() | st.sampled_from(["", "..", "/", "../../etc/passwd", "a\0b", "\ud800", "#1"])

# How a key is made, as a function and its arguments: two of these are equal exactly if the keys
# must be.
calls = st.one_of(
    st.tuples(st.just(keys.canvas_key), ids),
    st.tuples(st.just(keys.patch_key), ids, patches),
    st.tuples(st.just(keys.tile_key), ids, tiles, st.sampled_from(["webp", "png", "jpg"])),
    st.tuples(st.just(keys.text_key), ids, texts),
    st.tuples(st.just(keys.owner_key), texts, ids),
    st.tuples(st.just(keys.holder_key), ids, texts),
    st.tuples(st.just(keys.branch_key), ids, ids),
    st.tuples(st.just(keys.picture_key), ids),
    st.tuples(st.just(keys.known_key), ids, ids, st.integers(0, 6)),
    st.tuples(st.just(keys.upload_key), texts, ids),
    st.tuples(st.just(keys.uploader_key), ids, texts),
    st.tuples(st.just(keys.use_key), ids, ids),
    st.tuples(st.just(keys.making_key), ids, runs),
    st.tuples(st.just(keys.exported_key), ids, ids),
    st.tuples(st.just(keys.saved_key), texts, ids),
    st.tuples(st.just(keys.saver_key), ids, texts),
    st.tuples(st.sampled_from([keys.export_key, keys.done_key]), ids),
    st.tuples(st.sampled_from([keys.run_key, keys.file_key]), ids, runs),
    st.tuples(st.just(keys.beat_key), ids, runs, st.integers(0, 2**40)),
)


@given(st.lists(calls, min_size=2, max_size=6, unique=True))
def test_keys_are_injective_and_no_key_is_a_folder_of_another(made) -> None:  # type: ignore[no-untyped-def]
    named = [make(*arguments) for make, *arguments in made]
    for one, other in itertools.permutations(named, 2):
        assert one != other
        assert not other.startswith(one + "/")


@given(calls)
def test_keys_are_plain_paths_whatever_they_are_made_of(made) -> None:  # type: ignore[no-untyped-def]
    make, *arguments = made
    key = make(*arguments)
    assert re.fullmatch(r"[a-z]+(/[a-z0-9.-]+)+", key, re.ASCII)
    assert ".." not in key
    assert len(key) < 1024 and all(0 < len(part) < 255 for part in key.split("/"))


@pytest.mark.parametrize(
    "wrong",
    ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n", "../" + "a" * 61, "１" * 64],
)
def test_a_canvas_id_is_64_lowercase_hex_characters(wrong: str) -> None:
    assert keys.check_canvas_id(B) == B
    for make in (
        keys.check_canvas_id,
        keys.canvas_key,
        keys.patches_prefix,
        keys.tiles_prefix,
        keys.holder_prefix,
        keys.branch_prefix,
        lambda wrong: keys.branch_key(A, wrong),
        lambda wrong: keys.owner_key("me", wrong),
        lambda wrong: keys.text_key(wrong, "a prompt"),
        keys.picture_key,
        keys.tokens_prefix,
        keys.uploaders_prefix,
        keys.uses_prefix,
        keys.making_prefix,
        lambda wrong: keys.use_key(A, wrong),
        lambda wrong: keys.upload_key("me", wrong),
        keys.export_key,
        keys.export_prefix,
        keys.exported_prefix,
        keys.savers_prefix,
        lambda wrong: keys.exported_key(A, wrong),
        lambda wrong: keys.saved_key("me", wrong),
    ):
        with pytest.raises(InvalidRequest, match="64 characters.*not"):
            make(wrong)


def test_coordinates_must_be_integers() -> None:
    with pytest.raises(ValueError, match="'d'"):
        keys.patch_key(A, Patch(0, 0, 0, "../x"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'d'"):
        keys.tile_key(A, Tile(0, 0, 1.5), "png")  # type: ignore[arg-type]


def test_a_tile_has_a_known_format() -> None:
    with pytest.raises(InvalidRequest, match="webp, png, jpg, not 'gif'"):
        keys.tile_key(A, Tile(0, 0, 0), "gif")  # type: ignore[arg-type]


@given(ids, texts)
def test_both_marks_of_an_export_name_each_other(export: str, owner: str) -> None:
    assert keys.saved_of(keys.saver_key(export, owner)) == keys.saved_key(owner, export)


def test_keys_look_as_documented() -> None:
    assert keys.canvas_key(A) == f"canvases/{A}/spec.json"
    assert keys.patch_key(A, Patch(2, 0, -1, 7)) == f"patches/{A}/2/0/-1/7"
    assert keys.tile_key(A, Tile(2, -1, 7, frame=3), "webp") == f"tiles/{A}/2/3/-1/7.webp"


@given(ids, ids, texts)
def test_keys_lie_under_their_prefixes_and_name_their_canvas(
    canvas: str, child: str, owner: str
) -> None:
    assert keys.patch_key(canvas, Patch(0, 0, 0, 0)).startswith(keys.patches_prefix(canvas))
    assert keys.tile_key(canvas, Tile(0, 0, 0), "png").startswith(keys.tiles_prefix(canvas))
    assert keys.holder_key(canvas, owner).startswith(keys.holder_prefix(canvas))
    assert keys.owner_key(owner, canvas).startswith(keys.owner_prefix(owner))
    assert keys.branch_key(canvas, child).startswith(keys.branch_prefix(canvas))
    assert keys.canvas_of(keys.owner_key(owner, canvas)) == canvas
    assert keys.canvas_of(keys.branch_key(canvas, child)) == child
    assert keys.export_of(keys.exported_key(canvas, child)) == child
    assert keys.exported_key(canvas, child).startswith(keys.exported_prefix(canvas))
    assert keys.canvas_of(keys.use_key(canvas, child)) == child
    for key in (keys.upload_key(owner, child), keys.picture_key(child)):
        assert keys.picture_of(key) == child
    for key, prefix in (
        (keys.picture_key(child), keys.PICTURES),
        (keys.known_key(canvas, child, 2), keys.tokens_prefix(child)),
        (keys.upload_key(owner, child), keys.uploads_prefix(owner)),
        (keys.uploader_key(child, owner), keys.uploaders_prefix(child)),
        (keys.use_key(child, canvas), keys.uses_prefix(child)),
        (keys.making_key(child, "0" * 32), keys.making_prefix(child)),
        (keys.canvas_key(canvas), keys.CANVASES),
        (keys.tile_key(canvas, Tile(0, 0, 0), "png"), keys.TILES),
        (keys.export_key(child), keys.EXPORTS),
        (keys.exported_key(canvas, child), keys.EXPORTED),
    ):
        assert key.startswith(prefix)
    run = keys.new_nonce()
    for key, prefix in (
        (keys.run_key(child, run), keys.runs_prefix(child)),
        (keys.beat_key(child, run, 3), keys.beats_prefix(child)),
        (keys.file_key(child, run), keys.files_prefix(child)),
        (keys.done_key(child), keys.export_prefix(child)),
    ):
        assert key.startswith(prefix) and prefix.startswith(keys.export_prefix(child))


@pytest.mark.parametrize("wrong", ["", "0" * 31, "0" * 33, "A" * 32, "../" + "0" * 29])
def test_a_run_is_32_lowercase_hex_characters(wrong: str) -> None:
    for make in (
        keys.run_key,
        keys.file_key,
        keys.making_key,
        lambda export, run: keys.beat_key(export, run, 0),
    ):
        with pytest.raises(InvalidRequest, match="32 characters"):
            make(A, wrong)
