import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import pytest

from service.local_models.catalogue import SMOLLM2_135M, ChatModel
from service.local_models.errors import ModelUnavailable, SourceFailed
from service.local_models.fetch import ensure_model
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
