"""Nonsense for every parser: what comes of it is a refusal that is meant for people.

Seconds by default; minutes with HANDSCROLL_LONG=1.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import shutil
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from grpc import aio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from generator_svc.easel import Easel
from generator_svc.engine import Engine
from generator_svc.service import servicer
from handscroll import checkpoint
from handscroll.canvas import Canvas, Sampling
from handscroll.checkpoint import Checkpoint
from handscroll.errors import BrokenCheckpoint, HandscrollError, InvalidRequest
from handscroll.geometry import Extent
from handscroll_api.generator.v1 import generator_service_pb2 as generator_pb
from handscroll_api.status.v1 import status_service_pb2 as status_pb
from svckit import report
from svckit.access import client_address
from svckit.keyring import new_key, read_keys
from svckit.keys import canvas_key
from svckit.server import started
from svckit.settings import ServiceSettings
from svckit.store import Store
from tests.gateway.conftest import Loop
from tests.support.toys import ToyLedger, ToyPainters, served_by
from tests.tiler_svc.test_fuzz import OURS, nonsense

LONG = "HANDSCROLL_LONG" in os.environ
OFTEN = settings(
    max_examples=20_000 if LONG else 200, suppress_health_check=list(HealthCheck), deadline=None
)
TRIES = 1_000 if LONG else 40

values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, 0.0, -0.0, 1e308, float("nan")]),
        st.floats(),
        st.text(max_size=8),
    ),
    lambda held: (
        st.lists(held, max_size=3) | st.dictionaries(st.text(max_size=8), held, max_size=3)
    ),
    max_leaves=6,
)


def mutants(whole: Any) -> st.SearchStrategy[Any]:
    """A document with one or two of its parts gone, doubled, renamed or another."""

    def paths(held: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        inside = (
            held.items()
            if isinstance(held, dict)
            else enumerate(held)
            if isinstance(held, list)
            else ()
        )
        return [path, *(found for name, one in inside for found in paths(one, (*path, name)))]

    @st.composite
    def mutant(draw: st.DrawFn) -> Any:
        found = json.loads(json.dumps(whole))
        for _ in range(draw(st.integers(1, 2))):
            path = draw(st.sampled_from(paths(found)))
            if not path:
                return draw(values)
            held = found
            for name in path[:-1]:
                held = held[name]
            deed = draw(st.sampled_from(["gone", "other", "renamed"]))
            if deed == "other" or isinstance(held, list):
                held[path[-1]] = draw(values)
            else:
                taken = held.pop(path[-1])
                if deed == "renamed":
                    held[draw(st.text(max_size=8))] = taken
        return found

    return mutant()


def broken(whole: bytes) -> st.SearchStrategy[bytes]:
    """Bytes cut, changed or moved."""

    @st.composite
    def breaking(draw: st.DrawFn) -> bytes:
        content = bytearray(whole)
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, max(0, len(content) - 1)))
            deed = draw(st.sampled_from(["cut", "change", "insert"]))
            if deed == "cut":
                del content[at : at + draw(st.integers(1, 64))]
            elif deed == "change" and content:
                content[at] = draw(st.integers(0, 255))
            else:
                content[at:at] = draw(st.binary(max_size=16))
        return bytes(content)

    return breaking()


# The spec of a canvas.

SPEC = Canvas("a" * 64, "scroll", 7, Extent("scroll", 2, 704), "mist", sampling=Sampling())


@given(
    broken(SPEC.canonical()) | mutants(json.loads(SPEC.canonical())).map(json.dumps).map(str.encode)
)
@example(SPEC.canonical().replace(b'"temperature":1.0', b'"temperature":1' + b"0" * 400))
@example(b"\xff\xfe")
@example(b"[" * 100_000)
@example(b'{"seed": ' + b"9" * 10_000 + b"}")
@OFTEN
def test_spec_is_read_or_refused(content: bytes) -> None:
    try:
        canvas = Canvas.parse(content)
    except HandscrollError as error:
        assert 0 < len(str(error)) < 12_000
    else:
        # Whatever is accepted has one id, whoever reads it again.
        assert Canvas.parse(canvas.canonical()).id == canvas.id


# The file of keys.

KEYS = [new_key(f"Anna {role}", role)[1].model_dump() for role in ("read", "paint")]


@given(broken(json.dumps(KEYS).encode()) | mutants(KEYS).map(json.dumps).map(str.encode))
@OFTEN
def test_keys_are_read_or_refused_and_never_quoted(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed.json"
    file.write_bytes(content)
    try:
        found = read_keys(file)
    except InvalidRequest as error:
        for key in KEYS:
            assert key["sha256"] not in str(error)
    else:
        assert all(id == key.id for id, key in found.items())


# Addresses in X-Forwarded-For.

ADDRESSES = st.one_of(
    st.text("0123456789abcdef:.,[]% \t\x00é", max_size=80),
    st.ip_addresses().map(str),
    st.lists(st.ip_addresses().map("[{}]".format), max_size=4).map(", ".join),
    st.sampled_from(
        ["::ffff:1.2.3.4", "0:0::1", "FE80::1%eth0", "fe80::1%" + "x" * 80, "010.0.0.1"]
    ),
)


@given(ADDRESSES, ADDRESSES, st.integers(0, 5))
@OFTEN
def test_address_is_one_or_none(peer: str, forwarded: str, proxies: int) -> None:
    found = client_address(peer, forwarded, proxies)
    assert found == "" or found == str(ip_address(found))
    if not proxies:
        assert found == client_address(peer, "", 0)


# A checkpoint, whose digests are right: whoever makes one up can count.


@pytest.fixture(scope="module")
def copy(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(tiny, tmp_path_factory.mktemp("fuzzed") / "copy"))


def load(folder: Path) -> None:
    """Read it, or refuse it as what it is."""
    with suppress(BrokenCheckpoint):
        checkpoint.load(folder)


def test_config_is_read_or_refused(copy: Path, tiny: Path) -> None:
    config = json.loads((tiny / "config.json").read_text())
    # Shapes of other sizes are made before they are compared; those are for whoever deploys.
    few = {name: one for name, one in config.items() if name not in ("tokenizer", "decoder")}

    @given(mutants(few))
    @settings(OFTEN, max_examples=2000 if LONG else 40)
    def holds(found: Any) -> None:
        whole = found if not isinstance(found, dict) else config | found
        if isinstance(found, dict):
            whole = {name: one for name, one in whole.items() if name in found or name not in few}
        (copy / "config.json").write_text(json.dumps(whole))
        load(copy)

    try:
        holds()
    finally:
        shutil.copy(tiny / "config.json", copy)


def test_header_of_weights_is_read_or_refused(copy: Path, tiny: Path) -> None:
    name = "palettes.safetensors"
    whole = (tiny / name).read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    config = json.loads((tiny / "config.json").read_text())

    def headed(found: Any, claimed: int | None = None) -> bytes:
        text = json.dumps(found).encode()
        return struct.pack("<Q", claimed or len(text)) + text + whole[8 + length :]

    contents = st.one_of(
        mutants(header).map(headed),
        st.integers(0, 2**64 - 1).map(lambda claimed: headed(header, claimed)),
        broken(whole[: 8 + length]).map(lambda head: head + whole[8 + length :]),
        st.binary(max_size=64),
    )

    @given(contents)
    @settings(OFTEN, max_examples=2000 if LONG else 40)
    def holds(content: bytes) -> None:
        (copy / name).write_bytes(content)
        files = config["files"] | {name: hashlib.sha256(content).hexdigest()}
        (copy / "config.json").write_text(json.dumps(config | {"files": files}))
        load(copy)

    try:
        holds()
    finally:
        for one in (name, "config.json"):
            shutil.copy(tiny / one, copy)


# The messages of the generator, and of what tells how it is.


@asynccontextmanager
async def generator(model: Checkpoint, folder: Path) -> AsyncIterator[tuple[str, str]]:
    """A real engine behind its service, with painters that cost nothing; its canvas."""
    store, painters = Store.open(str(folder)), ToyPainters()
    canvas = Canvas(model.digest, "planet", 7, model.worlds["planet"].extent)
    await store.create(canvas_key(canvas.id), canvas.canonical())
    easel = Easel(painters, ToyLedger().of(painters))
    engine = Engine(store, easel, served_by(model), 4096, 4096)

    async def look(process: status_pb.Process) -> None:
        process.model = model.digest

    servicers = [servicer(engine), report.servicer("generator", look)]
    try:
        async with started(servicers, ServiceSettings(drain_s=0)) as port:
            yield f"127.0.0.1:{port}", canvas.id
    finally:
        await easel.close()


@pytest.mark.parametrize(
    ("module", "name"), [(generator_pb, "GeneratorService"), (status_pb, "StatusService")]
)
def test_generator_lives_whatever_it_is_asked(
    loop: Loop, model: Checkpoint, tmp_path: Path, module: Any, name: str
) -> None:
    async def ask() -> None:
        async with generator(model, tmp_path) as (address, canvas):
            async with aio.insecure_channel(address) as opened:
                for method in module.DESCRIPTOR.services_by_name[name].methods:
                    await _asked_nonsense(opened, method, canvas)
                good = generator_pb.GeneratePatchesRequest(
                    canvas=canvas, patches=[generator_pb.Patch(level=0, row=3, col=3)]
                )
                path = "/handscroll_api.generator.v1.GeneratorService/GeneratePatches"
                channel: Any = opened
                call = channel.unary_stream(path)(good.SerializeToString(), timeout=60)
                assert len([one async for one in call]) == 1

    asyncio.run_coroutine_threadsafe(ask(), loop.loop).result(TRIES)


async def _asked_nonsense(channel: Any, method: Any, canvas: str) -> None:
    rng = random.Random(method.full_name)
    path = f"/{method.containing_service.full_name}/{method.name}"
    for turn in range(TRIES):
        message: Any = nonsense(GetMessageClass(method.input_type)(), rng, (canvas, "0" * 64))
        if turn % 3 == 1 and isinstance(message, generator_pb.GeneratePatchesRequest):
            # Else hardly any gets past the first check.
            message.canvas = canvas
            del message.patches[:]
            message.patches.add(row=turn)
        content = bytearray(message.SerializeToString())
        if turn % 3 == 0 and content:
            for _ in range(3):
                content[rng.randrange(len(content))] = rng.randrange(256)
        try:
            if method.server_streaming:
                call = channel.unary_stream(path)(bytes(content), timeout=60)
                async for _ in call:
                    call.cancel()
                    break
            else:
                await channel.unary_unary(path)(bytes(content), timeout=60)
        except aio.AioRpcError as failure:
            assert failure.code() in OURS, (failure.code(), failure.details(), content[:80])
            assert failure.code() is not grpc.StatusCode.INTERNAL and failure.details()
