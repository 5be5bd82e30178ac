"""What people said can be read by the service's user alone, and a command run as root does not lock that user out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from domain.identity import StreamId
from domain.private_files import tighten
from tests.ledgers import opened, record_turn
from tests.processes import service_process
from tests.service.cli.conftest import Opm
from tests.service.running import Client
from tests.upstream import ScriptedUpstream

OWNER = 12_345


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Every test runs with a umask that closes nothing, and leaves the one it found."""
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    everything = [folder, *folder.rglob("*")]
    return [str(path.relative_to(folder)) for path in everything if path.stat().st_mode & 0o077]


def test_everything_a_service_makes_is_private_whatever_the_umask(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    with ScriptedUpstream() as upstream:
        environment = {
            "STORAGE_DIR": str(storage),
            "LLM_BASE_URL": upstream.base_url,
            "LLM_MODEL": upstream.chat_model,
            "EMB_BASE_URL": upstream.base_url,
            "EMB_MODEL": upstream.embedding_model,
        }
        with service_process(environment) as service:
            client = Client(service.base_url)
            for number in range(3):
                client.tell(f"Fact {number}.", "ann", "one")
            client.http.close()
            assert open_to_others(storage) == []
    assert {path.name for path in storage.rglob("*")} >= {"ledger.sqlite3", "vectors.sqlite3", "lexical.sqlite3"}
    assert open_to_others(storage) == []


def test_so_is_what_a_command_writes(opm: Opm, storage: Path, tmp_path: Path) -> None:
    with opened(storage / "ledger.sqlite3") as ledger:
        record_turn(ledger, StreamId("ann", "c"))
    shelf = tmp_path / "shelf"
    shelf.mkdir(0o700)
    assert opm("backup", str(shelf / "copy.sqlite3")).status == 0
    assert opm("export", "-u", "ann", "-o", str(shelf / "ann.jsonl")).status == 0
    assert opm("restore", str(shelf / "copy.sqlite3")).status == 0
    assert len(list(shelf.iterdir())) == 2
    assert open_to_others(shelf) == []
    # The storage was open before; whoever writes it next closes it.
    assert opm("erase", "-u", "ann", "--yes").status == 0
    assert open_to_others(storage) == []


def test_files_of_earlier_versions_are_tightened_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    (folder / "users" / "ann" / "conversations").mkdir(parents=True)
    mirror = folder / "users" / "ann" / "conversations" / "c.jsonl"
    foreign = folder / "notes" / "todo.txt"
    foreign.parent.mkdir()
    for path in (mirror, foreign, folder / "ledger.sqlite3", folder / "ledger.sqlite3-wal"):
        path.write_text("x")
    tighten(folder)
    assert open_to_others(folder) == [".", "notes", "notes/todo.txt"], "other things are in this folder"
    shutil.rmtree(foreign.parent)
    tighten(folder)
    assert open_to_others(folder) == []


@contextmanager
def owned(storage: Path) -> Iterator[None]:
    for path in (storage, *storage.rglob("*")):
        os.chown(path, OWNER, OWNER)
    yield
    assert {path.lstat().st_uid for path in (storage, *storage.rglob("*"))} == {OWNER}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
class TestAsRoot:
    def test_the_owner_of_the_folder_gets_what_a_command_makes(self, opm: Opm, storage: Path, tmp_path: Path) -> None:
        lists = tmp_path / "lists.json"
        lists.write_text('[{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]')
        for arguments in (
            ["import", str(lists), "-u", "ann"],
            ["verify"],
            ["backup", str(tmp_path / "copy.sqlite3")],
            ["restore", str(tmp_path / "copy.sqlite3")],
            ["erase", "-u", "ann", "--yes"],
        ):
            with owned(storage):
                opm(*arguments)
        assert (tmp_path / "copy.sqlite3").stat().st_uid == 0, "what lies elsewhere is the caller's"

    def test_a_ledger_that_it_makes_is_the_owners(self, opm: Opm, storage: Path, tmp_path: Path) -> None:
        (storage / "ledger.sqlite3").unlink()
        lists = tmp_path / "lists.json"
        lists.write_text('[{"role": "user", "content": "Hello?"}]')
        with owned(storage):
            assert opm("import", str(lists), "-u", "ann").status == 0

    def test_nobody_can_have_a_file_of_root_given_to_them(self, opm: Opm, storage: Path, tmp_path: Path) -> None:
        precious, folder = tmp_path / "precious", tmp_path / "folder"
        precious.write_text("of root")
        folder.mkdir()
        (folder / "file").write_text("of root")
        os.chown(storage, OWNER, OWNER)
        (storage / "system").mkdir(exist_ok=True)
        (storage / "users").symlink_to(folder)
        (storage / "system" / "link").symlink_to(precious)
        os.link(precious, storage / "system" / "hard")
        opm("status")
        assert {path.stat().st_uid for path in (precious, folder, folder / "file")} == {0}
