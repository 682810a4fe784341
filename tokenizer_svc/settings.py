"""What the tokenizer service is told."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from handscroll.checkpoint import SHIPPED
from svckit.settings import ServiceSettings


class TokenizerSettings(ServiceSettings):
    """What the tokenizer service is told."""

    model_config = SettingsConfigDict(env_prefix="HANDSCROLL_TOKENIZER_")

    port: int = Field(7002, ge=0, le=65535, description="port to listen on; 0 for any")
    model: Path = Field(SHIPPED, description="folder of the checkpoint")
    workers: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        description="calls worked on at a time, each on one core; all cores by default",
    )
    waiting: int = Field(128, ge=0, description="calls that may wait for a worker")
