"""The settings of the embedded models, checked before anything is started or downloaded."""

import os
from pathlib import Path

from pydantic import Field

from domain.settings import EnvironmentSettings, Folder

DEFAULT_PORT = 9010


class LocalModelsSettings(EnvironmentSettings):
    """Read from the environment or `.env`; an empty variable counts as not set."""

    local_chat_model: str = Field(
        default="",
        description="A name of the table, the path of a GGUF file, or owner/repo/file.gguf; empty: by machine",
    )
    local_models_dir: Folder = Field(
        default_factory=lambda: _cache_home() / "openpersistentmemory" / "models",
        description="Where downloaded models are kept",
    )
    local_models_port: int = Field(default=DEFAULT_PORT, ge=0, le=65535, description="0 takes any free port")
    local_context: int = Field(default=0, ge=0, le=1_048_576, description="Tokens a chat may have; 0: by memory")
    local_threads: int = Field(default=0, ge=0, le=1024, description="Threads of each engine; 0: one per core")
    hf_endpoint: str = Field(
        default="https://huggingface.co", pattern=r"^https?://\S+$", description="The hub or its mirror"
    )


def _cache_home() -> Path:
    # The XDG base directory specification: a relative value is invalid and ignored.
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return named if named.is_absolute() else Path.home() / ".cache"
