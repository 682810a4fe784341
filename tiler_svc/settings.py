"""What the tiler service is told."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from handscroll.formats import QUALITY
from svckit.settings import ServiceSettings


class TilerSettings(ServiceSettings):
    """What the tiler service is told."""

    model_config = SettingsConfigDict(env_prefix="HANDSCROLL_TILER_")

    port: int = Field(7001, ge=0, le=65535, description="port to listen on; 0 for any")
    generator: str = Field("127.0.0.1:7003", description="host:port of generator_svc, or several")
    tokenizer: str = Field("127.0.0.1:7002", description="host:port of tokenizer_svc, or several")
    decodes: int = Field(
        16, ge=1, description="tiles being decoded at a time; others wait for their turn here"
    )
    quality: int = Field(
        QUALITY, ge=1, le=100, description="of WebP and JPEG; tiles that are cached keep theirs"
    )
    exports: int = Field(2, ge=1, description="exports being made at a time; more are refused")
    export_pixels: int = Field(
        2**28, ge=1, description="pixels of an export; JPEG and WebP take fewer"
    )
    first_seeds: dict[str, int] = Field(
        {"scroll": 34, "planet": 21},
        description="seed of the canvas to open first, by world; 0 for others",
    )
