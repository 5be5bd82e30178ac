"""What a client is to this package: something to install, that makes requests, after which certain chats are there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.clients.environments import Environment, clean_environment
from tests.clients.model import ModelWithTools
from tests.clients.recording import RecordingProxy

PROGRAM_S_MAX = 600
Chats = tuple[tuple[str, ...], ...]
"""The person's words of each chat, in order; what was asked again stands there once."""


@dataclass(frozen=True)
class Recall:
    """What the model is to be told, and what not, with the message of a step."""

    step: str
    told: tuple[str, ...]
    untold: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One line of the table: ``failed`` is empty where all went well."""

    client: str
    tried: str
    failed: str


class Client(Protocol):
    """A real client."""

    @property
    def name(self) -> str: ...

    @property
    def environment(self) -> Environment: ...

    @property
    def says(self) -> Mapping[str, str]:
        """What the model answers where the prompt has these words."""
        ...

    @property
    def chats(self) -> Mapping[str, Chats]:
        """The chats of each person; "" is whom the service takes a client without a name for."""
        ...

    @property
    def recorded_chats(self) -> Mapping[str, Chats]:
        """Those of the people whose requests are recorded."""
        ...

    @property
    def recalls(self) -> tuple[Recall, ...]:
        """What comes from memory."""
        ...

    @property
    def left_out(self) -> tuple[str, ...]:
        """How the names of steps begin that are not recorded."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the service, beside its defaults."""
        ...

    def run(self, environments: Path, proxy: RecordingProxy, model: ModelWithTools) -> Iterator[Row]:
        """Make the requests through the proxy."""
        ...


@dataclass(frozen=True)
class Program:
    """A client that a program in :mod:`tests.clients.programs` drives, in the client's own environment."""

    name: str
    environment: Environment
    program: str
    words: Chats
    """What is said without naming a person."""
    says: Mapping[str, str] = field(default_factory=dict)
    people: Mapping[str, Chats] = field(default_factory=dict)

    @property
    def chats(self) -> Mapping[str, Chats]:
        return {"": self.words, **self.people}

    @property
    def recorded_chats(self) -> Mapping[str, Chats]:
        return self.chats

    @property
    def recalls(self) -> tuple[Recall, ...]:
        return ()

    @property
    def left_out(self) -> tuple[str, ...]:
        return ()

    @property
    def settings(self) -> Mapping[str, Any]:
        return {}

    def run(self, environments: Path, proxy: RecordingProxy, model: ModelWithTools) -> Iterator[Row]:
        environment = clean_environment(
            OPENAI_BASE_URL=proxy.base_url, OPENAI_API_KEY="sk-client", CLIENT_MODEL=model.chat_model
        )
        command = self.environment.command(environments, self.program)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PROGRAM_S_MAX)
        for line in done.stdout.splitlines():
            if line.startswith('{"step"'):
                step = json.loads(line)
                yield Row(self.name, step["step"], step["failed"])
        if done.returncode:
            yield Row(self.name, "the program", (done.stderr.strip().splitlines() or ["failed"])[-1][:300])
