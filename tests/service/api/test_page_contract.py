"""The page reads only what the service sends: its wire types are held against the service's response models.

Both are compared as JSON schemas, the one language in which they meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from frontend import wire
from service.api import responses

Schema = dict[str, Any]


@pytest.mark.parametrize(
    ("page", "service"),
    [
        (wire.Chunk, responses.ChatCompletionChunk),
        (wire.ConversationList, responses.ConversationList),
        (wire.TurnList, responses.TurnList),
        (wire.MemoryInfo, responses.Memory),
        (wire.MemoryInfo, responses.EditedMemory),
        (wire.MemoryGone, responses.ForgottenMemory),
        (wire.ModelList, responses.ModelList),
        (wire.ErrorEnvelope, responses.ErrorAnswer),
    ],
)
def test_the_page_reads_only_what_the_service_sends(page: type[BaseModel], service: Any) -> None:
    assert list(differences(page, service)) == []


def test_a_difference_is_found() -> None:
    class Sent(BaseModel):
        same: int | None
        name: str | None
        at: str
        sometimes: int = 0

    class Item(BaseModel):
        name: str

    class Read(BaseModel):
        same: float | None
        name: str
        at: int
        sometimes: int
        gone: int = 0

    class ListRead(BaseModel):
        data: tuple[Read, ...]

    class ListSent(BaseModel):
        data: list[Sent]

    assert list(differences(ListRead, ListSent)) == [
        ".data[].name: null is not accepted",
        ".data[].at: string is not accepted",
        ".data[].sometimes: is not always sent",
        ".data[].gone: is never sent",
    ]
    assert list(differences(Item, Item)) == []


def differences(page: Any, service: Any) -> Iterator[str]:
    """Say what the page reads that the service does not send, or sends as another type."""
    read = TypeAdapter(page).json_schema(mode="validation")
    sent = TypeAdapter(service).json_schema(mode="serialization")

    def compare(wanted: Schema, given: Schema, at: str) -> Iterator[str]:
        wanted, given = _resolved(wanted, read), _resolved(given, sent)
        for alternative in given.get("anyOf", [given]):
            found = [list(compare_one(one, alternative, at)) for one in wanted.get("anyOf", [wanted])]
            if [] not in found:
                # The page writes `X | None`, and X has the more telling reason.
                yield from found[0]

    def compare_one(wanted: Schema, given: Schema, at: str) -> Iterator[str]:
        wanted, given = _resolved(wanted, read), _resolved(given, sent)
        same = given["type"] == wanted["type"] or (given["type"], wanted["type"]) == ("integer", "number")
        if not same or wanted.get("format", given.get("format")) != given.get("format"):
            yield f"{at}: {given['type']} is not accepted"
        elif given["type"] == "array":
            yield from compare(wanted["items"], given["items"], f"{at}[]")
        elif given["type"] == "object":
            properties = given.get("properties", {})
            for name, schema in properties.items():
                if isinstance(rest := wanted.get("additionalProperties"), dict):
                    yield from compare(rest, schema, f"{at}.{name}")
            for name, schema in wanted.get("properties", {}).items():
                if name not in properties:
                    yield f"{at}.{name}: is never sent"
                elif name in wanted.get("required", ()) and name not in given.get("required", ()):
                    yield f"{at}.{name}: is not always sent"
                else:
                    yield from compare(schema, properties[name], f"{at}.{name}")

    yield from compare(read, sent, "")


def _resolved(schema: Schema, document: Schema) -> Schema:
    reference = schema.get("$ref")
    return document["$defs"][reference.rsplit("/", 1)[1]] if reference is not None else schema
