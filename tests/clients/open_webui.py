"""Open WebUI itself, driven over HTTP with the requests of its own page.

Its page sends a new message with the ids that it gave to it and to the answer, and the server makes the prompt from the
chat in its database. What the page hears over a socket is read from the chat instead.
"""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from tests.clients.environments import PythonEnvironment, clean_environment
from tests.processes import free_port

ENVIRONMENT = PythonEnvironment("open-webui", ("open-webui",))
START_S_MAX = 600.0
ANSWER_S_MAX = 60.0
_POLL_S = 0.1
_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)
_TASKS = {"title_generation": True, "tags_generation": True, "follow_up_generation": True}
_WITHOUT_DOWNLOADS = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "OFFLINE_MODE": "true",
    "ENABLE_OLLAMA_API": "false",
    "RAG_EMBEDDING_ENGINE": "openai",
    "RAG_EMBEDDING_MODEL": "scripted-embedding",
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "true",
    # An administrator would give the model to all by a click.
    "BYPASS_MODEL_ACCESS_CONTROL": "true",
}


class WentWrongError(AssertionError):
    """Open WebUI showed an error in place of an answer."""


@contextmanager
def open_webui(environments: Path, folder: Path, base_url: str, embeddings_url: str, **settings: str) -> Iterator[str]:
    """Run it with an empty database and an OpenAI connection to ``base_url``; yield where its page is."""
    port = free_port()
    environment = clean_environment(
        **_WITHOUT_DOWNLOADS,
        DATA_DIR=str(folder / "data"),
        WEBUI_SECRET_KEY="a secret of the test",
        OPENAI_API_BASE_URL=base_url,
        OPENAI_API_KEY="sk-client",
        RAG_OPENAI_API_BASE_URL=embeddings_url,
        RAG_OPENAI_API_KEY="sk-embeddings",
        **settings,
    )
    program = environments / ENVIRONMENT.name / "bin" / "open-webui"
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [str(program), "serve", "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_S_MAX
        while not _healthy(url):
            if process.poll() is not None or time.monotonic() > deadline:
                logged = (folder / "log.txt").read_text(errors="replace")
                raise WentWrongError(f"Open WebUI did not start; its log ends with:\n{logged[-2000:]}")
            time.sleep(_POLL_S * 5)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


@dataclass
class Person:
    """Someone who is logged in."""

    name: str
    http: httpx2.Client
    id: str
    session: str = field(default_factory=lambda: uuid4().hex[:20])

    @classmethod
    def signed_up(cls, url: str, name: str) -> Person:
        """Return a new person; the first one is the administrator."""
        account = {"name": name, "email": f"{name.lower()}@example.org", "password": "correct horse"}
        with httpx2.Client(base_url=url, timeout=ANSWER_S_MAX, trust_env=False) as http:
            return cls._logged_in(url, http.post("/api/v1/auths/signup", json=account))

    def adds(self, url: str, name: str) -> Person:
        """Return a new person whom this one, the administrator, adds."""
        account = {"name": name, "email": f"{name.lower()}@example.org", "password": "correct horse", "role": "user"}
        said(self.http.post("/api/v1/auths/add", json=account))
        with httpx2.Client(base_url=url, timeout=ANSWER_S_MAX, trust_env=False) as http:
            return self._logged_in(url, http.post("/api/v1/auths/signin", json=account))

    @classmethod
    def _logged_in(cls, url: str, answer: httpx2.Response) -> Person:
        told = said(answer)
        headers = {"Authorization": f"Bearer {told['token']}"}
        http = httpx2.Client(base_url=url, timeout=ANSWER_S_MAX, trust_env=False, headers=headers)
        return cls(told["name"], http, told["id"])

    def sets_headers(self, base_url: str, headers: Mapping[str, str]) -> None:
        """Let the connection to an endpoint send these headers, as an administrator does in the settings."""
        connection = {"enable": True, "headers": dict(headers)}
        form = {
            "ENABLE_OPENAI_API": True,
            "OPENAI_API_BASE_URLS": [base_url],
            "OPENAI_API_KEYS": ["sk-client"],
            "OPENAI_API_CONFIGS": {"0": connection},
        }
        said(self.http.post("/openai/config/update", json=form))

    def asks_in_a_temporary_chat(self, model: str, text: str) -> str:
        """Ask where nothing is to be kept, and return the answer."""
        body = {"model": model, "stream": False, "chat_id": f"local:{self.session}", "id": str(uuid4())}
        messages = [{"role": "user", "content": text}]
        answer = said(self.http.post("/api/chat/completions", json={**body, "messages": messages}))
        return str(answer["choices"][0]["message"]["content"])

    def uploads(self, name: str, content: bytes, media_type: str) -> dict[str, Any]:
        """Return a file as a message names it, once it has been read."""
        is_image = media_type.startswith("image/")
        file = said(
            self.http.post(
                f"/api/v1/files/?process={'false' if is_image else 'true'}", files={"file": (name, content, media_type)}
            )
        )
        if not is_image:
            status = f"/api/v1/files/{file['id']}/process/status"
            until(f"{name} is read", lambda: bool(said(self.http.get(status))["status"] == "completed"))
        kind = "image" if is_image else "file"
        told = {"type": kind, "id": file["id"], "url": file["id"], "name": name, "status": "uploaded"}
        return {**told, "file": file, "content_type": media_type, "size": len(content), "error": ""}


@dataclass
class Chat:
    """A chat on someone's page."""

    person: Person
    model: str
    id: str = ""
    newest: str | None = None
    """The message at whose end the page stands."""

    def says(self, text: str, files: Sequence[dict[str, Any]] = (), *, after: str | None = "newest") -> str:
        """Send a message, and return the id of its answer once it is there; ``after`` says which one it follows."""
        parent = self.newest if after == "newest" else after
        message: dict[str, Any] = {
            "id": str(uuid4()),
            "parentId": parent,
            "childrenIds": [],
            "role": "user",
            "content": text,
            "timestamp": int(time.time()),
            "models": [self.model],
        }
        if files:
            message["files"] = list(files)
        return self._asks(message, str(uuid4()))

    def edits(self, answer_id: str, text: str) -> str:
        """Send the question of an answer again, in other words and with its files, as a branch beside it."""
        question = self._question_of(answer_id)
        return self.says(text, question.get("files") or (), after=question["parentId"])

    def regenerates(self, answer_id: str) -> str:
        return self._asks(self._question_of(answer_id), str(uuid4()))

    def continues(self, answer_id: str) -> str:
        """Let an answer that is there go on."""
        return self._asks(self._question_of(answer_id), answer_id, assistant_message_id=answer_id)

    def text(self, answer_id: str) -> str:
        return str(self._messages()[answer_id]["content"])

    @property
    def title(self) -> str:
        return str(said(self.person.http.get(f"/api/v1/chats/{self.id}"))["title"])

    def _asks(self, question: dict[str, Any], answer_id: str, **more: str) -> str:
        before = len(self.text(answer_id)) if more else 0
        first = not self.id or (question["parentId"] is None and not more)
        files = [file for file in question.get("files") or () if file["type"] != "image"]
        body = {
            "stream": True,
            "model": self.model,
            "messages": [{"role": "user", "content": question["content"]}],
            "params": {},
            **({"files": files} if files else {}),
            "tool_ids": [],
            "tool_servers": [],
            "features": {"voice": False, "image_generation": False, "code_interpreter": False, "web_search": False},
            "variables": {"{{USER_NAME}}": self.person.name, "{{CURRENT_DATE}}": time.strftime("%Y-%m-%d")},
            "session_id": self.person.session,
            **({"chat_id": self.id} if self.id else {}),
            "id": answer_id,
            "parent_id": question["parentId"],
            "user_message": question,
            **more,
            "background_tasks": _TASKS if first else {"follow_up_generation": True},
        }
        told = said(self.person.http.post("/api/chat/completions", json=body))
        self.id = self.id or str(told["chat_id"])
        self._wait_for(answer_id, before)
        self.newest = answer_id
        return answer_id

    def _wait_for(self, answer_id: str, before: int) -> None:
        def is_there() -> bool:
            message = self._messages().get(answer_id, {})
            if message.get("error"):
                raise WentWrongError(str(message["error"]))
            busy = said(self.person.http.get(f"/api/tasks/chat/{self.id}"))["task_ids"]
            return bool(message.get("done")) and len(message.get("content", "")) > before and not busy

        until("the answer is there", is_there)

    def _question_of(self, answer_id: str) -> dict[str, Any]:
        messages = self._messages()
        question: dict[str, Any] = messages[messages[answer_id]["parentId"]]
        return question

    def _messages(self) -> dict[str, Any]:
        chat = said(self.person.http.get(f"/api/v1/chats/{self.id}"))
        found: dict[str, Any] = chat["chat"]["history"]["messages"]
        return found


def until(what: str, holds: Callable[[], bool]) -> None:
    """Wait until a condition holds. Raises :class:`WentWrongError` that names it."""
    deadline = time.monotonic() + ANSWER_S_MAX
    while not holds():
        if time.monotonic() > deadline:
            raise WentWrongError(f"after {ANSWER_S_MAX:g} s it is still not true that {what}")
        time.sleep(_POLL_S)


def said(answer: httpx2.Response) -> Any:
    """Return the JSON of an answer. Raises :class:`WentWrongError` for an error."""
    if answer.status_code >= 400:
        raise WentWrongError(f"{answer.request.url.path}: {answer.status_code} {answer.text[:300]}")
    return answer.json()


def picture(person: Person) -> dict[str, Any]:
    return person.uploads("picture.png", _PIXEL, "image/png")


def document(person: Person, text: str) -> dict[str, Any]:
    return person.uploads("notes.txt", text.encode(), "text/plain")
