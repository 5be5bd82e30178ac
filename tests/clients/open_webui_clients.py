"""Open WebUI as two clients: with its defaults, and set up so that it says who speaks, in which chat, and what for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.clients.client import Chats, Recall, Row
from tests.clients.environments import PythonEnvironment
from tests.clients.model import ModelWithTools
from tests.clients.open_webui import (
    ENVIRONMENT,
    Chat,
    Person,
    WentWrongError,
    document,
    open_webui,
    picture,
    said,
    until,
)
from tests.clients.recording import RecordingProxy

_THINGS = {"Ada": "bicycle", "Bob": "boat"}
_Steps = Iterable[tuple[str, Callable[[], object]]]


@dataclass(frozen=True)
class OpenWebUi:
    """Its defaults, which tell nothing of chats and people: a chat is found by its history alone."""

    name: str = "open-webui"
    environment: PythonEnvironment = ENVIRONMENT
    says: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ("Bob: ",)
    recalls: tuple[Recall, ...] = ()

    @property
    def chats(self) -> Mapping[str, Chats]:
        return {"": tuple(chat for thing in _THINGS.values() for chat in _three_chats(thing))}

    @property
    def recorded_chats(self) -> Mapping[str, Chats]:
        # What a second person sends looks like what the first one does.
        return {"": _three_chats(_THINGS["Ada"])}

    def run(self, environments: Path, proxy: RecordingProxy, model: ModelWithTools) -> Iterator[Row]:
        with (
            tempfile.TemporaryDirectory() as folder,
            open_webui(environments, Path(folder), proxy.base_url, model.base_url) as url,
        ):
            for person in _two_people(url):
                yield from _tried(self.name, proxy, person, _three_chats_of(person, model.chat_model))


@dataclass(frozen=True)
class OpenWebUiWithPeople:
    """With ``ENABLE_FORWARD_USER_INFO_HEADERS`` and a header of the connection that names its background tasks."""

    name: str = "open-webui-people"
    environment: PythonEnvironment = ENVIRONMENT
    says: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=lambda: {"api_keys": {"sk-client": "*"}})
    left_out: tuple[str, ...] = ()

    @property
    def chats(self) -> Mapping[str, Chats]:
        return {
            name: (
                (f"Your {thing} is green.", "What is the current timestamp?"),
                (f"What does the note say about the {thing}?",),
                (f"Which colour is my {thing}?",),
            )
            for name, thing in _THINGS.items()
        }

    @property
    def recorded_chats(self) -> Mapping[str, Chats]:
        return self.chats

    @property
    def recalls(self) -> tuple[Recall, ...]:
        return tuple(
            Recall(
                f"{name}: another chat",
                (f"Your {thing} is green.",),
                # What was edited, what was said in a temporary chat, and what others said.
                (f"My {thing} is red.", "Forget that", *(other for other in _THINGS.values() if other != thing)),
            )
            for name, thing in _THINGS.items()
        )

    def run(self, environments: Path, proxy: RecordingProxy, model: ModelWithTools) -> Iterator[Row]:
        with (
            tempfile.TemporaryDirectory() as folder,
            open_webui(
                environments,
                Path(folder),
                proxy.base_url,
                model.base_url,
                ENABLE_FORWARD_USER_INFO_HEADERS="True",
            ) as url,
        ):
            people = _two_people(url)
            people[0].sets_headers(proxy.base_url, {"X-OPM-Task": "{{TASK}}"})
            said(people[0].http.get("/api/models"))
            for person in people:
                yield from _tried(self.name, proxy, person, _chats_by_id_of(person, model.chat_model))


def _two_people(url: str) -> list[Person]:
    ada = Person.signed_up(url, "Ada")
    people = [ada, ada.adds(url, "Bob")]
    said(ada.http.get("/api/models"))
    return people


def _tried(name: str, proxy: RecordingProxy, person: Person, steps: _Steps) -> Iterator[Row]:
    for step, do in steps:
        proxy.step = f"{person.name}: {step}"
        failed = ""
        try:
            do()
        except WentWrongError as error:
            failed = str(error)[:300]
        yield Row(name, f"{person.name}: {step}", failed)


def _three_chats(thing: str) -> Chats:
    return (
        (f"My {thing} is red.", "What is the current timestamp?", f"The {thing} is old."),
        (f"What is the {thing} here?\n[image: image/png, 70 bytes, sha256 ...", f"Who owns the {thing}?"),
        (f"What does the note say about the {thing}?", "And what else?", "Since when?"),
    )


def _three_chats_of(person: Person, model: str) -> Iterator[tuple[str, Callable[[], object]]]:
    thing = _THINGS[person.name]
    first, second, third = (Chat(person, model) for _ in range(3))
    yield "first message", lambda: _says(first, f"My {thing} is red.")
    yield "title", lambda: until("the chat has its title", lambda: first.title == "A title")
    yield "tools", lambda: _says(first, "What is the current timestamp?", "The tool says")
    yield "third message", lambda: _says(first, f"The {thing} is old.")
    yield "regenerate", lambda: _regenerates(first)
    yield "continue", lambda: _continues(first)
    yield "image", lambda: second.says(f"What is the {thing} here?", [picture(person)])
    yield "after the image", lambda: _says(second, f"Who rides the {thing}?")
    yield "edit", lambda: second.edits(str(second.newest), f"Who owns the {thing}?")
    note = f"The {thing} sleeps in the harbour."
    yield "document", lambda: third.says(f"What does the note say about the {thing}?", [document(person, note)])
    yield "after the document", lambda: _says(third, "And what else?")
    yield "edit, then back to the branch before", lambda: _leaves_and_returns(third)


def _chats_by_id_of(person: Person, model: str) -> Iterator[tuple[str, Callable[[], object]]]:
    thing = _THINGS[person.name]
    first, second, third = (Chat(person, model) for _ in range(3))
    yield "first message", lambda: _says(first, f"My {thing} is red.")
    yield "first message, regenerated", lambda: _regenerates(first)
    yield "first message, edited", lambda: first.edits(str(first.newest), f"Your {thing} is green.")
    yield "tools", lambda: _says(first, "What is the current timestamp?", "The tool says")
    note = f"The {thing} sleeps in the harbour."
    yield "document", lambda: second.says(f"What does the note say about the {thing}?", [document(person, note)])
    yield "temporary chat", lambda: person.asks_in_a_temporary_chat(model, f"Forget that I have a {thing}.")
    yield "another chat", lambda: _says(third, f"Which colour is my {thing}?")


def _says(chat: Chat, text: str, holds: str = "Noted") -> None:
    answer = chat.text(chat.says(text))
    if holds not in answer:
        raise WentWrongError(f"the answer is {answer!r}")


def _regenerates(chat: Chat) -> None:
    before = str(chat.newest)
    if chat.text(before) == chat.text(chat.regenerates(before)):
        raise WentWrongError("the answer is the one before")


def _leaves_and_returns(chat: Chat) -> None:
    left = str(chat.newest)
    chat.edits(left, "And who says so?")
    chat.says("Since when?", after=left)


def _continues(chat: Chat) -> None:
    before = chat.text(str(chat.newest))
    answer = chat.text(chat.continues(str(chat.newest)))
    if not answer.startswith(before) or answer == before:
        raise WentWrongError(f"after {before!r} the answer is {answer!r}")
