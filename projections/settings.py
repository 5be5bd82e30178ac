"""The settings of this floor: the embedding endpoint and the storage of vectors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import SplitResult, urlsplit, urlunsplit

from pydantic import AfterValidator, Field, SecretStr

from domain.settings import ApiKey, StorageSettings, as_meant, without_secrets

_OPERATIONS = ("/chat/completions", "/completions", "/embeddings", "/responses")
"""What people copy along with a base URL."""
_HOST_LIKE = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::\d+)?(?:/\S*)?")


def http_url(value: str) -> str:
    """Return the base URL of an endpoint as it is meant; raise ValueError if it is not an HTTP URL."""
    url = as_meant(value)
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in {"http", "https"} or not rest:
        # What may hold a password is not repeated.
        repeats = _HOST_LIKE.fullmatch(url) and without_secrets(url) == url
        example = f", such as http://{url}" if repeats else ""
        raise ValueError(f"give an http:// or https:// address, usually ending in /v1{example}")
    if "://" in rest or not all(char.isprintable() and not char.isspace() for char in rest):
        raise ValueError("there is a blank or a second address in it: give one address")
    try:
        parts = urlsplit(url)
    except ValueError:  # its text quotes the address, and a password with it
        raise ValueError("it cannot be read as an address: look for a bracket or a sign that is out of place") from None
    host = parts.netloc.rpartition("@")[2]
    if not host.startswith("[") and host.count(":") > 1:
        raise ValueError("put the IPv6 address into brackets, as in http://[::1]:8000/v1")
    if not parts.hostname or not _has_port(parts):
        raise ValueError("there is no host in it, or no port from 1 to 65535")
    if "?" in rest or "#" in rest:
        raise ValueError("an address cannot hold what begins with ? or #: leave that out")
    path = _without_operation(re.sub("/{2,}", "/", parts.path).rstrip("/"))
    return urlunsplit((scheme.lower(), parts.netloc, path, "", ""))


def _has_port(parts: SplitResult) -> bool:
    """Tell whether the port can be used, or is left to the scheme."""
    try:
        return parts.port != 0
    except ValueError:
        return False


def _without_operation(path: str) -> str:
    for operation in _OPERATIONS:
        if path.endswith(operation):
            return path.removesuffix(operation).rstrip("/")
    return path


Endpoint = Annotated[str, AfterValidator(http_url)]

_PREFIXES = {
    # Models trained with a prefix for each side lose much of their quality without it.
    "e5-": ("query: ", "passage: "),  # https://huggingface.co/intfloat/multilingual-e5-small
    "nomic-embed-text": (
        "search_query: ",
        "search_document: ",
    ),  # https://huggingface.co/nomic-ai/nomic-embed-text-v1.5
}


class ProjectionSettings(StorageSettings):
    """What building and searching the projections needs."""

    verbatim: ClassVar[frozenset[str]] = frozenset({"emb_query_prefix", "emb_passage_prefix"})

    openai_api_key: ApiKey = Field(
        default=SecretStr("not-needed"), description="key sent to the endpoints; self-hosted ones rarely need one"
    )
    emb_base_url: Endpoint = Field(
        description="base URL of the OpenAI-compatible embedding endpoint, e.g. http://localhost:8002/v1"
    )
    emb_model: str = Field(min_length=1, description="name of the embedding model at EMB_BASE_URL")
    embedding_dims: int = Field(default=0, ge=0, le=65_536, description="length of a vector; 0 = infer it")
    emb_query_prefix: str | None = Field(default=None, description="put before a question; default by model family")
    emb_passage_prefix: str | None = Field(default=None, description="put before a memory; default by model family")
    emb_timeout_s: float = Field(default=5.0, gt=0, description="how long a turn waits for the embedding of its query")
    emb_batch: int = Field(default=64, ge=1, le=2048, description="texts in one embedding request")
    emb_concurrency: int = Field(default=4, ge=1, le=256, description="embedding requests of a rebuild at once")
    index_storage: Literal["fp16", "fp32"] = Field(default="fp16", description="how a number of a vector is stored")
    index_cache_mb: int = Field(
        default=512, ge=1, description="memory for users' indices; least recently used go first"
    )

    @property
    def vector_cache_path(self) -> Path:
        return self.storage_dir / "vectors.sqlite3"

    @property
    def query_prefix(self) -> str:
        return self.emb_query_prefix if self.emb_query_prefix is not None else family_prefixes(self.emb_model)[0]

    @property
    def passage_prefix(self) -> str:
        return self.emb_passage_prefix if self.emb_passage_prefix is not None else family_prefixes(self.emb_model)[1]


def family_prefixes(model: str) -> tuple[str, str]:
    """Return the prefixes for questions and for memories with which a model's family was trained."""
    name = model.lower().rsplit("/", maxsplit=1)[-1]
    for family, prefixes in _PREFIXES.items():
        if name.startswith(family) or f"-{family}" in name:
            return prefixes
    return ("", "")
