"""The HTTP interface as `gateway/openapi.yaml` has it, and whatever else people may send."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.app import create_app
from gateway.settings import GatewaySettings
from svckit.settings import StoreSettings
from tests.gateway.conftest import Stack

OWNER = "contract-" * 2
PICTURE = "ef" * 32
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
BOUNDED = settings(
    max_examples=12,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_every_route_is_described_and_nothing_else(stack: Stack) -> None:
    told = stack.get("/openapi.json").json()
    app = create_app(GatewaySettings(store=StoreSettings(url="memory://")))
    routes: dict[str, set[str]] = {}
    for route in app.routes:
        routes.setdefault(route.path, set()).update(route.methods or ())
    verbs = {"get", "post", "put", "patch", "delete"}
    assert {path: set(item) & verbs for path, item in told["paths"].items()} == {
        path: {method.lower() for method in methods - {"HEAD"}} for path, methods in routes.items()
    }


def test_answers_are_as_described(stack: Stack) -> None:
    canvas = stack.canvas(prompt="mist")
    stack.loop.run(_own(stack, canvas.id))
    region = {"level": 2, "top": -9, "left": 3, "height": 20, "width": 30}
    with stack.client() as client:
        export = client.post("/exports", json=region | {"canvas": canvas.id}).json()["id"]
    stack.loop.run(_give(stack, PICTURE))
    schema = schemathesis.openapi.from_url(f"{stack.url}/openapi.json")
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]

        @given(case=operation.as_strategy())
        @BOUNDED
        def holds(case: Any) -> None:
            if "canvas" in case.path_parameters:
                case.path_parameters["canvas"] = canvas.id
            if "picture" in case.path_parameters:
                case.path_parameters["picture"] = PICTURE
            if "export" in case.path_parameters:
                case.path_parameters["export"] = export
            case.call_and_validate(checks=CHECKS, timeout=20)

        holds()


async def _own(stack: Stack, canvas_id: str) -> None:
    stack.tiler.owned[OWNER] = [canvas_id]


async def _give(stack: Stack, picture: str) -> None:
    stack.tiler.pictures[picture] = 3, 4
    stack.tiler.given[OWNER] = [picture]


@pytest.fixture(scope="module")
def client(_shared: Stack) -> Iterator[httpx.Client]:
    """One client for many requests."""
    with _shared.client() as client:
        yield client


PIECES = st.one_of(
    st.sampled_from(
        ["tiles", "canvases", "events", "tilejson.json", "static", "14", "8192", "8192.webp", ".."]
    ),
    st.just("0" * 64),
    st.text(max_size=12),
    st.integers().map(str),
)


@given(
    pieces=st.lists(PIECES, max_size=6),
    query=st.dictionaries(
        st.sampled_from(["wait", "frame", "z", "left", "page_size", "page_token"]),
        st.one_of(st.text(max_size=6), st.integers(-1, 99).map(str)),
    ),
    method=st.sampled_from(["GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT"]),
)
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_no_path_is_too_strange(
    client: httpx.Client, _shared: Stack, pieces: list[str], query: dict[str, str], method: str
) -> None:
    path = "/" + "/".join(quote(one, safe="") for one in pieces)
    answer = client.request(method, f"{_shared.url}{path}", params=query)
    assert answer.status_code < 500
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        if method != "HEAD":
            assert answer.json()["status"] == answer.status_code
    assert answer.headers["x-content-type-options"] == "nosniff"
