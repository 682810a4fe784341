"""A gateway as it is deployed, on a port of its own, before a fake tiler."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, Page

from gateway.app import server
from gateway.settings import GatewaySettings
from handscroll.canvas import Canvas
from handscroll.geometry import Tile, tile_to_xyz
from svckit.keys import TileFormat, canvas_key, tile_key
from svckit.server import started
from svckit.settings import ServiceSettings, StoreSettings
from tests.gateway.faketiler import MODEL, WORLDS, FakeTiler

PATIENCE_MS = 60_000
"""How long a page may take for anything."""

_T = TypeVar("_T")
_seeds = itertools.count(1000)


class Loop:
    """An event loop in a thread: the services run there, tests wait here."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._turn)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What a coroutine comes to."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def call(self, callback: Callable[[], object]) -> None:
        """Call a function over there."""
        self.loop.call_soon_threadsafe(callback)

    def close(self) -> None:
        """Cancel what still runs, and end."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(30)

    def _turn(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.get_loop().run_forever()


@dataclass
class Stack:
    """A running gateway and what stands behind it."""

    loop: Loop
    tiler: FakeTiler
    url: str
    settings: GatewaySettings
    stop_tiler: Callable[[], None]

    def client(self, **options: Any) -> httpx.Client:
        """A browser with an empty jar."""
        # Reading certificates would take longer than all else.
        return httpx.Client(base_url=self.url, timeout=20, verify=False, trust_env=False, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """One GET."""
        with self.client() as client:
            return client.get(path, **options)

    def canvas(self, world: str = "planet", **changes: Any) -> Canvas:
        """A canvas that exists, and that no other test knows."""
        told = {"seed": next(_seeds), "extent": WORLDS[world], **changes}
        canvas = Canvas(MODEL, world, **told)
        self.loop.run(self.tiler.store.create(canvas_key(canvas.id), canvas.canonical()))
        return canvas

    def keep(self, canvas: Canvas, tile: Tile, body: bytes, format: TileFormat = "webp") -> None:
        """Have the store hold a tile."""
        self.loop.run(self.tiler.store.create(tile_key(canvas.id, tile, format), body))

    @contextmanager
    def closed_gate(self) -> Iterator[None]:
        """Nothing is painted inside."""
        self.loop.call(self.tiler.gate.clear)
        try:
            yield
        finally:
            self.loop.call(self.tiler.gate.set)


def path(canvas: Canvas, tile: Tile, format: str = "webp") -> str:
    """The URL path of a tile."""
    x, y, z = tile_to_xyz(tile)
    return f"/tiles/{canvas.id}/{z}/{x}/{y}.{format}"


def soon(holds: Callable[[], bool], what: str) -> None:
    """Wait for something that takes a moment: on a busy machine, a long one."""
    ends = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < ends, f"not within 30 s: {what}"
        time.sleep(0.01)


@contextmanager
def window(browser: Browser, width: int, height: int) -> Iterator[Page]:
    """A page of so many pixels, on which no script may fail."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE_MS)
    wrongs: list[str] = []
    page.on("pageerror", lambda error: wrongs.append(str(error)))
    yield page
    page.close()
    assert not wrongs


def metric(stack: Stack, line: str) -> float:
    """A figure of ``/metrics``."""
    found = [one for one in stack.get("/metrics").text.splitlines() if one.startswith(f"{line} ")]
    return float(found[0].split()[-1]) if found else 0.0


@asynccontextmanager
async def serving(gateway: uvicorn.Server) -> AsyncIterator[int]:
    """A server that runs; yields its port."""
    running = asyncio.create_task(gateway.serve())
    while not gateway.started:
        await asyncio.sleep(0.01)
        assert not running.done()
    try:
        yield gateway.servers[0].sockets[0].getsockname()[1]
    finally:
        gateway.should_exit = True
        await running


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    """The thread that services run in."""
    loop = Loop()
    yield loop
    loop.close()


Launch = Callable[..., Stack]


@pytest.fixture
def launch(loop: Loop, tmp_path: Path) -> Iterator[Launch]:
    """Starts a gateway with settings of a test's own, or one that a test may break."""
    with _launching(loop, tmp_path) as launched:
        yield launched


@pytest.fixture(scope="session")
def _shared(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with _launching(loop, tmp_path_factory.mktemp("gateway")) as launched:
        yield launched()


@pytest.fixture
def stack(_shared: Stack) -> Stack:
    """A gateway as it is by default."""
    _shared.tiler.forget()
    return _shared


@contextmanager
def _launching(loop: Loop, folder: Path) -> Iterator[Launch]:
    ends: list[Callable[[], None]] = []

    def launched(**changes: Any) -> Stack:
        store = StoreSettings(url=str(folder / "store"))
        tiler = FakeTiler(store.open())
        behind = ServiceSettings(host="127.0.0.1", port=0, drain_s=0, store=store)
        port, stop_tiler = _held(loop, started(tiler.servicers(), behind))
        ends.append(stop_tiler)
        told: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": 0,
            "tiler": f"127.0.0.1:{port}",
            "store": store,
        }
        settings = GatewaySettings(**told | {"drain_s": 1, "notice_s": 0} | changes)
        port, stop = _held(loop, serving(server(settings)))
        ends.append(stop)
        return Stack(loop, tiler, f"http://127.0.0.1:{port}", settings, stop_tiler)

    yield launched
    for end in reversed(ends):
        end()


def _held(loop: Loop, manager: Any) -> tuple[int, Callable[[], None]]:
    """Enter a context over there, in a task that stays in it; how to have it leave."""
    entered: asyncio.Future[int] = loop.loop.create_future()
    leave = asyncio.Event()

    async def hold() -> None:
        async with manager as port:
            entered.set_result(port)
            await leave.wait()

    async def value() -> int:
        await asyncio.wait((entered, task), return_when=asyncio.FIRST_COMPLETED)
        return entered.result() if entered.done() else await task

    async def begin() -> Any:
        return asyncio.create_task(hold())

    task = loop.run(begin())
    port = loop.run(value())

    async def end() -> None:
        leave.set()
        await task

    return port, lambda: loop.run(end())
