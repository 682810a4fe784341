"""One tile painted by real processes, as those see it who run them: traces, metrics, status."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from handscroll.canvas import Canvas
from handscroll.checkpoint import Checkpoint
from handscroll.geometry import Tile
from tests.e2e.asking import cone, new_canvas, path_of
from tests.support.collector import Collector, Sent
from tests.support.stack import MEASURED, PAINTERS, PATIENCE_S, ROOT, Stack, eventually, running

DOCUMENT = ROOT / "docs" / "operations.md"
TILE = Tile(2, 5, -3)
TRACE, CALLER = secrets.token_hex(16), secrets.token_hex(8)


@pytest.fixture(scope="module")
def traced(
    tmp_path_factory: pytest.TempPathFactory, tiny: Path, collector: Collector
) -> Iterator[Stack]:
    """A stack whose processes all send their traces, and soon."""
    told = {
        **collector.told,
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",  # only who says so is traced
        "HANDSCROLL_TILER_LOG_LEVEL": "DEBUG",
    }
    with running(Stack(tmp_path_factory.mktemp("traced"), tiny, told=told)) as stack:
        yield stack


@pytest.fixture(scope="module")
def painted(traced: Stack) -> Canvas:
    """A canvas of which one tile was asked for, in a trace."""
    canvas = new_canvas(traced)
    answer = httpx.get(
        traced.url + path_of(canvas.id, TILE, "webp"),
        headers={"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-Id": "seen"},
        params={"wait": 60},
        timeout=PATIENCE_S,
    )
    assert answer.status_code == 200, answer.text
    return canvas


def test_spans_of_one_tile_are_one_tree_across_processes(
    traced: Stack, painted: Canvas, collector: Collector
) -> None:
    trace = bytes.fromhex(TRACE)
    patches = len(cone(painted, [TILE]))

    page = "GET /tiles/{canvas}/{z}/{x}/{y}.{format}"
    get = "handscroll_api.tiler.v1.TilerService/GetTile"
    generate = "handscroll_api.generator.v1.GeneratorService/GeneratePatches"
    decode = "handscroll_api.tokenizer.v1.TokenizerService/Decode"
    # What ends last in each process, which sends it last.
    last = {
        ("gateway", page): 1,
        ("tiler", get): 1,
        ("tiler", "tile"): 1,
        ("tokenizer", decode): 1,
        ("generator", generate): 1,
        ("generator", "patch"): patches,
        ("painter", "paint"): patches,
    }

    def whole() -> list[Sent]:
        spans = collector.of(trace)
        found = Counter((one.service, one.span.name) for one in spans)
        return spans if all(found[name] >= count for name, count in last.items()) else []

    spans = eventually(whole, "the spans of the tile")
    named = by_name(spans)
    parents = {one.span.span_id: one for one in spans}

    def above(one: Sent) -> tuple[str, str]:
        parent = parents.get(one.span.parent_span_id)
        return (parent.service, parent.span.name) if parent else ("", "")

    def steps(name: str) -> set[tuple[str, str]]:
        return {above(one) for one in named[name]}

    [root] = [one for one in spans if one.span.parent_span_id == bytes.fromhex(CALLER)]
    assert root.span.name == page
    told = {one.key: one.value for one in root.span.attributes}
    assert told["http.response.status_code"].int_value == 200
    assert told["request_id"].string_value == "seen"
    orphans = [one for one in spans if above(one) == ("", "") and one is not root]
    assert not orphans

    assert steps("ask") == {("gateway", page)}
    assert steps(get) == {("gateway", "ask")}
    assert steps("tile") == {("tiler", get)}
    for step in ("patches", "decode", "encode"):
        assert steps(step) == {("tiler", "tile")}
    assert steps(generate) == {("tiler", "patches")}
    assert steps(decode) == {("tiler", "decode")}
    assert steps("patch") == {("generator", generate), ("generator", "patch")}
    assert steps("queue") == steps("draw") == {("generator", "patch")}
    assert steps("commit") == {("generator", "patch"), ("tiler", "tile")}
    assert steps("paint") == {("generator", "draw")}
    assert len(named["patch"]) == len(named["draw"]) == len(named["paint"]) == patches
    # Each patch is a step of the first that needed it; the others that did are linked to it.
    of_patches = {one.span.span_id for one in named["patch"]}
    linked = {link.span_id for one in spans for link in one.span.links}
    assert linked and linked <= of_patches
    # What lies in a step happens within its time.
    for one in spans:
        if one is not root and one.service == "generator" and above(one)[0] == "generator":
            parent = parents[one.span.parent_span_id].span
            slack_ns = 5_000_000  # a queue's beginning is told by another clock
            assert parent.start_time_unix_nano <= one.span.start_time_unix_nano + slack_ns


def by_name(spans: list[Sent]) -> dict[str, list[Sent]]:
    named: dict[str, list[Sent]] = {}
    for one in spans:
        named.setdefault(one.span.name, []).append(one)
    return named


def test_who_asks_for_no_trace_gets_none_where_the_sampler_says_so(
    traced: Stack, painted: Canvas, collector: Collector
) -> None:
    assert {one.span.trace_id.hex() for one in collector.spans} == {TRACE}


def test_log_lines_name_request_and_trace(traced: Stack, painted: Canvas) -> None:
    text = (traced.data / "logs" / "tiler_svc.log").read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    [line] = [one for one in lines if one.get("request_id") == "seen"]
    assert line["trace_id"] == TRACE
    assert line["rpc"].endswith("/GetTile")


def documented() -> dict[str, set[str]]:
    """The metrics in the document, each with the services that tell it."""
    rows = re.findall(
        r"^\| `(handscroll_\w+)`(?:[^|]*)\| ([^|]+)\|", DOCUMENT.read_text(), re.MULTILINE
    )
    assert len(rows) == len({name for name, _ in rows}), "each is described once"
    every = {"gateway", *MEASURED}
    return {
        name: every if told.strip() == "all" else set(re.findall(r"\w+", told))
        for name, told in rows
    }


def test_metrics_are_those_in_the_document_and_no_others(
    traced: Stack, painted: Canvas, model: Checkpoint
) -> None:
    said = documented()
    found: dict[str, set[str]] = {}
    defined: set[str] = set()
    for service in ("gateway", *MEASURED):
        for family in traced.metrics(service):
            if family.name.startswith("handscroll_"):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                defined.add(name)
                if family.samples:
                    found.setdefault(name, set()).add(service)
    assert defined == set(said)
    undescribed = {name: at - said[name] for name, at in found.items() if not at <= said[name]}
    assert not undescribed
    assert traced.drawn() == len(cone(painted, [TILE]))
    for name in (
        "handscroll_queue_seconds_count",
        "handscroll_draw_seconds_count",
        "handscroll_request_patches_count",
    ):
        assert traced.metric(name) > 0, name
    assert traced.metric("handscroll_request_missing_patches_sum") == traced.drawn()
    assert traced.metric("handscroll_ledger_claims") == 0
    assert traced.metric("handscroll_painters") == PAINTERS
    [info] = [one for one in traced.metrics("generator") if one.name == "handscroll_model_info"]
    assert [one.labels for one in info.samples] == [{"digest": model.digest}]


def run_status(stack: Stack, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launcher", "status", "--url", stack.url, *flags]
    return subprocess.run(
        command, cwd=ROOT, env=stack.env, capture_output=True, text=True, timeout=PATIENCE_S
    )


def test_status_says_that_all_is_well_and_what_is_going_on(
    traced: Stack, painted: Canvas, model: Checkpoint
) -> None:
    done = run_status(traced, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    services = {one["service"]: one for one in told["processes"]}
    assert list(services) == ["gateway", "tiler", "generator", "tokenizer"]
    assert told["well"] and not any(one["problem"] for one in told["processes"])
    assert services["generator"]["model"] == services["tokenizer"]["model"] == model.digest
    painting = services["generator"]["painting"]
    assert painting["busy"] + painting["idle"] + painting["away"] == PAINTERS
    said = run_status(traced).stdout
    assert "all is well" in said and model.digest[:12] in said


def test_status_names_what_is_away(traced: Stack, painted: Canvas) -> None:
    generator = traced.child("generator_svc")
    generator.suspend()
    try:
        done = run_status(traced)
    finally:
        generator.resume()
    assert done.returncode == 1
    assert "something is wrong" in done.stdout
    [line] = [line for line in done.stdout.splitlines() if line.startswith("generator ")]
    assert "the generator did not answer in time" in line
    eventually(lambda: run_status(traced).returncode == 0, "all well again")


def test_a_process_that_is_started_again_is_told_of_in_a_line(
    traced: Stack, painted: Canvas
) -> None:
    traced.child("tokenizer_svc").kill()
    line = eventually(
        lambda: [one for one in traced.said.splitlines() if one.startswith("tokenizer_svc ended")],
        "a line of the restart",
    )
    assert re.fullmatch(
        r"tokenizer_svc ended \(killed by SIGKILL\); starting it again in 0\.[24] s", line[0]
    )
    traced.heal()
