"""What the cache was given comes back, to every thread and process, and its position never runs ahead of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.exc import DatabaseError, IntegrityError

from domain.sqlite import DRIVER
from projections.embedding.cache import VectorCache, text_hash
from projections.embedding.endpoint import EmbeddingSpace
from tests.ledgers import ROOT

SPACE = EmbeddingSpace("m", 8, "")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[VectorCache]:
    cache = VectorCache(tmp_path / "vectors.sqlite3", half=True)
    yield cache
    cache.close()


def vector(number: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.arange(number, number + 8, dtype=np.float32)


@pytest.mark.parametrize("half", [True, False])
def test_what_went_in_comes_out(tmp_path: Path, half: bool) -> None:
    cache = VectorCache(tmp_path / "new folder" / "vectors.sqlite3", half=half)
    space_id = cache.space_id(SPACE)
    rows = np.random.default_rng(1).standard_normal((1200, 8)).astype(np.float32)
    hashes = [text_hash(f"text {number}") for number in range(1200)]
    cache.put(space_id, dict(zip(hashes, rows, strict=True)))
    back = cache.get(space_id, [*hashes, hashes[0], text_hash("never seen")])
    assert set(back) == set(hashes)
    kept = rows.astype(np.float16 if half else np.float32)
    np.testing.assert_array_equal(np.array([back[key] for key in hashes]), kept)
    cache.close()


def test_a_cache_of_the_other_width_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite3"
    full = VectorCache(path, half=False)
    full.put(full.space_id(SPACE), {text_hash("a"): vector(1)})
    full.close()
    half = VectorCache(path, half=True)
    half.put(half.space_id(SPACE), {text_hash("b"): vector(2)})
    back = half.get(half.space_id(SPACE), [text_hash("a"), text_hash("b")])
    half.close()
    np.testing.assert_array_equal(back[text_hash("a")], vector(1))
    np.testing.assert_array_equal(back[text_hash("b")], vector(2))


def test_a_refused_text_is_known_and_has_no_vector(cache: VectorCache) -> None:
    space_id = cache.space_id(SPACE)
    cache.put(space_id, {text_hash("too long"): None})
    assert cache.get(space_id, [text_hash("too long"), text_hash("new")]) == {text_hash("too long"): None}


@pytest.mark.parametrize(
    "other", [EmbeddingSpace("other", 8, ""), EmbeddingSpace("m", 4, ""), EmbeddingSpace("m", 8, "passage: ")]
)
def test_spaces_do_not_share_vectors(cache: VectorCache, other: EmbeddingSpace) -> None:
    cache.put(cache.space_id(SPACE), {text_hash("a"): vector(1)})
    assert cache.space_id(other) != cache.space_id(SPACE)
    assert cache.get(cache.space_id(other), [text_hash("a")]) == {}


def test_the_position_moves_with_what_it_stands_for_and_never_back(cache: VectorCache) -> None:
    space_id = cache.space_id(SPACE)
    assert cache.position(space_id) == 0
    cache.put(space_id, {text_hash("a"): vector(1)}, position=7)
    cache.put(space_id, {}, position=5)
    assert cache.position(space_id) == 7
    broken: dict[bytes, None] = {text_hash("b"): None, None: None}  # type: ignore[dict-item]
    with pytest.raises(IntegrityError):
        cache.put(space_id, broken, position=9)
    assert cache.position(space_id) == 7
    assert cache.get(space_id, [text_hash("b")]) == {}


def test_threads_share_a_cache(cache: VectorCache) -> None:
    space_id = cache.space_id(SPACE)

    def work(thread: int) -> int:
        seen = 0
        for number in range(30):
            key = text_hash(f"{thread} {number}")
            cache.put(space_id, {key: vector(number)}, position=thread * 100 + number)
            back = cache.get(space_id, [key, text_hash(f"{(thread + 1) % 8} {number}")])
            np.testing.assert_array_equal(back[key], vector(number))
            seen += len(back)
        return seen

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) >= 240
    everything = [text_hash(f"{thread} {number}") for thread in range(8) for number in range(30)]
    assert len(cache.get(space_id, everything)) == 240
    assert cache.position(space_id) == 729


_OTHER_PROCESS = """
import sys
from pathlib import Path
import numpy as np
from projections.embedding.endpoint import EmbeddingSpace
from projections.embedding.cache import VectorCache, text_hash
cache = VectorCache(Path(sys.argv[1]), half=True)
space_id = cache.space_id(EmbeddingSpace("m", 8, ""))
for number in range(60):
    cache.put(space_id, {text_hash(f"{sys.argv[2]} {number}"): np.full(8, number, np.float32)})
print(space_id)
cache.close()
"""


def test_two_processes_write_one_cache(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite3"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _OTHER_PROCESS, str(path), name], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    outputs = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert outputs[0] == outputs[1]
    cache = VectorCache(path, half=True)
    keys = [text_hash(f"{name} {number}") for name in ("one", "two") for number in range(60)]
    assert len(cache.get(int(outputs[0]), keys)) == 120
    cache.close()


def unit(number: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    row = np.random.default_rng(number).standard_normal(8).astype(np.float32)
    return row / np.float32(np.linalg.norm(row))


def changed(path: Path, expression: str) -> int:
    """Change stored vectors as a disk would; return how many were."""
    with closing(DRIVER.connect(path, isolation_level=None)) as connection:
        return int(connection.execute(f"UPDATE vectors SET {expression}").rowcount)  # noqa: S608 - of this file


def flipped(blob: bytes, bit: int) -> bytes:
    content = bytearray(blob)
    content[bit // 8] ^= 1 << bit % 8
    return bytes(content)


@pytest.mark.parametrize("half", [True, False])
def test_a_single_changed_bit_makes_a_vector_unknown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, half: bool
) -> None:
    path, keys = tmp_path / "vectors.sqlite3", [text_hash(f"text {number}") for number in range(128)]
    with closing(VectorCache(path, half=half)) as cache:
        space_id = cache.space_id(SPACE)
        cache.put(space_id, {key: unit(number) for number, key in enumerate(keys)})
        cache.put(space_id, {text_hash("refused"): None})
    with closing(DRIVER.connect(path, isolation_level=None)) as connection:
        for number, key in enumerate(keys[:-1]):
            (blob,) = connection.execute("SELECT vector FROM vectors WHERE text_hash = ?", (key,)).fetchone()
            bit = number * len(blob) * 8 // len(keys)
            connection.execute("UPDATE vectors SET vector = ? WHERE text_hash = ?", (flipped(blob, bit), key))
    with closing(VectorCache(path, half=half)) as cache:
        assert cache.damaged() == len(keys) - 1
        assert cache.known(space_id, [*keys, text_hash("refused")]) == {keys[-1], text_hash("refused")}
        assert set(cache.get(space_id, keys)) == {keys[-1]}
        # Embedded again, it is as it was.
        cache.put(space_id, {keys[0]: unit(0)})
        back = cache.get(space_id, keys)[keys[0]]
        assert back is not None
        assert float(np.abs(back - unit(0)).max()) < 1e-3
    assert [record.getMessage() for record in caplog.records] == [
        "vectors.sqlite3 has vectors that were changed: they are embedded again"
    ]


@pytest.mark.parametrize("half", [True, False])
def test_a_cache_of_before_the_checksums_is_used_and_checked_by_lengths(tmp_path: Path, half: bool) -> None:
    path, keys = tmp_path / "vectors.sqlite3", [text_hash(f"text {number}") for number in range(64)]
    with closing(VectorCache(path, half=half)) as cache:
        space_id = cache.space_id(SPACE)
        cache.put(space_id, {key: unit(number) for number, key in enumerate(keys)})
    with closing(DRIVER.connect(path, isolation_level=None)) as connection:
        connection.execute("ALTER TABLE vectors DROP COLUMN checksum")
    with closing(VectorCache(path, half=half)) as cache:
        assert cache.damaged() == 0
        assert cache.known(space_id, keys) == set(keys)
    high = "7b" if half else "7f"
    # The highest bit of an exponent, in the last number: it becomes huge, or next to nothing.
    assert changed(path, f"vector = CAST(substr(vector, 1, length(vector) - 1) || x'{high}' AS BLOB)") == 64
    with closing(VectorCache(path, half=half)) as cache:
        assert cache.damaged() == 64
        assert cache.known(space_id, keys) == set()


@pytest.mark.parametrize("damage", ["zeros", "noise", "cut"])
def test_a_file_that_breaks_is_put_aside_and_begun_again_under_the_same_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path, keys = tmp_path / "vectors.sqlite3", [text_hash(f"text {number}") for number in range(3000)]
    other = EmbeddingSpace("m", 8, "passage: ")
    with closing(VectorCache(path, half=True)) as cache:
        assert cache.space_id(other) == 1
        cache.put(cache.space_id(SPACE), {key: unit(1) for key in keys}, position=9)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "zeros": whole[:middle] + bytes(len(whole) - middle),
            "noise": whole[:16384] + b"\xff\x07" * ((len(whole) - 16384) // 2),
            "cut": whole[:middle],
        }[damage]
    )
    with closing(VectorCache(path, half=True)) as cache:
        for _ in range(2):  # each of these may be the one that meets the damage
            with suppress(DatabaseError):
                cache.known(cache.space_id(SPACE), keys)
        space_id = cache.space_id(SPACE)
        assert cache.known(space_id, keys) == set()
        assert cache.position(space_id) == 0
        cache.put(space_id, {keys[0]: unit(1)}, position=3)
        assert cache.known(space_id, keys) == {keys[0]}
        assert (cache.position(space_id), cache.space_id(SPACE)) == (3, space_id)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "put aside" in line
    assert "\n" not in line
    assert (tmp_path / "vectors.sqlite3.broken").exists()
