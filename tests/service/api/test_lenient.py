"""What clients, probes and browsers send is taken as it is meant, and no stranger's page gains by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from domain.errors import SettingsError
from domain.settings import load_settings
from service.settings import ServiceSettings
from tests.service.running import Running, chat_body, running, someone
from tests.upstream import ScriptedUpstream

PAGE, OTHER = "https://chat.example", "https://evil.example"
COMPLETIONS = "/v1/chat/completions"


class TestTrailingSlash:
    @pytest.mark.parametrize("path", ["/v1/chat/completions/", "/v1/chat/completions//"])
    def test_a_question_is_answered_and_not_redirected(self, service: Running, user: str, path: str) -> None:
        answer = service.client.http.post(path, json=chat_body("Hello.", user))
        assert answer.status_code == 200
        assert answer.json()["choices"][0]["message"]["content"]
        assert f"{answer.headers['x-request-id']}: POST /v1/chat/completions 200" in service.log()

    @pytest.mark.parametrize("path", ["/health/", "/v1/models/", "/v1/memories/", "/docs/", "/health/ready/"])
    def test_every_path_means_the_same(self, service: Running, path: str) -> None:
        assert service.client.get(path).status_code == service.client.get(path.rstrip("/")).status_code == 200

    def test_what_there_is_not_there_is_not_with_a_slash(self, service: Running) -> None:
        assert service.client.get("/nothing/").status_code == 404
        assert service.client.get("/").status_code == 404

    def test_a_guard_is_not_gone_around(self, service: Running) -> None:
        for path in ("/v1/models/", "/health/llm/"):
            assert service.client.http.get(path, headers={"origin": OTHER}).status_code == 403
            assert service.client.http.get(path, headers={"host": "evil.example"}).status_code == 403


class TestContentType:
    @pytest.mark.parametrize("headers", [{}, {"content-type": ""}])
    def test_a_body_without_a_type_is_json(self, service: Running, user: str, headers: dict[str, str]) -> None:
        content = json.dumps(chat_body("Hello.", user)).encode()
        answer = service.client.http.post(COMPLETIONS, content=content, headers=headers)
        assert answer.status_code == 200, answer.text
        assert f"{answer.headers['x-request-id']}: POST /v1/chat/completions 200" in service.log()

    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": OTHER},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
            {"origin": OTHER, "content-type": "text/plain"},
            {"content-type": "application/x-www-form-urlencoded"},
        ],
    )
    def test_a_page_of_another_site_cannot_send_one(self, service: Running, headers: dict[str, str]) -> None:
        """A browser asks before it sends JSON elsewhere, but not before it sends a body without a type."""
        user = someone()
        content = json.dumps(chat_body("Hello.", user)).encode()
        answer = service.client.http.post(COMPLETIONS, content=content, headers=headers)
        assert answer.status_code in {400, 403}
        assert not service.ledger.stream(user)


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
class TestProbes:
    def test_head_is_answered_as_get_is(self, service: Running, path: str) -> None:
        get, head = service.client.get(path), service.client.http.head(path)
        assert (head.status_code, head.content) == (get.status_code, b"") == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("host", ["10.1.2.3:9000", "opm.svc.cluster.local", ""])
    def test_they_are_answered_under_any_name(self, service: Running, path: str, method: str, host: str) -> None:
        assert service.client.http.request(method, path, headers={"host": host}).status_code == 200


def test_what_costs_a_model_call_is_no_probe(service: Running) -> None:
    for path in ("/health/llm", "/health/embed", "/health/rerank", "/health/none", "/v1/models"):
        assert service.client.http.get(path, headers={"host": "10.1.2.3"}).status_code == 403


@pytest.fixture(scope="module")
def open_to_page(module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = {"cors_origins": (PAGE, "tauri://localhost"), "api_keys": {"opm-canary": "*"}}
    with running(module_upstream, tmp_path_factory.mktemp("open"), **settings) as service:
        yield service


class TestPages:
    ASKING: ClassVar = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    KEY: ClassVar = {"authorization": "Bearer opm-canary"}

    @pytest.mark.parametrize("origin", [PAGE, "tauri://localhost"])
    @pytest.mark.parametrize("path", [COMPLETIONS, f"{COMPLETIONS}/", "/v1/models", "/v1/memories/m1"])
    def test_an_allowed_page_may_ask(self, open_to_page: Running, origin: str, path: str) -> None:
        answer = open_to_page.client.http.options(path, headers={"origin": origin, **self.ASKING})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin
        assert "authorization" in answer.headers["access-control-allow-headers"].lower()
        assert {"POST", "PATCH", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))

    def test_it_reads_the_answer_and_its_headers(self, open_to_page: Running, user: str) -> None:
        headers = {"origin": PAGE, "sec-fetch-site": "cross-site", **self.KEY}
        http = open_to_page.client.http
        for answer in (
            http.post(COMPLETIONS, json=chat_body("Hello.", user), headers=headers),
            http.post(COMPLETIONS, json=chat_body("Hello.", user, stream=True), headers=headers),
            http.get("/v1/models", headers=headers),
        ):
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == PAGE
            exposed = answer.headers["access-control-expose-headers"].split(", ")
            assert {"X-Request-Id", "*"} <= set(exposed)
            assert "access-control-allow-credentials" not in answer.headers

    def test_it_reads_why_it_was_refused(self, open_to_page: Running, user: str) -> None:
        http = open_to_page.client.http
        for answer in (
            http.post(COMPLETIONS, json=chat_body("Hello.", user), headers={"origin": PAGE}),
            http.post(COMPLETIONS, json={}, headers={"origin": PAGE, **self.KEY}),
            http.get("/v1/nothing", headers={"origin": PAGE, **self.KEY}),
        ):
            assert answer.status_code in {400, 401, 404}
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert answer.json()["error"]["message"]

    @pytest.mark.parametrize("origin", [OTHER, "http://chat.example", f"{PAGE}:8443", "null", f"{PAGE}.evil.example"])
    def test_any_other_page_may_not(self, open_to_page: Running, origin: str) -> None:
        http = open_to_page.client.http
        preflight = http.options(COMPLETIONS, headers={"origin": origin, **self.ASKING})
        assert preflight.status_code == 400
        assert "access-control-allow-origin" not in preflight.headers
        answer = http.get("/v1/models", headers={"origin": origin, **self.KEY})
        assert "access-control-allow-origin" not in answer.headers

    def test_an_image_in_an_allowed_page_has_no_key(self, open_to_page: Running) -> None:
        headers = {"sec-fetch-site": "cross-site"}
        assert open_to_page.client.http.get("/health/llm", headers=headers).status_code == 401

    def test_without_the_setting_nobody_is_allowed(self, service: Running) -> None:
        answer = service.client.http.options(COMPLETIONS, headers={"origin": PAGE, **self.ASKING})
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]


class TestOrigins:
    GIVEN: ClassVar = {"LLM_BASE_URL": "http://x/v1", "LLM_MODEL": "m", "EMB_BASE_URL": "http://x/v1", "EMB_MODEL": "e"}

    def read(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str, **more: str) -> tuple[str, ...]:
        monkeypatch.chdir(tmp_path)
        for name, text in {**self.GIVEN, "CORS_ORIGINS": value, **more}.items():
            monkeypatch.setenv(name, text)
        return tuple(load_settings(ServiceSettings).cors_origins)

    @pytest.mark.parametrize(
        ("value", "origins"),
        [
            ("", ()),
            ("https://chat.example", (PAGE,)),
            ('["https://Chat.example/", "http://localhost:3000"]', (PAGE, "http://localhost:3000")),
            ("https://chat.example, tauri://localhost", (PAGE, "tauri://localhost")),
            ("app://obsidian.md;http://[::1]:8080", ("app://obsidian.md", "http://[::1]:8080")),
            ("https://chat.example:443 http://chat.example:80", (PAGE, "http://chat.example")),
        ],
    )
    def test_they_are_read_as_meant(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str, origins: tuple[str, ...]
    ) -> None:
        assert self.read(monkeypatch, tmp_path, value) == origins

    @pytest.mark.parametrize("value", ["chat.example", "https://chat.example/path", "https://", "https://*.example"])
    def test_what_is_no_origin_is_refused(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str) -> None:
        with pytest.raises(SettingsError, match="CORS_ORIGINS"):
            self.read(monkeypatch, tmp_path, value)

    def test_every_page_may_ask_only_where_there_are_keys(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with pytest.raises(SettingsError, match="API_KEYS"):
            self.read(monkeypatch, tmp_path, "*")
        assert self.read(monkeypatch, tmp_path, "*", API_KEYS='{"opm-canary": "ann"}') == ("*",)


def test_a_history_with_a_photo_is_small_enough(service: Running, user: str) -> None:
    """Some megabytes of JPEG, as base64 a third more; what becomes of it is not asked here."""
    body = chat_body("Hello.", user, metadata={"photo": "A" * 8_000_000})
    answer = service.client.http.post(COMPLETIONS, json=body)
    assert answer.status_code != 413
