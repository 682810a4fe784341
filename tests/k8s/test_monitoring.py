"""Dashboard and alerts ask for what the services tell, and every alert has its place to read on."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from tests.k8s.rendered import ROOT, Object, of_kind, one, render

FOLDER = ROOT / "k8s" / "components" / "monitoring"
# What defines metrics. Ray's painters have none.
MODULES = (
    *("gateway.app", "tiler_svc.service", "tokenizer_svc.service", "generator_svc.service"),
    *("svckit.report", "svckit.server", "svckit.store"),
)
FUNCTIONS = {
    *("absent", "count", "histogram_quantile", "increase", "rate", "sum", "time"),
    *("and", "by", "on", "or"),
}


@pytest.fixture(scope="module")
def told() -> dict[str, set[str]]:
    """Every series that the services can tell, with its labels."""
    for module in MODULES:
        importlib.import_module(module)
    found: dict[str, set[str]] = {}
    for collector in list(REGISTRY._collector_to_names):
        labels = set(getattr(collector, "_labelnames", ()))
        for metric in collector.collect():
            for suffix in {
                "counter": ["_total"],
                "histogram": ["_bucket", "_sum", "_count"],
            }.get(metric.type, [""]):
                extra = {"le"} if suffix == "_bucket" else set()
                found[f"{metric.name}{suffix}"] = labels | extra
    return found


def panels() -> list[Any]:
    found: list[Any] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return found


def rules() -> list[Object]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["spec"]["groups"]
    found: list[Object] = group["rules"]
    return found


def questions() -> Iterator[str]:
    for panel in panels():
        yield from (target["expr"] for target in panel.get("targets", []))
    yield from (rule["expr"] for rule in rules())


def names_in(expr: str) -> list[tuple[str, set[str]]]:
    """The series that a PromQL expression asks for, each with the labels that it is chosen by."""
    # Strings first, since they may hold anything; then what is not the name of a series.
    bare = re.sub(r'"[^"]*"', '""', expr)
    bare = re.sub(r"\b(by|on)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    found = []
    for name, chosen in re.findall(r"([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?", bare):
        if name not in FUNCTIONS:
            found.append((name, set(re.findall(r"(\w+)\s*[=!]", chosen))))
        assert name not in FUNCTIONS or not chosen
    return found


OF_TARGETS = {"namespace", "pod", "instance"}
"""Labels that Prometheus adds."""


def test_series_are_found_in_questions_of_every_kind() -> None:
    expr = 'histogram_quantile(0.9, sum by (le, x) (rate(a_bucket{b=~"c{d}", e!=""}[5m]))) > 1 or f'
    assert names_in(expr) == [("a_bucket", {"b", "e"}), ("f", set())]


def test_dashboard_and_alerts_ask_for_what_the_services_tell(told: dict[str, set[str]]) -> None:
    asked = [pair for expr in questions() for pair in names_in(expr)]
    assert len(asked) > 50
    strangers = {name for name, _ in asked if name not in told}
    assert not strangers
    for name, chosen in asked:
        assert chosen <= told[name] | OF_TARGETS, name


def test_questions_group_by_labels_that_there_are(told: dict[str, set[str]]) -> None:
    for expr in questions():
        known = OF_TARGETS.union(*(told[name] for name, _ in names_in(expr)))
        for listed in re.findall(r"\bby\s*\(([^)]*)\)", expr):
            assert set(re.findall(r"\w+", listed)) <= known, expr


def test_every_metric_of_ours_is_on_the_dashboard(told: dict[str, set[str]]) -> None:
    shown = {
        name
        for panel in panels()
        for t in panel.get("targets", [])
        for name, _ in names_in(t["expr"])
    }
    stems = {re.sub("_(bucket|sum|count)$", "", name) for name in shown}
    ours = {re.sub("_(bucket|sum|count)$", "", name) for name in told if "handscroll" in name}
    assert ours <= stems


def test_dashboard_is_one_that_grafana_draws() -> None:
    found = json.loads((FOLDER / "dashboard.json").read_text())
    assert found["uid"] and found["title"] and found["schemaVersion"] >= 39
    ids = [panel["id"] for panel in found["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in found["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + right, place["y"] + down)
            for right in range(place["w"])
            for down in range(place["h"])
        }
        assert max(x for x, _ in cells) < 24 and not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["targets"] and panel["fieldConfig"]["defaults"] is not None
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    rows = [panel["title"] for panel in found["panels"] if panel["type"] == "row"]
    assert rows == ["People", "Painting", "Store", "Processes"]


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    text = (ROOT / "docs" / "operations.md").read_text().partition("\n## Alerts\n")[2]
    sections = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    assert [rule["alert"] for rule in rules()] == sections
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"] and rule["labels"]["severity"] in (
            "critical",
            "warning",
        )


def test_production_brings_both() -> None:
    objects = render("production")
    assert one(objects, "PrometheusRule", "handscroll")["spec"]["groups"][0]["rules"] == rules()
    (dashboard,) = (
        each for each in of_kind(objects, "ConfigMap") if "dashboard.json" in each["data"]
    )
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["dashboard.json"])["panels"] == panels()
