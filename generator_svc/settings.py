"""Settings of generator_svc."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from svckit.settings import ServiceSettings


class GeneratorSettings(ServiceSettings):
    """What generator_svc is told."""

    model_config = SettingsConfigDict(env_prefix="HANDSCROLL_GENERATOR_")

    port: int = Field(7003, ge=0, le=65535, description="port to listen on; 0 for any")
    model: Path | None = Field(
        None, description="folder of the checkpoint, the same on every Ray node; shipped by default"
    )
    ray_address: str = Field("auto", description="host:port of the Ray cluster to join")
    painters: int = Field(0, ge=0, description="Ray actors that draw; 0 for one per CPU of Ray's")
    painter_gpus: float = Field(
        0,
        ge=0,
        le=1,
        description="how much of a GPU each of them holds; 0 to draw on CPUs",
    )
    backlog: int = Field(
        4096, ge=1, description="patches that requests may stand on at a time; more are refused"
    )
    keep: int = Field(65536, ge=1, description="patches kept in memory")
