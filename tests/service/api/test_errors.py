"""Whatever is sent, the answer is an error in OpenAI's shape whose id is in the log, and nothing leaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from domain.events import RetrievalRecorded, SummaryFailed, TurnFailed, TurnRecorded
from domain.identity import StreamId
from tests.service.running import Client, Running, chat_body, someone
from tests.upstream import Fault, ScriptedUpstream

COMPLETIONS = "/v1/chat/completions"
QUESTION = {"role": "user", "content": "Hi."}
CANARY = "CanaryTextQuetzal"
CANARY_KEY = "sk-canary-4711"


@pytest.fixture(scope="module")
def module_upstream() -> Any:
    with ScriptedUpstream(api_key=CANARY_KEY) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def service_settings() -> dict[str, object]:
    return {"openai_api_key": CANARY_KEY, "request_bytes_max": 100_000, "emb_timeout_s": 2.0, "summary_attempts": 1}


def openai_error(service: Running, response: httpx2.Response, status: int) -> dict[str, Any]:
    """Check the shape of an error and that the log knows it; return what it says."""
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["type"].endswith("_error")
    assert "Traceback" not in response.text
    assert response.headers["x-request-id"] in service.log()
    return error


NOT_A_REQUEST: list[tuple[bytes, str]] = [
    (b"", "body"),
    (b"{", "body"),
    (b"not json", "body"),
    (b"[]", "body"),
    (b'"text"', "body"),
    (b"null", "body"),
    (b"17", "body"),
    (b"{}", "messages"),
    (b'{"messages": null}', "messages"),
    (b'{"messages": "Hi."}', "messages"),
    (b'{"messages": []}', "messages"),
    (b'{"messages": [null]}', "messages.0"),
    (b'{"messages": ["Hi."]}', "messages.0"),
    (b'{"messages": [{}]}', "messages.0.role"),
    (b'{"messages": [{"role": "wizard", "content": "Hi."}]}', "messages.0.role"),
    (b'{"messages": [{"role": "user", "content": 5}]}', "messages.0.content"),
    (b'{"messages": [{"role": "user", "content": [5]}]}', "messages.0.content"),
    (b'{"messages": [{"role": "user", "content": {"text": "Hi."}}]}', "messages.0.content"),
    (b'{"messages": [{"role": "user", "content": ""}]}', "messages.0.content"),
    (b'{"messages": [{"role": "user", "content": null}]}', "messages.0.content"),
    (b'{"messages": [{"role": "user"}]}', "messages.0.content"),
    (b'{"messages": [{"role": "user", "content": [{"type": "text", "text": "  "}]}]}', "messages.0.content"),
    (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "messages.0.content"),
    (b'{"messages": [{"role": "system", "content": "\\udfff"}, {"role": "user", "content": "Hi."}]}', "messages.0"),
]


@pytest.mark.parametrize(("content", "param"), NOT_A_REQUEST, ids=[c.decode()[:70] for c, _ in NOT_A_REQUEST])
def test_what_is_no_request_is_named(service: Running, content: bytes, param: str) -> None:
    response = service.client.http.post(COMPLETIONS, content=content, headers={"content-type": "application/json"})
    error = openai_error(service, response, 400)
    assert error["type"] == "invalid_request_error"
    assert str(error["param"]).startswith(param)
    assert param in error["message"]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[" * 50_000, b'{"a":' * 15_000, b"1" * 9000, b"\x00" * 100])
def test_bytes_that_no_parser_likes(service: Running, content: bytes) -> None:
    response = service.client.http.post(COMPLETIONS, content=content, headers={"content-type": "application/json"})
    assert openai_error(service, response, 400)["type"] == "invalid_request_error"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_another_content_type_is_refused(service: Running, kind: str) -> None:
    body = json.dumps({"messages": [QUESTION]}).encode()
    response = service.client.http.post(COMPLETIONS, content=body, headers={"content-type": kind})
    openai_error(service, response, 400)


FIELDS: list[tuple[dict[str, object], str]] = [
    ({"user": "a\u0000b"}, "user"),
    ({"user": "a\nb"}, "user"),
    ({"user": "a\ud800"}, "user"),
    ({"user": "x" * 20_000}, "user"),
    ({"user": ["ann"]}, "user"),
    ({"metadata": {"conversation_id": True}}, "metadata.conversation_id"),
    ({"metadata": {"conv_id": "\u0007"}}, "metadata.conv_id"),
    ({"metadata": []}, "metadata"),
    ({"stream": "perhaps"}, "stream"),
    ({"stream_options": 5}, "stream_options"),
    ({"tools": [{"type": "\ud800"}]}, "tools"),
    ({"stop": "\ud800"}, "stop"),
    ({"seed": float("nan")}, "seed"),
    ({"temperature": float("nan")}, "temperature"),
    ({"temperature": float("inf")}, "temperature"),
    ({"logit_bias": {"1": float("inf")}}, "logit_bias"),
    ({"response_format": {"type": "\udc00"}}, "response_format"),
]


@pytest.mark.parametrize(("fields", "param"), FIELDS, ids=[f"{n}-{p}" for n, (_, p) in enumerate(FIELDS)])
def test_a_field_that_cannot_be_is_named(service: Running, fields: dict[str, object], param: str) -> None:
    content = json.dumps({"messages": [QUESTION], **fields}).encode()
    response = service.client.http.post(COMPLETIONS, content=content, headers={"content-type": "application/json"})
    error = openai_error(service, response, 400)
    assert error["param"] == param
    assert param in error["message"]
    assert len(error["message"]) < 500
    assert not service.upstream.calls_of("answer")


@pytest.mark.parametrize(
    "identifier", ["a/b", "a_b", "../x", "..", ".", "用户", "x" * 10_000, "CON", "a b", "%2e%2e", "🙂", "A_B", "'; --"]
)
def test_any_visible_id_is_kept_as_it_is(service: Running, identifier: str) -> None:
    said = f"I am {someone()}."
    answer = service.client.tell(said, identifier, identifier)
    assert answer.memory("turn")["conversation_id"] == identifier
    turns = service.client.get("/v1/turns", user=identifier, conversation_id=identifier).json()["data"]
    assert [turn["user"] for turn in turns] == [said]
    service.settle()
    users = service.ledger.path.parent / "users"
    written = [path for path in users.rglob("*.jsonl") if said in path.read_text(encoding="utf-8")]
    assert len(written) == 1
    assert written[0].resolve().is_relative_to(users.resolve())


def test_control_characters_in_a_message_are_text(service: Running, user: str) -> None:
    odd = "one\u0000two\u001b[31m\u2028three\r\n\ufeff\U0001f600 end"
    answer = service.client.tell(odd, user)
    assert service.ledger.one(TurnRecorded, answer).user == odd
    assert service.messages()[-1] == ("user", odd)
    service.client.tell("Again.", user)
    assert odd in service.said()
    assert service.client.get("/v1/turns", user=user, conversation_id="c").json()["data"][0]["user"] == odd
    assert service.client.get("/v1/conversations", user=user).status_code == 200


class TestHttp:
    def test_a_body_that_is_too_large(self, service: Running, user: str) -> None:
        response = service.client.http.post(COMPLETIONS, json=chat_body("x" * 200_000, user))
        error = openai_error(service, response, 413)
        assert "100000" in error["message"]
        assert not service.upstream.calls

    def test_a_body_that_is_too_large_and_comes_in_pieces(self, service: Running) -> None:
        pieces = (b"x" * 10_000 for _ in range(20))
        response = service.client.http.post(COMPLETIONS, content=pieces, headers={"content-type": "application/json"})
        openai_error(service, response, 413)

    @pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/chat/completions", "/v1/../etc/passwd", "/docs/x"])
    def test_an_unknown_route(self, service: Running, path: str) -> None:
        openai_error(service, service.client.http.get(path), 404)

    @pytest.mark.parametrize(
        ("method", "path"), [("GET", COMPLETIONS), ("DELETE", "/v1/models"), ("POST", "/health"), ("PUT", "/v1/turns")]
    )
    def test_a_wrong_method(self, service: Running, method: str, path: str) -> None:
        response = service.client.http.request(method, path)
        openai_error(service, response, 405)
        assert response.headers["allow"]

    @pytest.mark.parametrize(
        ("path", "param"),
        [
            ("/v1/turns?limit=0", "limit"),
            ("/v1/turns?limit=lots", "limit"),
            ("/v1/turns?user=%00", "user"),
            ("/v1/turns?conversation_id=%00", "conversation_id"),
            ("/v1/turns?before_turn=-1", "before_turn"),
            (f"/v1/turns?before_turn={10**20}", "before_turn"),
            ("/v1/conversations?limit=100000", "limit"),
            ("/v1/conversations?user=a%0ab", "user"),
        ],
    )
    def test_a_bad_query(self, service: Running, path: str, param: str) -> None:
        assert openai_error(service, service.client.http.get(path), 400)["param"] == param

    def test_a_request_id_of_the_clients_own_is_kept(self, service: Running, user: str) -> None:
        answer = service.client.post({}, **{"x-request-id": "mine-42"})
        assert answer.headers["x-request-id"] == "mine-42"
        assert "mine-42" in service.log()

    @pytest.mark.parametrize("forged", ["a b", "x" * 300, "{}", "é"])
    def test_a_request_id_that_could_forge_the_log_is_replaced(self, service: Running, forged: str) -> None:
        response = service.client.http.get("/health", headers={b"x-request-id": forged.encode("latin-1")})
        assert response.headers["x-request-id"].startswith("req-")

    def test_every_answer_has_its_own_id(self, client: Client) -> None:
        assert len({client.http.get("/health").headers["x-request-id"] for _ in range(5)}) == 5


def test_nothing_that_was_said_and_no_key_reaches_the_log_or_a_stranger(service: Running) -> None:
    """Send a canary through every way a turn can end, then look for it everywhere it must not be."""
    user, upstream, client = someone(), service.upstream, service.client
    client.tell(f"My secret is {CANARY}.", user, "one")
    client.tell(f"What about {CANARY}?", user, "two", stream=True)
    service.settle()
    for kind, fault in (
        ("embed", Fault(status=400)),
        ("embed", Fault(nan=True)),
        ("gate", Fault(content=f"{CANARY}")),
        ("gate", Fault(status=400)),
        ("summary", Fault(status=400)),
        ("summary", Fault(content="")),
        ("answer", Fault(status=400)),
        ("answer", Fault(status=401)),
        ("answer", Fault(garbage=True)),
        ("answer", Fault(malformed=True)),
        ("answer", Fault(close=True, after_chunks=1, content=f"Yes, {CANARY}.")),
        ("answer", Fault(error=True, after_chunks=1, content=f"Yes, {CANARY}.")),
    ):
        if kind == "embed":  # a question that is refused is tried again without what went along
            upstream.fail_always(kind, fault)  # type: ignore[arg-type]  # each is a kind
        else:
            upstream.fail(kind, fault)  # type: ignore[arg-type]  # each is a kind
        client.ask(f"Once more {CANARY}?", user, "three", stream=fault.after_chunks is not None)
        upstream.heal("embed")
        service.settle()
    client.received = ""
    client.post({"messages": [QUESTION], "temperature": "x", "metadata": {"recent_turn": CANARY}})
    client.post({"messages": [{"role": "user", "content": {"text": CANARY}}]})
    client.post({"messages": [{"role": "user", "content": CANARY}], "tools": [{"name": CANARY}]})
    client.post({"messages": [{"role": CANARY, "content": "Hi."}]})
    client.http.post(COMPLETIONS, content=f'{{"messages": "{CANARY}'.encode())
    for path in ("/v1/models", "/health", "/health/embed", "/health/llm", "/health/ready", "/v1/conversations"):
        client.get(path, user=quote("someone else"))
    assert service.ledger.all(TurnFailed, user, "three")
    assert service.ledger.all(SummaryFailed, user, "three")
    assert [r.outcome for r in service.ledger.all(RetrievalRecorded, user, "three")].count("degraded") == 2
    assert CANARY not in service.log()
    assert "Traceback" not in service.log()
    assert CANARY_KEY not in service.log() + client.received
    stored = b"".join(path.read_bytes() for path in Path(service.ledger.path.parent).rglob("*") if path.is_file())
    assert CANARY.encode() in stored
    assert CANARY_KEY.encode() not in stored


def test_a_ledger_that_cannot_be_written_is_a_503_and_a_clear_line(
    service: Running, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.services.ledger.close()
    for stream in (False, True):
        answer = service.client.ask("Hi.", user, stream=stream)
        assert answer.error["code"] == "ledger_unavailable"
        assert answer.status == (200 if stream else 503)
        assert answer.headers["x-request-id"] in service.log()
        assert not answer.ended
    assert not service.ledger.reader.recent_turns(StreamId(user, "c"), 10)
