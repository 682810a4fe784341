"""The memory that holds tiles."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.cache import OVERHEAD_BYTES, Memory, picture

PATHS = st.sampled_from([f"/tiles/{one}" for one in "abcdefgh"])


@given(st.lists(st.tuples(PATHS, st.integers(0, 3000))), st.integers(0, 12_000))
def test_memory_keeps_the_latest_that_fit(puts: list[tuple[str, int]], limit: int) -> None:
    memory, model = Memory(limit), dict[str, int]()
    for path, size in puts:
        memory.put(path, picture(b"x" * size, "webp"))
        model.pop(path, None)
        if size + OVERHEAD_BYTES <= limit:
            model[path] = size + OVERHEAD_BYTES
        while sum(model.values()) > limit:
            model.pop(next(iter(model)))
        assert memory.held_bytes == sum(model.values()) <= limit
    assert {path for path in "abcdefgh" if memory.get(f"/tiles/{path}")} == {
        path[-1] for path in model
    }


def test_use_keeps_a_picture() -> None:
    memory, small = Memory(2 * OVERHEAD_BYTES + 2), picture(b"x", "png")
    memory.put("a", small)
    memory.put("b", small)
    assert memory.get("a")
    memory.put("c", small)
    assert memory.get("a") and memory.get("c") and not memory.get("b")


def test_a_canvas_is_given_up_alone() -> None:
    memory, small = Memory(10**6), picture(b"x", "png")
    for path in ("/tiles/a/1", "/tiles/a/2", "/tiles/ab/1"):
        memory.put(path, small)
    memory.forget_all("/tiles/a/")
    assert memory.get("/tiles/ab/1") and not memory.get("/tiles/a/1")
    assert memory.held_bytes == 1 + OVERHEAD_BYTES


def test_etag_names_the_bytes() -> None:
    assert picture(b"a", "png").etag != picture(b"b", "png").etag
    assert picture(b"a", "png").etag == picture(b"a", "png").etag
