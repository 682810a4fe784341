"""Everything as it is started, with keys: who can reach what, and where no key is left behind."""

from __future__ import annotations

import ipaddress
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest

from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.canvas.v1.canvas_service_pb2_grpc import CanvasServiceStub
from svckit.keyring import RoleName, changed_keys, new_key
from tests.support.collector import Collector
from tests.support.stack import PATIENCE_S, ROOT, Stack, eventually, running

MIDDLE = 2**13
ROLES: tuple[RoleName, ...] = ("read", "paint", "admin")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A file of keys, and what is shown of each."""
    file, shown = tmp_path_factory.mktemp("keys") / "keys.json", dict[str, str]()
    for role in ROLES:
        shown[role], key = new_key(f"Anna {role}", role)
        with changed_keys(file) as found:
            found[key.id] = key
    return file, shown


@pytest.fixture(scope="module")
def keyed(
    tmp_path_factory: pytest.TempPathFactory,
    tiny: Path,
    keys: tuple[Path, dict[str, str]],
    collector: Collector,
) -> Iterator[Stack]:
    """A stack that knows these keys, tells all that it does, and traces it."""
    services = ("GATEWAY", "TILER", "TOKENIZER", "GENERATOR")
    told = {
        "HANDSCROLL_ACCESS_KEYS_FILE": str(keys[0]),
        "HANDSCROLL_ACCESS_ANONYMOUS": "none",
        **{f"HANDSCROLL_{name}_LOG_LEVEL": "DEBUG" for name in services},
        **collector.told,
    }
    with running(Stack(tmp_path_factory.mktemp("keyed"), tiny, told=told)) as stack:
        yield stack


def test_nobody_but_this_machine_reaches_anything(keyed: Stack) -> None:
    """Ray's own processes too, of which some like to listen everywhere."""
    listening = {
        (_name(process), _host(one.laddr.ip))
        for process in keyed.processes()
        for one in _connections(process)
        if one.status == psutil.CONN_LISTEN
    }
    assert {"gateway", "tiler_svc", "tokenizer_svc", "generator_svc"} <= {
        name for name, _ in listening
    }
    assert "gcs_server" in {name for name, _ in listening}
    assert not [(name, str(host)) for name, host in listening if not host.is_loopback]


def test_ray_obeys_nobody_without_its_token(keyed: Stack) -> None:
    words = keyed.child("generator_svc").cmdline()
    address = words[words.index("--ray-address") + 1]
    token = keyed.child("generator_svc").environ()["RAY_AUTH_TOKEN"]
    assert re.fullmatch("[0-9a-f]{64}", token) and token not in " ".join(words)
    ask = (
        "import sys; from ray._raylet import GcsClient; "
        "print(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=20))"
    )
    bare = {name: one for name, one in os.environ.items() if not name.startswith("RAY_")}
    for given, let_in in (
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}, True),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}, False),
        ({"RAY_AUTH_MODE": "disabled"}, False),
    ):
        asked = subprocess.run(
            [sys.executable, "-c", ask, address],
            env=bare | given,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert (asked.returncode == 0) is let_in, asked.stdout + asked.stderr
        if not let_in:
            assert re.search("(?i)unauthenticated|token", asked.stderr)
    # Nor do its painters, each of which would run what it is sent.
    painter = keyed.painters()[0]
    (port,) = (one.laddr.port for one in _connections(painter) if one.status == "LISTEN")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.RpcError) as refused:
            push: Any = channel.unary_unary("/ray.rpc.CoreWorkerService/PushTask")
            push(b"", timeout=PATIENCE_S)
    assert isinstance(refused.value, grpc.Call)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    # And nothing shows the cluster to a browser, or takes jobs by HTTP.
    dashboards = [one for one in keyed.processes() if "dashboard.py" in " ".join(_words(one))]
    assert not [line for one in dashboards for line in _connections(one) if line.status == "LISTEN"]


def test_keys_are_left_nowhere(
    keyed: Stack, keys: tuple[Path, dict[str, str]], collector: Collector, tmp_path: Path
) -> None:
    shown = keys[1]
    secrets = [key.split("_")[2] for key in shown.values()]
    wrong = new_key("Mallory", "admin")[0]
    answers: list[str] = []

    def ask(path: str, key: str, method: str = "GET", **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}", **options.pop("headers", {})}
        answer = httpx.request(
            method, f"{keyed.url}{path}", headers=headers, timeout=PATIENCE_S, **options
        )
        answers.append(f"{answer.text} {dict(answer.headers)}")
        return answer

    # What works, what is refused, and what goes wrong, by both doors.
    made = ask("/canvases", shown["paint"], "POST", json={"world": "planet", "seed": 5})
    assert made.status_code == 201
    canvas = made.json()["id"]
    tile = f"/tiles/{canvas}/14/{MIDDLE}/{MIDDLE}.webp"
    assert ask(tile, shown["paint"]).status_code == 200
    view = f"?z=14&left={MIDDLE}&right={MIDDLE + 1}&top={MIDDLE}&bottom={MIDDLE}"
    assert "done" in ask(f"/canvases/{canvas}/events{view}", shown["paint"]).text
    for path, key in (
        ("/metrics", shown["admin"]),
        ("/status", shown["admin"]),
        ("/status", shown["read"]),
        ("/canvases", shown["read"]),
        ("/nothing", shown["admin"]),
        ("/worlds", wrong),
        ("/worlds", f"{shown['admin']} x"),
        ("/worlds", shown["admin"].upper()),
    ):
        ask(path, key)
    for path in (f"/worlds?key={shown['admin']}", f"/{shown['admin']}", f"/x%2f{shown['admin']}"):
        assert ask(path, shown["read"]).status_code == 400
    ask("/worlds", shown["read"], headers={"X-Request-Id": "mine", "X-Owner": "x" * 16})
    ask("/canvases", shown["read"], "POST", json={"world": "planet"})
    opened = httpx.post(
        f"{keyed.url}/session", headers={"Authorization": f"Bearer {shown['paint']}"}
    )
    assert opened.status_code == 200
    httpx.get(f"{keyed.url}/worlds", cookies=dict(opened.cookies))
    with grpc.insecure_channel(keyed.grpc) as channel:
        stub = CanvasServiceStub(channel)
        for authorization in (f"Bearer {shown['paint']}", f"bearer {wrong}", shown["admin"]):
            told: Any = {"metadata": (("authorization", authorization),), "timeout": PATIENCE_S}
            with suppress(grpc.RpcError):
                answers.append(str(stub.ListWorlds(canvas_pb.ListWorldsRequest(), **told)))
            with pytest.raises(grpc.RpcError) as refused:
                stub.GetCanvas(canvas_pb.GetCanvasRequest(canvas="x"), **told)
            answers.append(str(refused.value))
    status = subprocess.run(
        [sys.executable, "-m", "launcher", "status", "--url", keyed.url, "--json"],
        env=os.environ | {"HANDSCROLL_KEY": shown["admin"]},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert status.returncode == 0, status.stderr
    answers += [status.stdout, status.stderr]

    places = {
        "answers": "\n".join(answers),
        "what it said": keyed.said,
        "metrics": "\n".join(str(keyed.metrics(name)) for name in ("tiler", "generator")),
        "titles": "\n".join(" ".join(_words(one)) for one in keyed.processes()),
        "environments": "\n".join(map(_environment, keyed.processes())),
    }
    for log in sorted((keyed.data / "logs").glob("*.log")):
        places[log.name] = log.read_text(errors="replace")
        if log.name.startswith(("gateway", "tiler")):
            assert '"level": "DEBUG"' in places[log.name]
    services = eventually(lambda: {one.service for one in collector.spans}, "spans")
    assert "gateway" in services
    places["traces"] = "\n".join(str(one.span) for one in collector.spans)
    places["store"] = "\n".join(
        f"{path} {path.read_bytes()!r}"
        for path in (keyed.data / "store").rglob("*")
        if path.is_file()
    )
    for place, written in places.items():
        assert written, place
        for secret in (*secrets, wrong.split("_")[2]):
            assert secret not in written.lower(), place


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _environment(process: psutil.Process) -> str:
    try:
        return str(process.environ())
    except psutil.Error:
        return ""


def _connections(process: psutil.Process) -> list[Any]:
    try:
        return process.net_connections("inet")
    except psutil.Error:
        return []


def _name(process: psutil.Process) -> str:
    words = _words(process)
    return words[2] if words[1:2] == ["-m"] else process.name()


def _host(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address; one of IPv4 that is written as IPv6 has it is one of IPv4."""
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
