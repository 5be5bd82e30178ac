"""Whose memory a request is about: its key's person, or whom a key that speaks for others names, in a set order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidInput
from domain.events import TurnRecorded
from service.api.access import as_named
from service.api.dependencies import RECALLS
from service.settings import ServiceSettings
from tests.service.opm import environment, opm
from tests.service.running import Answer, Running, chat_body, running, someone
from tests.upstream import ScriptedUpstream

SECRET = "a secret of Open WebUI, shared with the service, and as long as any algorithm of its kind wants it"
ANY_KEY = "opm-canary-any"
ORDER = ("user", "safety_identifier", "x-openwebui-user-id", "x-openwebui-user-jwt", "x-user-id")
WARNING = "name no person"


def token(secret: str = SECRET, algorithm: str = "HS256", lasts_s: int = 300, **claims: object) -> str:
    """Return what Open WebUI sends in ``X-OpenWebUI-User-Jwt``."""
    now = int(time.time())
    usual = {
        "sub": "ann",
        "email": "ann@example.org",
        "name": "Ann",
        "role": "user",
        "iss": "open-webui",
        "iat": now,
        "exp": now + lasts_s,
    }
    given = {name: value for name, value in {**usual, **claims}.items() if value is not None}
    return jwt.encode(given, secret, algorithm=algorithm)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Keys of every kind, made before the start."""
    folder = tmp_path_factory.mktemp("storage")
    kinds = {
        "ann": ("--user", "ann"),
        "any": ("--any",),
        "trusted": ("--any", "--trust-headers"),
        "reader": ("--user", "ann", "--read-only"),
        "home": ("--user", "home", "--user-is", "conversation"),
        "homes": ("--any", "--trust-headers", "--user-is", "conversation"),
    }
    found = {kind: opm(environment(folder), "keys", "create", *asked, "--json").json for kind, asked in kinds.items()}
    return {**found, "folder": {"path": folder}}


@pytest.fixture(scope="module")
def keyed(module_upstream: ScriptedUpstream, made: dict[str, dict[str, Any]]) -> Iterator[Running]:
    folder = made["folder"]["path"]
    with running(module_upstream, folder, openwebui_jwt_secret=SECRET, api_keys={ANY_KEY: "*"}) as service:
        yield service


def ask(service: Running, key: str | None, headers: Mapping[str, str] | None = None, **fields: object) -> Answer:
    """Ask in a conversation of its own, which tells whose it is."""
    body = {**chat_body("Hi.", "", f"c-{someone()}"), **fields}
    if "user" not in fields:
        del body["user"]
    bearer = {"authorization": f"Bearer {key}"} if key is not None else {}
    return service.client.post(body, **{**bearer, **(headers or {})})


def asked_by(service: Running, answer: Answer) -> str:
    """Return whose turn an answer is."""
    assert answer.status == 200, answer.body
    [user] = {event.user_id for event in service.ledger.of_answer(answer)}
    return user


def naming(source: str, person: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return headers and fields that name a person in one way."""
    if source == "x-openwebui-user-jwt":
        return {source: token(sub=person)}, {}
    return ({source: person}, {}) if source.startswith("x-") else ({}, {source: person})


class TestOrder:
    @pytest.mark.parametrize("place", range(len(ORDER)))
    def test_the_first_that_names_one_counts(self, keyed: Running, made: dict[str, Any], place: int) -> None:
        headers: dict[str, str] = {}
        fields: dict[str, str] = {}
        for source in ORDER[place:]:
            more_headers, more_fields = naming(source, f"by {source}")
            headers |= more_headers
            fields |= more_fields
        for key in (made["trusted"]["key"], ANY_KEY):
            assert asked_by(keyed, ask(keyed, key, headers, **fields)) == f"by {ORDER[place]}"

    @pytest.mark.parametrize("source", ORDER[2:])
    def test_a_header_counts_only_where_the_key_trusts_it(
        self, keyed: Running, made: dict[str, Any], source: str
    ) -> None:
        headers, _ = naming(source, "bob")
        assert asked_by(keyed, ask(keyed, made["any"]["key"], headers)) == "anonymous"
        assert asked_by(keyed, ask(keyed, made["any"]["key"], headers, user="carl")) == "carl"
        assert asked_by(keyed, ask(keyed, made["ann"]["key"], headers, user="carl")) == "ann"

    def test_it_is_the_same_for_lists(self, keyed: Running, made: dict[str, Any]) -> None:
        person, key = someone(), {"authorization": f"Bearer {made['trusted']['key']}"}
        answer = ask(keyed, made["trusted"]["key"], {"x-openwebui-user-id": person})
        http, memory = keyed.client.http, answer.memory("turn")["memory_id"]
        for headers, params in (({"x-user-id": person}, {}), ({"x-user-id": "bob"}, {"user": person})):
            listed = http.get("/v1/memories", params=params, headers={**key, **headers}).json()["data"]
            assert [found["memory_id"] for found in listed] == [memory]
        assert http.delete(f"/v1/memories/{memory}", headers={**key, "x-user-id": person}).status_code == 200

    def test_the_operator_sets_the_order(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        strict = {"user_from": "x-openwebui-user-jwt", "openwebui_jwt_secret": SECRET}
        with running(upstream, tmp_path, api_keys={ANY_KEY: "*"}, **strict) as service:
            headers = {"x-openwebui-user-id": "eve", "x-openwebui-user-jwt": token()}
            assert asked_by(service, ask(service, ANY_KEY, headers, user="eve")) == "ann"
            assert asked_by(service, ask(service, ANY_KEY, {"x-openwebui-user-id": "eve"}, user="eve")) == "anonymous"
            listed = service.client.http.get(
                "/v1/memories", params={"user": "ann"}, headers={"authorization": f"Bearer {ANY_KEY}"}
            )
            assert len(listed.json()["data"]) == 1, "of the nameless: `user` is not believed"

    def test_without_keys_a_header_is_worth_as_much_as_the_body(self, service: Running) -> None:
        """Whoever may call without a key may name anybody; so Open WebUI's people are told apart."""
        for person in (someone(), someone()):
            assert asked_by(service, ask(service, None, {"X-OpenWebUI-User-Id": person})) == person

    @pytest.mark.parametrize("written", ["user", "x-forwarded-user,user", '["X-User-Id", "safety_identifier"]'])
    def test_the_order_names_fields_and_headers(self, written: str) -> None:
        assert all(source == source.lower() for source in settings(user_from=written).user_from)

    @pytest.mark.parametrize("written", ["email", "user;x_user", "authorization", '["user", 1]'])
    def test_what_is_neither_is_refused(self, written: str) -> None:
        with pytest.raises(ValueError, match="user_from"):
            settings(user_from=written)


class TestSigned:
    def test_two_people_behind_one_connection_share_no_memory(self, keyed: Running) -> None:
        ann, bob = someone(), someone()
        ask(keyed, ANY_KEY, {"x-openwebui-user-jwt": token(sub=ann)}, messages=said("My cat is called Miso."))
        keyed.settle()
        recalled = ask(keyed, ANY_KEY, {"x-openwebui-user-jwt": token(sub=bob)}, messages=said("My cat Miso?"))
        assert recalled.replayed + recalled.summaries == []
        own = ask(keyed, ANY_KEY, {"x-openwebui-user-jwt": token(sub=ann)}, messages=said("My cat Miso?"))
        assert own.replayed + own.summaries != []

    @pytest.mark.parametrize(
        "forged",
        [
            token(secret="somebody else's secret, which is as long as it gets"),
            token(lasts_s=-60),
            token(iat=int(time.time()) + 3600),
            token(exp=None),
            token(sub=None),
            token(algorithm="HS512"),
            jwt.encode({"sub": "ann", "exp": 2**33}, None, algorithm="none"),
            "not.a.token",
            "anything",
        ],
        ids=["secret", "expired", "future", "for ever", "nobody", "HS512", "unsigned", "shape", "text"],
    )
    def test_one_that_proves_nobody_is_refused(self, keyed: Running, forged: str) -> None:
        keyed.settle()
        before = keyed.ledger.reader.head_position()
        answer = ask(keyed, ANY_KEY, {"x-openwebui-user-jwt": forged})
        assert (answer.status, answer.error["code"]) == (401, "invalid_user_token")
        assert answer.error["param"] == "x-openwebui-user-jwt"
        assert forged not in str(answer.body)
        assert keyed.ledger.reader.head_position() == before

    def test_clocks_may_differ_a_little(self, keyed: Running) -> None:
        assert asked_by(keyed, ask(keyed, ANY_KEY, {"x-openwebui-user-jwt": token(lasts_s=-5)})) == "ann"

    def test_one_that_cannot_be_checked_is_not_taken_for_nobody(self, service: Running) -> None:
        answer = ask(service, None, {"x-openwebui-user-jwt": token()})
        assert (answer.status, answer.error["code"]) == (401, "invalid_user_token")
        assert "OPENWEBUI_JWT_SECRET" in answer.error["message"]
        assert "FORWARD_USER_INFO_HEADER_JWT_SECRET" in answer.error["message"]

    def test_a_secret_that_can_be_guessed_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 32"):
            settings(openwebui_jwt_secret="short")


class TestNames:
    def test_an_empty_one_is_none_and_a_number_is_its_digits(self, keyed: Running) -> None:
        for user in ("", " ", None):
            assert asked_by(keyed, ask(keyed, ANY_KEY, {"x-user-id": "ann"}, user=user)) == "ann"
        assert asked_by(keyed, ask(keyed, ANY_KEY, user=17)) == "17"
        assert asked_by(keyed, ask(keyed, ANY_KEY, safety_identifier=17)) == "17"
        assert asked_by(keyed, ask(keyed, ANY_KEY, {"x-user-id": ""}, safety_identifier="")) == "anonymous"

    def test_an_empty_one_in_a_query_is_none(self, service: Running) -> None:
        assert service.client.get("/v1/memories", user="").status_code == 200

    @pytest.mark.parametrize("value", [True, 1.5, ["ann"], {"id": "ann"}])
    def test_what_is_no_name_is_refused_by_its_field(self, keyed: Running, value: object) -> None:
        answer = ask(keyed, ANY_KEY, safety_identifier=value)
        assert (answer.status, answer.error["param"]) == (400, "safety_identifier")

    def test_a_header_is_the_text_that_was_sent(self, keyed: Running) -> None:
        for person in ("Zoë", "张三"):
            response = keyed.client.http.get(
                "/v1/turns", headers=[(b"authorization", f"Bearer {ANY_KEY}".encode()), (b"x-user-id", person.encode())]
            )
            assert response.status_code == 200
            raw = [(b"authorization", f"Bearer {ANY_KEY}".encode()), (b"x-user-id", person.encode())]
            body = {**chat_body("Hi.", ""), "user": None}
            keyed.client.http.post("/v1/chat/completions", json=body, headers=raw)
            assert keyed.ledger.all(TurnRecorded, person)

    def test_a_header_that_was_sent_twice_names_nobody(self, keyed: Running) -> None:
        """A proxy that adds its own leaves the client's, which may name anybody."""
        headers = [("authorization", f"Bearer {ANY_KEY}"), ("x-user-id", "eve"), ("x-user-id", "ann")]
        response = keyed.client.http.get("/v1/turns", headers=headers)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "x-user-id"

    @given(st.one_of(st.none(), st.text(), st.integers(), st.booleans(), st.floats(), st.lists(st.text())))
    def test_whatever_is_sent_is_a_name_none_or_refused(self, value: object) -> None:
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
            with pytest.raises(InvalidInput, match="user = "):
                as_named("user", value)
        elif value is None or not str(value).strip():
            assert as_named("user", value) is None
        else:
            assert as_named("user", value) == str(value)


class TestNobodyNamed:
    def test_it_is_said_once_for_each_key(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        with running(upstream, tmp_path, api_keys={ANY_KEY: "*", "opm-canary-ann": "ann"}) as service:
            ask(service, "opm-canary-ann")
            ask(service, ANY_KEY, user="ann")
            service.client.http.get("/v1/turns", headers={"authorization": f"Bearer {ANY_KEY}"})
            assert WARNING not in service.log()
            for _ in range(3):
                assert asked_by(service, ask(service, ANY_KEY)) == "anonymous"
            assert service.log().count(WARNING) == 1
            assert "canary" not in service.log()


class TestUserIsConversation:
    """Home Assistant sends the id of the conversation as ``user``."""

    def test_it_names_no_person(self, keyed: Running, made: dict[str, Any]) -> None:
        conversation = f"01J{someone()}"
        assert asked_by(keyed, ask(keyed, made["home"]["key"], user=conversation)) == "home"
        assert asked_by(keyed, ask(keyed, made["homes"]["key"], user=conversation)) == "anonymous"
        named = ask(keyed, made["homes"]["key"], {"x-user-id": "ann"}, user=conversation, safety_identifier="x")
        assert asked_by(keyed, named) == "ann"
        assert not keyed.ledger.reader.has_events(conversation)

    def test_it_is_the_conversation_unless_the_request_names_one(self, keyed: Running, made: dict[str, Any]) -> None:
        bearer = {"authorization": f"Bearer {made['home']['key']}"}
        body = {"messages": said("Turn on the light."), "user": someone()}
        for _ in range(2):
            answer = keyed.client.post(body, **bearer)
            assert answer.memory("turn")["conversation_id"] == body["user"]
        assert len(keyed.ledger.all(TurnRecorded, "home", str(body["user"]))) == 2
        named = keyed.client.post({**body, "metadata": {"conversation_id": "kitchen"}}, **bearer)
        assert named.memory("turn")["conversation_id"] == "kitchen"
        refused = keyed.client.post({**body, "user": "a\u200bb"}, **bearer)
        assert (refused.status, refused.error["param"]) == (400, "user")

    def test_it_names_a_person_where_memory_itself_is_asked_for(self, keyed: Running, made: dict[str, Any]) -> None:
        person = someone()
        memory = ask(keyed, ANY_KEY, user=person).memory("turn")["memory_id"]
        listed = keyed.client.http.get(
            "/v1/memories", params={"user": person}, headers={"authorization": f"Bearer {made['homes']['key']}"}
        )
        assert [found["memory_id"] for found in listed.json()["data"]] == [memory]


class TestReadOnly:
    def test_it_recalls_and_nothing_is_recorded(self, keyed: Running, made: dict[str, Any]) -> None:
        memory = ask(keyed, made["ann"]["key"], messages=said("My parrot is called Kiki.")).memory("turn")["memory_id"]
        keyed.settle()
        before = keyed.ledger.reader.head_position()
        for stream in (False, True):
            answer = ask(keyed, made["reader"]["key"], messages=said("My parrot Kiki?"), stream=stream)
            assert answer.status == 200, answer.body
            assert "My parrot is called Kiki." in answer.replayed + answer.summaries
        reader = {"authorization": f"Bearer {made['reader']['key']}"}
        http = keyed.client.http
        response = http.post("/v1/responses", json={"input": "My parrot Kiki?"}, headers=reader)
        assert (response.status_code, response.json()["store"]) == (200, False)
        keyed.settle()
        assert keyed.ledger.reader.head_position() == before
        assert http.get(f"/v1/memories/{memory}", headers=reader).status_code == 200
        for refused in (
            http.patch(f"/v1/memories/{memory}", json={"summary": "s"}, headers=reader),
            http.delete(f"/v1/memories/{memory}", headers=reader),
        ):
            assert refused.status_code == 403
            error = refused.json()["error"]
            assert error["code"] == "read_only_key"
            assert "may read and recall" in error["message"]
        assert keyed.ledger.reader.head_position() == before

    def test_no_route_that_may_write_is_open_to_it(self, keyed: Running, made: dict[str, Any]) -> None:
        """Whoever adds a route decides: one that records nothing for such a key is named, any other is refused."""
        http, reader = keyed.client.http, {"authorization": f"Bearer {made['reader']['key']}"}
        described = http.get("/openapi.json", headers=reader).json()["paths"]
        writing = [
            (method, path)
            for path, methods in described.items()
            for method in methods
            if method != "get" and path not in RECALLS
        ]
        assert writing
        for method, path in writing:
            answered = http.request(method, path.replace("{", "").replace("}", ""), json={}, headers=reader)
            assert answered.status_code == 403, (method, path)


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def settings(**given: object) -> ServiceSettings:
    usual = {"llm_base_url": "http://x/v1", "llm_model": "m", "emb_base_url": "http://x/v1", "emb_model": "e"}
    return ServiceSettings(_env_file=None, **{**usual, **given})  # type: ignore[arg-type, call-arg]
