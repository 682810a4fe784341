"""What is measured from outside: the product, one more gateway, MapProxy; and the load of wrk.

Each server runs in a session of its own: Ctrl-C reaches only the benchmark, which then stops them.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from time import perf_counter
from types import TracebackType
from typing import NamedTuple, Self

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from handscroll.canvas import Canvas
from handscroll.geometry import Tile, tile_to_xyz
from svckit.keys import canvas_key

HOST = "127.0.0.1"
MIB = 2**20
CONNECTIONS = 32

_START_S = 120.0
_STOP_S = 20.0
_POLL_S = 0.02
_HEADERS_BYTES = 1500
"""More than those of any answer."""

_MAPPROXY = """
services: {{tms: }}
layers: [{{name: tiles, title: Tiles, sources: [tiles]}}]
caches:
  tiles:
    grids: [GLOBAL_WEBMERCATOR]
    sources: []
    format: image/webp
    cache: {{type: file, directory: {folder}/cache, directory_layout: tms}}
globals: {{image: {{formats: {{image/webp: {{format: image/webp, mode: RGB}}}}}}}}
"""
_WSGI = """
from mapproxy.wsgiapp import make_wsgi_app
application = make_wsgi_app({config!r})
"""


_LUA = """
local wanted = {{
{wanted}
}}
local requests, at = {{}}, 0

function init(arguments)
  for number, one in ipairs(wanted) do
    requests[number] = wrk.format("GET", one[1], one[2] and {{["If-None-Match"] = one[2]}})
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    '{{"count": %d, "us": %d, "bytes": %d, "errors": %d, "p50_us": %d, "p99_us": %d}}\\n',
    summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


class Server:
    """A process that serves HTTP, with all that it starts. Leaving the context stops it.

    Args:
        arguments: what to run.
        port: where it will answer.
        log: file for what it says.
        env: added to our own environment.

    Attributes:
        url: without a slash at the end.
        began: `perf_counter` when it was started.
    """

    def __init__(
        self, arguments: Sequence[str], port: int, log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.url, self.log, self.began = f"http://{HOST}:{port}", log, 0.0
        self._arguments, self._env = arguments, os.environ | (env or {})
        self._process: psutil.Popen | None = None

    def __enter__(self) -> Self:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.began = perf_counter()
        with self.log.open("ab") as log:
            self._process = psutil.Popen(
                self._arguments,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        family = self.family()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        # First its leader may stop all that it started; then whatever is left behind must go.
        for some, grace_s in ((family[:1], _STOP_S), (family, 1)):
            for left in psutil.wait_procs(some, grace_s)[1]:
                with suppress(psutil.NoSuchProcess):
                    left.kill()

    def family(self) -> list[psutil.Process]:
        """Its process, and then all that descend from it."""
        if self._process is None or not self._process.is_running():
            return []
        leader = psutil.Process(self._process.pid)
        return [leader, *leader.children(recursive=True)]

    def memory_mib(self) -> dict[str, list[float]]:
        """Resident memory of each of its processes, by what they are."""
        found: dict[str, list[float]] = {}
        for process in self.family():
            with suppress(psutil.NoSuchProcess):  # it came and went
                found.setdefault(_kind(process), []).append(process.memory_info().rss / MIB)
        return found

    async def answers(self, path: str = "/") -> float:
        """Seconds from its start until it answers 200.

        Raises:
            RuntimeError: it ends first, or it takes minutes.
        """
        async with client(self.url) as asking:
            while not await _answers(asking, path):
                ended = self._process is None or self._process.poll() is not None
                if ended or perf_counter() - self.began > _START_S:
                    raise RuntimeError(
                        f"{shlex.join(self._arguments[:4])} … {'ended' if ended else 'is silent'} "
                        f"instead of answering {path}; it last said:\n{self.last_words()}"
                    )
                await asyncio.sleep(_POLL_S)
        return perf_counter() - self.began

    def last_words(self) -> str:
        """The end of what it said."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-10:])


class Drawn(NamedTuple):
    """Patches drawn, and how long painters were busy with them, each by itself."""

    patches: int
    busy_s: float


class Product(Server):
    """Handscroll as ``handscroll serve`` starts it, with the shipped model.

    Args:
        folder: for store and logs; started again on the same folder the store is warm.
    """

    def __init__(self, folder: Path) -> None:
        port, self.grpc_port, self._metrics_port = free_port(), free_port(), free_port()
        self.store = folder / "store"
        arguments = (
            *(sys.executable, "-m", "launcher", "serve"),
            *("--port", str(port), "--grpc-port", str(self.grpc_port), "--data", str(folder)),
        )
        env = {"HANDSCROLL_GENERATOR_METRICS_PORT": str(self._metrics_port)}
        self._said = folder / "launcher.log"
        self._said.unlink(missing_ok=True)  # of an earlier start
        super().__init__(arguments, port, self._said, env)

    async def awake(self) -> float:
        """Wait until the painters are awake: seconds from the start."""
        while "awake" not in self._said.read_text():
            await asyncio.sleep(0.05)
        return perf_counter() - self.began

    async def worlds(self) -> dict[str, Canvas]:
        """The canvas of each world that is opened first."""
        async with client(self.url) as asking:
            found = (await asking.get("/worlds")).raise_for_status().json()["worlds"]
        specs = {one["name"]: self.store / canvas_key(one["canvas"]) for one in found}
        return {name: Canvas.parse(path.read_bytes()) for name, path in specs.items()}

    async def canvas(self, **wish: object) -> Canvas:
        """Have a canvas made."""
        async with client(self.url) as asking:
            told = (await asking.post("/canvases", json=wish)).raise_for_status().json()
        return Canvas.parse((self.store / canvas_key(told["id"])).read_bytes())

    async def drawn(self) -> Drawn:
        """What its painters did since it was started."""
        async with client(f"http://{HOST}:{self._metrics_port}") as asking:
            text = (await asking.get("/metrics")).raise_for_status().text
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        patches = sums.get("handscroll_patches_drawn_total", 0.0)
        return Drawn(round(patches), sums["handscroll_draw_seconds_sum"])


def gateway_without_memory(product: Product, log: Path) -> Server:
    """A gateway more, that reads every tile from the store of the product."""
    port = free_port()
    arguments = (
        *(sys.executable, "-m", "gateway", "--port", str(port), "--cache-bytes", "0"),
        *("--store.url", str(product.store), "--tiler", f"{HOST}:{product.grpc_port}"),
    )
    return Server(arguments, port, log)


def mapproxy(python: Path, folder: Path, tiles: Mapping[Tile, bytes]) -> Server:
    """MapProxy with tiles in its cache on the disk, and no source to get others from.

    Args:
        python: of an environment that has MapProxy and gunicorn.
        folder: for cache and configuration.
        tiles: what is in its cache.
    """
    for tile, body in tiles.items():
        x, y, z = tile_to_xyz(tile)
        path = folder / "cache" / f"{z:02d}" / str(x) / f"{y}.webp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    config, port = folder / "mapproxy.yaml", free_port()
    config.write_text(_MAPPROXY.format(folder=folder))
    (folder / "tileserver.py").write_text(_WSGI.format(config=str(config)))
    arguments = (
        *(str(python), "-m", "gunicorn", "--worker-class", "gthread", "--workers", "1"),
        *("--threads", "8", "--bind", f"{HOST}:{port}", "--no-control-socket"),
        *("--chdir", str(folder), "tileserver"),
    )
    return Server(arguments, port, folder / "log")


def mapproxy_path(tile: Tile) -> str:
    """Where MapProxy serves a tile."""
    x, y, z = tile_to_xyz(tile)
    return f"/tiles/1.0.0/tiles/EPSG3857/{z}/{x}/{y}.webp?origin=nw"


def versions(python: Path, *packages: str) -> str:
    """The versions of packages in another environment.

    Raises:
        RuntimeError: one is not there.
    """
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    done = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{python} has not {' and '.join(packages)}:\n{done.stderr.strip()}")
    pairs = zip(packages, done.stdout.split(), strict=True)
    return ", ".join(f"{package} {version}" for package, version in pairs)


def client(url: str) -> httpx.AsyncClient:
    """A client of a server on this machine."""
    # Reading certificates would take longer than many an answer.
    return httpx.AsyncClient(base_url=url, timeout=90, verify=False, trust_env=False)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


async def _answers(asking: httpx.AsyncClient, path: str) -> bool:
    try:
        return (await asking.get(path)).status_code == 200
    except httpx.TransportError:
        return False


def _kind(process: psutil.Process) -> str:
    """What a process of the product is, in words."""
    title, *arguments = process.cmdline()
    if title.startswith("ray::_"):
        return title.removeprefix("ray::_").lower()
    module = arguments[1] if arguments[:1] == ["-m"] else ""
    return "Ray's own processes" if not module or module.startswith("ray.") else module


class Load(NamedTuple):
    """What a server did under load."""

    requests_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Course:
    """Tiles that a server has, to be asked for over and over.

    Attributes:
        server: who serves them.
        paths: of the tiles.
        bodies: what they must be.
        etags: sent as If-None-Match, and then answered 304; empty for none.
    """

    server: Server
    paths: Sequence[str]
    bodies: Sequence[bytes]
    etags: Sequence[str] = ()

    async def check(self) -> None:
        """Ask for every tile once, so that what can be in memory is.

        Raises:
            RuntimeError: another answer than the tile, or than that it is unchanged.
        """
        async with client(self.server.url) as asking:
            for place, (path, body) in enumerate(zip(self.paths, self.bodies, strict=True)):
                tag = {"If-None-Match": self.etags[place]} if self.etags else {}
                answer = await asking.get(path, headers=tag)
                wanted = (304, b"") if self.etags else (200, body)
                if (answer.status_code, answer.content) != wanted:
                    raise RuntimeError(
                        f"{answer.url}: {answer.status_code} and {len(answer.content)} bytes, "
                        f"not {wanted[0]} and the {len(wanted[1])} bytes of the tile"
                    )

    def run(self, lasting_s: int) -> Load:
        """Load the server with wrk.

        Raises:
            RuntimeError: some requests failed, or were answered with something else.
        """
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(_LUA.format(wanted="\n".join(self._lua())))
            script.flush()
            load = ("-t1", f"-c{CONNECTIONS}", f"-d{lasting_s}s", "--latency", "-s", script.name)
            said = subprocess.run(
                ["wrk", *load, self.server.url], check=True, capture_output=True, text=True
            ).stdout
        found = json.loads(said.splitlines()[-1])
        body_bytes = 0.0 if self.etags else fmean(map(len, self.bodies))
        surplus_bytes = found["bytes"] / max(1, found["count"]) - body_bytes
        # A round may end within the list, so the mean is only nearly that of all.
        if found["errors"] or not -0.1 * body_bytes < surplus_bytes < _HEADERS_BYTES:
            raise RuntimeError(f"{self.server.url} did not serve wrk what it asked for: {found}")
        return Load(
            1e6 * found["count"] / found["us"], found["p50_us"] / 1000, found["p99_us"] / 1000
        )

    def _lua(self) -> Iterator[str]:
        """The tiles as wrk reads them."""
        for place, path in enumerate(self.paths):
            # Written as JSON, such text is Lua too.
            pair = [path, self.etags[place]] if self.etags else [path]
            yield f"  {{{', '.join(map(json.dumps, pair))}}},"


async def etags(server: Server, paths: Sequence[str]) -> list[str]:
    """What a server names the bytes of its tiles."""
    async with client(server.url) as asking:
        return [(await asking.get(path)).raise_for_status().headers["ETag"] for path in paths]
