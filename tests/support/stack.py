"""Everything as a user starts it: `handscroll serve` with its children, looked at from outside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from svckit.store import S3Settings, Store
from tests.support.seaweed import Seaweed

ROOT = Path(__file__).parents[2]
SERVICES = ("gateway", "tiler_svc", "tokenizer_svc", "generator_svc")
CHILDREN = {**{name: name for name in SERVICES}, "ray": "ray.scripts.scripts"}
"""What the launcher keeps alive, and the module that each is."""
MEASURED = ("tiler", "tokenizer", "generator")
"""The services whose metrics have a port of their own."""
PAINTERS = 2
# A machine may be busy with other things: limits are for what never comes.
PATIENCE_S = 120.0

T = TypeVar("T")


def eventually(
    look: Callable[[], T | None], what: str, limit_s: float = PATIENCE_S, pause_s: float = 0.05
) -> T:
    """The first thing that a look finds; failing to see it in time is a failure."""
    end = time.monotonic() + limit_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"not seen in {limit_s:g} s: {what}"
        time.sleep(pause_s)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Stack:
    """`handscroll serve` in a process of its own.

    Args:
        folder: for store, logs and what it says.
        model: folder of the checkpoint.
        store: URL of the store; empty for a folder.
        s3: how to reach S3.
        told: more of its environment.

    Attributes:
        url: of the viewer, without a slash at its end.
        grpc: host:port for gRPC clients.
        data: its folder.
        stopped_s: how long the last stop took.
    """

    def __init__(
        self,
        folder: Path,
        model: Path,
        store: str = "",
        s3: S3Settings | None = None,
        told: Mapping[str, str] | None = None,
    ) -> None:
        self._port, self._grpc_port, *metrics_ports = free_ports(5)
        self._metrics_ports = dict(zip(MEASURED, metrics_ports, strict=True))
        self.url = f"http://127.0.0.1:{self._port}"
        self.grpc = f"127.0.0.1:{self._grpc_port}"
        self.data, self._folder, self._model = folder / "data", folder, model
        self._store, self._s3, self._told = store, s3, told or {}
        self._process: subprocess.Popen[bytes] | None = None
        self.stopped_s = 0.0

    def start(self) -> None:
        """Start it, and wait until it says that it is awake."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL, stderr=said
            )

        def awake() -> bool:
            assert self._process is not None and self._process.poll() is None, self.said
            return "painters are awake" in self.said

        eventually(awake, "painters awake")

    @property
    def command(self) -> list[str]:
        """The command line."""
        store = ["--store", self._store] if self._store else []
        return [
            *(sys.executable, "-m", "launcher", "serve", "--data", str(self.data)),
            *("--port", str(self._port), "--grpc-port", str(self._grpc_port)),
            *("--model", str(self._model), "--painters", str(PAINTERS), *store),
        ]

    @property
    def env(self) -> dict[str, str]:
        """The environment of the command."""
        s3 = {} if self._s3 is None else self._s3.model_dump()
        return os.environ | {
            "COLUMNS": "500",  # what it says is not to be broken into lines
            **{
                f"HANDSCROLL_{name.upper()}_METRICS_PORT": str(port)
                for name, port in self._metrics_ports.items()
            },
            **self._told,
            **{f"HANDSCROLL_STORE_S3_{name.upper()}": _plain(value) for name, value in s3.items()},
        }

    @property
    def said(self) -> str:
        """What it has told the user."""
        return self._said.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Of `handscroll serve` itself."""
        assert self._process is not None
        return self._process.pid

    def processes(self) -> list[psutil.Process]:
        """Itself and everything below it."""
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]

    def child(self, name: str) -> psutil.Process:
        """One of CHILDREN; one that is being started again is waited for."""
        return eventually(lambda: self._children().get(name), f"a process {name}")

    def painters(self) -> list[psutil.Process]:
        """The Ray workers that draw."""
        return [one for one in self.processes() if _title(one).startswith("ray::_Painter")]

    def pids(self) -> dict[str, int]:
        """Of CHILDREN, and of the painters."""
        children = {name: one.pid for name, one in self._children().items()}
        painters = sorted(one.pid for one in self.painters())
        return children | {f"painter {number}": pid for number, pid in enumerate(painters)}

    def drawn(self) -> int:
        """Patches drawn since the generator was started; 0 while it is away."""
        return int(self.metric("handscroll_patches_drawn_total"))

    def metric(self, name: str, service: str = "generator", **labels: str) -> float:
        """A metric of a service, all that has these labels together; 0 while it is away."""
        try:
            families = self.metrics(service)
        except OSError:
            return 0.0
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def metrics(self, service: str) -> list[Metric]:
        """All that a service tells Prometheus."""
        port = self._port if service == "gateway" else self._metrics_ports[service]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return list(text_string_to_metric_families(answer.read().decode()))

    def mistakes(self) -> list[str]:
        """What services have logged as errors: their own mistakes, whatever happens to others."""
        logs = (self.data / "logs").glob("*.log")
        lines = (line for log in logs for line in log.read_text(errors="replace").splitlines())
        return [line for line in lines if '"level": "ERROR"' in line]

    def open_store(self) -> Store:
        """What it keeps its pictures in."""
        return Store.open(self._store or str(self.data / "store"), self._s3)

    def heal(self) -> None:
        """Wait until everything that was killed is there again."""

        def whole() -> bool:
            try:
                with urllib.request.urlopen(f"{self.url}/worlds", timeout=10) as answer:
                    served = answer.status == 200
            except OSError:
                return False
            return served and len(self.pids()) == len(CHILDREN) + PAINTERS

        eventually(whole, "all processes and painters")

    def stop(self) -> None:
        """Stop it with Ctrl-C: it must end well, and leave nobody behind."""
        assert self._process is not None
        below = self.processes()[1:]
        began = time.monotonic()
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(PATIENCE_S)
        self.stopped_s = time.monotonic() - began
        # Ray's workers are nobody's children once it is gone; they see it and leave.
        _, left = psutil.wait_procs(below, 10)
        assert code == 0, self.said
        assert "Stopping. What is painted stays." in self.said
        # Nobody but the first process of the machine could take away those that it inherited.
        assert not [one for one in left if _status(one) != psutil.STATUS_ZOMBIE], left
        self._process = None

    def kill(self) -> None:
        """End it at once with everything below it, however it is."""
        if self._process is not None:
            below = self.processes()
            for one in below:
                one.kill()
            self._process.wait()
            self._process = None

    @property
    def _said(self) -> Path:
        return self._folder / "said"

    def _children(self) -> dict[str, psutil.Process]:
        found = {}
        for child in psutil.Process(self.pid).children():
            words = _words(child)
            for name, module in CHILDREN.items():
                if words[1:3] == ["-m", module]:
                    found[name] = child
        return found


def _words(process: psutil.Process) -> list[str]:
    """The command line of a process; nothing for one that is no more."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def _title(process: psutil.Process) -> str:
    return next(iter(_words(process)), "")


def _status(process: psutil.Process) -> str:
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_ZOMBIE


def _plain(setting: str | SecretStr | None) -> str:
    return setting.get_secret_value() if isinstance(setting, SecretStr) else setting or ""


@contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    """A stack, started and in the end stopped as a user would, killed if that fails."""
    try:
        stack.start()
        yield stack
        stack.stop()
    finally:
        stack.kill()


@pytest.fixture(scope="session")
def session_stack(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[Stack]:
    """A stack on a folder, for the whole session."""
    with running(Stack(tmp_path_factory.mktemp("stack"), tiny)) as stack:
        yield stack


@pytest.fixture
def stack(session_stack: Stack) -> Stack:
    """The session's stack, whole: what an earlier test killed is waited for."""
    session_stack.heal()
    return session_stack


class SteadySeaweed(Seaweed):
    """An S3 server that comes back where it was."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ports: list[int] = []

    def resume(self) -> None:
        """Start again after a kill, at the same ports with what it held."""
        self._process = self._launch(self._ports)
        assert self._answers(self._ports[0])

    def _launch(self, ports: list[int]) -> subprocess.Popen[bytes]:
        self._ports = ports
        return super()._launch(ports)
