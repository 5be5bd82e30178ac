"""A chat model that uses tools: it calls the one that a question names, and tells what came of it.

It answers ``/v1/chat/completions`` and, for clients that are recorded without the service, ``/v1/responses``. Each
answer is another text, so that a client's next request shows which of them it repeats. The first question with the
words "fail once" gets a 500.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.upstream import ChatRequest, Reply, ScriptedUpstream, wire
from tests.upstream.http import Connection, HttpRequest

_FAIL_ONCE = "fail once"
_TASK_ANSWER = json.dumps(
    {"title": "A title", "tags": ["colours"], "follow_ups": ["And then?"], "queries": [], "text": "and more"}
)
"""What Open WebUI's background tasks ask for, all of them in one object."""


@dataclass(frozen=True)
class ToolUse:
    """A call of one of the tools that were offered."""

    name: str
    arguments: str
    call_id: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex}")

    def reply(self) -> Reply:
        """Return the answer that makes this call; streamed, its arguments come in two pieces."""
        function = {"name": self.name, "arguments": self.arguments}
        call = {"id": self.call_id, "type": "function", "function": function}
        begun = {**call, "index": 0, "function": {**function, "arguments": ""}}
        half = len(self.arguments) // 2
        pieces = [
            {"index": 0, "function": {"arguments": each}} for each in (self.arguments[:half], self.arguments[half:])
        ]
        return Reply(
            "",
            "tool_calls",
            deltas=tuple({"tool_calls": [piece]} for piece in (begun, *pieces)),
            message={"content": None, "tool_calls": [call]},
        )


@dataclass
class ModelWithTools(ScriptedUpstream):
    """The scripted upstream with tools, and with the responses endpoint."""

    strict_template: bool = False
    says: Mapping[str, str] = field(default_factory=dict)
    """What it answers where the prompt has these words, such as the change to a file that a coding client expects."""
    _answered: int = 0
    _failed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.responders["answer"] = self._speak

    def _speak(self, request: ChatRequest) -> Reply:
        # The template around a document begins like those of the tasks, without a chat in it.
        if request.user.lstrip().startswith("### Task:") and "<chat_history>" in request.user:
            return Reply(_TASK_ANSWER)
        self._answered += 1
        offered = [tool["function"] for tool in request.body.get("tools") or () if "function" in tool]
        use = tool_for(request.user, offered) if request.messages[-1][0] == "user" else None
        if use is not None:
            return use.reply()
        prompt = "\n".join(text for _, text in request.messages)
        for words, said in self.says.items():
            if words in prompt:
                return Reply(said)
        results = [text for role, text in request.messages[-1:] if role == "tool"]
        said = f" The tool says {results[0]}." if results else ""
        return Reply(f"Noted as number {self._answered}.{said}")

    async def _handle(self, http: HttpRequest, connection: Connection) -> None:
        body = wire.decode(http.body) or {} if http.path in {"/v1/chat/completions", "/v1/responses"} else {}
        asked = wire.messages(body)[-1:] if wire.chat_kind(body) == "answer" else ()
        if not self._failed and any(_FAIL_ONCE in text for _, text in asked):
            self._failed = True
            failure = wire.BadRequestError("scripted failure", 500)
            return connection.send(500, wire.encode(wire.error(failure)))
        if http.path == "/v1/responses":
            return self._respond(body, connection)
        return await super()._handle(http, connection)

    def _respond(self, body: Mapping[str, Any], connection: Connection) -> None:
        messages = _as_messages(body.get("input") or "")
        offered = [tool for tool in body.get("tools") or () if tool.get("type") == "function"]
        role, text = messages[-1]
        use = tool_for(text, offered) if role == "user" else None
        said = "" if use is not None else self._speak(ChatRequest("answer", body, messages)).content
        response = _response(body, messages, said, use)
        if not body.get("stream"):
            return connection.send(200, wire.encode(response))
        connection.start_stream()
        for number, event in enumerate(_response_events(response)):
            data = wire.encode({**event, "sequence_number": number})
            connection.chunk(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), data))
        return connection.end_stream()


def tool_for(question: str, offered: Sequence[Mapping[str, Any]]) -> ToolUse | None:
    """Return a call of the first tool all words of whose name are in the question's last line, but for "get" and "to".

    Each argument that it requires is the last word of the question, or 1.
    """
    # What a client puts around a question, a document say, stands before it.
    question = (question.strip().splitlines() or [""])[-1]
    words = re.findall(r"[a-z0-9]+", question.lower())
    for tool in offered:
        name = str(tool["name"])
        named = set(re.findall(r"[a-z0-9]+", name.lower())) - {"get", "to"}
        if named and named <= set(words):
            schema = tool.get("parameters") or {}
            kinds = {key: value.get("type") for key, value in (schema.get("properties") or {}).items()}
            required = schema.get("required") or ()
            last = re.findall(r"\w+", question)[-1]
            values = {key: last if kinds.get(key) == "string" else 1 for key in required}
            return ToolUse(name, json.dumps(values))
    return None


def _as_messages(given: str | Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    if isinstance(given, str):
        return (("user", given),)
    found = []
    for item in given:
        if item.get("type") == "function_call_output":
            found.append(("tool", str(item.get("output"))))
        elif "role" in item:
            found.append((str(item["role"]), wire.messages({"messages": [item]})[0][1]))
    return tuple(found)


def _response(
    body: Mapping[str, Any], messages: tuple[tuple[str, str], ...], said: str, use: ToolUse | None
) -> dict[str, Any]:
    text = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
    output: dict[str, Any] = {
        "type": "message",
        "id": f"msg_{uuid.uuid4().hex}",
        "status": "completed",
        "role": "assistant",
    }
    output |= {"content": [text]}
    if use is not None:
        output = {"type": "function_call", "id": f"fc_{uuid.uuid4().hex}", "status": "completed"}
        output |= {"call_id": use.call_id, "name": use.name, "arguments": use.arguments}
    usage = wire.usage(messages, said)
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "model": body.get("model"),
        "output": [output],
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "store": body.get("store", True),
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        },
        "metadata": body.get("metadata") or {},
    }


def _response_events(response: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    item = response["output"][0]
    at = {"item_id": item["id"], "output_index": 0}
    if item["type"] == "function_call":
        yield {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "status": "in_progress", "arguments": ""},
        }
        yield {"type": "response.function_call_arguments.delta", **at, "delta": item["arguments"]}
        yield {"type": "response.function_call_arguments.done", **at, "arguments": item["arguments"]}
    else:
        text = item["content"][0]
        at["content_index"] = 0
        yield {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "status": "in_progress", "content": []},
        }
        yield {"type": "response.content_part.added", **at, "part": {**text, "text": ""}}
        for piece in wire.pieces(text["text"]):
            yield {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []}
        yield {"type": "response.output_text.done", **at, "text": text["text"], "logprobs": []}
        yield {"type": "response.content_part.done", **at, "part": text}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": response}
