"""Settings of a service: from flags, else from the environment, else as written here.

Every service has one frozen class with a prefix of its own, such as ``HANDSCROLL_TILER_PORT``; what
all of them share is read from ``HANDSCROLL_STORE_URL``, ``HANDSCROLL_ACCESS_ANONYMOUS`` and so on.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from handscroll.errors import InvalidRequest
from svckit.access import AccessSettings
from svckit.store import S3Settings, Store
from svckit.tls import TlsSettings


class StoreSettings(BaseSettings):
    """Where patches, tiles and specs are kept."""

    model_config = SettingsConfigDict(
        env_prefix="HANDSCROLL_STORE_",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        frozen=True,
        extra="forbid",
    )

    url: str = Field("handscroll-store", description="a folder, s3://bucket/prefix, or memory://")
    s3: S3Settings = Field(S3Settings(), description="how to reach S3; else as AWS_* says")

    def open(self) -> Store:
        """The store; nothing is asked of it yet."""
        return Store.open(self.url, self.s3)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Store]:
        """The store for a service that writes, after a race has shown its create to be atomic.

        Raises:
            UnsafeStore: it is not.
            StoreUnavailable: it cannot be reached.
        """
        store = self.open()
        try:
            await store.probe()
            await store.sweep()
            yield store
        finally:
            await store.close()


class Settings(BaseSettings):
    """What everything that serves is told."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(0, ge=0, le=65535, description="port to listen on; 0 for any")
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="port for Prometheus; none by default"
    )
    drain_s: float = Field(20.0, ge=0, description="seconds that calls may go on after SIGTERM")
    notice_s: float = Field(
        1.0,
        ge=0,
        description="seconds of these in which new calls are still taken, while health says that "
        "we leave: for whoever balances to turn to others",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="the least important lines to log"
    )
    store: StoreSettings = Field(default_factory=lambda: StoreSettings())
    proxies: int = Field(
        0,
        ge=0,
        description="how many proxies stand before us, that nobody can go around, and say in "
        "X-Forwarded-For where they were called from: callers without a key are known by that",
    )
    access: AccessSettings = Field(default_factory=lambda: AccessSettings())
    tls: TlsSettings = Field(default_factory=lambda: TlsSettings())

    @property
    def leave_s(self) -> tuple[float, float]:
        """Seconds after SIGTERM in which new calls are taken, and those after in which none are."""
        notice_s = min(self.notice_s, self.drain_s)
        return notice_s, self.drain_s - notice_s

    @classmethod
    def read(cls, arguments: list[str] | None = None) -> Self:
        """Read flags (``sys.argv`` unless given) and the environment.

        Raises:
            InvalidRequest: a setting is out of its range or unknown.
        """
        flags = sys.argv[1:] if arguments is None else arguments
        try:
            return cls(_cli_parse_args=flags)
        except ValidationError as error:
            faults = (
                f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}"
                for one in error.errors()
            )
            raise InvalidRequest("; ".join(faults)) from error


class ServiceSettings(Settings):
    """What every gRPC service is told."""

    calls: int = Field(256, ge=1, description="calls served at a time; more are refused")
