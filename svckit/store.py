"""The store: one interface to memory, a folder, and S3, through obstore.

Values are written once, or again as they are (`look`). `create` is the way to write, and it
returns what is committed under the key: our value or that of whoever came first. Everything that
several writers may race for (patches, tiles, marks) is a function of its key or is decided by the
first one, so a writer adopts what it gets back. Only what is too large for one request is written
by `writing`, under a key that is its writer's alone.

A reply may be lost after its write has landed; the next try is then refused because of our own
value. So a refusal is not a failure, and whatever is not a clear success is settled by reading.

What survives: S3 keeps what it acknowledged. A folder is written by way of a hidden file,
``key#1``, which is linked to its name once it is whole, so a process may be killed at any moment
and the name holds everything or nothing. The hidden file may stay behind; listings leave it out
and `Store.sweep` removes it. Nothing is flushed to the disk, however: after a power cut, a value
written in the last seconds may be gone or cut short.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from obstore import open_writer_async
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import LocalStore, MemoryStore, S3Store
from prometheus_client import Counter, Histogram
from pydantic import BaseModel, ConfigDict, SecretStr, field_validator

from handscroll.errors import InvalidRequest, StoreUnavailable, UnsafeStore
from svckit.deadline import remaining_s
from svckit.keys import PROBES, Key, Prefix, probe_key

if TYPE_CHECKING:
    from obstore import Bytes, GetResult, ListStream, ObjectMeta, PutMode, PutResult
    from obstore.store import ClientConfig, RetryConfig, S3Config

TIMEOUT_S = 10.0
LEAST_S = 1.0
"""However near the caller's deadline is, a request gets so long."""
CREATE_TRIES = 4
FIRST_PAUSE_S = 0.05
FIRST_LOOK_S = 0.1
CLOSE_S = 0.1
BATCH = 1000  # S3 lists and deletes as many at once
PROBE_RACES = 8
PROBE_WRITERS = 4
STALE_S = 3600.0
RENEWED_AFTER, RENEWALS = timedelta(hours=6), 16
"""What was written so long ago is written again when it is looked at, so many at a time."""
PART_BYTES, PARTS_AT_ONCE = 2**23, 2  # S3 takes 10,000 parts of a value, of 5 MiB or more

_SECONDS = Histogram(
    "handscroll_store_seconds",
    "Time that the store takes for a request, whatever comes of it",
    ["operation"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
)
_FAILURES = Counter(
    "handscroll_store_failures",
    "Requests that the store did not answer, or refused",
    ["operation", "reason"],
)

T = TypeVar("T")


class S3Settings(BaseModel):
    """How to reach an S3 service; what is left out comes from the usual AWS variables.

    Attributes:
        endpoint: URL of the service; None for AWS itself. `http://` is allowed by writing it.
        region: the region that requests are signed for.
        access_key: the access key.
        secret_key: the secret key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: SecretStr | None = None

    @field_validator("endpoint")
    @classmethod
    def _plain_url(cls, endpoint: str | None) -> str | None:
        if endpoint is not None:
            url = urlsplit(endpoint)
            # Errors quote the endpoint, so it must not hold a password.
            if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc:
                raise ValueError("must be http://host:port or https://host:port, without a user")
        return endpoint

    @property
    def allow_http(self) -> bool:
        """Whether the endpoint is one without TLS."""
        return self.endpoint is not None and self.endpoint.startswith("http:")


class Entry(NamedTuple):
    """A value, as a listing shows it.

    Attributes:
        key: its name.
        size_bytes: how large it is.
        written: when that was, by the store's clock, with its time zone.
    """

    key: Key
    size_bytes: int
    written: datetime


class Raw(Protocol):
    """What a store asks of its back end; obstore's stores are such."""

    async def get_async(self, path: str) -> GetResult:
        """Begin to read a value."""

    async def get_range_async(self, path: str, *, start: int, end: int) -> Bytes:
        """Read a part of a value."""

    async def head_async(self, path: str) -> ObjectMeta:
        """Look how large a value is."""

    async def put_async(self, path: str, file: bytes, *, mode: PutMode) -> PutResult:
        """Write a value."""

    async def delete_async(self, paths: str | Sequence[str]) -> None:
        """Delete values."""

    def list(self, prefix: str, *, chunk_size: int) -> ListStream[Sequence[ObjectMeta]]:
        """List a folder, in batches."""


class Store:
    """Values under keys, each written once, or again as it is.

    Every operation raises StoreUnavailable when the store cannot be reached, refuses us, is full,
    or takes longer than the timeout.

    Attributes:
        timeout_s: how long one request to the store may take.
    """

    def __init__(self, raw: Raw, timeout_s: float = TIMEOUT_S, folder: Path | None = None) -> None:
        self.timeout_s = timeout_s
        self._raw = raw
        self._folder = folder
        self._renewing: dict[Key, asyncio.Task[None]] = {}

    @classmethod
    def open(cls, url: str, s3: S3Settings | None = None, timeout_s: float = TIMEOUT_S) -> Store:
        """The store at a URL; nothing is asked of it yet, but a folder is made if missing.

        Args:
            url: ``memory://``, ``s3://bucket/prefix``, ``file:///folder``, or a path.
            s3: how to reach S3.
            timeout_s: how long one request to the store may take.

        Raises:
            InvalidRequest: the URL is none of these.
            StoreUnavailable: the folder cannot be made.
        """
        scheme, host, path, _, _ = urlsplit(url)
        if scheme == "memory":
            return cls(MemoryStore(), timeout_s)
        if scheme == "s3":
            return cls(_s3_store(url, s3 or S3Settings(), timeout_s), timeout_s)
        if scheme == "file" and host in ("", "localhost") and path:
            folder = Path(unquote(path))
        elif "://" not in url and url:
            folder = Path(url)
        else:
            raise InvalidRequest(
                "a store must be memory://, s3://bucket/prefix, file:///folder or a path, "
                f"not {url!r}"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(f"the store's folder cannot be made: {error}") from error
        # Deleting a canvas should not leave a tree of empty folders behind.
        return cls(LocalStore(folder, automatic_cleanup=True), timeout_s, folder)

    async def get(self, key: Key) -> bytes | None:
        """The value under a key, or None."""

        async def read() -> bytes:
            return bytes(await (await self._raw.get_async(key)).bytes_async())

        try:
            return await self._call("get", key, read())
        except FileNotFoundError:
            return None

    async def look(self, key: Key) -> bytes | None:
        """The value under a key that may be deleted when nobody looks at it, or None.

        Stores do not tell when a value was last read, only when it was written; so it is written
        again once in a while, for which nobody waits. If that fails, or too much is being written
        again, it counts as not looked at.
        """

        async def read() -> tuple[bytes, datetime]:
            found = await self._raw.get_async(key)
            return bytes(await found.bytes_async()), found.meta["last_modified"]

        try:
            value, written = await self._call("get", key, read())
        except FileNotFoundError:
            return None
        if value and datetime.now(UTC) - written > RENEWED_AFTER:
            self._renew(key, value)
        return value

    def _renew(self, key: Key, value: bytes) -> None:
        async def write() -> None:
            failures = (StoreUnavailable, FileNotFoundError, AlreadyExistsError, PreconditionError)
            with suppress(*failures):
                if await self.size(key) is not None:  # else it was deleted meanwhile
                    again = self._raw.put_async(key, value, mode="overwrite")
                    await self._call("renew", key, again)

        if key not in self._renewing and len(self._renewing) < RENEWALS:
            task = self._renewing[key] = asyncio.create_task(write())
            task.add_done_callback(lambda _: self._renewing.pop(key))

    async def create(self, key: Key, value: bytes) -> bytes:
        """Commit a value unless there is one; the value that is committed, ours or another's.

        When cancelled, the value may be there or not, but not a part of it.

        Raises:
            StoreUnavailable: nothing is known to be committed; try again. This takes three
                timeouts at most.
        """
        failure = StoreUnavailable(f"create {key}: refused as existing, yet nothing is there")
        deadline = time.monotonic() + self.timeout_s
        pause_s = FIRST_PAUSE_S
        for _ in range(CREATE_TRIES):
            try:
                return await self._put_or_adopt(key, value)
            except (AlreadyExistsError, PreconditionError):
                pass
            except StoreUnavailable as error:
                failure = error
            try:
                stored = await self.get(key)
            except StoreUnavailable as error:
                failure = error
            else:
                if stored is not None:
                    return stored
            if time.monotonic() + pause_s > deadline:
                break
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s *= 2
        raise failure

    @asynccontextmanager
    async def writing(self, key: Key) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
        """Write a large value piece by piece; it is there if this ends well, and else not at all.

        Unlike `create` this replaces what is there, so the key must be one that nobody else writes
        to. What was sent to S3 of a value that was given up stays there, unseen, until a lifecycle
        rule of the bucket ends it (AbortIncompleteMultipartUpload).

        Yields:
            Writes the next piece.
        """
        file = open_writer_async(
            self._raw,  # type: ignore[arg-type]
            key,
            buffer_size=PART_BYTES,
            max_concurrency=PARTS_AT_ONCE,
        )

        async def write(piece: bytes) -> None:
            await self._call("write", key, file.write(piece))

        yield write
        await self._call("write", key, file.close())

    async def size(self, key: Key) -> int | None:
        """How many bytes the value under a key has, or None if there is none."""
        try:
            return (await self._call("get", key, self._raw.head_async(key)))["size"]
        except FileNotFoundError:
            return None

    async def part(self, key: Key, start: int, end: int) -> bytes | None:
        """The bytes from ``start`` up to ``end`` of a value, or None if there is none."""
        try:
            found = self._raw.get_range_async(key, start=start, end=end)
            return bytes(await self._call("get", key, found))
        except FileNotFoundError:
            return None

    async def delete(self, key: Key) -> None:
        """Delete a value; it need not be there."""
        try:
            await self._call("delete", key, self._raw.delete_async(key))
        except FileNotFoundError:
            pass

    async def delete_all(self, prefix: Prefix) -> None:
        """Delete every value in a folder."""
        async for batch in self.batches(prefix):
            await self.delete_many([entry.key for entry in batch])

    async def delete_many(self, keys: Sequence[Key]) -> None:
        """Delete some values, 1000 at most; they need not be there."""
        if not keys:
            return
        try:
            await self._call("delete", keys[0], self._raw.delete_async(keys))
        except FileNotFoundError:
            # Somebody else deletes here too, and a folder stops at the first missing value.
            for key in keys:
                await self.delete(key)

    async def keys(self, prefix: Prefix) -> AsyncIterator[Key]:
        """The keys in a folder and its folders, in no order."""
        async for batch in self.batches(prefix):
            for entry in batch:
                yield entry.key

    async def batches(self, prefix: Prefix) -> AsyncIterator[list[Entry]]:
        """What is in a folder and its folders, in no order, up to 1000 at a time."""
        stream = self._raw.list(prefix, chunk_size=BATCH)
        while (batch := await self._call("list", prefix, anext(stream, None))) is not None:
            yield [
                Entry(Key(entry["path"]), entry["size"], entry["last_modified"]) for entry in batch
            ]

    async def any(self, prefix: Prefix, but: Key | None = None) -> bool:
        """Whether there is something in a folder, other than one value."""
        async for key in self.keys(prefix):
            if key != but:
                return True
        return False

    async def ready(self) -> None:
        """Ask the store something small, to see that it answers and lets us in."""
        async for _ in self.batches(PROBES):
            break

    async def probe(self, writers: int = PROBE_WRITERS) -> None:
        """Check by racing that only one writer can create a value, and that all then read it.

        Stores that claim conditional writes have been seen to let several writers win. The races
        go around `create`, which would hide it. Several are run at once, each among few writers:
        SeaweedFS makes the writers of a key queue, for up to a second each.

        Args:
            writers: how many race for one key.

        Raises:
            UnsafeStore: more than one writer won, or they read different values.
            StoreUnavailable: the store failed on the way, so nothing is known.
        """
        await _all(self._race(writers) for _ in range(PROBE_RACES))

    async def sweep(self) -> int:
        """Remove what killed writers left in a folder an hour ago or earlier; how many files."""
        folder = self._folder
        return 0 if folder is None else await asyncio.to_thread(_sweep, folder)

    async def close(self) -> None:
        """Wait a moment for obstore's threads; the last thing to do before a process ends.

        A thread that hands over a result while the interpreter ends aborts the process, though
        nothing is lost (github.com/PyO3/pyo3-async-runtimes/issues/40).
        """
        for task in self._renewing.values():
            task.cancel()
        await asyncio.sleep(CLOSE_S)

    async def _race(self, writers: int) -> None:
        key = probe_key()
        values = [b"writer %d" % number for number in range(writers)]
        try:
            race = await _all(self._put_and_read(key, value) for value in values)
            late, read_late = await self._put_and_read(key, b"latecomer")
        finally:
            await self.delete(key)
        won = [value for value, (told, _) in zip(values, race, strict=True) if told]
        read = {read_late, *(found for _, found in race)}
        # The winner's reply may have been lost, and nobody been told; one value must stand.
        standing = won or [value for value in values if value in read]
        if late or len(standing) != 1 or read != set(standing):
            raise UnsafeStore(
                f"the store must let exactly one of {writers} writers create {key} and show its "
                f"value to all; {len(won)} were told that they had created it, and "
                f"{len(read)} different values were read"
                + ("; one who came after them replaced it" if late else "")
            )

    async def _put_and_read(self, key: Key, value: bytes) -> tuple[bool, bytes | None]:
        """Whether one writer of a race was told that it won, and what it read then."""
        try:
            await self._put(key, value)
            won = True
        except (AlreadyExistsError, PreconditionError):
            won = False
        return won, await self.get(key)

    async def _put_or_adopt(self, key: Key, value: bytes) -> bytes:
        """Write; while that takes long, look whether a value is there by now, and take it.

        SeaweedFS makes the writers of a key queue, for up to a second each, to learn that they
        have lost.
        """
        put = asyncio.create_task(self._put(key, value))
        pause_s = FIRST_LOOK_S
        try:
            while not (await asyncio.wait({put}, timeout=pause_s))[0]:
                stored = await self.get(key)
                if stored is not None:
                    return stored
                pause_s *= 2
            put.result()
            return value
        finally:
            put.cancel()
            await asyncio.gather(put, return_exceptions=True)

    async def _put(self, key: Key, value: bytes) -> None:
        await self._call("create", key, self._raw.put_async(key, value, mode="create"))

    async def _call(self, what: str, key: str, request: Awaitable[T]) -> T:
        """Wait for a request; what is missing or there already stays an error of its own."""
        left_s = remaining_s()
        seconds = self.timeout_s if left_s is None else min(self.timeout_s, max(LEAST_S, left_s))
        began, kind = time.perf_counter(), "error"
        try:
            async with asyncio.timeout(seconds):
                return await request
        except TimeoutError:
            reason, kind = f"the store did not answer within {seconds:.3g} s", "timeout"
        except FileNotFoundError as error:
            # S3 says 404 for a missing bucket too.
            if "NoSuchBucket" not in str(error):
                raise
            reason = _plain(error)
        except (AlreadyExistsError, PreconditionError):
            raise
        except (BaseError, OSError) as error:
            reason = _plain(error)
        finally:
            _SECONDS.labels(what).observe(time.perf_counter() - began)
        _FAILURES.labels(what, kind).inc()
        # Not `from error`: obstore's errors hold whole replies, where S3 may quote what it checked.
        raise StoreUnavailable(f"{what} {key}: {reason}") from None


def bucket_of(url: str) -> tuple[str, str]:
    """Bucket and prefix of an ``s3://bucket/prefix``; the prefix is empty or ends with a slash.

    >>> bucket_of("s3://scrolls/eu/1")
    ('scrolls', 'eu/1/')

    Raises:
        InvalidRequest: the URL is not such.
    """
    scheme, bucket, path, query, fragment = urlsplit(url)
    if scheme != "s3" or not bucket or "@" in bucket or query or fragment:
        raise InvalidRequest(
            f"a store in S3 must be s3://bucket or s3://bucket/prefix, not {url!r}"
        )
    prefix = path.strip("/")
    return bucket, f"{prefix}/" if prefix else ""


def _s3_store(url: str, s3: S3Settings, timeout_s: float) -> S3Store:
    bucket, prefix = bucket_of(url)
    config: S3Config = {}
    if s3.endpoint is not None:
        config["endpoint"] = s3.endpoint
    if s3.region is not None:
        config["region"] = s3.region
    if s3.access_key is not None:
        config["access_key_id"] = s3.access_key
    if s3.secret_key is not None:
        config["secret_access_key"] = s3.secret_key.get_secret_value()
    # obstore's own bounds are 30 s and ten tries in three minutes: longer than anyone waits here.
    client: ClientConfig = {
        "connect_timeout": timedelta(seconds=timeout_s / 2),
        "timeout": timedelta(seconds=timeout_s),
    }
    if s3.allow_http:
        client["allow_http"] = True
    retry: RetryConfig = {
        "max_retries": 2,
        "retry_timeout": timedelta(seconds=timeout_s),
        "backoff": {
            "init_backoff": timedelta(seconds=FIRST_PAUSE_S),
            "max_backoff": timedelta(seconds=1),
            "base": 2,
        },
    }
    return S3Store(
        bucket, prefix=prefix or None, config=config, client_options=client, retry_config=retry
    )


async def _all(work: Iterable[Awaitable[T]]) -> list[T]:
    """The results of work done side by side, and all of it to its end, or the first failure.

    Work that is cancelled when other work fails may still write when nobody expects it any more.
    """
    results = await asyncio.gather(*work, return_exceptions=True)
    found: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        found.append(result)
    return found


def _plain(error: Exception) -> str:
    """An error of obstore in a line: without its debugging part and without the reply's body."""
    text = str(error)
    code = re.search(r"<Code>(\w+)</Code>", text)
    if code and code[1] == "NoSuchBucket":
        return "the bucket does not exist"
    if re.search(r"status code: 40[13]\b", text):
        said = f" ({code[1]})" if code else ""
        return f"the store refuses us{said}: check access key, secret key and what they may do"
    return text.partition("\n")[0].partition("<")[0].rstrip(" :")


def _sweep(folder: Path) -> int:
    before = time.time() - STALE_S
    swept = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            # obstore's name for a file not yet whole; no key holds a '#'.
            if re.fullmatch(r"[^#]+#\d+", name):
                path = Path(parent, name)
                with suppress(FileNotFoundError):  # its writer has just finished it
                    if path.stat().st_mtime < before:
                        path.unlink()
                        swept += 1
    return swept
