"""Who may do what at both doors, the gateway and the tiler, each a process of its own."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from playwright.sync_api import Page

from gateway.app import create_app
from gateway.door import EVERYBODY, RULES
from gateway.settings import GatewaySettings
from handscroll.canvas import Canvas
from handscroll.checkpoint import Checkpoint
from handscroll.picture import to_png
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.canvas.v1.canvas_service_pb2_grpc import CanvasServiceStub
from handscroll_api.status.v1 import status_service_pb2 as status_pb
from handscroll_api.status.v1.status_service_pb2_grpc import StatusServiceStub
from handscroll_api.tiler.v1 import export_service_pb2 as export_pb
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from handscroll_api.tiler.v1.export_service_pb2_grpc import ExportServiceStub
from handscroll_api.tiler.v1.tiler_service_pb2_grpc import TilerServiceStub
from svckit.keyring import Role, RoleName, changed_keys, new_key
from svckit.keys import canvas_key
from svckit.server import started
from svckit.settings import ServiceSettings, StoreSettings
from svckit.store import Store
from tests.support.browser import chromium
from tests.support.stack import PATIENCE_S, ROOT, eventually, free_ports
from tests.tiler_svc.fakes import CountingTokenizer, FakeGenerator, model_of
from tiler_svc.service import RULES as RPCS
from tokenizer_svc.engine import Engine, Workers

pytestmark = pytest.mark.anyio

MIDDLE = 2**13  # of zoom 14, level 0
PAINTED = MIDDLE
PICTURE = to_png(np.zeros((64, 64, 3), np.uint8))
_columns = count(MIDDLE + 2, 3)
_seeds = count(100)


@dataclass
class Doors:
    """Both doors, the keys that open them, and a canvas of which one tile is painted."""

    http: str
    grpc: str
    canvas: str
    keys: dict[str, str]
    logs: list[io.BufferedRandom] = field(default_factory=list)


Answer = Any
Ask = Callable[[Doors, str | None], Awaitable[Answer]]


def http(path: str | Callable[[], str], method: str = "GET", **options: Any) -> Ask:
    """A request to the gateway; what comes of it is its status."""

    async def ask(doors: Doors, key: str | None) -> int:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        told = {name: one() if callable(one) else one for name, one in options.items()}
        headers |= told.pop("headers", {})
        where = (path() if callable(path) else path).format(canvas=doors.canvas)
        async with httpx.AsyncClient(base_url=doors.http, timeout=PATIENCE_S) as client:
            answer = await client.request(method, where, headers=headers, **told)
        if answer.status_code == 401:
            assert answer.headers["www-authenticate"].startswith("Bearer")
        if "event: problem" in answer.text:
            return int(json.loads(answer.text.split("data: ")[-1])["status"])
        return answer.status_code

    return ask


def rpc(stub: Any, method: str, message: Callable[[str], Any]) -> Ask:
    """A call of the tiler; what comes of it is its code, in the words of HTTP."""
    codes = {grpc.StatusCode.UNAUTHENTICATED: 401, grpc.StatusCode.PERMISSION_DENIED: 403}

    async def ask(doors: Doors, key: str | None) -> int:
        metadata = (("authorization", f"Bearer {key}"),) if key else ()
        async with aio.insecure_channel(doors.grpc) as channel:
            call = getattr(stub(channel), method)(
                message(doors.canvas), metadata=metadata, timeout=PATIENCE_S
            )
            try:
                if hasattr(call, "__aiter__"):
                    async for _ in call:
                        pass
                else:
                    await call
            except aio.AioRpcError as error:
                return codes.get(error.code(), 400)
        return 200

    return ask


def tile(x: int) -> tiler_pb.TileAddress:
    return tiler_pb.TileAddress(z=14, x=x, y=MIDDLE)


def one(canvas: str, x: int) -> tiler_pb.GetTileRequest:
    return tiler_pb.GetTileRequest(canvas=canvas, tile=tile(x))


def view(canvas: str, x: int) -> tiler_pb.StreamTilesRequest:
    return tiler_pb.StreamTilesRequest(canvas=canvas, first=tile(x), last=tile(x))


def region(canvas: str, left: int) -> tiler_pb.RenderRegionRequest:
    return tiler_pb.RenderRegionRequest(
        canvas=canvas, left_px=left, top_px=100, height_px=8, width_px=8
    )


def new() -> int:
    """A column of which nothing is painted, nor will be by others of these tests."""
    return next(_columns)


def events(x: int) -> str:
    return f"/canvases/{{canvas}}/events?z=14&left={x}&right={x}&top={MIDDLE}&bottom={MIDDLE}"


def wish() -> dict[str, object]:
    return {"world": "planet", "seed": next(_seeds)}


TILES, CANVASES, EXPORTS = TilerServiceStub, CanvasServiceStub, ExportServiceStub
NOBODYS = "0" * 64
EXPORT = {"canvas": NOBODYS, "level": 0, "top": 0, "left": 0, "height": 1, "width": 1}
ACTIONS: dict[str, tuple[Role, Ask]] = {
    "viewer": (Role.NONE, http("/")),
    "static": (Role.NONE, http("/static/main.js")),
    "openapi": (Role.NONE, http("/openapi.json")),
    "healthz": (Role.NONE, http("/healthz")),
    "readyz": (Role.NONE, http("/readyz")),
    "close session": (Role.NONE, http("/session", "DELETE")),
    "worlds": (Role.READ, http("/worlds")),
    "canvas": (Role.READ, http("/canvases/{canvas}")),
    "tilejson": (Role.READ, http("/canvases/{canvas}/tilejson.json")),
    "own canvases": (Role.READ, http("/canvases")),
    "painted tile": (Role.READ, http(f"/tiles/{{canvas}}/14/{PAINTED}/{MIDDLE}.webp")),
    "poll": (Role.READ, http(lambda: f"/tiles/{{canvas}}/14/{new()}/{MIDDLE}.webp?wait=0")),
    "painted events": (Role.READ, http(events(PAINTED))),
    "new tile": (Role.PAINT, http(lambda: f"/tiles/{{canvas}}/14/{new()}/{MIDDLE}.webp")),
    "new events": (Role.PAINT, http(lambda: events(new()))),
    "create": (Role.PAINT, http("/canvases", "POST", json=wish)),
    "delete": (Role.PAINT, http(f"/canvases/{NOBODYS}", "DELETE")),
    "upload": (
        Role.PAINT,
        http("/pictures", "POST", content=PICTURE, headers={"Content-Type": "image/png"}),
    ),
    "own pictures": (Role.READ, http("/pictures")),
    "delete picture": (Role.PAINT, http(f"/pictures/{NOBODYS}", "DELETE")),
    "usage": (Role.READ, http("/usage")),
    "own exports": (Role.READ, http("/exports")),
    "create export": (Role.PAINT, http("/exports", "POST", json=lambda: EXPORT)),
    "export": (Role.READ, http(f"/exports/{NOBODYS}")),
    "file of an export": (Role.READ, http(f"/exports/{NOBODYS}/file")),
    "delete export": (Role.PAINT, http(f"/exports/{NOBODYS}", "DELETE")),
    "metrics": (Role.ADMIN, http("/metrics")),
    "status": (Role.ADMIN, http("/status")),
    "grpc worlds": (
        Role.READ,
        rpc(CANVASES, "ListWorlds", lambda _: canvas_pb.ListWorldsRequest()),
    ),
    "grpc canvas": (
        Role.READ,
        rpc(CANVASES, "GetCanvas", lambda canvas: canvas_pb.GetCanvasRequest(canvas=canvas)),
    ),
    "grpc own": (
        Role.READ,
        rpc(CANVASES, "ListCanvases", lambda _: canvas_pb.ListCanvasesRequest()),
    ),
    "grpc create": (
        Role.PAINT,
        rpc(
            CANVASES,
            "CreateCanvas",
            lambda _: canvas_pb.CreateCanvasRequest(world="planet", seed=next(_seeds)),
        ),
    ),
    "grpc upload": (
        Role.PAINT,
        rpc(CANVASES, "UploadPicture", lambda _: [canvas_pb.UploadPictureRequest(content=PICTURE)]),
    ),
    "grpc own pictures": (
        Role.READ,
        rpc(CANVASES, "ListPictures", lambda _: canvas_pb.ListPicturesRequest()),
    ),
    "grpc delete picture": (
        Role.PAINT,
        rpc(CANVASES, "DeletePicture", lambda _: canvas_pb.DeletePictureRequest(picture=NOBODYS)),
    ),
    "grpc usage": (Role.READ, rpc(CANVASES, "GetUsage", lambda _: canvas_pb.GetUsageRequest())),
    "grpc delete": (
        Role.PAINT,
        rpc(CANVASES, "DeleteCanvas", lambda _: canvas_pb.DeleteCanvasRequest(canvas=NOBODYS)),
    ),
    "grpc painted tile": (Role.READ, rpc(TILES, "GetTile", lambda canvas: one(canvas, PAINTED))),
    "grpc new tile": (Role.PAINT, rpc(TILES, "GetTile", lambda canvas: one(canvas, new()))),
    "grpc painted view": (
        Role.READ,
        rpc(TILES, "StreamTiles", lambda canvas: view(canvas, PAINTED)),
    ),
    "grpc new view": (Role.PAINT, rpc(TILES, "StreamTiles", lambda canvas: view(canvas, new()))),
    "grpc painted region": (
        Role.READ,
        rpc(TILES, "RenderRegion", lambda canvas: region(canvas, 100)),
    ),
    "grpc new region": (
        Role.PAINT,
        rpc(TILES, "RenderRegion", lambda canvas: region(canvas, 256 * (new() - MIDDLE) + 100)),
    ),
    "grpc create export": (
        Role.PAINT,
        rpc(EXPORTS, "CreateExport", lambda _: export_pb.CreateExportRequest()),
    ),
    "grpc own exports": (
        Role.READ,
        rpc(EXPORTS, "ListExports", lambda _: export_pb.ListExportsRequest()),
    ),
    "grpc export": (
        Role.READ,
        rpc(EXPORTS, "GetExport", lambda _: export_pb.GetExportRequest(export=NOBODYS)),
    ),
    "grpc file of an export": (
        Role.READ,
        rpc(EXPORTS, "DownloadExport", lambda _: export_pb.DownloadExportRequest(export=NOBODYS)),
    ),
    "grpc delete export": (
        Role.PAINT,
        rpc(EXPORTS, "DeleteExport", lambda _: export_pb.DeleteExportRequest(export=NOBODYS)),
    ),
    "grpc status": (
        Role.ADMIN,
        rpc(StatusServiceStub, "GetStatus", lambda _: status_pb.GetStatusRequest()),
    ),
    "grpc health": (
        Role.NONE,
        rpc(health_pb2_grpc.HealthStub, "Check", lambda _: health_pb2.HealthCheckRequest()),
    ),
}
CALLERS = {"nobody": Role.READ, "read": Role.READ, "paint": Role.PAINT, "admin": Role.ADMIN}


async def answers(doors: Doors) -> None:
    """Wait until both doors are open."""
    async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient(base_url=doors.http) as client:
        while True:
            try:
                if (await client.get("/readyz", timeout=10)).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
async def doors(
    model: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Doors]:
    """Gateway and tiler as processes, before a generator and a tokenizer that are quick."""
    folder = tmp_path_factory.mktemp("doors")
    keys, file = {}, folder / "keys.json"
    roles: tuple[RoleName, ...] = ("read", "paint", "admin")
    made = [new_key(f"Anna {role}", role) for role in roles]
    most = {
        "own_canvases": 1,
        "own_canvas_bytes": 10**6,
        "own_picture_bytes": 600,
        "own_export_bytes": 300,
    }
    made.append(new_key("Anna few", "paint", **most))
    for name, (shown, key) in zip((*roles, "few"), made, strict=True):
        keys[name] = shown
        with changed_keys(file) as found:
            found[key.id] = key
    store, served = Store.open(str(folder / "store")), model_of(model)
    canvas = Canvas(served.digest, "planet", 7, served.worlds["planet"], sampling=served.sampling)
    await store.create(canvas_key(canvas.id), canvas.canonical())
    workers = Workers(2, 128)
    async with AsyncExitStack() as stack:
        stack.callback(workers.close)
        behind = ServiceSettings(drain_s=0)
        generator, tokenizer = [
            await stack.enter_async_context(started([servicer], behind))
            for servicer in (
                FakeGenerator(store, served, None).servicer(),
                CountingTokenizer(Engine(model, workers)).servicer(),
            )
        ]
        gateway, tiler = free_ports(2)
        doors = Doors(f"http://127.0.0.1:{gateway}", f"127.0.0.1:{tiler}", canvas.id, keys)
        env = os.environ | {
            "HANDSCROLL_STORE_URL": str(folder / "store"),
            "HANDSCROLL_ACCESS_KEYS_FILE": str(file),
            "HANDSCROLL_ACCESS_ANONYMOUS": "read",
            "HANDSCROLL_GATEWAY_PORT": str(gateway),
            "HANDSCROLL_GATEWAY_TILER": doors.grpc,
            "HANDSCROLL_GATEWAY_LOG_LEVEL": "DEBUG",
            "HANDSCROLL_TILER_PORT": str(tiler),
            "HANDSCROLL_TILER_GENERATOR": f"127.0.0.1:{generator}",
            "HANDSCROLL_TILER_TOKENIZER": f"127.0.0.1:{tokenizer}",
            "HANDSCROLL_TILER_LOG_LEVEL": "DEBUG",
        }
        for module in ("gateway", "tiler_svc"):
            log = stack.enter_context((folder / module).open("w+b"))
            doors.logs.append(log)
            process = subprocess.Popen(
                [sys.executable, "-m", module, "--drain-s", "1"], cwd=ROOT, env=env, stderr=log
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
        await answers(doors)
        assert await http(f"/tiles/{{canvas}}/14/{PAINTED}/{MIDDLE}.webp")(doors, keys["paint"])
        yield doors
    await store.close()


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("action", ACTIONS)
async def test_everybody_may_do_what_their_role_says(
    doors: Doors, action: str, caller: str
) -> None:
    needed, ask = ACTIONS[action]
    answer = await ask(doors, doors.keys.get(caller))
    if CALLERS[caller] >= needed:
        assert answer not in (401, 403, 429) and answer < 500
    else:
        assert answer == (401 if caller == "nobody" else 403)


async def test_key_holds_as_much_as_it_may(doors: Doors) -> None:
    """The tiler counts; the gateway says what came of it."""

    def png(number: int) -> bytes:
        return to_png(np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8))

    headers = {"Authorization": f"Bearer {doors.keys['few']}"}
    told = headers | {"Content-Type": "image/png"}
    size = len(png(1))
    async with httpx.AsyncClient(base_url=doors.http, timeout=PATIENCE_S) as client:
        made = await client.post("/canvases", json=wish(), headers=headers)
        more = await client.post("/canvases", json=wish(), headers=headers)
        assert (made.status_code, more.status_code) == (201, 507)
        assert "hold 1 canvases, and may hold 1" in more.json()["detail"]
        given = await client.post("/pictures", content=png(1), headers=told)
        more = await client.post("/pictures", content=png(2), headers=told)
        assert (given.status_code, more.status_code) == (201, 507)
        assert f"hold {size} bytes of pictures, and may hold 600" in more.json()["detail"]
        assert (await client.get("/usage", headers=headers)).json() == {
            "canvases": {"held": 1, "most": 1},
            "canvas_bytes": {"held": 0, "most": 10**6},
            "picture_bytes": {"held": size, "most": 600},
            "export_bytes": {"held": 0, "most": 300},
        }
        for path in (f"/canvases/{made.json()['id']}", f"/pictures/{given.json()['picture']}"):
            assert (await client.delete(path, headers=headers)).status_code == 204
        again = await client.post("/pictures", content=png(2), headers=told)
        assert again.status_code == 201


async def test_key_holds_as_many_bytes_of_exports_as_it_may(doors: Doors) -> None:
    headers = {"Authorization": f"Bearer {doors.keys['few']}"}
    async with httpx.AsyncClient(base_url=doors.http, timeout=PATIENCE_S, headers=headers) as few:

        async def made(side: int) -> dict[str, Any]:
            wish = EXPORT | {"canvas": doors.canvas, "height": side, "width": side}
            found = (await few.post("/exports", json=wish)).json()
            async with asyncio.timeout(PATIENCE_S):
                while found["state"] == "running":
                    await asyncio.sleep(0.05)
                    found = (await few.get(f"/exports/{found['id']}")).json()
            return dict(found)

        small, large = await made(1), await made(64)
        assert (small["state"], large["state"]) == ("done", "stopped")
        assert f"you may hold {300 - small['bytes']} bytes more" in large["problem"]
        usage = (await few.get("/usage")).json()["export_bytes"]
        assert usage == {"held": small["bytes"], "most": 300}
        listed = (await few.get("/exports")).json()["exports"]
        assert [one["id"] for one in listed] == [large["id"], small["id"]]
        other = {"Authorization": f"Bearer {doors.keys['admin']}"}
        for one in listed:
            path = f"/exports/{one['id']}"
            assert (await few.delete(path, headers=other)).status_code == 404
            assert (await few.delete(path)).status_code == 204
        assert (await few.get("/usage")).json()["export_bytes"]["held"] == 0


@pytest.mark.parametrize("action", [name for name, (role, _) in ACTIONS.items() if role])
async def test_key_that_is_not_known_is_worse_than_none(doors: Doors, action: str) -> None:
    _, ask = ACTIONS[action]
    assert await ask(doors, new_key("Mallory", "admin")[0]) == 401


def test_tables_have_every_route_and_every_rpc() -> None:
    app = create_app(GatewaySettings(store=StoreSettings(url="memory://")))
    routes = {(method, route.path) for route in app.routes for method in (route.methods or {"GET"})}
    assert {*RULES, *EVERYBODY} == {one for one in routes if one[0] != "HEAD"}
    services = [
        module.DESCRIPTOR.services_by_name[name]
        for module, name in (
            (tiler_pb, "TilerService"),
            (export_pb, "ExportService"),
            (canvas_pb, "CanvasService"),
            (status_pb, "StatusService"),
        )
    ]
    assert set(RPCS) == {
        f"/{service.full_name}/{method.name}" for service in services for method in service.methods
    }


async def test_canvases_belong_to_the_key_through_both_doors(doors: Doors) -> None:
    keys = doors.keys
    painter, admin = ({"Authorization": f"Bearer {keys[role]}"} for role in ("paint", "admin"))
    async with httpx.AsyncClient(base_url=doors.http, timeout=PATIENCE_S) as client:
        made = await client.post("/canvases", json=wish(), headers=painter)
        assert made.status_code == 201 and "set-cookie" not in made.headers
        canvas = made.json()["id"]
        owned = await client.get("/canvases", headers=painter | {"X-Owner": "x" * 16})
        assert canvas in [each["id"] for each in owned.json()["canvases"]]
        guessed = {"X-Owner": f"key-{keys['paint'][3:11]}".ljust(16, "-")}
        nobodys = await client.get("/canvases", headers=guessed)
        assert nobodys.json()["canvases"] == []
        async with aio.insecure_channel(doors.grpc) as channel:
            listed = await CanvasServiceStub(channel).ListCanvases(
                canvas_pb.ListCanvasesRequest(),
                metadata=(("authorization", f"Bearer {keys['paint']}"),),
            )
        assert canvas in [each.canvas.id for each in listed.canvases]
        # An admin takes away what is nobody's, and nobody takes what is somebody's.
        path = f"/canvases/{canvas}"
        assert (await client.delete(path, headers=admin)).status_code == 404
        assert (await client.delete(path, headers=painter)).status_code == 204


async def test_keys_are_in_no_log_and_no_answer(doors: Doors) -> None:
    shown, secret = doors.keys["admin"], doors.keys["admin"].split("_")[2]
    async with httpx.AsyncClient(base_url=doors.http, timeout=PATIENCE_S) as client:
        bodies = []
        for path in (
            f"/worlds?key={shown}",
            f"/worlds?key={shown.replace('_', '%5f')}",
            f"/{shown}",
            f"/tiles/{shown}/1/2/3.webp",
            f"/static/{shown}",
        ):
            answer = await client.get(path)
            assert answer.status_code == 400 and "stands in the URL" in answer.json()["detail"]
            bodies.append(answer.text)
        headers = {"Authorization": f"Bearer {shown}"}
        for path in ("/metrics", "/status", "/worlds", "/nothing"):
            bodies.append((await client.get(path, headers=headers)).text)
        headers = {"Authorization": f"Basic {shown}"}
        bodies.append((await client.get("/worlds", headers=headers)).text)
    assert not [body for body in bodies if secret in body]
    for log in doors.logs:
        log.seek(0)
        written = log.read().decode()
        assert '"level": "DEBUG"' in written
        for key in doors.keys.values():
            assert key.split("_")[2] not in written


def visit(url: str, act: Callable[[Page], None]) -> None:
    """Do something in a browser."""
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        page.goto(url)
        act(page)


def says(page: Page, what: str, words: str) -> None:
    eventually(lambda: page.inner_text(what) == words, f"{what} says {words}")


def ready(page: Page) -> None:
    state = "document.documentElement.dataset.state"
    eventually(lambda: page.evaluate(state) == "ready", "all is painted")


async def test_viewer_asks_for_a_key_where_it_must_have_something_painted(doors: Doors) -> None:
    """And keeps it until it is told to forget it."""

    def act(page: Page) -> None:
        page.wait_for_selector("#key")
        says(page, "#key-label", "Painting takes a key")
        page.fill("#key-field", new_key("Mallory", "admin")[0])
        page.click("#key-use")
        says(page, "#key-error", "This key is not known here.")
        page.fill("#key-field", doors.keys["read"])
        page.click("#key-use")
        says(page, "#key-label", "Your key may only look")
        page.fill("#key-field", doors.keys["paint"])
        page.click("#key-use")
        ready(page)
        assert page.is_hidden("#key")
        assert "hs_" not in page.evaluate("document.cookie + JSON.stringify(localStorage)")
        page.click("#seal")
        page.fill("#seed", str(next(_seeds)))
        canvas = "document.documentElement.dataset.canvas"
        before = page.evaluate(canvas)
        page.click("#create")
        eventually(lambda: page.evaluate(canvas) != before, "another canvas")
        ready(page)
        says(page, "#whose-name", "Anna paint")
        page.click("#key-forget")
        eventually(lambda: not page.context.cookies(), "the cookie is gone")

    await asyncio.to_thread(visit, doors.http, act)
