"""What real clients sent, sent again: each gets its answers, and the ledger holds the chats that a person would count.

The requests were recorded with ``python -m tests.clients --record``; the same module drives the clients themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import httpx2
import pytest

from tests.clients.catalogue import CLIENTS
from tests.clients.client import Chats, Client
from tests.clients.live import chats_of, misremembered, unlike, user_of
from tests.clients.model import ModelWithTools
from tests.clients.recording import FOLDER, Answer, Exchange, Recorded, answer_of
from tests.service.running import running

CLIENT_OF = {client.name: client for client in CLIENTS}


@dataclass(frozen=True)
class Replayed:
    """A client whose requests were sent again: what came, what the ledger holds, what the model was sent."""

    client: Client
    recorded: Recorded
    exchanges: tuple[Exchange, ...]
    chats: dict[str, Chats]
    unlike: tuple[str, ...]
    misremembered: tuple[str, ...]
    log: str


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Replayed]:
    @cache
    def replay(name: str) -> Replayed:
        client, recorded = CLIENT_OF[name], Recorded.load(FOLDER / f"{name}.json")
        storage = tmp_path_factory.mktemp(name)
        with ModelWithTools(says=client.says) as model, running(model, storage, **client.settings) as service:
            exchanges = tuple(_sent_again(recorded, service.client.http))
            events = service.ledger.reader.events_after(0, 1_000_000)
            people = client.recorded_chats
            chats = {person: chats_of(events, user_of(person, recorded.requests)) for person in people}
            return Replayed(
                client,
                recorded,
                exchanges,
                chats,
                tuple(unlike(exchanges, model.calls)),
                tuple(misremembered(client.recalls, exchanges, model.calls)),
                service.log(),
            )

    return replay


def _sent_again(recorded: Recorded, http: httpx2.Client) -> Iterator[Exchange]:
    answers: list[Answer] = []
    for request in recorded.requests:
        body, started = request.filled(answers), time.monotonic()
        answer = http.request(request.method, request.path, headers=request.headers, json=body)
        answers.append(answer_of(answer.content))
        yield Exchange(
            request.step,
            request.method,
            request.path,
            dict(answer.headers),
            body,
            started,
            time.monotonic(),
            answer.status_code,
            answers[-1],
            answer.content,
        )


def test_every_client_is_recorded() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(CLIENT_OF)


@pytest.mark.parametrize("name", list(CLIENT_OF))
def test_each_request_is_answered_as_it_was_asked(name: str, replayed: Callable[[str], Replayed]) -> None:
    for request, exchange in zip(replayed(name).recorded.requests, replayed(name).exchanges, strict=True):
        said = f"{request.step}: {exchange.status} {exchange.raw_answer[:300]!r}"
        if request.status >= 500:
            assert exchange.status >= 500, said
            continue
        assert exchange.status == request.status == 200, said
        streamed = isinstance(request.body, dict) and bool(request.body.get("stream"))
        assert exchange.headers["content-type"].startswith("text/event-stream" if streamed else "application/json")
        if request.method == "POST":
            assert exchange.answer.text or exchange.answer.calls, said
            assert b'"error": {' not in exchange.raw_answer, said
        if streamed and request.path == "/v1/chat/completions":
            assert exchange.raw_answer.endswith(b"data: [DONE]\n\n"), said


@pytest.mark.parametrize("name", list(CLIENT_OF))
def test_the_ledger_holds_each_chat_and_nothing_else(name: str, replayed: Callable[[str], Replayed]) -> None:
    for person, chats in replayed(name).client.recorded_chats.items():
        found = sorted(replayed(name).chats[person])
        assert found == sorted(chats), found


@pytest.mark.parametrize("name", list(CLIENT_OF))
def test_the_model_gets_what_the_client_sent(name: str, replayed: Callable[[str], Replayed]) -> None:
    assert replayed(name).unlike == ()


@pytest.mark.parametrize("name", [client.name for client in CLIENTS if client.recalls])
def test_the_model_is_told_what_is_remembered_of_this_person(name: str, replayed: Callable[[str], Replayed]) -> None:
    assert replayed(name).misremembered == ()


@pytest.mark.parametrize("name", list(CLIENT_OF))
def test_no_client_makes_the_service_complain(name: str, replayed: Callable[[str], Replayed]) -> None:
    expected = ("scripted failure",) if "fail once" in str(replayed(name).recorded) else ()
    lines = [line for line in replayed(name).log.splitlines() if line.startswith("ERROR")]
    assert [line for line in lines if not any(each in line for each in expected)] == []
