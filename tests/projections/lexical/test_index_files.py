"""Lexical indices follow the ledger and repair themselves."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.errors import IndexCatchingUp, IndexCorrupt, IndexUnavailable
from domain.events import MemoryForgotten
from domain.identity import StreamId
from domain.ledger import Ledger
from projections.erasure import erase_user
from projections.lexical import index_files as lexical_files
from projections.lexical.index import LexicalIndex
from projections.lexical.index_files import LexicalFiles
from projections.lexical.projection import LexicalProjection
from tests.ledgers import record
from tests.projections.world import FACTS, many, remember


@pytest.fixture
def files(ledger: Ledger, storage_dir: Path) -> Iterator[LexicalFiles]:
    files = LexicalFiles(ledger.reader, storage_dir / "users", open_max=2)
    yield files
    files.close()


def found(files: LexicalFiles, user_id: str, query: str, count: int = 10) -> list[int]:
    return [hit.turn_position for hit in files.search(user_id, query, count).hits]


def test_a_turn_is_found_as_soon_as_it_is_recorded(ledger: Ledger, files: LexicalFiles) -> None:
    ferry, sister = remember(ledger, "ann", FACTS[:2])
    assert found(files, "ann", "When does the ferry leave?") == [ferry]
    (bruno,) = remember(ledger, "ann", ["Bruno plays the violin too."])
    assert sorted(found(files, "ann", "violin")) == [sister, bruno]
    assert files.search("ann", "violin", 1).position == ledger.reader.head_position()


def test_one_user_does_not_move_another_ones_ranking(ledger: Ledger, files: LexicalFiles) -> None:
    remember(ledger, "ann", ["The cat eats.", "The dog sleeps.", "Rain again."])
    before = files.search("ann", "cat dog", 5).hits
    remember(ledger, "bob", ["A cat."] * 20)
    assert files.search("ann", "cat dog", 5).hits == before
    assert found(files, "bob", "dog") == []


def test_what_is_forgotten_is_found_no_more(ledger: Ledger, files: LexicalFiles) -> None:
    (ferry,) = remember(ledger, "ann", FACTS[:1])
    assert found(files, "ann", "ferry") == [ferry]
    memory_id = ledger.reader.memories("ann", [ferry])[ferry].memory_id
    record(ledger, StreamId("ann", "chat"), MemoryForgotten(memory_id=memory_id, turn_id=1), causation_id=memory_id)
    assert found(files, "ann", "ferry") == []


@pytest.mark.parametrize(
    "trouble", ["deleted", "cut", "overwritten", "of another user", "other tables", "a moved head"]
)
def test_a_file_that_is_not_as_it_should_be_is_made_anew(
    ledger: Ledger, storage_dir: Path, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    remember(ledger, "ann", many(300))
    remember(ledger, "bob", FACTS)
    files = LexicalFiles(ledger.reader, storage_dir / "users")
    expected = files.search("ann", "violin shelf 3", 20)
    files.search("bob", "violin", 1)
    files.close()
    path = files.path("ann")
    if trouble == "deleted":
        path.unlink()
    elif trouble == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif trouble == "overwritten":
        path.write_bytes(b"not a database, " * 1000)
    elif trouble == "of another user":
        path.write_bytes(files.path("bob").read_bytes())
    elif trouble == "other tables":
        path.write_bytes((storage_dir / "ledger.sqlite3").read_bytes())
    else:
        index = LexicalIndex.on_disk(path)
        index.apply([], after=index.checkpoint().position, position=10**6, anchor="x")
        index.close()
    again = LexicalFiles(ledger.reader, storage_dir / "users")
    assert again.search("ann", "violin shelf 3", 20) == expected
    again.close()
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == (trouble != "deleted")
    assert all("built again" in line for line in said)


def test_a_file_deleted_under_a_running_service_comes_back(ledger: Ledger, files: LexicalFiles) -> None:
    (ferry,) = remember(ledger, "ann", FACTS[:1])
    assert found(files, "ann", "ferry") == [ferry]
    for part in files.path("ann").parent.iterdir():
        part.unlink()
    assert found(files, "ann", "ferry") == [ferry]
    assert files.path("ann").exists()


def test_nothing_of_an_erased_user_stays_open(ledger: Ledger, files: LexicalFiles, storage_dir: Path) -> None:
    remember(ledger, "ann", FACTS[:1])
    (sister,) = remember(ledger, "bob", FACTS[1:2])
    assert found(files, "ann", "ferry")
    assert open_below(storage_dir, files.path("ann"))
    erase_user(ledger, storage_dir, "ann")
    assert found(files, "bob", "violin") == [sister]  # another user's search is enough
    assert not open_below(storage_dir, files.path("ann"))
    assert not files.path("ann").parent.exists()


def open_below(storage_dir: Path, path: Path) -> list[str]:
    """Return what this process holds open of a file that is, or was, at ``path``."""
    targets = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            targets.append(str(descriptor.readlink()))
    users = str((storage_dir / "users").resolve())
    return [
        target for target in targets if target.startswith((str(path.resolve()), f"{users}/~")) and path.name in target
    ]


def test_a_discarded_index_is_gone_from_the_disk(ledger: Ledger, files: LexicalFiles) -> None:
    remember(ledger, "ann", FACTS)
    assert found(files, "ann", "ferry")
    files.discard("ann")
    assert list(files.path("ann").parent.iterdir()) == []
    assert found(files, "ann", "ferry")


def test_only_so_many_files_stay_open(ledger: Ledger, files: LexicalFiles) -> None:
    for user_id in ("ann", "bob", "cleo", "dora"):
        remember(ledger, user_id, FACTS[:1])
        assert found(files, user_id, "ferry")
    assert len(files._open) == 2
    assert found(files, "ann", "ferry")


def test_who_is_too_far_behind_is_brought_up_in_the_background(
    ledger: Ledger, files: LexicalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexical_files, "_EVENTS_PER_READ", 2)
    remember(ledger, "ann", many(30))
    with pytest.raises(IndexCatchingUp):
        files.search("ann", "violin", 5)
    files.catch_up("ann")
    assert len(found(files, "ann", "violin")) == 4


def test_a_place_that_cannot_be_written_is_said_and_no_crash(ledger: Ledger, tmp_path: Path) -> None:
    remember(ledger, "ann", FACTS)
    (tmp_path / "users").write_text("a file where the folder should be")
    files = LexicalFiles(ledger.reader, tmp_path / "users")
    with pytest.raises(IndexUnavailable):
        files.search("ann", "ferry", 1)


async def test_the_follower_takes_in_what_is_recorded(ledger: Ledger, files: LexicalFiles) -> None:
    remember(ledger, "ann", FACTS[:2])
    follower = LexicalProjection(ledger, files)
    assert not await follower.advance()
    remember(ledger, "bob", FACTS[:2])
    assert await follower.advance()
    assert not await follower.advance()
    assert files.path("bob").exists()
    assert not files.path("ann").exists(), "ann's comes with her first question"


def test_a_page_of_zeros_is_noticed_and_nothing_is_found_that_would_not_be(
    ledger: Ledger, storage_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A search of a damaged file may silently find other memories, or fewer."""
    questions = ("violin shelf 3", "ferry lisbon nine", "entry 17", "basil tomatoes 250", "chess thursday")
    remember(ledger, "ann", many(200))
    files = LexicalFiles(ledger.reader, storage_dir / "users")
    expected = [files.search("ann", question, 20) for question in questions]
    files.catch_up("ann")
    path = files.path("ann")
    files.close()
    whole = path.read_bytes()
    silent = 0
    for at in range(1000, len(whole) - 512, 4096):
        for part in path.parent.glob("lexical.*"):
            part.unlink()
        path.write_bytes(whole[:at] + bytes(512) + whole[at + 512 :])
        caplog.clear()
        with contextlib.closing(LexicalFiles(ledger.reader, storage_dir / "users")) as damaged:
            found_before = [damaged.search("ann", question, 20) for question in questions]
            silent += found_before != expected and not caplog.records
            damaged.check("ann")
            assert [damaged.search("ann", question, 20) for question in questions] == expected, at
    assert silent, "were there no such damage, nobody would need the check"


def test_a_whole_file_passes_the_check_and_one_that_is_not_there_too(ledger: Ledger, files: LexicalFiles) -> None:
    remember(ledger, "ann", FACTS)
    files.search("ann", "ferry", 1)
    before = files.path("ann").stat().st_ino
    files.check("ann")
    files.check("nobody")
    assert files.path("ann").stat().st_ino == before
    assert not files.path("nobody").exists()


def test_an_index_made_anew_during_the_check_is_left_alone(
    ledger: Ledger, files: LexicalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ferry,) = remember(ledger, "ann", FACTS[:1])
    assert found(files, "ann", "ferry") == [ferry]

    def broken(_index: LexicalIndex) -> None:
        files.discard("ann")
        assert found(files, "ann", "ferry") == [ferry]
        raise IndexCorrupt("the one before")

    monkeypatch.setattr(LexicalIndex, "check", broken)
    files.check("ann")
    assert files.path("ann").exists()


def test_no_damage_to_a_file_fails_a_search_otherwise_than_named(
    ledger: Ledger, storage_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    questions = ("violin shelf 3", "ferry lisbon nine", "chess thursday")
    remember(ledger, "ann", many(60))
    files = LexicalFiles(ledger.reader, storage_dir / "users")
    expected = [files.search("ann", question, 20) for question in questions]
    files.catch_up("ann")
    files.close()
    path = files.path("ann")
    with contextlib.closing(LexicalIndex.on_disk(path)) as index:
        index.settle()
    whole = path.read_bytes()
    chance = random.Random(7)  # noqa: S311 - repeatable damage, no secret
    for number in range(150):
        damaged = bytearray(whole)
        if number % 5 == 0:
            del damaged[chance.randrange(len(damaged)) :]
        for _ in range(chance.choice((1, 3, 30))):
            if damaged:
                # The first page and what begins a page say how the rest is read.
                place = chance.choice((chance.randrange(len(damaged)), chance.randrange(min(4096, len(damaged)))))
                damaged[place] ^= 1 << chance.randrange(8)
        for part in path.parent.glob("lexical.*"):
            part.unlink()
        path.write_bytes(damaged)
        with contextlib.closing(LexicalFiles(ledger.reader, storage_dir / "users")) as again:
            for question in questions:
                with contextlib.suppress(IndexUnavailable):
                    again.search("ann", question, 20)
            again.check("ann")
            assert [again.search("ann", question, 20) for question in questions] == expected, number
    assert all(len(record.getMessage().splitlines()) == 1 for record in caplog.records)


def test_a_folder_in_the_place_of_a_file_is_made_way(ledger: Ledger, files: LexicalFiles) -> None:
    remember(ledger, "ann", FACTS)
    expected = files.search("ann", "violin", 5)
    files.discard("ann")
    (files.path("ann") / "inside").mkdir(parents=True)
    assert files.search("ann", "violin", 5) == expected
    assert files.path("ann").is_file()
