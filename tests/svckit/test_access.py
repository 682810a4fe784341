"""The laws of `svckit.access`: who is told apart, what they may, and who refuses to serve."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from handscroll.errors import Forbidden, InvalidRequest, OverBudget, Unauthenticated
from svckit import access
from svckit.access import (
    Access,
    AccessSettings,
    Budgets,
    Caller,
    Door,
    Rule,
    check_hidden,
    client_address,
)
from svckit.client import calling, connect
from svckit.keyring import Role, RoleName, changed_keys, new_key
from svckit.server import door_of, started
from svckit.settings import ServiceSettings
from svckit.tls import TlsSettings
from tests.svckit.echo import SERVICE, Echo, Line

pytestmark = pytest.mark.anyio

UNARY, STREAM = f"/{SERVICE}/ListModels", f"/{SERVICE}/GeneratePatches"
HOME, ABROAD = "127.0.0.1", "0.0.0.0"


def make_key(path: Path, role: RoleName, **budgets: int) -> str:
    """A key, as it is shown."""
    shown, key = new_key(f"Anna {role}", role, **budgets)
    with changed_keys(path) as keys:
        keys[key.id] = key
    return shown


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@asynccontextmanager
async def guarded(
    echo: Echo, rules: Mapping[str, Rule], proxies: int = 0, **told: Any
) -> AsyncIterator[Line]:
    """An echo behind a door."""
    door = Door(Access(AccessSettings(**told), HOME), rules, proxies)
    async with (
        started([echo.servicer()], ServiceSettings(drain_s=0), door) as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        yield Line(channel)


def bearing(key: str) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer {key}"),)}


async def test_call_is_served_as_that_of_its_caller(file: Path) -> None:
    seen: list[Caller] = []

    async def look(context: Any) -> None:
        seen.append(access.caller.get())

    shown = make_key(file, "paint", streams=3, own_canvases=5, own_canvas_bytes=7)
    rules = {UNARY: Rule(Role.READ), STREAM: Rule(Role.READ, stream=True)}
    async with guarded(Echo(look), rules, keys_file=file, anonymous="read", streams=9) as line:
        await line.unary(**bearing(shown))
        await line.stream(**bearing(shown))
        await line.unary()
        await line.unary(metadata=(("authorization", f"bEARER  {shown}"),))
    for caller in (seen[0], seen[1], seen[3]):
        assert caller.name == caller.owner == f"key {shown[3:11]}"
        assert caller.role is Role.PAINT
        assert caller.budgets == Budgets(12_000, 6_000, 30, 3, 5, 7, 2**30, 2**32)
    assert (seen[2].name, seen[2].role, seen[2].owner) == ("address 127.0.0.1", Role.READ, None)
    assert seen[2].budgets.streams == 9


@pytest.mark.parametrize("method", ["unary", "stream"])
async def test_call_of_the_wrong_caller_is_refused_before_any_work(file: Path, method: str) -> None:
    reader, painter = make_key(file, "read"), make_key(file, "paint")
    echo = Echo()
    rules = {UNARY: Rule(Role.PAINT), STREAM: Rule(Role.PAINT, stream=True)}
    async with guarded(echo, rules, keys_file=file, anonymous="read") as line:

        async def call(authorization: str | None) -> None:
            metadata = () if authorization is None else (("authorization", authorization),)
            with calling("the echo"):
                await getattr(line, method)(metadata=metadata)

        with pytest.raises(Unauthenticated, match="painting takes a key with the role paint"):
            await call(None)
        with pytest.raises(Forbidden, match=f"the key {reader[3:11]} has the role read"):
            await call(f"Bearer {reader}")
        for wrong in ("", painter, f"Basic {painter}", "Bearer", f"Bearer {painter}0", "Bearer é"):
            if wrong.isascii():
                with pytest.raises(Unauthenticated) as failure:
                    await call(wrong)
                assert painter[12:] not in str(failure.value)
        assert echo.calls == 0
        await call(f"Bearer {painter}")


async def test_rpc_that_the_table_lacks_is_for_admins_alone(file: Path) -> None:
    painter, admin = make_key(file, "paint"), make_key(file, "admin")
    async with guarded(Echo(), {}, keys_file=file, anonymous="paint") as line:
        with pytest.raises(aio.AioRpcError) as failure:
            await line.unary(**bearing(painter))
        assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
        await line.unary(**bearing(admin))
        # Health is nobody's secret.
        health: Any = health_pb2_grpc.HealthStub(line.channel)
        await health.Check(health_pb2.HealthCheckRequest())


async def test_budget_that_is_spent_is_refused_with_a_time(file: Path) -> None:
    poor, other = make_key(file, "paint", requests_per_minute=2), make_key(file, "paint")
    echo = Echo()
    rules = {UNARY: Rule(Role.READ)}
    async with guarded(echo, rules, keys_file=file, anonymous="none") as line:
        for _ in range(2):
            await line.unary(**bearing(poor))
        with pytest.raises(OverBudget, match="2 requests a minute") as failure:
            with calling("the echo"):
                await line.unary(**bearing(poor))
        assert 25 < failure.value.retry_after_s <= 30
        assert echo.calls == 2
        await line.unary(**bearing(other))


async def test_open_streams_are_counted_until_they_end(file: Path) -> None:
    shown = make_key(file, "read", streams=1)
    echo = Echo()
    async with guarded(echo, {STREAM: Rule(Role.READ, stream=True)}, keys_file=file) as line:
        for _ in range(3):
            assert await line.stream(**bearing(shown)) == b"123"

        async def nested(context: Any) -> None:
            with pytest.raises(OverBudget, match="1 open streams already"), calling("the echo"):
                await line.stream(**bearing(shown))

        echo.act = nested
        assert await line.stream(**bearing(shown)) == b"123"


async def test_canvases_are_counted_where_they_are_made(file: Path) -> None:
    shown = make_key(file, "paint", canvases_per_minute=1)
    rules = {UNARY: Rule(Role.PAINT, makes=True)}
    async with guarded(Echo(), rules, keys_file=file) as line:
        await line.unary(**bearing(shown))
        with pytest.raises(OverBudget, match="1 canvases a minute"), calling("the echo"):
            await line.unary(**bearing(shown))


async def test_address_of_a_caller_is_believed_of_proxies_alone(file: Path) -> None:
    seen: list[str] = []

    async def look(context: Any) -> None:
        seen.append(access.caller.get().name)

    rules = {UNARY: Rule(Role.READ)}
    for proxies in (0, 1):
        async with guarded(Echo(look), rules, proxies, anonymous="read") as line:
            await line.unary(metadata=(("x-forwarded-for", "6.6.6.6, 10.1.2.3"),))
    assert seen == ["address 127.0.0.1", "address 10.1.2.3"]


async def test_what_was_shown_is_passed_on_only_where_it_is_said() -> None:
    """By the gateway: the tiler does not show its callers' keys to those behind it."""
    seen: list[dict[str, str]] = []

    async def look(context: Any) -> None:
        seen.append(dict(context.invocation_metadata()))

    async with guarded(Echo(look), {UNARY: Rule(Role.READ)}, anonymous="read") as line:
        await line.unary()
        token = access.presented.set((("x-forwarded-for", "10.1.2.3"),))
        await line.unary()
        access.presented.reset(token)
    assert "x-forwarded-for" not in seen[0]
    assert seen[1]["x-forwarded-for"] == "10.1.2.3"


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "address"),
    [
        ("10.0.0.1", "", 0, "10.0.0.1"),
        ("10.0.0.1", "1.1.1.1", 0, "10.0.0.1"),
        ("10.0.0.1", "6.6.6.6, 1.1.1.1", 1, "1.1.1.1"),
        ("10.0.0.1", "6.6.6.6,1.1.1.1 , 10.0.0.2", 2, "1.1.1.1"),
        ("10.0.0.1", "1.1.1.1", 2, "1.1.1.1"),
        ("10.0.0.1", "", 1, "10.0.0.1"),
        ("[2001:DB8::1]", "", 0, "2001:db8::1"),
        ("10.0.0.1", "évil\r\n", 1, ""),
        ("", "", 0, ""),
    ],
)
def test_address_is_what_the_outermost_trusted_proxy_saw(
    peer: str, forwarded: str, proxies: int, address: str
) -> None:
    assert client_address(peer, forwarded, proxies) == address


def test_neighbours_in_a_network_of_ipv6_are_one_caller() -> None:
    door = Access(AccessSettings(anonymous="read"), HOME)
    names = {door.caller(None, f"2001:db8::{end}").name for end in ("1", "2", "ffff:0:0:1")}
    assert names == {"address 2001:db8::/64"}
    assert door.caller(None, "2001:db8:0:1::1").name not in names


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_where_only_this_machine_reaches_everybody_may_paint_without_limit(host: str) -> None:
    door = Access(AccessSettings(), host)
    assert door.open and not door.private
    with door.admitted(Rule(Role.ADMIN), "nonsense", ""):
        assert access.caller.get() is access.ANYBODY


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "handscroll.example", ""])
def test_door_that_others_reach_is_not_open_by_oversight(host: str, file: Path) -> None:
    for told in (AccessSettings(), AccessSettings(trusted_network=True, streams=3)):
        with pytest.raises(InvalidRequest, match=r"KEYS_FILE.* or say .*ANONYMOUS"):
            Access(told, host)
    make_key(file, "read")
    with_keys = Access(AccessSettings(keys_file=file), host)
    assert with_keys.private and with_keys.caller(None, "").role is Role.NONE
    assert Access(AccessSettings(anonymous="paint"), host).caller(None, "").role is Role.PAINT


def test_door_with_anything_set_has_budgets_on_this_machine_too(file: Path) -> None:
    make_key(file, "read")
    for told in (
        AccessSettings(keys_file=file),
        AccessSettings(anonymous="paint"),
        AccessSettings(patches_per_minute=5),
    ):
        door = Access(told, HOME)
        assert not door.open
        found = door.caller(None, HOME)
        assert found.role is Role.PAINT and found.budgets.requests == 12_000


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    assert Access(ServiceSettings.read([]).access, HOME).open
    monkeypatch.setenv("HANDSCROLL_ACCESS_TRUSTED_NETWORK", "true")
    told = ServiceSettings.read([]).access
    assert told.trusted_network and Access(told, HOME).open
    monkeypatch.setenv("HANDSCROLL_ACCESS_KEYS_FILE", str(file))
    monkeypatch.setenv("HANDSCROLL_ACCESS_ANONYMOUS", "read")
    told = ServiceSettings.read(["--access.streams", "4"]).access
    assert (told.keys_file, told.anonymous, told.streams) == (file, "read", 4)
    monkeypatch.setenv("HANDSCROLL_ACCESS_ANONYMOUS", "admin")
    with pytest.raises(InvalidRequest, match="anonymous: Input should be 'none', 'read' or"):
        ServiceSettings.read([])


def test_service_behind_the_doors_is_not_left_open_to_others() -> None:
    check_hidden(AccessSettings(), TlsSettings(), HOME)
    check_hidden(AccessSettings(trusted_network=True), TlsSettings(), ABROAD)
    check_hidden(AccessSettings(), TlsSettings(ca=Path("ca.pem")), ABROAD)
    for told in (AccessSettings(), AccessSettings(anonymous="paint")):
        with pytest.raises(InvalidRequest, match="TLS_CA.*TRUSTED_NETWORK"):
            check_hidden(told, TlsSettings(cert=Path("c.pem"), key=Path("k.pem")), ABROAD)
    assert door_of(ServiceSettings(), None) is None
    with pytest.raises(InvalidRequest, match="asks nobody who they are"):
        door_of(ServiceSettings(host=ABROAD), None)
