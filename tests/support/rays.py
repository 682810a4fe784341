"""A Ray cluster on this machine's loopback network, of as many nodes as a test wants."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.leash import LEASHED

ENV = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_WAIT_POLICY": "passive",
}


def pytest_configure() -> None:
    """Ray reads its token when it is first imported."""
    os.environ.update(ENV)


class Cluster:
    """Nodes at 127.0.0.2, 127.0.0.3 and so on; the first is the head."""

    def __init__(self) -> None:
        self.nodes: list[subprocess.Popen[bytes]] = []
        with socket.create_server(("127.0.0.2", 0)) as free:
            self.address = f"127.0.0.2:{free.getsockname()[1]}"

    def add(self, cpus: int) -> None:
        """Start one more node, and wait until it is part of the cluster."""
        host = f"127.0.0.{2 + len(self.nodes)}"
        port = self.address.rpartition(":")[2]
        role = ["--head", f"--port={port}", "--include-dashboard=false"]
        if self.nodes:
            role = [f"--address={self.address}"]
        node = subprocess.Popen(
            [
                *(*LEASHED, sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *role),
                f"--node-ip-address={host}",
                f"--num-cpus={cpus}",
                "--disable-usage-stats",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.nodes.append(node)
        assert node.stdout is not None
        said = b""
        for line in node.stdout:
            said += line
            if b"--block" in line:  # what it says once it runs
                return
        raise AssertionError(f"ray did not start: {said.decode()}")

    def stop(self) -> None:
        """Stop all nodes at once."""
        for node in reversed(self.nodes):
            node.terminate()
        deadline = time.monotonic() + 10
        for node in self.nodes:
            with suppress(subprocess.TimeoutExpired):
                node.wait(max(0.1, deadline - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()
            assert node.stdout is not None
            node.stdout.close()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    """Two nodes of one CPU each."""
    cluster = Cluster()
    try:
        cluster.add(1)
        cluster.add(1)
        yield cluster
    finally:
        cluster.stop()
