"""The image, as far as it can be looked at without a container engine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.k8s.rendered import ROOT, render, tool
from tests.k8s.rendered import pods as pods_of


def faults(dockerfile: str, context: str) -> list[str]:
    """What is wrong with a Dockerfile and what it takes along, a sentence each."""
    found = []
    stages = dockerfile.split("\nFROM ")
    users = re.findall(r"^USER (.*)$", stages[-1], re.MULTILINE)
    if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
        found.append("it must end as a user that is a number and not root")
    uid = users[-1].partition(":")[0] if users else ""
    for pod in pods_of(render("production")):
        if str(pod.spec["securityContext"]["runAsUser"]) != uid:
            found.append(f"{pod.name} runs as another user than the image")
    # Those of scripts/setup, but for the tools of development (tracing is among them) and the
    # editable install.
    setup = [
        line.partition("--quiet ")[2].replace("-e '.[dev]'", "'.[tracing]'")
        for line in (ROOT / "scripts/setup").read_text().splitlines()
        if "-m pip install" in line
    ]
    steps = re.findall(r"python -m pip install (.*?)(?: \\)?$", dockerfile, re.MULTILINE)
    if steps != setup:
        found.append(f"it installs {steps}, scripts/setup {setup}")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    taken = {line[1:] for line in context.splitlines() if line.startswith("!")}
    wanted = {name.rstrip("*") for name in packages}
    wanted |= {"pyproject.toml", "constraints.txt", project["project"]["readme"], "LICENSE"}
    if taken != wanted or not re.search(r"^\*$", context, re.MULTILINE):
        found.append(f"it takes along {sorted(taken)}, and needs {sorted(wanted)}")
    return found


def text(name: str) -> str:
    return (ROOT / name).read_text()


def test_image_is_built_as_setup_does_and_is_not_root() -> None:
    assert faults(text("Dockerfile"), text(".dockerignore")) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("USER 65532:65532", "USER root"),
        ("USER 65532:65532", "USER handscroll"),
        ("USER 65532:65532", "USER 1000:1000"),
        ("-c constraints.txt '.", "'."),
        ("--no-deps ", ""),
        ("!tiler_svc\n", ""),
        ("!LICENSE\n", "!LICENSE\n!.git\n"),
        ("*\n", ""),
    ],
)
def test_planted_fault_is_found(before: str, after: str) -> None:
    changed = [text(name).replace(before, after, 1) for name in ("Dockerfile", ".dockerignore")]
    assert faults(*changed)


def test_linter_finds_nothing() -> None:
    linter = [tool("hadolint"), "--no-color"]
    lint = subprocess.run([*linter, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert (lint.returncode, lint.stdout) == (0, "")


def test_linter_finds_a_fault(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd /tmp && pip install torch\n")
    lint = subprocess.run([tool("hadolint"), str(tmp_path / "Dockerfile")], capture_output=True)
    assert lint.returncode != 0
