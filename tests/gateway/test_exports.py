"""Exports over HTTP: asked for, watched, fetched in parts, deleted."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from handscroll.canvas import Canvas
from handscroll_api.tiler.v1 import export_service_pb2 as pb
from tests.gateway.conftest import Launch, Stack, soon
from tests.gateway.fakeexports import TOTAL, FakeExports
from tests.gateway.test_access import bearing, keyed, make_key, same

SIZE = 5000
ANNE = {"X-Owner": "a-secret-of-anne"}


def wish(canvas: Canvas, **changes: Any) -> dict[str, Any]:
    told = {"canvas": canvas.id, "level": 2, "top": -300, "left": -77, "height": 520, "width": 601}
    return told | changes


def ask(stack: Stack, body: Any) -> httpx.Response:
    with stack.client() as client:
        return client.post("/exports", json=body, headers=ANNE)


def test_export_is_asked_for_watched_and_deleted(stack: Stack) -> None:
    canvas = stack.canvas()
    stack.tiler.exports.state = pb.EXPORT_STATE_RUNNING
    begun = ask(stack, wish(canvas, format="jpg", quality=70))
    assert begun.status_code == 202
    told = begun.json()
    assert begun.headers["location"] == f"/exports/{told['id']}"
    expected = wish(canvas, format="jpg", quality=70, frame=0) | {
        "id": told["id"],
        "fps": None,
        "back_and_forth": False,
        "state": "running",
        "done": 3,
        "total": TOTAL,
        "bytes": None,
        "problem": None,
        "file": None,
    }
    assert told == expected == stack.get(begun.headers["location"]).json()
    early = stack.get(f"/exports/{told['id']}/file")
    assert early.status_code == 404 and "it is running" in early.json()["detail"]
    stack.tiler.exports.state = pb.EXPORT_STATE_STOPPED
    assert ask(stack, wish(canvas, format="jpg", quality=70)).json()["problem"] == (
        "the store is full"
    )
    stack.tiler.exports.state = pb.EXPORT_STATE_DONE
    done = ask(stack, wish(canvas, format="jpg", quality=70))
    assert done.status_code == 200
    finished = {
        "state": "done",
        "done": TOTAL,
        "bytes": SIZE,
        "file": f"/exports/{told['id']}/file",
    }
    assert done.json() == expected | finished
    with stack.client() as client:
        assert client.delete(begun.headers["location"], headers=ANNE).status_code == 204
        assert client.delete(begun.headers["location"], headers=ANNE).status_code == 404
    for path in ("", "/file"):
        assert stack.get(f"/exports/{told['id']}{path}").status_code == 404


def test_exports_are_whose_browser_asked_for_them(stack: Stack) -> None:
    canvas = stack.canvas()
    with stack.client() as client:
        assert client.get("/exports").json() == {"exports": [], "next_page_token": ""}
        made = [client.post("/exports", json=wish(canvas, left=left)) for left in range(3)]
        assert ["set-cookie" in one.headers for one in made] == [True, False, False]
        listed = client.get("/exports?page_size=2")
        assert listed.headers["cache-control"] == "no-store"
        first = listed.json()
        rest = client.get(f"/exports?page_size=2&page_token={first['next_page_token']}").json()
        assert rest["next_page_token"] == ""
        made_at = {"made_at": "2027-01-15T08:00:00Z"}
        expected = [one.json() | made_at for one in made[::-1]]
        assert first["exports"] + rest["exports"] == expected
        with stack.client() as stranger:
            assert stranger.delete(made[0].headers["location"]).status_code == 404
        assert client.delete(made[0].headers["location"]).status_code == 204
        assert len(client.get("/exports").json()["exports"]) == 2
        for page in ("page_size=1001", "page_size=-1", "page_token=x"):
            assert client.get(f"/exports?{page}").status_code == 400, page


def test_every_field_reaches_the_tiler(stack: Stack) -> None:
    canvas = stack.canvas(frames=4)
    made = ask(stack, wish(canvas, frame=3, format="dzi", quality=12)).json()
    assert stack.tiler.exports.made[made["id"]].spec == pb.ExportSpec(
        canvas=canvas.id,
        level=2,
        frame=3,
        top_px=-300,
        left_px=-77,
        height_px=520,
        width_px=601,
        format=pb.EXPORT_FORMAT_DZI,
        quality=12,
    )
    film = ask(stack, wish(canvas, format="awebp", fps=12, back_and_forth=True)).json()
    asked = stack.tiler.exports.made[film["id"]].spec
    assert (asked.format, asked.fps, asked.back_and_forth) == (pb.EXPORT_FORMAT_AWEBP, 12, True)
    assert (film["format"], film["fps"], film["back_and_forth"]) == ("awebp", 12, True)
    usual = ask(stack, wish(canvas)).json()
    assert (usual["format"], usual["frame"], usual["quality"]) == ("png", 0, None)


@pytest.mark.parametrize(
    ("format", "media", "ending"),
    [
        ("png", "image/png", "png"),
        ("jpg", "image/jpeg", "jpg"),
        ("webp", "image/webp", "webp"),
        ("dzi", "application/zip", "zip"),
        ("pmtiles", "application/vnd.pmtiles", "pmtiles"),
        ("mp4", "video/mp4", "mp4"),
        ("awebp", "image/webp", "webp"),
        ("gif", "image/gif", "gif"),
    ],
)
def test_file_is_sent_as_what_it_is(stack: Stack, format: str, media: str, ending: str) -> None:
    made = ask(stack, wish(stack.canvas(), format=format)).json()
    answer = stack.get(made["file"])
    assert (answer.status_code, answer.content) == (200, FakeExports.content(0, SIZE))
    name = f"handscroll-{made['id'][:16]}.{ending}"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["content-type"] == media
    assert answer.headers["content-length"] == str(SIZE)
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"] == f'"{"e" * 32}"'
    with stack.client() as client:
        head = client.head(made["file"])
    assert (head.status_code, head.content) == (200, b"")
    shared = ("content-length", "content-type", "etag", "content-disposition")
    assert {name: head.headers[name] for name in shared} == {
        name: answer.headers[name] for name in shared
    }
    assert len(stack.tiler.exports.downloads) == 1


@pytest.mark.parametrize(
    ("said", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, SIZE),
        ("bytes=10-1999", 10, 2000),
        ("bytes=4990-99999999999", 4990, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        ("bytes=-9999", 0, SIZE),
        ("bytes= 7 - 8", 7, 9),
    ],
)
def test_part_of_a_file_is_sent(stack: Stack, said: str, start: int, end: int) -> None:
    made = ask(stack, wish(stack.canvas())).json()
    answer = stack.get(made["file"], headers={"Range": said})
    assert (answer.status_code, answer.content) == (206, FakeExports.content(start, end))
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize(
    "said", ["bytes=5-3", "bytes=0-1,4-5", "bytes=-", "bytes=a-b", "lines=0-1", "bytes=+1-2", "x"]
)
def test_what_is_not_one_range_gets_all(stack: Stack, said: str) -> None:
    made = ask(stack, wish(stack.canvas())).json()
    answer = stack.get(made["file"], headers={"Range": said})
    assert (answer.status_code, len(answer.content)) == (200, SIZE)


@pytest.mark.parametrize("said", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 9}", "bytes=-0"])
def test_part_that_there_is_not_is_416(stack: Stack, said: str) -> None:
    made = ask(stack, wish(stack.canvas())).json()
    answer = stack.get(made["file"], headers={"Range": said})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{SIZE}")
    assert answer.json()["status"] == 416


def test_part_of_another_file_is_all_of_this(stack: Stack) -> None:
    made = ask(stack, wish(stack.canvas())).json()
    for tag, status in ((f'"{"e" * 32}"', 206), ('"other"', 200), (f'W/"{"e" * 32}"', 200)):
        headers = {"Range": "bytes=3-5", "If-Range": tag}
        assert stack.get(made["file"], headers=headers).status_code == status


def test_large_file_is_asked_for_in_several_calls(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.exports.CALL_BYTES", 1800)
    made = ask(stack, wish(stack.canvas())).json()
    answer = stack.get(made["file"], headers={"Range": "bytes=100-"})
    assert answer.content == FakeExports.content(100, SIZE)
    assert stack.tiler.exports.downloads == [(100, 1800), (1900, 1800), (3700, 1300)]


def test_download_that_its_client_left_ends(stack: Stack) -> None:
    stack.tiler.exports.size_bytes = 2**28
    made = ask(stack, wish(stack.canvas())).json()
    with stack.client() as client, client.stream("GET", made["file"]) as answer:
        next(answer.iter_raw())
    soon(lambda: stack.tiler.exports.left == 1, "the tiler is told")


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"canvas": "zz"}, 400, "a canvas id must be"),
        ({"canvas": "0" * 64}, 404, "there is no canvas"),
        ({"height": 0}, 400, "must not be empty"),
        ({"height": -1}, 400, "height must be"),
        ({"width": 2**32}, 400, "width must be"),
        ({"level": "2"}, 400, "level must be integer, not '2'"),
        ({"left": 2**63}, 400, "left must be"),
        ({"format": "tif"}, 400, "format must be"),
        ({"fps": 31, "format": "gif"}, 400, "fps must be"),
        ({"quality": 0}, 400, "quality must be"),
        ({"quality": 101}, 400, "quality must be"),
        ({"colour": 1}, 400, "there is no field 'colour'"),
    ],
)
def test_impossible_export_is_refused_in_words(
    stack: Stack, change: dict[str, Any], status: int, words: str
) -> None:
    answer = ask(stack, wish(stack.canvas()) | change)
    assert answer.status_code == status and words in answer.json()["detail"]
    assert not stack.tiler.exports.made


def test_body_that_lacks_something_is_400(stack: Stack) -> None:
    body = wish(stack.canvas())
    del body["top"]
    assert "top is missing" in ask(stack, body).json()["detail"]


@pytest.mark.parametrize("path", ["zz", "A" * 64])
def test_what_is_no_id_is_400(stack: Stack, path: str) -> None:
    with stack.client() as client:
        for method, tail in (("GET", ""), ("DELETE", ""), ("GET", "/file")):
            assert client.request(method, f"/exports/{path}{tail}").status_code == 400


def test_reader_fetches_and_painter_starts(launch: Launch, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    painter, reader = bearing(make_key(file)), bearing(make_key(file, "read"))
    stack = keyed(launch, file)
    body = wish(stack.canvas())
    with stack.client() as client:
        assert client.post("/exports", json=body).status_code == 401
        assert client.post("/exports", json=body, headers=reader).status_code == 403
        made = client.post("/exports", json=body, headers=painter | same(stack)).json()
        assert stack.tiler.metadata["authorization"] == painter["Authorization"]
        assert client.get(f"/exports/{made['id']}").status_code == 200
        assert client.get(made["file"], headers=reader).status_code == 200
        assert client.delete(f"/exports/{made['id']}", headers=reader).status_code == 403
        assert client.delete(f"/exports/{made['id']}", headers=painter).status_code == 204
