"""Settings of the service: the chat model, the gate, the rerank, the prompt budget, the timeouts and the API keys."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator

from domain.errors import InvalidInput
from domain.events import JsonObject
from domain.identity import check_id
from domain.settings import ApiKey, Folder, as_meant
from projections.http_client import recordable_url
from projections.settings import Endpoint, ProjectionSettings
from service.knobs import NEIGHBOR_TURNS_MAX

ANY_USER = "*"
"""The owner of an API key that may act for any user."""

BODY_SOURCES = ("user", "safety_identifier")
"""The fields of a request's body that may name a person."""
SIGNED_SOURCE = "x-openwebui-user-jwt"
"""The header in which Open WebUI names a person in a signed token; any other header is taken at its word."""

_HEADER = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")
_HOST = re.compile(r"\*|[a-z0-9._-]+")
_BEFORE_HOST = re.compile(r"^https?://", re.IGNORECASE)
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d+)?")
_USUAL_PORT = re.compile(r"^(?:(http://.*):80|(https://.*):443)$")
_AFTER_HOST = re.compile(r"(:\d+)?(/.*)?$")


def _names(value: object) -> object:
    """Read a JSON list of names, or names with commas between them."""
    if not isinstance(value, str):
        return value
    try:
        names = json.loads(value)
    except (ValueError, RecursionError):
        names = [name for name in re.split(r"[,;\s]+", value) if name]
    return names if isinstance(names, list) else [names]


def _host_name(value: object) -> object:
    """Read one host name; an address and a port around it say nothing, since any port is allowed."""
    if not isinstance(value, str):
        return value
    name = _BEFORE_HOST.sub("", as_meant(value)).lower()
    for address in (name, _AFTER_HOST.sub("", name)):
        try:
            return f"[{ipaddress.IPv6Address(address.strip('[]'))}]"
        except ValueError:
            name = address
    if not _HOST.fullmatch(name):
        raise ValueError('a name is no host name: give a list such as ["localhost", "memory.example"], or "*" for any')
    return name


def _origin(value: object) -> object:
    """Read the origin of a page: scheme, host, port where it is not the usual one."""
    if not isinstance(value, str):
        return value
    # Browsers leave out the usual port.
    origin = _USUAL_PORT.sub(r"\1\2", as_meant(value).lower().rstrip("/"))
    if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
        raise ValueError('an origin is no address of a page: give one such as "https://chat.example" without a path')
    return origin


def _source(value: object) -> object:
    """Read where a person's name may come from: a field of a body, or a header."""
    if not isinstance(value, str):
        return value
    source = as_meant(value).lower()
    if source not in BODY_SOURCES and not _HEADER.fullmatch(source):
        raise ValueError(f"give {', '.join(BODY_SOURCES)}, or a header's name such as x-user-id")
    return source


HostNames = Annotated[list[Annotated[str, BeforeValidator(_host_name)]], BeforeValidator(_names)]
Origins = Annotated[list[Annotated[str, BeforeValidator(_origin)]], BeforeValidator(_names)]
Sources = Annotated[list[Annotated[str, BeforeValidator(_source)]], BeforeValidator(_names)]

_NOT_RECORDED = (
    "openai_api_key",
    "rerank_api_key",
    "api_keys",
    "user_timezones",
    "storage_dir",
    "prompts_dir",
    "allowed_hosts",
    "allow_anonymous",
    "cors_origins",
    "openwebui_jwt_secret",
)
AccessKept = Literal["off", "refused", "reads"]
"""What the access log keeps: nothing, refused calls, or those and reads of what is kept about a person."""


class ServiceSettings(ProjectionSettings):
    """All settings of the service. Times are in seconds."""

    llm_base_url: Endpoint = Field(
        description="base URL of the OpenAI-compatible chat endpoint, e.g. http://localhost:8001/v1"
    )
    llm_model: str = Field(min_length=1, description="name of the chat model at LLM_BASE_URL")
    llm_timeout_s: float = Field(
        default=120.0, gt=0, description="how long the chat model may be silent before and while it answers"
    )
    llm_connect_timeout_s: float = Field(default=5.0, gt=0, description="how long to wait for a connection")
    llm_extra_body: dict[str, Any] = Field(default={}, description="JSON object added to each answer's request")
    decision_extra_body: dict[str, Any] = Field(
        default={}, description="JSON object added to gate, rerank and summary requests"
    )

    gate: Literal["llm", "score", "off"] = Field(default="llm", description="who decides which memories are kept")
    gate_timeout_s: float = Field(default=30.0, gt=0, description="how long a turn waits for the gate")
    gate_reasons: bool = Field(default=False, description="ask the gate for a reason per memory (costs tokens)")
    gate_score_min: float | None = Field(
        default=None, ge=-1, le=1, description="similarity below which GATE=score keeps nothing; default: no such floor"
    )
    rerank_base_url: Endpoint | None = Field(
        default=None, description="address of a rerank endpoint (vLLM, Jina, Cohere) in front of /rerank"
    )
    rerank_model: str | None = Field(default=None, min_length=1, description="name of the model at RERANK_BASE_URL")
    rerank_api_key: ApiKey | None = Field(
        default=None, description="key sent to RERANK_BASE_URL; default: OPENAI_API_KEY"
    )
    reranker: Literal["llm", "endpoint", "none"] | None = Field(
        default=None,
        validate_default=True,
        description="who picks the memories to replay; default: endpoint where one is configured, else llm",
    )
    rerank_timeout_s: float = Field(default=30.0, gt=0, description="how long a turn waits for the rerank")
    neighbor_turns_default: int = Field(
        default=1, ge=0, le=NEIGHBOR_TURNS_MAX, description="neighbor_turns of a request that does not say"
    )
    use_rerank_default: bool = Field(default=True, description="use_rerank of a request that does not say")

    llm_context_tokens: int | None = Field(
        default=None,
        ge=512,
        description="tokens that LLM_MODEL takes, question and answer together; default: what its endpoint says",
    )
    prompt_budget_tokens: int | None = Field(
        default=None, ge=256, description="tokens of a prompt; default: LLM_CONTEXT_TOKENS less those of the answer"
    )
    answer_reserve_tokens: int = Field(
        default=1024, ge=1, description="tokens kept free for an answer whose max_tokens is not given"
    )
    replay_as: Literal["turns", "notes", "prefix_cache"] = Field(
        default="turns",
        description="how memories reach the chat model: as past turns, as notes before the question, or as such notes "
        "in prompts that begin alike, for an endpoint that caches prefixes",
    )
    prompts_dir: Folder | None = Field(
        default=None, description="folder of CHAT_SYSTEM.txt and others that replace prompts"
    )

    cache_salt: bool = Field(
        default=False,
        description="send vLLM a cache_salt for each user, so that no two share what it caches of prompts",
    )
    conversation_without_id: Literal["shared", "new"] = Field(
        default="shared",
        description="where a message goes that comes with no conversation and no history: one shared conversation, "
        "or a new one each time",
    )
    memory_import_default: bool = Field(
        default=False, description="memory_import of a request that does not say: remember a history begun elsewhere"
    )
    summary_timeout_s: float = Field(default=120.0, gt=0, description="how long one try at a summary may take")
    summary_attempts: int = Field(default=5, ge=1, description="tries at a summary until the next start")
    summary_concurrency: int = Field(default=2, ge=1, le=64, description="summaries written at the same time")
    summary_concurrency_max: int = Field(
        default=8, ge=1, le=64, description="summaries written at the same time where many turns wait for theirs"
    )

    api_keys: dict[ApiKey, str] = Field(
        default={},
        description='JSON object from API key to user id, "*" for any user; beside the keys that `opm keys` makes',
    )
    allowed_hosts: HostNames = Field(
        default=["127.0.0.1", "localhost", "[::1]"],
        description="names under which the API may be called while there are no keys, as a JSON list or with commas",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="answer without keys also where others than this machine reach the service",
    )
    cors_origins: Origins = Field(
        default=[],
        description="origins of web pages that may call the API from a browser, as a JSON list or with commas",
    )
    user_from: Sources = Field(
        default=[*BODY_SOURCES, "x-openwebui-user-id", SIGNED_SOURCE, "x-user-id"],
        description="where a key that speaks for any user takes the person from: fields of a body and headers, the "
        "first that names one counts",
    )
    openwebui_jwt_secret: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="FORWARD_USER_INFO_HEADER_JWT_SECRET of Open WebUI, to check whom it names in x-openwebui-user-jwt",
    )
    access_log: AccessKept = Field(
        default="refused",
        description="what the ledger's access log keeps: off, refused (calls without a right to it), or reads too",
    )
    access_log_days: int = Field(default=90, ge=1, description="days after which an entry of the access log goes")
    request_bytes_max: int = Field(default=32_000_000, ge=1024, description="largest request body accepted")
    request_timeout_s: float = Field(
        default=30.0, gt=0, description="how long a client may take over a request's headers, and again over its body"
    )
    connections_max: int = Field(default=1000, ge=1, description="clients connected to a process at the same time")

    def deciding(self) -> JsonObject:
        """Return the settings that decide how questions are answered, as they may be recorded: without keys and people.

        Addresses are without credentials.
        """
        given = self.model_dump(mode="json", exclude=set(_NOT_RECORDED))
        addresses = ("llm_base_url", "emb_base_url", "rerank_base_url")
        return given | {name: recordable_url(given[name]) for name in addresses if given[name] is not None}

    @property
    def rerank_strategy(self) -> Literal["llm", "endpoint", "none"]:
        """Who reranks when a request asks for it."""
        if self.reranker is not None:
            return self.reranker
        return "endpoint" if self.rerank_base_url is not None else "llm"

    @field_validator("rerank_base_url")
    @classmethod
    def _in_front_of_rerank(cls, url: str | None) -> str | None:
        return url.removesuffix("/rerank") if url is not None else None

    @field_validator("reranker")
    @classmethod
    def _reranker_is_configured(cls, chosen: str | None, info: ValidationInfo) -> str | None:
        if not {"rerank_base_url", "rerank_model"} <= info.data.keys():
            return chosen  # one of them is invalid and reported already
        missing = [name.upper() for name in ("rerank_base_url", "rerank_model") if info.data[name] is None]
        if chosen == "endpoint" and missing:
            raise ValueError(f"set {' and '.join(missing)} too")
        if chosen is None and len(missing) == 1:
            raise ValueError(f"set {missing[0]} too, or RERANKER to llm or none")
        return chosen

    @field_validator("cors_origins")
    @classmethod
    def _not_everybody_without_a_key(cls, origins: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "*" in origins and not info.data.get("api_keys", True):
            raise ValueError('with "*" every website could read memories: name the origins, or set API_KEYS')
        return origins

    @field_validator("api_keys")
    @classmethod
    def _owners_are_users(cls, keys: dict[ApiKey, str]) -> dict[ApiKey, str]:
        for owner in keys.values():
            if owner != ANY_USER:
                try:
                    check_id("a key's user", owner)
                except InvalidInput as error:
                    raise ValueError(str(error)) from None
        return keys
