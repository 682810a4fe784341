import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obstore.exceptions import AlreadyExistsError, GenericError
from obstore.store import MemoryStore
from pydantic import SecretStr, ValidationError

from handscroll.errors import InvalidRequest, StoreUnavailable, UnsafeStore
from handscroll.geometry import Patch, Tile
from svckit import keys
from svckit import store as stores
from svckit.store import STALE_S, Raw, S3Settings, Store, bucket_of
from tests.support.seaweed import S3, SECRET_KEY, Seaweed

pytestmark = pytest.mark.anyio

A, B = "a" * 64, "b" * 64
KEY = keys.patch_key(A, Patch(2, 0, -1, -5))

numbers = st.integers(-(2**40), 2**40)
patch_keys = st.builds(keys.patch_key, st.just(A), st.builds(Patch, *[numbers] * 4))
tile_keys = st.builds(
    keys.tile_key,
    st.just(A),
    st.builds(Tile, *[numbers] * 4),
    st.sampled_from(["webp", "png", "jpg"]),
)
text_keys = st.builds(keys.text_key, st.just(A), st.text())


class Around:
    """A back end around another, into which a test puts its faults."""

    def __init__(self, inner: Raw) -> None:
        self.inner = inner
        self.puts = 0

    async def get_async(self, path: str) -> Any:
        return await self.inner.get_async(path)

    async def get_range_async(self, path: str, *, start: int, end: int) -> Any:
        return await self.inner.get_range_async(path, start=start, end=end)

    async def head_async(self, path: str) -> Any:
        return await self.inner.head_async(path)

    async def put_async(self, path: str, file: bytes, *, mode: Any) -> Any:
        self.puts += 1
        return await self.inner.put_async(path, file, mode=mode)

    async def delete_async(self, paths: str | Sequence[str]) -> None:
        await self.inner.delete_async(paths)

    def list(self, prefix: str, *, chunk_size: int) -> Any:
        return self.inner.list(prefix, chunk_size=chunk_size)


def around(store: Store, fault: type[Around]) -> tuple[Store, Around]:
    raw = fault(store._raw)
    return Store(raw, timeout_s=store.timeout_s), raw


async def listed(store: Store, prefix: keys.Prefix) -> list[keys.Key]:
    return sorted([key async for key in store.keys(prefix)])


# What every store does.


async def test_what_is_created_is_read_and_what_is_not_is_none(store: Store) -> None:
    assert await store.get(KEY) is None
    assert await store.create(KEY, b"tokens") == b"tokens"
    assert await store.get(KEY) == b"tokens"


async def test_the_first_value_stays_and_later_writers_adopt_it(store: Store) -> None:
    await store.create(KEY, b"first")
    assert await store.create(KEY, b"second") == b"first"
    assert await store.get(KEY) == b"first"


async def renewed(store: Store) -> None:
    """Wait until all is written again that is to be."""
    await asyncio.gather(*store._renewing.values())


async def test_what_is_looked_at_is_written_again_as_it_is_when_it_is_old(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, raw = around(store, Around)
    assert await watched.look(KEY) is None
    await watched.create(KEY, b"tile")
    assert await watched.look(KEY) == b"tile"
    await renewed(watched)
    assert raw.puts == 1
    monkeypatch.setattr(stores, "RENEWED_AFTER", timedelta(days=-1))
    looks = await asyncio.gather(*(watched.look(KEY) for _ in range(3)))
    assert looks == [b"tile"] * 3
    await renewed(watched)
    assert raw.puts == 2
    assert await watched.get(KEY) == b"tile"


async def test_what_is_deleted_after_it_was_looked_at_stays_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deletes(Around):
        async def head_async(self, path: str) -> Any:
            await self.inner.delete_async(path)
            return await self.inner.head_async(path)

    await store.create(KEY, b"tile")
    monkeypatch.setattr(stores, "RENEWED_AFTER", timedelta(days=-1))
    deleting, raw = around(store, Deletes)
    assert await deleting.look(KEY) == b"tile"
    await renewed(deleting)
    assert raw.puts == 0 and await store.get(KEY) is None


async def test_nobody_waits_for_what_cannot_be_written_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.create(KEY, b"tile")
    monkeypatch.setattr(stores, "RENEWED_AFTER", timedelta(days=-1))
    full, raw = around(store, NeverWrites)
    assert await full.look(KEY) == b"tile"
    await renewed(full)
    assert raw.puts == 1

    class Stuck(Around):
        async def put_async(self, path: str, file: bytes, *, mode: Any) -> Any:
            await asyncio.sleep(60)

    stuck, _ = around(store, Stuck)
    async with asyncio.timeout(5):
        assert await stuck.look(KEY) == b"tile"
    await stuck.close()
    await asyncio.gather(*stuck._renewing.values(), return_exceptions=True)
    assert not stuck._renewing


async def test_an_empty_value_is_a_value(store: Store) -> None:
    assert await store.create(KEY, b"") == b""
    assert await store.get(KEY) == b""
    assert await store.create(KEY, b"later") == b""


async def test_a_large_value_is_whole(store: Store) -> None:
    value = os.urandom(12 << 20)
    assert await store.create(KEY, value) == value
    assert await store.get(KEY) == value


async def test_a_value_written_in_pieces_is_there_when_it_is_whole(store: Store) -> None:
    pieces = [os.urandom(5 << 20) for _ in range(4)]  # more than two parts of an upload
    assert await store.size(KEY) is None and await store.part(KEY, 0, 1) is None
    async with store.writing(KEY) as write:
        for piece in pieces:
            await write(piece)
            assert await store.get(KEY) is None
            assert await listed(store, keys.patches_prefix(A)) == []
    whole = b"".join(pieces)
    assert await store.get(KEY) == whole
    assert await store.size(KEY) == len(whole)
    for start, end in ((0, 1), (5, 5 << 20), (len(whole) - 3, len(whole))):
        assert await store.part(KEY, start, end) == whole[start:end]


@pytest.mark.parametrize("pieces", [0, 1, 4])
async def test_a_value_given_up_is_not_there(store: Store, pieces: int) -> None:
    with pytest.raises(RuntimeError, match="enough"):
        async with store.writing(KEY) as write:
            for _ in range(pieces):
                await write(os.urandom(5 << 20))
            raise RuntimeError("enough")
    assert await store.get(KEY) is None
    assert await listed(store, keys.patches_prefix(A)) == []


async def test_a_deleted_value_is_gone_and_deleting_twice_is_fine(store: Store) -> None:
    await store.create(KEY, b"1")
    await store.delete(KEY)
    assert await store.get(KEY) is None
    await store.delete(KEY)
    assert await store.create(KEY, b"2") == b"2"


async def test_a_prefix_lists_and_deletes_its_own_and_nothing_else(store: Store) -> None:
    ours = [keys.patch_key(A, Patch(2, 0, row, col)) for row in (-1, 0, 10) for col in (-7, 1)]
    others = [
        keys.patch_key(B, Patch(2, 0, 0, 0)),
        keys.tile_key(A, Tile(2, 0, 0), "webp"),
        keys.canvas_key(A),
    ]
    for key in ours + others:
        await store.create(key, b"x")
    assert await listed(store, keys.patches_prefix(A)) == sorted(ours)
    # A folder is a whole name: `patches/a` holds nothing of `patches/aaa...`.
    assert await listed(store, keys.Prefix("patches/a")) == []
    await store.delete_all(keys.patches_prefix(A))
    await store.delete_all(keys.patches_prefix(A))
    assert await listed(store, keys.patches_prefix(A)) == []
    for key in others:
        assert await store.get(key) == b"x"


async def test_two_may_delete_the_same_prefix_at_once(store: Store) -> None:
    made = (keys.patch_key(A, Patch(0, 0, 0, col)) for col in range(120))
    await asyncio.gather(*(store.create(key, b"x") for key in made))
    await asyncio.gather(*(store.delete_all(keys.patches_prefix(A)) for _ in range(3)))
    assert await listed(store, keys.patches_prefix(A)) == []


async def test_of_many_writers_one_wins_and_all_hold_its_value(store: Store) -> None:
    for col in range(5):
        key = keys.patch_key(A, Patch(2, 0, 0, col))
        values = [b"writer %d" % number for number in range(32)]
        held = await asyncio.gather(*(store.create(key, value) for value in values))
        assert len(set(held)) == 1
        assert held[0] in values
        assert await store.get(key) == held[0]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wanted=st.dictionaries(
        st.one_of(patch_keys, tile_keys, text_keys), st.binary(max_size=300), max_size=8
    )
)
async def test_any_values_under_any_keys_come_back(
    store: Store, wanted: dict[keys.Key, bytes]
) -> None:
    for key, value in wanted.items():
        assert await store.create(key, value) == value
    for key, value in wanted.items():
        assert await store.get(key) == value
    found = [
        key
        for prefix in (keys.patches_prefix(A), keys.tiles_prefix(A), keys.Prefix("texts/"))
        async for key in store.keys(prefix)
    ]
    assert sorted(found) == sorted(wanted)
    for key in wanted:
        await store.delete(key)


async def test_the_store_is_ready_passes_the_probe_and_nothing_stays(store: Store) -> None:
    await store.ready()
    await store.probe()
    assert await listed(store, keys.PROBES) == []
    assert await store.sweep() == 0


async def test_a_cancelled_create_leaves_nothing_or_all(store: Store) -> None:
    value = os.urandom(4 << 20)
    for number in range(8):
        key = keys.patch_key(A, Patch(0, 0, 0, number))
        task = asyncio.create_task(store.create(key, value))
        await asyncio.sleep(0.004 * number)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await store.get(key) in (None, value)
        # Whatever the cancelled one left, the next one holds the value.
        assert await store.create(key, value) == value


# Faults between us and any store.


class LosesReplies(Around):
    async def put_async(self, path: str, file: bytes, *, mode: Any) -> Any:
        await super().put_async(path, file, mode=mode)
        raise GenericError("connection reset by peer")


class RepliesLate(Around):
    async def put_async(self, path: str, file: bytes, *, mode: Any) -> Any:
        try:
            return await super().put_async(path, file, mode=mode)
        finally:
            await asyncio.sleep(60)


class LosesRequests(Around):
    async def put_async(self, path: str, file: bytes, *, mode: Any) -> Any:
        if self.puts < 2:
            self.puts += 1
            raise GenericError("connection reset by peer")
        return await super().put_async(path, file, mode=mode)


class Conflicts(Around):
    """Refuses the first try though nothing is there, as AWS does with 409."""

    async def put_async(self, path: str, file: bytes, *, mode: Any) -> Any:
        if self.puts < 1:
            self.puts += 1
            raise AlreadyExistsError("409")
        return await super().put_async(path, file, mode=mode)


class NeverWrites(Around):
    async def put_async(self, path: str, file: bytes, *, mode: Any) -> Any:
        self.puts += 1
        raise GenericError("disk is full\n\nDebug source: noise")


class Hangs(Around):
    async def get_async(self, path: str) -> Any:
        await asyncio.sleep(60)

    async def put_async(self, path: str, file: bytes, *, mode: Any) -> Any:
        await asyncio.sleep(60)

    async def delete_async(self, paths: str | Sequence[str]) -> None:
        await asyncio.sleep(60)


async def test_a_create_whose_reply_is_lost_holds_what_landed(store: Store) -> None:
    faulty, raw = around(store, LosesReplies)
    assert await faulty.create(KEY, b"ours") == b"ours"
    assert raw.puts == 1
    assert await faulty.create(KEY, b"second") == b"ours"


async def test_a_create_whose_reply_is_late_holds_what_is_there_by_then(store: Store) -> None:
    faulty, raw = around(store, RepliesLate)
    start = time.monotonic()
    assert await faulty.create(KEY, b"ours") == b"ours"
    assert await faulty.create(KEY, b"second") == b"ours"
    assert raw.puts == 2
    assert time.monotonic() - start < 5


async def test_a_create_that_did_not_land_is_tried_again(store: Store) -> None:
    faulty, raw = around(store, LosesRequests)
    assert await faulty.create(KEY, b"ours") == b"ours"
    assert raw.puts == 3
    assert await store.get(KEY) == b"ours"


async def test_a_refusal_with_nothing_there_is_tried_again(store: Store) -> None:
    faulty, raw = around(store, Conflicts)
    assert await faulty.create(KEY, b"ours") == b"ours"
    assert raw.puts == 2


async def test_a_create_that_finds_nothing_and_may_not_write_gives_up() -> None:
    faulty, _ = around(Store.open("memory://"), Forgets)
    with pytest.raises(StoreUnavailable, match="refused as existing, yet nothing is there"):
        await faulty.create(KEY, b"ours")


async def test_a_create_gives_up_and_says_why() -> None:
    faulty, raw = around(Store.open("memory://"), NeverWrites)
    with pytest.raises(StoreUnavailable, match="create patches/.*disk is full$"):
        await faulty.create(KEY, b"ours")
    assert raw.puts == 4


async def test_a_store_that_hangs_is_given_up_after_the_timeout() -> None:
    store = Store(Hangs(MemoryStore()), timeout_s=0.1)
    operations: list[Callable[[], Awaitable[object]]] = [
        lambda: store.get(KEY),
        lambda: store.create(KEY, b"x"),
        lambda: store.delete(KEY),
        lambda: store.probe(2),
    ]
    for operation in operations:
        start = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.1 s"):
            await operation()
        assert time.monotonic() - start < 2


# What the probe must find.


class Overwrites(Around):
    async def put_async(self, path: str, file: bytes, *, mode: Any) -> Any:
        return await super().put_async(path, file, mode="overwrite")


class ChecksThenWrites(Around):
    """Knows conditions, but another writer fits between its look and its write."""

    async def put_async(self, path: str, file: bytes, *, mode: Any) -> Any:
        try:
            await self.inner.get_async(path)
        except FileNotFoundError:
            await asyncio.sleep(0)
            return await super().put_async(path, file, mode="overwrite")
        raise AlreadyExistsError(path)


class Forgets(Around):
    async def put_async(self, path: str, file: bytes, *, mode: Any) -> Any:
        raise AlreadyExistsError(path)


@pytest.mark.parametrize("fault", [Overwrites, ChecksThenWrites, Forgets])
async def test_the_probe_refuses_a_store_that_could_lose_patches(fault: type[Around]) -> None:
    faulty, _ = around(Store.open("memory://"), fault)
    with pytest.raises(UnsafeStore, match="exactly one of 4 writers"):
        await faulty.probe()
    assert await listed(faulty, keys.PROBES) == []


async def test_the_probe_bears_lost_replies_of_the_winner() -> None:
    class LosesTheWin(Around):
        # A client that tries again after a lost reply meets its own value.
        async def put_async(self, path: str, file: bytes, *, mode: Any) -> Any:
            await super().put_async(path, file, mode=mode)
            raise AlreadyExistsError(path)

    faulty, _ = around(Store.open("memory://"), LosesTheWin)
    await faulty.probe()


async def test_the_probe_fails_closed_when_the_store_fails() -> None:
    faulty, _ = around(Store.open("memory://"), NeverWrites)
    with pytest.raises(StoreUnavailable, match="disk is full"):
        await faulty.probe()


# A folder.


WRITER = """
import asyncio, sys
from handscroll.geometry import Patch
from svckit import keys
from svckit.store import Store

async def write():
    store = Store.open(sys.argv[1])
    for col in range(10**6):
        await store.create(keys.patch_key("a" * 64, Patch(0, 0, 0, col)), b"%08d" % col * 2**17)
        print(col, flush=True)

asyncio.run(write())
"""


async def test_a_killed_writer_leaves_nothing_half_written(tmp_path: Path) -> None:
    acknowledged = -1
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            await asyncio.sleep(0.05)
            writer.send_signal(signal.SIGKILL)
            lines = writer.stdout.read().split(b"\n")
        acknowledged = max([acknowledged, *(int(line) for line in lines[:-1] if line)])
    store = Store.open(str(tmp_path))
    found = await listed(store, keys.patches_prefix(A))
    assert len(found) > acknowledged >= 0
    for key in found:
        assert await store.get(key) == b"%08d" % int(key.rpartition("/")[2]) * 2**17


async def test_hidden_files_of_killed_writers_are_not_listed_and_swept_when_old(
    tmp_path: Path,
) -> None:
    store = Store.open(str(tmp_path))
    await store.create(KEY, b"whole")
    stale, fresh = (tmp_path / f"{KEY}#{number}" for number in (1, 2))
    for path in (stale, fresh):
        path.write_bytes(b"who")
    os.utime(stale, (0, time.time() - STALE_S - 60))
    assert await listed(store, keys.patches_prefix(A)) == [KEY]
    assert await store.sweep() == 1
    assert not stale.exists() and fresh.exists()
    assert await store.get(KEY) == b"whole"


FILLER = """
import asyncio, resource, sys
from svckit import keys
from svckit.store import Store
from handscroll.errors import StoreUnavailable

if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

async def fill():
    store = Store.open(sys.argv[1])
    key = keys.canvas_key("a" * 64)
    try:
        await store.create(key, bytes(2 << 20))
    except StoreUnavailable as error:
        print(error)
    assert await store.get(key) is None
    assert await store.create(key, b"small") == b"small"
    await store.close()

asyncio.run(fill())
"""


@pytest.mark.parametrize("bound", ["limit", "tmpfs"])
async def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, bound: str) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if bound == "tmpfs" and subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        done = subprocess.run(
            [sys.executable, "-c", FILLER, str(tmp_path), bound],
            capture_output=True,
            text=True,
            check=True,
        )
        left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    finally:
        if bound == "tmpfs":
            subprocess.run(["umount", str(tmp_path)], check=True)
    said = {"limit": "File too large", "tmpfs": "No space left on device"}[bound]
    assert said in done.stdout and "Debug" not in done.stdout
    assert left == ["spec.json"]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="folder cannot be made"):
        Store.open(str(tmp_path / "file" / "store"))


async def test_a_folder_is_named_by_url_or_path(tmp_path: Path) -> None:
    await Store.open(f"file://{tmp_path}/a%20b").create(KEY, b"1")
    assert await Store.open(str(tmp_path / "a b")).get(KEY) == b"1"


@pytest.mark.parametrize(
    "url", ["", "gs://bucket", "file://host/x", "file://", "s3://", "s3://u:p@bucket", "s3:///x"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="store"):
        Store.open(url)


# S3.


async def test_a_wrong_secret_is_said_in_plain_words(s3: S3) -> None:
    wrong = s3.settings.model_copy(update={"secret_key": SecretStr("not-the-secret")})
    store = Store.open(s3.url, wrong)
    operations: list[Callable[[], Awaitable[object]]] = [
        lambda: store.get(KEY),
        lambda: store.create(KEY, b"x"),
        lambda: store.delete_all(keys.patches_prefix(A)),
        lambda: store.ready(),
        lambda: store.probe(2),
    ]
    for operation in operations:
        with pytest.raises(StoreUnavailable, match="refuses us .SignatureDoesNotMatch.: check"):
            try:
                await operation()
            except StoreUnavailable as error:
                assert "not-the-secret" not in str(error) and "<" not in str(error)
                raise


async def test_a_missing_bucket_is_not_a_missing_value(s3: S3) -> None:
    store = Store.open("s3://no-such-bucket", s3.settings)
    with pytest.raises(StoreUnavailable, match="bucket does not exist"):
        await store.get(KEY)
    with pytest.raises(StoreUnavailable, match="bucket does not exist"):
        await store.ready()


async def test_a_server_that_is_not_there_is_said(s3: S3) -> None:
    gone = s3.settings.model_copy(update={"endpoint": "http://127.0.0.1:1"})
    with pytest.raises(StoreUnavailable, match="get patches/.*127.0.0.1:1"):
        await Store.open(s3.url, gone).get(KEY)


async def test_prefixes_of_a_bucket_are_stores_of_their_own(s3: S3) -> None:
    name = uuid.uuid4().hex
    one, two, outer = (
        Store.open(f"{s3.url}/{name}{end}", s3.settings) for end in ("/1", "/2/", "")
    )
    await one.create(KEY, b"1")
    await two.create(KEY, b"2")
    assert await one.get(KEY) == b"1"
    assert await listed(one, keys.patches_prefix(A)) == [KEY]
    assert await outer.get(KEY) is None


async def test_what_a_server_acknowledged_is_whole_after_it_was_killed(tmp_path: Path) -> None:
    server = Seaweed(tmp_path / "seaweed")
    server.start()
    acknowledged: dict[keys.Key, bytes] = {}

    async def write(store: Store, writer: int) -> None:
        for col in range(10**6):
            value = hashlib.sha512(b"%d %d" % (writer, col)).digest() * 300
            key = keys.patch_key(A, Patch(0, 0, writer, col))
            acknowledged[key] = await store.create(key, value)

    try:
        store = Store.open(server.s3.url, server.s3.settings, timeout_s=2)
        async with asyncio.TaskGroup() as group:
            writers = [group.create_task(_until_unavailable(write(store, n))) for n in range(8)]
            await asyncio.sleep(0.5)
            server.kill()
        assert all(writer.done() for writer in writers)
        server.start()
        store = Store.open(server.s3.url, server.s3.settings)
        assert len(acknowledged) > 50
        for key in await listed(store, keys.patches_prefix(A)):
            stored = await store.get(key)
            assert stored and stored == stored[:64] * 300
            assert stored == acknowledged.pop(key, stored)
        assert not acknowledged
    finally:
        server.kill()


async def _until_unavailable(work: Awaitable[None]) -> None:
    with pytest.raises(StoreUnavailable):
        await work


def test_settings_keep_the_secret_and_refuse_a_user_in_the_endpoint(s3: S3) -> None:
    assert SECRET_KEY not in repr(s3.settings) and SECRET_KEY not in str(s3.settings)
    assert s3.settings.allow_http and not S3Settings(endpoint="https://s3.example").allow_http
    for wrong in ("http://user:password@host", "host:9000", "ftp://host", ""):
        with pytest.raises(ValidationError, match="must be http"):
            S3Settings(endpoint=wrong)


def test_a_bucket_and_its_prefix_are_told_apart() -> None:
    assert bucket_of("s3://scrolls") == ("scrolls", "")
    assert bucket_of("s3://scrolls/a/b/") == ("scrolls", "a/b/")
