"""``handscroll serve``: everything on this machine, with settings that need no thought."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import random
import secrets
import signal
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Container, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console

from handscroll.errors import InvalidRequest, Unavailable
from launcher.processes import Child, Processes
from launcher.prune import KEEP_DAYS, MOST_DAYS, prune_daily

LOOPBACK = "127.0.0.1"
PORTS = range(20000, 32768)
"""Where ports of our own are: above those that Ray gives to its workers (10002 to 19999), and below
those that systems give to connections by themselves (Linux from 32768), so that none takes ours."""
DRAIN_S = 2
"""How long calls may go on once we are told to stop: nobody wants to wait for Ctrl-C."""


@dataclass(frozen=True)
class Machine:
    """What one machine is to run.

    Attributes:
        host, port: of the viewer.
        grpc_port: for gRPC clients, on this machine only.
        data: folder for logs, and for the store unless ``store`` says otherwise.
        store: URL of the store; empty for a folder in ``data``.
        model: folder of the checkpoint; None for the shipped one.
        painters: cores that paint.
        keep_days: how old what can be made again gets before it is pruned; 0 keeps it for ever.
    """

    host: str
    port: int
    grpc_port: int
    data: Path
    store: str
    model: Path | None
    painters: int
    keep_days: int

    @property
    def store_url(self) -> str:
        """Where the store is."""
        return self.store or str(self.data / "store")

    @property
    def url(self) -> str:
        """Where the viewer is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "https" if "HANDSCROLL_GATEWAY_CERT" in os.environ else "http"
        return f"{scheme}://{host}:{self.port}/"

    async def run(self, console: Console) -> None:
        """Run until SIGINT or SIGTERM.

        Raises:
            InvalidRequest: a port is taken, or others reach us and nothing says what they may.
            Unavailable: a process does not stay alive, or the store cannot be reached.
        """
        with ExitStack() as both:  # held until both are, so that they are not one
            for flag, host, port in (
                ("--port", self.host, self.port),
                ("--grpc-port", LOOPBACK, self.grpc_port),
            ):
                both.enter_context(_require_free(flag, host, port))
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        self._check_access()
        await self._prepare_store(console)
        with TemporaryDirectory(prefix="handscroll-", ignore_cleanup_errors=True) as scratch:
            await self._run(Processes(self.data / "logs", self._children(scratch)), console, stop)

    async def _run(self, processes: Processes, console: Console, stop: asyncio.Event) -> None:
        async with processes:
            ends: set[asyncio.Future[Any]] = {asyncio.create_task(stop.wait()), processes.broken}
            starting = asyncio.create_task(self._start(processes, console))
            tasks = [starting]
            if self.keep_days:
                pruning = prune_daily(self.store_url, self.keep_days, console)
                tasks.append(asyncio.create_task(pruning))
            try:
                await asyncio.wait({*ends, starting}, return_when=asyncio.FIRST_COMPLETED)
                if starting.done():
                    starting.result()
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if processes.broken.done():
                    processes.broken.result()
            finally:
                for task in tasks:
                    task.cancel()
                console.print("Stopping. What is painted stays.")

    def _check_access(self) -> None:
        """Refuse to be open to others by oversight, before anything is started."""
        from svckit.access import Access, AccessSettings

        Access(AccessSettings(), self.host)

    async def _prepare_store(self, console: Console) -> None:
        """Make the bucket of an S3 store, and say what is odd about it."""
        if self.store.startswith("s3://"):
            from svckit.bucket import prepare
            from svckit.settings import StoreSettings

            for warning in await asyncio.to_thread(prepare, self.store, StoreSettings().s3):
                console.print(f"[yellow]{warning}")

    async def _start(self, processes: Processes, console: Console) -> None:
        """Start all, telling what is there."""
        began = time.monotonic()
        gateway, tiler, tokenizer, generator, ray = processes.children
        with console.status("Starting …"):
            for child in (gateway, tiler, tokenizer, ray):
                await processes.start(child)
            await _until_answers(f"{self.url}healthz")
        console.print(f"[bold]Handscroll is at {self.url}")
        with console.status("Waking the painters …"):
            await _until_listens(LOOPBACK, _port(ray))
            await processes.start(generator)
            ray.on_restart = partial(_renew, ray, generator)
            await _until_listens(LOOPBACK, _port(generator))
            await _until_answers(f"{self.url}worlds")
        seconds = time.monotonic() - began
        console.print(
            f"{self.painters} painters are awake after {seconds:.0f} s. gRPC clients: "
            f"{LOOPBACK}:{self.grpc_port}. Logs: {processes.logs}. Ctrl-C stops it all."
        )

    def _children(self, scratch: str) -> Sequence[Child]:
        """The services and Ray; who asks comes before who is asked.

        Args:
            scratch: folder for what Ray writes.
        """
        taken = {self.port, self.grpc_port, *_metrics_ports()}
        tokenizer, generator, ray_port, ray_client_port = _free_ports(4, taken)
        store = ["--store.url", self.store_url]
        model = ["--model", str(self.model)] if self.model else []
        env = {
            # Threads that wait by spinning starve the others, and so do those of numpy.
            "OMP_WAIT_POLICY": "passive",
            "OPENBLAS_NUM_THREADS": "1",
            # Else Ray takes 127.0.0.1 to mean the machine's own address, and listens to everybody.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            # Told to stop, Ray would wait half a minute for actors to leave that have no reason to.
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }

        def service(name: str, *flags: str) -> Child:
            drain = ("--drain-s", str(DRAIN_S), "--notice-s", "0")
            return Child(name, [sys.executable, "-m", name, *drain, *flags], env)

        return (
            service(
                "gateway",
                *("--host", self.host, "--port", str(self.port), *store),
                *(() if _is_address(self.host) else ("--trusted-hosts", self.host)),
                *("--tiler", f"{LOOPBACK}:{self.grpc_port}"),
            ),
            service(
                "tiler_svc",
                *("--port", str(self.grpc_port), "--proxies", "1", *store),
                *("--generator", f"{LOOPBACK}:{generator}"),
                *("--tokenizer", f"{LOOPBACK}:{tokenizer}"),
            ),
            service("tokenizer_svc", "--port", str(tokenizer), *model),
            service(
                "generator_svc",
                *("--port", str(generator), "--ray-address", f"{LOOPBACK}:{ray_port}"),
                *("--painters", str(self.painters), *store, *model),
            ),
            Child(
                "ray",
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                    f"--node-ip-address={LOOPBACK}",
                    *("--port", str(ray_port)),
                    f"--num-cpus={self.painters}",
                    f"--temp-dir={scratch}",
                    f"--ray-client-server-port={ray_client_port}",
                    "--disable-usage-stats",
                    # What one machine has no use for: it costs memory and time to start.
                    "--include-dashboard=false",
                    "--include-log-monitor=false",
                    "--no-monitor",
                ],
                env,
            ),
        )


def serve(
    host: Annotated[str, typer.Option(help="address of the viewer")] = LOOPBACK,
    port: Annotated[int, typer.Option(min=1, max=65535, help="port of the viewer")] = 8080,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="port for gRPC clients")] = 7001,
    data: Annotated[Path, typer.Option(help="folder for store and logs")] = Path("handscroll-data"),
    store: Annotated[str, typer.Option(help="another folder, or s3://bucket/prefix")] = "",
    model: Annotated[Path | None, typer.Option(help="checkpoint folder; default: shipped")] = None,
    painters: Annotated[int, typer.Option(help="cores that paint; default: all")] = 0,
    keep_days: Annotated[
        int,
        typer.Option(
            min=0,
            max=MOST_DAYS,
            envvar=KEEP_DAYS,
            help="prune each day what nobody looked at for so many days; 0 never",
        ),
    ] = 0,
) -> None:
    """Serve the endless picture on this machine. Ctrl-C stops it; what is painted stays."""
    if painters < 0:
        raise InvalidRequest(f"--painters must not be negative, not {painters}")
    if model is not None and not model.is_dir():
        raise InvalidRequest(
            f"--model must be the folder of a checkpoint; there is none at {model}"
        )
    folder = model.resolve() if model else None
    cores = painters or os.cpu_count() or 1
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    machine = Machine(host, port, grpc_port, data.resolve(), store, folder, cores, keep_days)
    asyncio.run(machine.run(Console(stderr=True)))


async def _renew(ray: Child, generator: Child) -> None:
    """Painters of a Ray that died do not come back: who made them must make new ones."""
    await _until_listens(LOOPBACK, _port(ray))
    generator.kill()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _port(child: Child) -> int:
    """The port that a child was told to listen on."""
    return int(child.argv[child.argv.index("--port") + 1])


def _require_free(flag: str, host: str, port: int) -> socket.socket:
    """A port that is ours until it is closed."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise InvalidRequest(
            f"cannot listen on {host}:{port} ({_plain(error)}); name another with {flag}"
        ) from error


def _plain(error: OSError) -> str:
    """The system's words for an error, without what Python adds to them."""
    return os.strerror(error.errno) if error.errno else str(error)


def _metrics_ports() -> set[int]:
    """Ports that processes of ours are told to show their metrics on."""
    told = (port for name, port in os.environ.items() if name.endswith("_METRICS_PORT"))
    return {int(port) for port in told if port.isdecimal()}


def _free_ports(count: int, taken: Container[int]) -> list[int]:
    """So many of PORTS that nobody listens on, and that are not to be taken by others of ours.

    By chance, so that two of us that start together hardly meet.
    """
    shuffled = random.sample(PORTS, len(PORTS))
    found = list(islice((port for port in shuffled if port not in taken and _is_free(port)), count))
    if len(found) < count:
        raise Unavailable(
            f"of the ports {PORTS.start} to {PORTS.stop - 1} of {LOOPBACK} {len(found)} are free, "
            f"and {count} are needed"
        )
    return found


def _is_free(port: int) -> bool:
    try:
        with socket.create_server((LOOPBACK, port)):
            return True
    except OSError:
        return False


async def _until_listens(host: str, port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


async def _until_answers(url: str) -> None:
    # What is asked for is on this machine, whatever proxy there is for the web, and under whatever
    # name it has its certificate.
    ours = ssl.create_default_context()
    ours.check_hostname, ours.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ours)
    )

    def answers() -> bool:
        try:
            with opener.open(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            if error.code == 401:
                return True  # for keys; that is an answer
            if error.code < 500:
                raise Unavailable(f"{url} answers {error.code}: {error.read().decode()}") from error
            return False
        except OSError:
            return False

    while not await asyncio.to_thread(answers):
        await asyncio.sleep(0.1)
