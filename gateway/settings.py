"""Settings of the gateway."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from svckit.settings import Settings


class GatewaySettings(Settings):
    """What the gateway is told."""

    model_config = SettingsConfigDict(
        **Settings.model_config | {"env_prefix": "HANDSCROLL_GATEWAY_"}
    )

    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 for any")
    tiler: str = Field("127.0.0.1:7001", description="host:port of tiler_svc, or several")
    public_url: str = Field(
        "",
        pattern=r"^(https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?)?$",
        description="where others reach us, for TileJSON; else the address they asked at",
    )
    trusted_hosts: str = Field(
        "",
        description="names we may be asked by, comma-separated; * for any. IP addresses, localhost "
        "and the name in public_url are trusted anyway",
    )
    allow_origins: str = Field(
        "*",
        pattern=r"^(\*|https?://[A-Za-z0-9.:\[\]-]+)?$",
        description="which web pages of other origins may read tiles, TileJSON and OpenAPI: * for "
        "all, one origin, or empty for none",
    )
    cert: Path | None = Field(
        None, description="PEM file with a certificate and its chain, to serve HTTPS"
    )
    key: Path | None = Field(None, description="PEM file with the certificate's private key")
    cache_bytes: int = Field(2**28, ge=0, description="memory for tiles")
    wait_s: float = Field(30.0, ge=0, le=60, description="seconds to wait for a tile by default")
