"""Two of every service in processes of their own, as a cluster runs them: one ledger, one store."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.leash import LEASHED
from tests.support.load import until
from tests.support.rays import ENV, Cluster
from tests.support.seaweed import S3
from tests.support.stack import ROOT, _title, free_ports

OF_EACH = 2
KINDS = ("gateway", "tiler_svc", "tokenizer_svc", "generator_svc")
BACKLOG = 540
"""Patches that requests to a generator may stand on: those of twenty tiles."""
START_S = 180.0
"""How long a process may take to serve, on a busy machine."""


class Fleet:
    """The processes.

    Args:
        folder: for their logs.
        model: folder of the checkpoint.
        store: where they keep everything.
        ray: the cluster that generators join; it must have a CPU for each of them.

    Attributes:
        ports: of each kind.
        running: by port.
    """

    def __init__(self, folder: Path, model: Path, store: S3, ray: Cluster) -> None:
        self._folder, self._model, self._store, self._ray = folder, model, store, ray
        found = free_ports(OF_EACH * len(KINDS))
        self.ports = {
            kind: found[number * OF_EACH : (number + 1) * OF_EACH]
            for number, kind in enumerate(KINDS)
        }
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    async def start(self) -> None:
        """Start all, and wait until they serve."""
        for kind in reversed(KINDS):
            for port in self.ports[kind]:
                self.launch(kind, port)
        for kind in reversed(KINDS):
            await asyncio.gather(*(self.serves(kind, port) for port in self.ports[kind]))

    def launch(self, kind: str, port: int) -> None:
        """Start one."""
        with (self._folder / f"{kind}-{port}.log").open("ab") as log:
            self.running[port] = subprocess.Popen(
                [*LEASHED, sys.executable, "-m", kind, "--port", str(port), *self._flags(kind)],
                cwd=ROOT,
                env=os.environ | ENV | self._env(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def stop(self, port: int, how: signal.Signals = signal.SIGTERM) -> float:
        """Have one end; how many seconds that took."""
        process = self.running[port]
        process.send_signal(how)
        took_s = await until(lambda: process.poll() is not None, f"the end of {port}", START_S)
        # uvicorn ends of the signal that it was sent, once all is done.
        assert process.returncode in (0, -how), self.said(port)
        return took_s

    async def serves(self, kind: str, port: int) -> float:
        """Wait until one says that it serves; how many seconds that took."""

        async def gateway() -> bool:
            async with httpx.AsyncClient(timeout=5, verify=False, trust_env=False) as client:
                try:
                    found = await client.get(f"http://127.0.0.1:{port}/readyz")
                except httpx.TransportError:
                    return False
            return found.status_code == 200

        async def service() -> bool:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                health: Any = health_pb2_grpc.HealthStub(channel)
                try:
                    found = await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
                except grpc.aio.AioRpcError:
                    return False
            return bool(found.status == health_pb2.HealthCheckResponse.SERVING)

        async def look() -> bool:
            assert self.running[port].poll() is None, self.said(port)
            return await (gateway() if kind == "gateway" else service())

        return await until(look, f"{kind} at {port}", START_S)

    def painters(self) -> list[psutil.Process]:
        """The Ray workers that draw."""
        below = psutil.Process(self._ray.nodes[0].pid).children(recursive=True)
        return [one for one in below if _title(one).startswith("ray::_Painter")]

    def kill(self) -> None:
        """End all at once."""
        for process in self.running.values():
            process.kill()
            process.wait()

    def said(self, port: int) -> str:
        """The last that one has logged."""
        (log,) = self._folder.glob(f"*-{port}.log")
        return log.read_text(errors="replace")[-2000:]

    def mistakes(self) -> list[str]:
        """What all have logged as errors of their own."""
        logs = (log.read_text(errors="replace") for log in self._folder.glob("*.log"))
        return [line for text in logs for line in text.splitlines() if '"level": "ERROR"' in line]

    def _flags(self, kind: str) -> Sequence[str]:
        at = {
            kind: ",".join(f"127.0.0.1:{port}" for port in ports)
            for kind, ports in self.ports.items()
        }
        return {
            "gateway": ["--tiler", at["tiler_svc"], "--cache-bytes", str(2**22)],
            "tiler_svc": ["--generator", at["generator_svc"], "--tokenizer", at["tokenizer_svc"]],
            "tokenizer_svc": ["--model", str(self._model), "--workers", "1"],
            "generator_svc": [
                *("--model", str(self._model), "--painters", "1", "--backlog", str(BACKLOG)),
                *("--ray-address", self._ray.address),
            ],
        }[kind]

    def _env(self) -> dict[str, str]:
        settings = self._store.settings
        assert settings.endpoint and settings.region and settings.access_key and settings.secret_key
        return {
            "HANDSCROLL_STORE_URL": self._store.url,
            "HANDSCROLL_STORE_S3_ENDPOINT": settings.endpoint,
            "HANDSCROLL_STORE_S3_REGION": settings.region,
            "HANDSCROLL_STORE_S3_ACCESS_KEY": settings.access_key,
            "HANDSCROLL_STORE_S3_SECRET_KEY": settings.secret_key.get_secret_value(),
        }
