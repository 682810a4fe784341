"""`scripts/audit`: it says no unless somebody could be asked, and what it writes is what we run."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The script in a tree whose tools write down how they are called."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/audit", tmp_path / "scripts/audit")
    for tool in ("scripts/setup", ".venv/bin/cyclonedx-py", ".venv/bin/pip-audit"):
        path = tmp_path / tool
        path.write_text(f'#!/bin/sh\necho {path.name} "$@" >>called\nexit $(cat {path.name}.rc)\n')
        path.chmod(0o755)
        (tmp_path / f"{path.name}.rc").write_text("0")
    return tmp_path


def audit(tree: Path, *arguments: str) -> tuple[int, str]:
    """Its exit code, and what it called, when called from elsewhere."""
    elsewhere = tree / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    done = subprocess.run([tree / "scripts/audit", *arguments], cwd=elsewhere, capture_output=True)
    called = tree / "called"
    return done.returncode, called.read_text() if called.exists() else ""


def test_audit_passes_only_if_all_could_be_asked_about(tree: Path) -> None:
    code, called = audit(tree, "sbom.json")
    assert code == 0
    setup, bom, asked = called.splitlines()
    assert setup == "setup" and f"--output-file {tree}/elsewhere/sbom.json .venv" in bom
    assert "--requirement constraints.txt" in asked and "--strict" in asked
    for tool in ("pip-audit", "cyclonedx-py", "setup"):
        (tree / f"{tool}.rc").write_text("1")
        assert audit(tree, "sbom.json")[0] == 1


def test_audit_wants_to_know_where_to_write(tree: Path) -> None:
    code, called = audit(tree)
    assert code != 0 and not called


def test_sbom_holds_what_is_pinned(tmp_path: Path) -> None:
    """Written by the tool itself, without a network."""
    script = (ROOT / "scripts/audit").read_text().replace("\\\n", "")
    (flags,) = re.findall(r"cyclonedx-py (.*) --output-file", script)
    sbom = tmp_path / "sbom.json"
    tool = Path(sys.executable).parent / "cyclonedx-py"
    # Validated by the script itself; that takes longer than all else.
    command = [tool, *flags.split(), "--no-validate", "--output-file", sbom, sys.prefix]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    told = json.loads(sbom.read_text())
    assert told["bomFormat"] == "CycloneDX"
    assert told["metadata"]["component"]["name"] == "handscroll"
    found = {canonicalize_name(one["name"]): one["version"] for one in told["components"]}
    pinned = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert len(pinned) > 100
    for name, version in pinned:
        if canonicalize_name(name) in found:  # some are for other machines
            assert found[canonicalize_name(name)].partition("+")[0] == version, name
    for name in ("ray", "torch", "grpcio", "starlette", "uvicorn", "httptools"):
        assert name in found
