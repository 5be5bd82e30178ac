"""What a chat endpoint does not take, learned from its refusals, and how requests are put for it instead. Pure.

Endpoints that speak the OpenAI API leave out parts of it. A request whose refusal names such a part is asked again
without it, and so is every later one while the process lives.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Literal

from domain.client_messages import Message, beginning_with, ending_with
from domain.events import JsonObject

Structure = Literal["json_schema", "json_object", "prompt"]
"""How an answer of a given shape is asked for; ``prompt``: in words alone."""

_STRUCTURES: tuple[Structure, ...] = ("json_schema", "json_object", "prompt")
_NAMES_STRUCTURE = re.compile(r"response_format|json_schema|json_object|structured output|guided|grammar|json mode")
_NAMES_LIMIT = re.compile(r"max_tokens|max_completion_tokens")
_NAMES_SYSTEM = re.compile(
    r"system (role|message|prompt|instruction)|role.{0,30}system|only user and assistant roles|roles must alternate"
)
_REFUSES = re.compile(
    r"n[o']t (be )?(support|permit|allow|accept|implement|available|recogni|valid|used)|unsupported|unknown|unrecogni"
    r"|unexpected|extra|invalid|additional|deprecated|forbidden|must be|should be|expected|disallowed|use '?max_"
    r"|only (user|supports)|does not take|cannot|raise_exception|alternate|input should|unavailable"
)
_CALLS_A_VALUE_WRONG = re.compile(
    r"between|(less|greater) than|valid range|(maximum|minimum) value|at (least|most)|[<>]=|too (large|small|high|low)"
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How requests are put. The defaults are OpenAI's API as vLLM speaks it."""

    structure: Structure = "json_schema"
    limit_name: Literal["max_tokens", "max_completion_tokens"] | None = "max_tokens"
    temperature: bool = True
    stream_options: bool = True
    system: bool = True

    @property
    def deviations(self) -> JsonObject:
        """The fields that differ from the defaults; ``Dialect(**deviations)`` is this dialect again."""
        default = Dialect()
        return {name: value for name, value in asdict(self).items() if value != getattr(default, name)}

    def put(self, body: JsonObject) -> JsonObject:
        """Return a request as this endpoint takes it."""
        sent = dict(body)
        if not self.temperature:
            sent.pop("temperature", None)
        if not self.stream_options:
            sent.pop("stream_options", None)
        if self.limit_name != "max_tokens" and "max_tokens" in sent:
            limit = sent.pop("max_tokens")
            if self.limit_name is not None:
                sent.setdefault(self.limit_name, limit)
        if not self.system:
            sent["messages"] = _without_system(sent["messages"])
        if isinstance(sent.get("response_format"), dict) and self.structure != "json_schema":
            sent["messages"] = _asking_in_words(sent["messages"], sent.pop("response_format"))
            if self.structure == "json_object":
                sent["response_format"] = {"type": "json_object"}
        return sent

    def without(self, reason: str, sent: JsonObject) -> Dialect | None:
        """Return the dialect that a refusal of ``sent`` calls for, None where it names nothing to leave out."""
        said = reason.lower()
        if not _REFUSES.search(said) or _CALLS_A_VALUE_WRONG.search(said):
            return None
        if "response_format" in sent and _NAMES_STRUCTURE.search(said):
            return self._less_structure()
        if "stream_options" in sent and "stream_options" in said:
            return replace(self, stream_options=False)
        if "temperature" in sent and "temperature" in said:
            return replace(self, temperature=False)
        if "max_tokens" in sent and _NAMES_LIMIT.search(said):
            return replace(self, limit_name="max_completion_tokens")
        if "max_completion_tokens" in sent and "max_completion_tokens" in said:
            return replace(self, limit_name=None)
        if sent["messages"][0]["role"] == "system" and _NAMES_SYSTEM.search(said):
            return replace(self, system=False)
        return None

    def guesses(self, sent: JsonObject) -> list[Dialect]:
        """Return what may help where a refusal of ``sent`` gives no reason: each a part of the API often left out."""
        found: list[Dialect] = []
        if "response_format" in sent:
            less = _STRUCTURES[_STRUCTURES.index(self.structure) + 1 :]
            found += [replace(self, structure=structure) for structure in less]
        if "stream_options" in sent:
            found.append(replace(self, stream_options=False))
        return found

    def as_json(self) -> JsonObject:
        """Return what was learned, by the names of the API; empty for an endpoint that takes everything."""
        learned: JsonObject = {}
        if self.structure != "json_schema":
            learned["response_format"] = self.structure
        if self.limit_name != "max_tokens":
            learned["max_tokens"] = self.limit_name or "not sent"
        for name in ("temperature", "stream_options", "system"):
            if not getattr(self, name):
                learned[name] = "in the first user message" if name == "system" else "not sent"
        return learned

    def _less_structure(self) -> Dialect | None:
        at = _STRUCTURES.index(self.structure) + 1
        return replace(self, structure=_STRUCTURES[at]) if at < len(_STRUCTURES) else None


def _without_system(messages: list[Message]) -> list[Message]:
    """Merge the system message into the first user message."""
    if not messages or messages[0]["role"] != "system":
        return messages
    system, *others = messages
    if not others:
        return [{"role": "user", "content": system["content"]}]
    return [beginning_with(f"{system['content']}\n\n", others[0]), *others[1:]]


def _asking_in_words(messages: list[Message], response_format: JsonObject) -> list[Message]:
    """Ask in the last message for what ``response_format`` would have made certain."""
    wanted = response_format.get("json_schema")
    schema = wanted.get("schema", {}) if isinstance(wanted, dict) else {}
    *others, last = messages
    words = f"Answer with JSON only, of this schema: {json.dumps(schema, separators=(',', ':'), sort_keys=True)}"
    return [*others, ending_with(last, f"\n\n{words}")]
