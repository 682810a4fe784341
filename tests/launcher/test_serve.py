"""What cannot start is said in words, and soon."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from itertools import chain
from pathlib import Path

import psutil
import pytest

from handscroll.errors import Unavailable
from launcher import serve
from launcher.serve import PORTS, Machine
from tests.support.stack import PATIENCE_S, ROOT, Stack, free_ports


def run(stack: Stack) -> subprocess.CompletedProcess[str]:
    """The command, which must come to an end by itself."""
    return subprocess.run(
        stack.command, cwd=ROOT, env=stack.env, capture_output=True, text=True, timeout=PATIENCE_S
    )


def test_a_model_that_is_not_there_is_named_before_anything_starts(tmp_path: Path) -> None:
    folder = tmp_path / "nothing"
    stack = Stack(tmp_path, folder)
    done = run(stack)
    assert done.returncode == 2
    assert done.stderr == (
        f"handscroll: --model must be the folder of a checkpoint; there is none at {folder}\n"
    )
    assert not stack.data.exists()


def test_a_model_that_cannot_be_read_is_named_and_not_tried_for_ever(
    tiny: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    weights = folder / "decoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    stack = Stack(tmp_path, folder)
    done = run(stack)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"handscroll: tokenizer_svc cannot start: {weights} is truncated")
    log = (stack.data / "logs" / "tokenizer_svc.log").read_text()
    assert log.count(str(weights)) == 1, "it is tried once"
    left = [one for one in psutil.process_iter(["cmdline"]) if str(folder) in str(one.info)]
    assert not left


# Ports.


def machine(port: int, grpc_port: int) -> Machine:
    return Machine("127.0.0.1", port, grpc_port, Path("data"), "", None, 1, 0)


def listened_on(here: Machine) -> list[int]:
    """The ports that children are told to listen on."""
    told = [" ".join(child.argv) for child in here._children("scratch")]
    found = chain.from_iterable(re.findall(r"-port[= ](\d+)", one) for one in told)
    return [int(port) for port in found]


def test_no_two_processes_are_given_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though hardly more ports are left than are needed."""
    monkeypatch.setattr(serve, "PORTS", PORTS[:7])
    port, grpc_port, measured = PORTS[:3]
    monkeypatch.setenv("HANDSCROLL_TILER_METRICS_PORT", str(measured))
    monkeypatch.setenv("HANDSCROLL_GATEWAY_METRICS_PORT", "none")
    for _ in range(20):
        found = listened_on(machine(port, grpc_port))
        assert sorted(found) == [port, grpc_port, *PORTS[3:7]]


def test_port_that_somebody_listens_on_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "PORTS", PORTS[:5])
    with socket.create_server(("127.0.0.1", PORTS[2])):
        assert PORTS[2] not in listened_on(machine(1, 2))
        monkeypatch.setattr(serve, "PORTS", PORTS[:4])
        with pytest.raises(Unavailable, match="3 are free, and 4 are needed"):
            listened_on(machine(1, 2))


@pytest.mark.parametrize("flag", ["--port", "--grpc-port"])
@pytest.mark.parametrize("port", ["70000", "0", "-1"])
def test_port_that_is_none_is_refused(tmp_path: Path, flag: str, port: str) -> None:
    data = tmp_path / "data"
    told = [sys.executable, "-m", "launcher", "serve", "--data", str(data), flag, port]
    done = subprocess.run(told, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2
    assert flag in done.stderr and "Usage" in done.stderr and "Traceback" not in done.stderr
    assert not data.exists()


def test_viewer_and_grpc_cannot_have_the_same_port(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    data = tmp_path / "data"
    told = [sys.executable, "-m", "launcher", "serve", "--data", str(data)]
    told += ["--port", str(port), "--grpc-port", str(port)]
    done = subprocess.run(told, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr and "--grpc-port" in done.stderr
    assert not data.exists()
