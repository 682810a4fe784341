"""What cannot start is said in words, and soon."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import psutil

from tests.support.stack import PATIENCE_S, ROOT, Stack


def run(stack: Stack) -> subprocess.CompletedProcess[str]:
    """The command, which must come to an end by itself."""
    return subprocess.run(
        stack.command, cwd=ROOT, env=stack.env, capture_output=True, text=True, timeout=PATIENCE_S
    )


def test_a_model_that_is_not_there_is_named_before_anything_starts(tmp_path: Path) -> None:
    folder = tmp_path / "nothing"
    stack = Stack(tmp_path, folder)
    done = run(stack)
    assert done.returncode == 2
    assert done.stderr == (
        f"handscroll: --model must be the folder of a checkpoint; there is none at {folder}\n"
    )
    assert not stack.data.exists()


def test_a_model_that_cannot_be_read_is_named_and_not_tried_for_ever(
    tiny: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    weights = folder / "decoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    stack = Stack(tmp_path, folder)
    done = run(stack)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"handscroll: tokenizer_svc cannot start: {weights} is truncated")
    log = (stack.data / "logs" / "tokenizer_svc.log").read_text()
    assert log.count(str(weights)) == 1, "it is tried once"
    left = [one for one in psutil.process_iter(["cmdline"]) if str(folder) in str(one.info)]
    assert not left
