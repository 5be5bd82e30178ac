"""Whether a request is a task of the frontend's own, and no message of a person: a title, tags, a connection test.

Such a request is answered without memory and leaves none, or titles would be remembered as what somebody said. A
frontend says it best: by a header, by ``metadata.task``, or by asking a model id that ends in ``:no-memory``. Else the
prompt tells. The prompts of known frontends are listed in ``side_task_prompts.toml``, and one is recognised only where
the whole request has its shape, so that a person may quote a prompt and ask about it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from domain.client_messages import SYSTEM_ROLES, Message, text_of
from domain.errors import InvalidInput
from domain.events import JsonObject

TASK_HEADER = "x-opm-task"
NO_MEMORY_SUFFIX = ":no-memory"
"""What stands at the end of the model id that answers without memory."""
_UNFILLED = "{{TASK}}"
"""What an Open WebUI sends that does not know this variable of its connection headers yet."""
_PROMPTS = Path(__file__).with_name("side_task_prompts.toml")
_ENDS_CHARS = 1_000
"""Where the beginning or the end of a text is compared, this much of it is looked at, however long it is."""
_WHOLE_CHARS_MAX = 4_000


@dataclass(frozen=True, slots=True)
class SideTask:
    """A task of the frontend's own. ``client`` is the frontend whose prompt it is, None where the request said it."""

    task: str
    client: str | None = None


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a text has to look like, see ``side_task_prompts.toml``."""

    begins: re.Pattern[str]
    holds: tuple[str, ...]
    ends: re.Pattern[str]
    whole: re.Pattern[str] | None

    def fits(self, text: str) -> bool:
        text = text.strip()
        if self.whole is not None:
            return len(text) <= _WHOLE_CHARS_MAX and self.whole.fullmatch(text) is not None
        begun = self.begins.match(text[:_ENDS_CHARS])
        if begun is None:
            return False
        at = begun.end()
        for held in self.holds:
            found = text.find(held, at)
            if found == -1:
                return False
            at = found + len(held)
        return self.ends.search(text, max(at, len(text) - _ENDS_CHARS)) is not None


@dataclass(frozen=True, slots=True)
class _Known:
    """One request of a known frontend, see ``side_task_prompts.toml``."""

    side_task: SideTask
    user: _Shape | None
    system: _Shape | None
    system_may_be: bool
    history_may_be: bool
    streamed: bool | None
    max_tokens: int | None
    tools: frozenset[str] | None
    headers: tuple[tuple[str, re.Pattern[str]], ...]
    chat_may_be: bool

    def fits(self, asked: _Asked) -> bool:
        return (
            (self.history_may_be or not asked.history)
            and (self.chat_may_be or not asked.in_chat)
            and (self.system_may_be or not asked.system)
            and (self.streamed is None or self.streamed == asked.streamed)
            and (self.max_tokens is None or (asked.max_tokens or self.max_tokens + 1) <= self.max_tokens)
            and (self.tools is None or self.tools == asked.tools)
            and all(pattern.search(asked.headers.get(name, "")) for name, pattern in self.headers)
            and (self.user is None or self.user.fits(asked.user))
            and (self.system is None or self.system.fits(asked.system))
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request looks like. ``history`` tells whether anything was said before its last message."""

    user: str
    system: str
    history: bool
    in_chat: bool
    streamed: bool
    max_tokens: int | None
    tools: frozenset[str]
    headers: Mapping[str, str]


def side_task(
    messages: Sequence[Message],
    *,
    model: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    parameters: JsonObject | None = None,
    streamed: bool = False,
    in_chat: bool = False,
) -> SideTask | None:
    """Return the task that a request is, None for what a person says.

    ``messages`` are those of the request, ``headers`` are under lower-case names, ``parameters`` are the other fields
    of the body. ``in_chat`` tells that the request names a conversation. Raises :class:`InvalidInput` where
    ``metadata.task`` is no text.
    """
    headers = headers or {}
    said = _said(metadata or {}, headers)
    if said is not None:
        return SideTask(said)
    if without_memory(model):
        return SideTask(f"model {NO_MEMORY_SUFFIX}")
    if headers.get(TASK_HEADER) is not None and not headers[TASK_HEADER].strip():
        # The frontend names its tasks, and did not name one. So a prompt that is quoted whole is a person's too.
        return None
    asked = _asked(messages, headers, parameters or {}, streamed=streamed, in_chat=in_chat)
    if asked is None:
        return None
    return next((known.side_task for known in _known() if known.fits(asked)), None)


def without_memory(model: str | None) -> bool:
    """Tell whether a model id is the one that answers without memory."""
    return model is not None and model.endswith(NO_MEMORY_SUFFIX)


def _said(metadata: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """Return the task that the request names; None where it names none."""
    task = metadata.get("task")
    if task is not None and not isinstance(task, str):
        raise InvalidInput(
            "metadata.task", task, "give the name of the task, such as title_generation, or leave it out"
        )
    for named in (headers.get(TASK_HEADER), task):
        if named is not None and named.strip() not in {"", _UNFILLED}:
            return named.strip()
    return None


def _asked(
    messages: Sequence[Message], headers: Mapping[str, str], parameters: JsonObject, *, streamed: bool, in_chat: bool
) -> _Asked | None:
    """Return what a request looks like; None where its last message is not one of a person, so that it goes on."""
    said = [message for message in messages if message.get("role") not in SYSTEM_ROLES]
    if said and said[-1].get("role") != "user":
        return None
    limits = [parameters.get(name) for name in ("max_completion_tokens", "max_tokens")]
    return _Asked(
        user=_words(said[-1]) if said else "",
        system="\n\n".join(_words(message) for message in messages if message.get("role") in SYSTEM_ROLES),
        history=len(said) > 1,
        in_chat=in_chat,
        streamed=streamed,
        max_tokens=min((limit for limit in limits if isinstance(limit, int)), default=None),
        tools=frozenset(_tool_names(parameters)),
        headers=headers,
    )


def _words(message: Message) -> str:
    """Return the text of a message alone. What an image is would have to be made from its bytes."""
    content = message.get("content")
    if not isinstance(content, list):
        return text_of(message)
    return text_of({"content": [part for part in content if isinstance(part, str) or part.get("type") == "text"]})


def _tool_names(parameters: JsonObject) -> list[str]:
    offered = parameters.get("tools") or parameters.get("functions") or []
    named = [tool.get("function", tool) if isinstance(tool, dict) else {} for tool in offered]
    return [str(each.get("name")) if isinstance(each, dict) else "" for each in named]


@cache
def _known() -> tuple[_Known, ...]:
    with _PROMPTS.open("rb") as file:
        return tuple(map(_known_from, tomllib.load(file)["request"]))


def _known_from(entry: dict[str, Any]) -> _Known:
    system = entry.get("system")
    tools: list[str] | Literal["any"] = entry.get("tools", [])
    return _Known(
        side_task=SideTask(entry["task"], entry["client"]),
        user=_shape(entry.get("user")),
        system=_shape(system) if isinstance(system, dict) else None,
        system_may_be=system != "none",
        history_may_be=entry.get("history") == "any",
        streamed=entry.get("streamed"),
        max_tokens=entry.get("max_tokens"),
        tools=None if tools == "any" else frozenset(tools),
        chat_may_be=entry.get("chat") != "none",
        headers=tuple((name, re.compile(pattern)) for name, pattern in entry.get("headers", {}).items()),
    )


def _shape(given: dict[str, Any] | None) -> _Shape | None:
    if given is None:
        return None
    return _Shape(
        begins=re.compile(given.get("begins", "")),
        holds=tuple(given.get("holds", ())),
        ends=re.compile(rf"(?:{given.get('ends', '')})\Z"),
        whole=re.compile(given["whole"]) if "whole" in given else None,
    )
