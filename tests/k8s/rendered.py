"""An overlay as `kubectl kustomize` renders it, and the pods that come of it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(one.name for one in (ROOT / "k8s/overlays").iterdir())
NAMESPACE = "handscroll"
COMPONENT = "app.kubernetes.io/component"

Object = dict[str, Any]


class Pod(NamedTuple):
    """What pods are made from: a template, wherever it stands."""

    name: str
    labels: dict[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        """All of them, those that start the others included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def main(self) -> Object:
        """The one that the pod is there for."""
        container: Object = self.spec["containers"][0]
        return container

    @property
    def ports(self) -> dict[str, int]:
        """Ports by name."""
        return {
            port["name"]: port["containerPort"]
            for container in self.containers
            for port in container.get("ports", [])
        }


def tool(name: str) -> str:
    """A program that pip has put beside the interpreter, which need not be on the PATH."""
    beside = Path(sys.executable).parent
    found = shutil.which(name, path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    assert found is not None, f"no `{name}` here: pip install -e '.[dev]'"
    return found


@functools.cache
def text(overlay: str) -> str:
    """The manifests of an overlay."""
    command = [tool("kubectl"), "kustomize", str(ROOT / "k8s/overlays" / overlay)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def render(overlay: str) -> list[Object]:
    """The objects of an overlay; whoever asks may change them."""
    return [one for one in yaml.load_all(text(overlay), yaml.CSafeLoader) if one]


def of_kind(objects: list[Object], *kinds: str) -> Iterator[Object]:
    """Those of some kinds."""
    return (one for one in objects if one["kind"] in kinds)


def one(objects: list[Object], kind: str, name: str) -> Object:
    """The one of a kind and a name."""
    (found,) = (each for each in of_kind(objects, kind) if each["metadata"]["name"] == name)
    return found


def pods(objects: list[Object]) -> list[Pod]:
    """All pods that the objects would make, one of each."""
    found = []
    for each in objects:
        spec = each.get("spec", {})
        spec = spec["jobTemplate"]["spec"] if each["kind"] == "CronJob" else spec
        templates = [spec["template"]] if "template" in spec else []
        if each["kind"] == "RayCluster":
            groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
            templates = [group["template"] for group in groups]
        for template in templates:
            labels = template["metadata"]["labels"]
            found.append(Pod(labels[COMPONENT], labels, template["spec"]))
    return found


def environment(objects: list[Object], container: Object) -> dict[str, str]:
    """What a container is told, with a word in place of each secret."""
    told: dict[str, str] = {}
    for source in container.get("envFrom", []):
        told |= one(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    for entry in container.get("env", []):
        told[entry["name"]] = entry.get("value", "secret")
    return told


def matches(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector selects; an empty one selects everything."""
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In", "the only operator in use"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()
