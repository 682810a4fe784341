"""The stores that one contract holds for: memory, a folder, and a real S3 server."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from svckit.store import Store

OpenStore = Callable[[], Store]


@pytest.fixture(params=["memory", "folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "s3":
        s3 = request.getfixturevalue("s3")
        return Store.open(f"{s3.url}/{uuid.uuid4().hex}", s3.settings)
    return Store.open("memory://" if request.param == "memory" else f"file://{tmp_path}/store")
