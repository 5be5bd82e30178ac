"""What a power cut leaves of a folder, from the journal that ``disk_shim.c`` has written.

The model is that of a journaling file system that keeps no promise it did not make. What was written to a file before
its last sync is there. Of what came later, each write is there, or missing, or torn at a sector, independently of the
others. Names (creations, renames, removals) come in order: those before the last sync of their folder are there, and of
the others a beginning. The sync of a file keeps its own creation too.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_HEAD = struct.Struct("<cHHQI")
_SECTOR = 512
_SOURCE = Path(__file__).with_name("disk_shim.c")


def build_shim(folder: Path) -> Path | None:
    """Compile the library into ``folder``; return None where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / "disk_shim.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl", "-lpthread"]
    subprocess.run(command, check=True, capture_output=True)
    return library


def shim_environment(library: Path, root: Path, journal: Path, fail: Path | None = None) -> dict[str, str]:
    """Return the variables under which a process is watched, and fails as ``fail`` says."""
    given = {"LD_PRELOAD": str(library), "FAULTS_ROOT": str(root), "FAULTS_JOURNAL": str(journal)}
    return given | ({"FAULTS_FAIL": str(fail)} if fail is not None else {})


class Entry(NamedTuple):
    """One thing that was done. ``end`` is the size of the journal with it: a moment in time."""

    end: int
    kind: str
    path: str
    other: str
    offset: int
    data: bytes


def entries(journal: Path) -> Iterator[Entry]:
    """Yield the entries of a journal; the process may have died in the middle of the last one."""
    with journal.open("rb") as file:
        end = 0
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            kind, path_length, other_length, offset, length = _HEAD.unpack(head)
            body = file.read(path_length + other_length + length)
            if len(body) < path_length + other_length + length:
                return
            end += _HEAD.size + len(body)
            path, other = body[:path_length].decode(), body[path_length : path_length + other_length].decode()
            yield Entry(end, kind.decode(), path, other, offset, body[path_length + other_length :])


@dataclass
class _File:
    """A file's content as it is on the disk for certain, and the writes after that."""

    synced: bytearray = field(default_factory=bytearray)
    pending: list[Entry] = field(default_factory=list)


class Disk:
    """The state of a folder after the entries taken so far."""

    def __init__(self) -> None:
        self._names: dict[str, _File] = {}
        self._kept_names: dict[str, _File] = {}
        self._pending: list[tuple[Entry, _File | None]] = []

    def take(self, entry: Entry) -> None:
        match entry.kind:
            case "W" | "T":
                self._named(entry.path).pending.append(entry)
            case "S" | "F":
                self._sync(entry)
            case "C":
                file = self._names[entry.path] = _File()
                self._pending.append((entry, file))
            case "R" | "U":
                self._pending.append((entry, None))
                _apply(self._names, entry, None)
            case "D":
                here = [item for item in self._pending if _folder(item[0].other or item[0].path) == _normal(entry.path)]
                self._keep(here)

    def after_power_cut(self, folder: Path, rng: random.Random) -> None:
        """Write into ``folder`` what a power cut now could leave."""
        names = dict(self._kept_names)
        for entry, file in self._pending[: rng.randint(0, len(self._pending))]:
            _apply(names, entry, file)
        for path, file in names.items():
            content = bytearray(file.synced)
            for entry in file.pending:
                torn = _torn(entry, rng)
                if torn is not None:
                    _write(content, torn)
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

    def _named(self, path: str) -> _File:
        if path not in self._names:
            # Opened before it was watched, or renamed with its folder while it was open.
            self._names[path] = self._kept_names[path] = _File()
        return self._names[path]

    def _sync(self, entry: Entry) -> None:
        file = self._named(entry.path)
        if entry.kind == "F":
            file.synced = bytearray(entry.data)
        else:
            for written in file.pending:
                _write(file.synced, written)
        file.pending.clear()
        self._keep([item for item in self._pending if item[0].kind == "C" and item[1] is file])

    def _keep(self, items: list[tuple[Entry, _File | None]]) -> None:
        for item in items:
            self._pending.remove(item)
            _apply(self._kept_names, *item)


def _apply(names: dict[str, _File], entry: Entry, file: _File | None) -> None:
    if entry.kind == "C":
        assert file is not None
        names[entry.path] = file
    elif entry.kind == "U":
        for path in _at_or_below(names, entry.path):
            del names[path]
    elif entry.kind == "R":
        moved = {entry.other + path[len(entry.path) :]: names[path] for path in _at_or_below(names, entry.path)}
        for path in _at_or_below(names, entry.path):
            del names[path]
        names |= moved


def _at_or_below(names: dict[str, _File], path: str) -> list[str]:
    return [name for name in names if name == path or name.startswith(f"{path}/")]


def _write(content: bytearray, entry: Entry) -> None:
    if entry.kind == "T":
        size = entry.offset
        del content[size:]
        content.extend(bytes(size - len(content)))
        return
    content.extend(bytes(max(entry.offset - len(content), 0)))
    content[entry.offset : entry.offset + len(entry.data)] = entry.data


def _torn(entry: Entry, rng: random.Random) -> Entry | None:
    """Return what of an unsynced write is on the disk: all of it, a beginning, or nothing."""
    luck = rng.random()
    if entry.kind == "T" or luck < 0.5:
        return entry if luck < 0.75 else None
    if luck < 0.75 and len(entry.data) > _SECTOR:
        return entry._replace(data=entry.data[: rng.randrange(0, len(entry.data), _SECTOR)])
    return None


def _normal(path: str) -> str:
    return "" if path == "." else path


def _folder(path: str) -> str:
    return os.path.dirname(path)  # noqa: PTH120 - a name in the journal, not a path of this machine
