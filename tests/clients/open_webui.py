"""Open WebUI itself, driven over HTTP with the requests of its own page: two people, three chats each.

Its page sends a new message with the ids that it gave to it and to the answer, and the server makes the prompt from the
chat in its database. What the page hears over a socket is read from the chat instead.
"""

from __future__ import annotations

import base64
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from tests.clients.client import Chats, Row
from tests.clients.environments import PythonEnvironment, clean_environment
from tests.clients.model import ModelWithTools
from tests.clients.recording import RecordingProxy
from tests.processes import free_port

ENVIRONMENT = PythonEnvironment("open-webui", ("open-webui",))
START_S_MAX = 180.0
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


@dataclass(frozen=True)
class OpenWebUi:
    """Two people with three chats each: tools, an answer asked for again and gone on with, a picture, a document."""

    name: str = "open-webui"
    environment: PythonEnvironment = ENVIRONMENT
    says: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def chats(self) -> Mapping[str, Chats]:
        # By default nothing tells the service who speaks.
        return {"": (*_chats("bicycle"), *_chats("boat"))}

    @property
    def recorded_chats(self) -> Chats:
        return _chats("bicycle")

    def run(self, environments: Path, proxy: RecordingProxy, model: ModelWithTools) -> Iterator[Row]:
        with (
            tempfile.TemporaryDirectory() as folder,
            open_webui(environments, Path(folder), proxy.base_url, model.base_url) as url,
        ):
            ada = Person.signed_up(url, "Ada")
            bob = ada.adds(url, "Bob")
            _said(ada.http.get("/api/models"))
            for person, thing in ((ada, "bicycle"), (bob, "boat")):
                for step, do in _steps(person, model.chat_model, thing):
                    proxy.step = f"{person.name}: {step}"
                    failed = ""
                    try:
                        do()
                    except WentWrongError as error:
                        failed = str(error)[:300]
                    yield Row(self.name, proxy.step, failed)


def _chats(thing: str) -> Chats:
    return (
        (f"My {thing} is red.", "What is the current timestamp?", f"The {thing} is old."),
        (f"What is the {thing} here?\n[image: image/png, 70 bytes, sha256 ...", f"Who owns the {thing}?"),
        (f"What does the note say about the {thing}?", "And what else?"),
    )


def _steps(person: Person, model: str, thing: str) -> Iterator[tuple[str, Callable[[], None]]]:
    first, second, third = (Chat(person, model) for _ in range(3))

    def says(chat: Chat, text: str, holds: str = "Noted") -> None:
        answer = chat.text(chat.says(text))
        if holds not in answer:
            raise WentWrongError(f"the answer is {answer!r}")

    def regenerates() -> None:
        before = str(first.newest)
        if first.text(before) == first.text(first.regenerates(before)):
            raise WentWrongError("the answer is the one before")

    def continues() -> None:
        before = first.text(str(first.newest))
        answer = first.text(first.continues(str(first.newest)))
        if not answer.startswith(before) or answer == before:
            raise WentWrongError(f"after {before!r} the answer is {answer!r}")

    def is_titled() -> None:
        deadline = time.monotonic() + ANSWER_S_MAX
        while first.title != "A title" and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if first.title != "A title":
            raise WentWrongError(f"the title is {first.title!r}")

    yield "first message", lambda: says(first, f"My {thing} is red.")
    yield "title", is_titled
    yield "tools", lambda: says(first, "What is the current timestamp?", "The tool says")
    yield "third message", lambda: says(first, f"The {thing} is old.")
    yield "regenerate", regenerates
    yield "continue", continues
    yield "image", lambda: _done(second.says(f"What is the {thing} here?", [picture(person)]))
    yield "after the image", lambda: says(second, f"Who rides the {thing}?")
    yield "edit", lambda: _done(second.edits(str(second.newest), f"Who owns the {thing}?"))
    note = f"The {thing} sleeps in the harbour."
    yield "document", lambda: _done(third.says(f"What does the note say about the {thing}?", [document(person, note)]))
    yield "after the document", lambda: says(third, "And what else?")


def _done(_: str) -> None:
    """What counts is that an answer came."""


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
                said = (folder / "log.txt").read_text(errors="replace")
                raise WentWrongError(f"Open WebUI did not start; its log ends with:\n{said[-2000:]}")
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
        _said(self.http.post("/api/v1/auths/add", json=account))
        with httpx2.Client(base_url=url, timeout=ANSWER_S_MAX, trust_env=False) as http:
            return self._logged_in(url, http.post("/api/v1/auths/signin", json=account))

    @classmethod
    def _logged_in(cls, url: str, answer: httpx2.Response) -> Person:
        told = _said(answer)
        headers = {"Authorization": f"Bearer {told['token']}"}
        http = httpx2.Client(base_url=url, timeout=ANSWER_S_MAX, trust_env=False, headers=headers)
        return cls(told["name"], http, told["id"])

    def uploads(self, name: str, content: bytes, media_type: str) -> dict[str, Any]:
        """Return a file as a message names it, once it has been read."""
        is_image = media_type.startswith("image/")
        file = _said(
            self.http.post(
                f"/api/v1/files/?process={'false' if is_image else 'true'}", files={"file": (name, content, media_type)}
            )
        )
        deadline = time.monotonic() + ANSWER_S_MAX
        while not is_image and time.monotonic() < deadline:
            status = _said(self.http.get(f"/api/v1/files/{file['id']}/process/status"))["status"]
            if status == "completed":
                break
            if status == "failed":
                raise WentWrongError(f"Open WebUI could not read {name}")
            time.sleep(_POLL_S)
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
        return str(_said(self.person.http.get(f"/api/v1/chats/{self.id}"))["title"])

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
        told = _said(self.person.http.post("/api/chat/completions", json=body))
        self.id = self.id or str(told["chat_id"])
        self._wait_for(answer_id, before)
        self.newest = answer_id
        return answer_id

    def _wait_for(self, answer_id: str, before: int) -> None:
        deadline = time.monotonic() + ANSWER_S_MAX
        while time.monotonic() < deadline:
            message = self._messages().get(answer_id, {})
            if message.get("error"):
                raise WentWrongError(str(message["error"]))
            busy = _said(self.person.http.get(f"/api/tasks/chat/{self.id}"))["task_ids"]
            if message.get("done") and len(message.get("content", "")) > before and not busy:
                return
            time.sleep(_POLL_S)
        raise WentWrongError(f"no answer in {ANSWER_S_MAX:g} s")

    def _question_of(self, answer_id: str) -> dict[str, Any]:
        messages = self._messages()
        question: dict[str, Any] = messages[messages[answer_id]["parentId"]]
        return question

    def _messages(self) -> dict[str, Any]:
        chat = _said(self.person.http.get(f"/api/v1/chats/{self.id}"))
        found: dict[str, Any] = chat["chat"]["history"]["messages"]
        return found


def _said(answer: httpx2.Response) -> Any:
    if answer.status_code >= 400:
        raise WentWrongError(f"{answer.request.url.path}: {answer.status_code} {answer.text[:300]}")
    return answer.json()


def picture(person: Person) -> dict[str, Any]:
    return person.uploads("picture.png", _PIXEL, "image/png")


def document(person: Person, text: str) -> dict[str, Any]:
    return person.uploads("notes.txt", text.encode(), "text/plain")
