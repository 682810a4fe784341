"""``handscroll keys``, and processes that would be open to others by oversight."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from handscroll.errors import InvalidRequest, NotFound
from launcher.keys import app
from svckit.keyring import Keyring, read_keys
from tests.support.stack import PATIENCE_S, ROOT, SERVICES, free_ports


def keys(*arguments: str) -> str:
    """What the command prints."""
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


def test_key_is_made_shown_once_listed_and_revoked(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    told = ("--file", str(file))
    shown = keys("create", *told, "--name", "Anna", "--patches-per-minute", "90").strip()
    assert re.fullmatch("hs_[0-9a-f]{8}_[0-9a-f]{64}", shown)
    admin = keys("create", *told, "--name", "Bert", "--role", "admin", "--streams", "0").strip()
    _, id, secret = shown.split("_")
    listed = keys("list", *told)
    assert re.search(f"{id} +paint +Anna +90", listed) and secret not in listed
    assert re.search("admin +Bert +0", listed)
    found = Keyring(file).find(shown)
    assert found is not None and (found.name, found.patches_per_minute) == ("Anna", 90)
    assert keys("revoke", *told, id) == ""
    assert Keyring(file).find(shown) is None and Keyring(file).find(admin)
    with pytest.raises(NotFound, match=f"no key '{id}'"):
        keys("revoke", *told, id)


def test_file_that_is_not_there_is_made_by_create_alone(tmp_path: Path) -> None:
    for command in (["list"], ["revoke", "01234567"]):
        with pytest.raises(InvalidRequest, match="keys.json"):
            keys(command[0], "--file", str(tmp_path / "keys.json"), *command[1:])
    assert not list(tmp_path.iterdir())


def test_file_is_taken_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.json"
    monkeypatch.setenv("HANDSCROLL_ACCESS_KEYS_FILE", str(file))
    keys("create", "--name", "Anna", "--role", "read")
    assert [key.role for key in read_keys(file).values()] == ["read"]


def run(tmp_path: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A command that must come to an end by itself."""
    clean = {name: value for name, value in os.environ.items() if "HANDSCROLL" not in name}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=clean | {"HANDSCROLL_STORE_URL": str(tmp_path / "store"), "COLUMNS": "500"} | env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@pytest.mark.parametrize("service", SERVICES)
def test_service_is_not_open_to_others_by_oversight(service: str, tmp_path: Path) -> None:
    done = run(tmp_path, service, "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("others can reach 0.0.0.0")
    door = service in ("gateway", "tiler_svc")
    assert ("HANDSCROLL_ACCESS_ANONYMOUS" in sentence) is door
    assert ("HANDSCROLL_ACCESS_TRUSTED_NETWORK" in sentence) is not door
    assert not (tmp_path / "store").exists()


def test_serve_is_not_open_to_others_by_oversight(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (port,) = free_ports(1)
    command = ("launcher", "serve", "--host", "0.0.0.0", "--port", str(port), "--data", str(data))
    done = run(tmp_path, *command)
    assert done.returncode == 2
    assert done.stderr.startswith("handscroll: others can reach 0.0.0.0: name a file of keys")
    assert not data.exists()


def test_keys_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "gone.json"
    done = run(tmp_path, "gateway", HANDSCROLL_ACCESS_KEYS_FILE=str(file))
    assert done.returncode == 2
    assert done.stderr == f"the keys file {file} cannot be read: No such file or directory\n"
