"""Whose memory a caller reaches: anybody's under the service's own names, or with keys that of the key's user."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from domain.events import TurnRecorded
from service.settings import ServiceSettings
from tests.service.running import Running, chat_body, running, someone
from tests.upstream import ScriptedUpstream

ANN_KEY, ANY_KEY = "opm-canary-ann", "opm-canary-any"
COMPLETIONS = "/v1/chat/completions"
GUARDED = (
    "/v1/models",
    "/v1/turns",
    "/v1/conversations",
    "/v1/memories",
    "/health/llm",
    "/health/embed",
    "/health/rerank",
)
DOCS = ("/docs", "/redoc", "/openapi.json")


def refused(response: httpx2.Response, status: int) -> dict[str, Any]:
    """Check the shape of a refusal; return it."""
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == {401: "authentication_error", 403: "permission_error"}[status]
    assert response.headers["x-request-id"]
    return error


class TestOtherWebsites:
    """A page of somebody else can make a browser ask; that must cost no model call and leave no turn."""

    ASKING = (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"origin": "https://evil.example"},
        {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
        {"origin": "http://127.0.0.1.evil.example"},
        {"origin": "http://localhost.evil.example:9000"},
        {"origin": "null"},
    )

    @pytest.mark.parametrize("headers", ASKING)
    def test_nothing_is_worked_for(self, service: Running, user: str, headers: dict[str, str]) -> None:
        http = service.client.http
        service.upstream.forget_calls()
        for path in (*GUARDED, *DOCS, "/health/nothing", "/v1/memories/m1"):
            assert http.head(path, headers=headers).status_code == 403
            assert refused(http.get(path, headers=headers), 403)["code"] == "cross_site_request"
        # A form or a script of another page can send a text without asking first, also one that is JSON.
        sent = json.dumps(chat_body("Hi.", user))
        for kind in ("text/plain", "application/json", "application/x-www-form-urlencoded"):
            answered = http.post(COMPLETIONS, content=sent, headers={**headers, "content-type": kind})
            assert refused(answered, 403)["code"] == "cross_site_request"
        for method in ("PATCH", "DELETE", "OPTIONS"):
            refused(http.request(method, "/v1/memories/m1", headers=headers), 403)
        assert not service.upstream.calls
        assert not service.ledger.stream(user)

    @pytest.mark.parametrize("headers", ASKING)
    def test_whether_it_is_alive_is_told_to_all(self, service: Running, headers: dict[str, str]) -> None:
        assert service.client.http.get("/health", headers=headers).status_code == 200
        assert service.client.http.get("/health/ready", headers=headers).status_code in (200, 503)

    @pytest.mark.parametrize(
        "headers",
        [
            {"sec-fetch-site": "none"},
            {"sec-fetch-site": "same-origin"},
            {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:8501"},
            {"sec-fetch-site": "cross-site", "origin": "http://localhost:3000"},
            {"origin": "http://tauri.localhost"},
            # Programs and extensions that a person has installed.
            {"sec-fetch-site": "cross-site", "origin": "app://obsidian.md"},
            {"sec-fetch-site": "cross-site", "origin": "chrome-extension://abcdefghijklmnop"},
        ],
    )
    def test_the_services_own_host_and_a_persons_own_programs_may(
        self, service: Running, user: str, headers: dict[str, str]
    ) -> None:
        assert service.client.http.get("/health/llm", headers=headers).status_code == 200
        assert service.client.http.post(COMPLETIONS, json=chat_body("Hi.", user), headers=headers).status_code == 200

    def test_a_site_that_the_operator_names_may(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        named = "https://chat.example:8443"
        with running(upstream, tmp_path, cors_origins="https://Chat.example:8443/, https://b.example") as service:
            for origin, status in ((named, 200), ("https://chat.example", 403), ("https://c.example", 403)):
                headers = {"origin": origin, "sec-fetch-site": "cross-site"}
                answered = service.client.http.post(COMPLETIONS, json=chat_body("Hi.", "ann"), headers=headers)
                assert answered.status_code == status

    def test_with_keys_the_key_decides(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        with running(upstream, tmp_path, api_keys={ANN_KEY: "ann"}) as service:
            headers = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
            post = service.client.http.post
            refused(post(COMPLETIONS, json=chat_body("Hi.", "ann"), headers=headers), 401)
            headers["authorization"] = f"Bearer {ANN_KEY}"
            assert post(COMPLETIONS, json=chat_body("Hi.", "ann"), headers=headers).status_code == 200


class TestHosts:
    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:9000", "127.0.0.1.evil.example", "localhost.evil.example", "[::2]:9000"]
    )
    def test_a_name_that_is_not_the_services_own_is_answered_nothing(
        self, service: Running, user: str, host: str
    ) -> None:
        http = service.client.http
        for response in (
            http.get("/v1/turns", params={"user": user}, headers={"host": host}),
            http.post(COMPLETIONS, json=chat_body("Hi.", user), headers={"host": host}),
        ):
            error = refused(response, 403)
            assert error["param"] == "host"
            assert "ALLOWED_HOSTS" in error["message"]
            assert response.headers["x-request-id"] in service.log()
        assert not service.ledger.stream(user)

    def test_probes_are_answered_under_any_name(self, service: Running) -> None:
        for path in ("/health", "/health/ready"):
            assert service.client.http.get(path, headers={"host": "evil.example"}).status_code == 200

    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "127.0.0.1:9000", "localhost", "LocalHost:9000", "[::1]", "[::1]:9000"]
    )
    def test_this_machine_calls_it_by_any_of_its_names(self, service: Running, host: str) -> None:
        assert service.client.http.get("/v1/turns", headers={"host": host}).status_code == 200

    def test_the_operator_gives_it_other_names(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        with running(upstream, tmp_path, allowed_hosts=["Memory.home"]) as service:
            get = service.client.http.get
            assert get("/v1/models", headers={"host": "memory.home:9000"}).status_code == 200
            assert refused(get("/v1/models"), 403)["code"] == "host_not_allowed"

    def test_the_operator_lets_it_answer_to_every_name(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        with running(upstream, tmp_path, allowed_hosts=["*"]) as service:
            assert service.client.http.get("/v1/models", headers={"host": "evil.example"}).status_code == 200

    def test_the_names_are_a_json_list_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given = {"LLM_BASE_URL": "http://x/v1", "LLM_MODEL": "m", "EMB_BASE_URL": "http://x/v1", "EMB_MODEL": "e"}
        for name, value in {**given, "ALLOWED_HOSTS": '["memory.home"]'}.items():
            monkeypatch.setenv(name, value)
        assert ServiceSettings(_env_file=None).allowed_hosts == ["memory.home"]  # type: ignore[call-arg]


class TestKeys:
    @pytest.fixture(scope="class")
    @staticmethod
    def guarded(module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
        keys = {ANN_KEY: "ann", ANY_KEY: "*"}
        with running(module_upstream, tmp_path_factory.mktemp("guarded"), api_keys=keys) as service:
            yield service

    @staticmethod
    def bearer(key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"}

    def test_a_key_stands_for_its_user_and_reaches_nobody_else(self, guarded: Running) -> None:
        said, http = f"I am {someone()}.", guarded.client.http
        headers = self.bearer(ANN_KEY)
        body = chat_body(said, "ann", "own")
        del body["user"]
        assert http.post(COMPLETIONS, json=body, headers=headers).status_code == 200
        assert guarded.ledger.all(TurnRecorded, "ann", "own")[-1].user == said
        # Whatever the client calls its person is a label.
        for label in ("ann", "bob", 17, "", " \n"):
            answered = http.post(COMPLETIONS, json={**body, "user": label}, headers=headers)
            assert answered.status_code == 200, answered.text
        for params in ({}, {"user": "ann"}, {"user": "bob"}, {"user": "a\x00b"}):
            turns = http.get("/v1/turns", params={"conversation_id": "own", **params}, headers=headers).json()["data"]
            assert [turn["user"] for turn in turns] == [said] * 6
            memories = http.get("/v1/memories", params=params, headers=headers).json()["data"]
            assert said in {memory["user"] for memory in memories}
        memory = f"/v1/memories/{turns[0]['memory_id']}"
        corrected = http.patch(memory, json={"user": "bob", "summary": "s"}, headers=headers)
        assert corrected.json()["summary"] == "s"
        assert http.delete(memory, params={"user": "bob"}, headers=headers).status_code == 200
        assert not guarded.ledger.stream("bob", "own")

    def test_a_key_does_not_reach_the_memory_of_another(self, guarded: Running, user: str) -> None:
        http = guarded.client.http
        told = http.post(COMPLETIONS, json=chat_body("Hi.", user), headers=self.bearer(ANY_KEY)).json()["turn"]
        memory, headers = f"/v1/memories/{told['memory_id']}", self.bearer(ANN_KEY)
        for response in (
            http.get(memory, params={"user": user}, headers=headers),
            http.patch(memory, json={"user": user, "summary": "s"}, headers=headers),
            http.delete(memory, params={"user": user}, headers=headers),
        ):
            assert response.status_code == 404
        for path in ("/v1/turns", "/v1/conversations", "/v1/memories"):
            assert memory not in http.get(path, params={"user": user}, headers=headers).text
        assert http.get(memory, params={"user": user}, headers=self.bearer(ANY_KEY)).json()["summary"] != "s"

    def test_a_key_for_anybody_speaks_for_whom_it_names(self, guarded: Running, user: str) -> None:
        http, headers = guarded.client.http, self.bearer(ANY_KEY)
        assert http.post(COMPLETIONS, json=chat_body("Hi.", user), headers=headers).status_code == 200
        assert [turn.user for turn in guarded.ledger.all(TurnRecorded, user)] == ["Hi."]
        assert http.get("/v1/turns", params={"user": user}, headers=headers).status_code == 200

    @pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer wrong", "Bearer *", ANN_KEY, f"Basic {ANN_KEY}"])
    def test_without_a_known_key_nothing_is_told(self, guarded: Running, authorization: str | None) -> None:
        headers = {"authorization": authorization} if authorization is not None else {}
        http = guarded.client.http
        guarded.settle()
        guarded.upstream.forget_calls()
        for path in (*GUARDED, *DOCS):
            assert refused(http.get(path, headers=headers), 401)["code"] == "invalid_api_key"
        refused(http.post(COMPLETIONS, json=chat_body("Hi.", "ann"), headers=headers), 401)
        refused(http.get("/v1/memories/m1", headers=headers), 401)
        refused(http.delete("/v1/memories/m1", headers=headers), 401)
        refused(http.patch("/v1/memories/m1", json={"summary": "s"}, headers=headers), 401)
        assert not guarded.upstream.calls, "a stranger makes no upstream work either"

    def test_with_a_key_the_rest_is_open_too(self, guarded: Running) -> None:
        for path in (*GUARDED, *DOCS):
            assert guarded.client.http.get(path, headers=self.bearer(ANN_KEY)).status_code == 200

    def test_alive_is_told_to_anybody(self, guarded: Running) -> None:
        assert guarded.client.http.get("/health").json() == {"status": "ok"}

    def test_a_key_is_enough_under_any_name(self, guarded: Running) -> None:
        headers = {"host": "memory.example", **self.bearer(ANN_KEY)}
        assert guarded.client.http.get("/v1/models", headers=headers).status_code == 200

    def test_no_key_reaches_the_log(self, guarded: Running) -> None:
        http = guarded.client.http
        for headers in (self.bearer(ANN_KEY), self.bearer("opm-canary-wrong")):
            http.post(COMPLETIONS, json=chat_body("Hi.", "bob"), headers=headers)
            http.post(COMPLETIONS, content=b"{", headers=headers)
        assert "send one of the service's API keys" in guarded.log()
        assert "opm-canary" not in guarded.log()
