import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import pytest

from service.local_models import sources
from service.local_models.catalogue import SMOLLM2_135M, ChatModel, HubFile
from service.local_models.errors import ModelUnavailable, SourceFailed
from service.local_models.fetch import ensure_hub_file, ensure_model
from service.local_models.sources import HubSource, Progress
from tests.service.local_models.hub import Hub, serving

CONTENT = os.urandom(200_000)
MODEL = replace(SMOLLM2_135M, size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())


@dataclass
class Scripted:
    """A source that delivers the given bytes, or fails with the given words."""

    title: str
    delivers: bytes | str
    asked: int = field(default=0)

    def fetch(self, model: ChatModel, workspace: Path, progress: Progress) -> Path:
        self.asked += 1
        if isinstance(self.delivers, str):
            raise SourceFailed(self.delivers)
        progress(len(self.delivers))
        file = workspace / "delivered"
        file.write_bytes(self.delivers)
        return file


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub(CONTENT)) as running:
        yield running


def test_a_fetched_model_is_found_the_next_time_without_asking_anyone(tmp_path: Path) -> None:
    source = Scripted("a mirror", CONTENT)
    path = ensure_model(MODEL, tmp_path, [source])
    assert path == tmp_path / MODEL.filename
    assert path.read_bytes() == CONTENT
    assert ensure_model(MODEL, tmp_path, [source]) == path
    assert source.asked == 1
    assert {file.name for file in tmp_path.iterdir()} == {MODEL.filename, f"{MODEL.filename}.lock"}


def test_wrong_bytes_are_refused_and_the_next_source_is_asked(tmp_path: Path) -> None:
    wrong, right = Scripted("the first", CONTENT[:-1] + b"?"), Scripted("the second", CONTENT)
    assert ensure_model(MODEL, tmp_path, [wrong, right]).read_bytes() == CONTENT
    assert (wrong.asked, right.asked) == (1, 1)


def test_wrong_bytes_alone_never_become_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"200000 bytes have sha256 .* they were thrown away"):
        ensure_model(MODEL, tmp_path, [Scripted("the first", bytes(len(CONTENT)))])
    assert not (tmp_path / MODEL.filename).exists()
    assert list((tmp_path / f"{MODEL.filename}.download").iterdir()) == []


def test_a_damaged_file_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / MODEL.filename).write_bytes(CONTENT[:1000])
    assert ensure_model(MODEL, tmp_path, [Scripted("a mirror", CONTENT)]).read_bytes() == CONTENT


def test_when_nothing_can_be_reached_the_message_says_why_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable) as failure:
        ensure_model(MODEL, tmp_path, [Scripted("the hub", "no connection"), Scripted("the index", "no pip")])
    said = str(failure.value)
    assert "the hub: no connection" in said
    assert "the index: no pip" in said
    assert str(tmp_path / MODEL.filename) in said
    for variable in ("HF_ENDPOINT", "LOCAL_CHAT_MODEL", "LLM_BASE_URL"):
        assert variable in said


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(ModelUnavailable, match="LOCAL_MODELS_DIR"):
        ensure_model(MODEL, blocked / "cache", [Scripted("a mirror", CONTENT)])


def test_a_full_disk_is_said_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        total: int
        used: int
        free: int

    source = Scripted("a mirror", CONTENT)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(10**9, 10**9, 1000))
    with pytest.raises(ModelUnavailable, match="LOCAL_MODELS_DIR"):
        ensure_model(MODEL, tmp_path, [source])
    assert source.asked == 0


def test_two_at_once_share_one_download(hub: Hub, tmp_path: Path) -> None:
    results: list[Path] = []
    fetch: Callable[[], None] = lambda: results.append(  # noqa: E731
        ensure_model(MODEL, tmp_path, [HubSource(hub.endpoint)])
    )
    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [tmp_path / MODEL.filename] * 4
    assert results[0].read_bytes() == CONTENT
    assert hub.asked == [None]


class TestAnyFileOfTheHub:
    FILE = HubFile(repository="Owner/Repo-GGUF", filename="Chat-Q4.gguf")
    GGUF = b"GGUF" + CONTENT
    SHA256 = hashlib.sha256(GGUF).hexdigest()

    @pytest.fixture
    def hub(self) -> Iterator[Hub]:
        with serving(Hub(self.GGUF)) as running:
            yield running

    def fetch(self, hub: Hub, cache: Path) -> Path:
        return ensure_hub_file(self.FILE, cache, HubSource(hub.endpoint))

    @pytest.mark.parametrize("named", [True, False])
    def test_its_sha256_is_shown_and_kept(
        self, hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture, named: bool
    ) -> None:
        hub.linked_etag = self.SHA256 if named else None
        with caplog.at_level("INFO"):
            path = self.fetch(hub, tmp_path)
        assert path == tmp_path / "Owner/Repo-GGUF/Chat-Q4.gguf"
        assert path.read_bytes() == self.GGUF
        assert set(hub.paths) == {"/Owner/Repo-GGUF/resolve/main/Chat-Q4.gguf"}
        assert self.SHA256 in caplog.text
        assert path.with_name("Chat-Q4.gguf.sha256").read_text() == f"{self.SHA256}  Chat-Q4.gguf\n"

    def test_the_next_start_asks_nobody(self, hub: Hub, tmp_path: Path) -> None:
        path = self.fetch(hub, tmp_path)
        hub.paths.clear()
        assert self.fetch(hub, tmp_path) == path
        assert hub.paths == []

    def test_a_file_put_there_by_hand_is_taken_and_its_sha256_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "Owner/Repo-GGUF/Chat-Q4.gguf"
        path.parent.mkdir(parents=True)
        path.write_bytes(self.GGUF)
        assert ensure_hub_file(self.FILE, tmp_path, HubSource("http://127.0.0.1:1")) == path
        assert path.with_name("Chat-Q4.gguf.sha256").read_text().startswith(self.SHA256)

    def test_a_transfer_that_breaks_off_is_continued_at_the_next_start(
        self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sources, "RETRY_SECONDS", 0.0)
        hub.breaks = [100_000, 70_000, 0, 0, 0]  # the first answer is the one that tells what the file is
        with pytest.raises(ModelUnavailable, match="broke off"):
            self.fetch(hub, tmp_path)
        hub.asked.clear()
        assert self.fetch(hub, tmp_path).read_bytes() == self.GGUF
        assert hub.asked == [None, "bytes=70000-"]

    def test_a_damaged_file_is_fetched_again(self, hub: Hub, tmp_path: Path) -> None:
        path = self.fetch(hub, tmp_path)
        path.write_bytes(self.GGUF[:-1] + b"?")
        assert self.fetch(hub, tmp_path).read_bytes() == self.GGUF

    @pytest.mark.parametrize("named", [True, False])
    def test_another_version_on_the_hub_does_not_take_the_place_of_a_damaged_file(
        self, hub: Hub, tmp_path: Path, named: bool
    ) -> None:
        path = self.fetch(hub, tmp_path)
        path.write_bytes(b"GGUF, cut off")
        hub.content = b"GGUF of another version"
        hub.linked_etag = hashlib.sha256(hub.content).hexdigest() if named else None
        with pytest.raises(ModelUnavailable, match="another version" if named else "thrown away"):
            self.fetch(hub, tmp_path)
        path.with_name("Chat-Q4.gguf.sha256").unlink()
        path.unlink(missing_ok=True)
        assert self.fetch(hub, tmp_path).read_bytes() == hub.content

    def test_bytes_that_are_not_what_the_hub_named_never_become_a_model(self, hub: Hub, tmp_path: Path) -> None:
        hub.linked_etag = "0" * 64
        with pytest.raises(ModelUnavailable, match="thrown away"):
            self.fetch(hub, tmp_path)
        assert not (tmp_path / "Owner/Repo-GGUF/Chat-Q4.gguf").exists()

    @pytest.mark.parametrize(
        ("status", "said"), [(401, "needs an account"), (403, "needs an account"), (404, "no such file"), (500, "500")]
    )
    def test_a_refusal_says_what_it_means(self, hub: Hub, tmp_path: Path, status: int, said: str) -> None:
        hub.status = status
        with pytest.raises(ModelUnavailable, match=said) as failure:
            self.fetch(hub, tmp_path)
        assert "Owner/Repo-GGUF/Chat-Q4.gguf" in str(failure.value)
        assert "LOCAL_CHAT_MODEL" in str(failure.value)

    def test_a_page_in_its_place_and_a_file_of_unknown_length_are_refused(self, hub: Hub, tmp_path: Path) -> None:
        hub.content = b"<html>Log in</html>"
        with pytest.raises(ModelUnavailable, match="not a GGUF file"):
            self.fetch(hub, tmp_path)
        hub.content, hub.tells_length = self.GGUF, False
        with pytest.raises(ModelUnavailable, match="how long"):
            self.fetch(hub, tmp_path)
        assert list(tmp_path.rglob("*.gguf")) == []
