"""Patches that were drawn, in a folder: a command that was stopped goes on from there.

A patch is one small file, written aside and put in its place whole: what is there is good, whenever
a command was stopped.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from handscroll.context import Codes
from handscroll.geometry import Patch


class DrawnPatches:
    """Codes of one canvas' patches. Painters of one canvas may share them.

    Args:
        folder: where those of any canvases are; made when it is first written to.
        canvas: the canvas' id: it tells the model, and with it what a patch is.
    """

    def __init__(self, folder: Path, canvas: str) -> None:
        self._folder = folder / canvas

    def get(self, patch: Patch) -> Codes | None:
        """Its codes (side, side, K), or None if it was not drawn yet."""
        try:
            codes: Codes = np.load(self._path(patch))
        except (FileNotFoundError, ValueError, EOFError):  # a power cut may leave an empty file
            return None
        return codes

    def put(self, patch: Patch, codes: Codes) -> None:
        """Keep a patch.

        Raises:
            OSError: the folder cannot be written to.
        """
        path = self._path(patch)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}")
        with aside.open("wb") as file:
            np.save(file, codes)
        aside.replace(path)

    def _path(self, patch: Patch) -> Path:
        return self._folder / ("_".join(map(str, patch)) + ".npy")
