"""The JSON documents at a path: a file, what is in a ZIP, or what is in a folder.

ChatGPT and Claude send a ZIP with ``conversations.json``, or with ``conversations-000.json`` and so on, beside files of
other things. Where such names are, only they are read; else every JSON file is.
"""

from __future__ import annotations

import lzma
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from domain.errors import InvalidInput
from service.importing.exchanges import Conversation, ParsedImport, named, parsed_json, read_bytes
from service.importing.unsupported import what_it_is

_CONVERSATIONS = re.compile(r"conversations(-\d+)?\.json", re.IGNORECASE)
_TITLE_CHARS = 60
_UNPACKED_BYTES_MAX = 1 << 30
"""What a ZIP may hold in all. A small one can claim to hold a million times its size."""
_BAD_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,  # an unknown compression
    RuntimeError,  # a password
)
_NAMES_SHOWN = 6

ParseConversation = Callable[[str, dict[str, Any], Counter[str]], Conversation | None]
"""Makes a conversation of an item at a place, counting what it leaves out; None if nobody asked anything in it."""


def documents(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each JSON document at a path, in the order of the names.

    In the place of a document that cannot be read stands an :class:`InvalidInput` that says why. One is raised where
    there are no documents.
    """
    found = False
    for name, content in _contents(path):
        found = True
        try:
            yield name, _document(name, content) if isinstance(content, bytes) else content
        except InvalidInput as error:
            yield name, error
    if not found:
        raise InvalidInput("PATH", str(path), "give a ZIP or a folder with JSON files in it")


def holds_documents(folder: Path) -> bool:
    """Tell whether a folder holds an export: conversations in JSON, or other JSON files or ZIPs.

    A folder of the earlier layout may have such other files too.
    """
    earlier = any((folder / name).is_dir() for name in ("users", "conversations"))
    return bool(_conversation_files(folder) or (_files(folder) and not earlier))


def conversations_of(
    path: Path, source: str, parse: ParseConversation, person: Callable[[dict[str, Any]], Any] = lambda _: None
) -> ParsedImport:
    """Parse every conversation of an export.

    One that ``parse`` refuses with :class:`InvalidInput` is named in ``unread`` and the others are read; where none can
    be read, the first error is raised. So is one for an export of several people, by the ids that ``person`` returns.
    """
    parsed = ParsedImport(source)
    found: dict[str, Conversation] = {}
    people: set[str | None] = set()
    errors: list[InvalidInput] = []
    read = 0
    for file, whole in documents(path):
        if isinstance(whole, InvalidInput):
            errors.append(whole)
            parsed.unread.append(str(whole))
            continue
        for number, item in enumerate(whole if isinstance(whole, list) else [whole], start=1):
            where = f"{file}, conversation {number}"
            skipped: Counter[str] = Counter()
            try:
                fields = _object(where, item)
                people.add(named(person(fields)))
                conversation = parse(where, fields, skipped)
            except InvalidInput as error:
                errors.append(error)
                parsed.unread.append(f"{_titled(item)}{error}")
                continue
            read += 1
            parsed.skipped += skipped
            if conversation is not None:
                name = conversation.conversation_id
                found[name] = _joined(found[name], conversation) if name in found else conversation
            else:
                parsed.skipped["conversations without a question"] += 1
    if errors and not read:
        raise errors[0]
    only_one_person(path, people)
    parsed.conversations = list(found.values())
    if beside := _beside(path):
        more = f" and {len(beside) - _NAMES_SHOWN} more" if len(beside) > _NAMES_SHOWN else ""
        parsed.notes.append(f"not read, since only conversations are: {', '.join(beside[:_NAMES_SHOWN])}{more}")
    return parsed


def only_one_person(path: Path, people: Iterable[str | None]) -> None:
    """Refuse an export of several people: raise :class:`InvalidInput` where their ids differ."""
    known = sorted({name for name in people if name is not None})
    if len(known) > 1:
        raise InvalidInput(
            "PATH", path.name, f"give the export of one person, this one is of {len(known)}: {', '.join(known)}"
        )


def _document(name: str, content: bytes) -> Any:
    """Return the JSON of a file; raise :class:`InvalidInput` with the line of an error, or what the file looks like."""
    if (known := what_it_is(content)) is not None:
        raise InvalidInput("PATH", name, known)
    return parsed_json(name, content)


def _object(where: str, item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise InvalidInput(where, type(item).__name__, "give an object")
    return item


def _titled(item: Any) -> str:
    """Return a conversation's title as the beginning of a line about it."""
    title = next((item[key] for key in ("title", "name") if item.get(key)), None) if isinstance(item, dict) else None
    return f"{title[:_TITLE_CHARS]!r}: " if isinstance(title, str) else ""


def _joined(one: Conversation, other: Conversation) -> Conversation:
    """Return a conversation that stands in two exports, with the exchanges of both."""
    known = {exchange.source_ids for exchange in one.exchanges} - {()}
    added = [exchange for exchange in other.exchanges if exchange.source_ids not in known]
    return Conversation(one.conversation_id, [*one.exchanges, *added])


def _contents(path: Path) -> Iterator[tuple[str, bytes | InvalidInput]]:
    if path.is_dir():
        for file in _files(path):
            yield from _contents(file)
    elif zipfile.is_zipfile(path):
        yield from _zipped(path)
    else:
        try:
            yield path.name, read_bytes(path)
        except InvalidInput as error:
            yield path.name, error


def _beside(path: Path) -> list[str]:
    """Return the names of JSON files that stand beside the conversations of an export."""
    if path.is_dir():
        read = _files(path)
        names = {file.name for file in path.glob("*.json")} - {file.name for file in read}
        return sorted(names.union(*(_beside(file) for file in read if file.suffix == ".zip")))
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        members = _members(archive)
    return [PurePosixPath(name).name for name in members if name not in _chosen(members)]


def _files(folder: Path) -> list[Path]:
    return sorted(_conversation_files(folder) or _own(folder.glob("*.zip")) or _own(folder.glob("*.json")))


def _own(found: Iterable[Path]) -> list[Path]:
    """Return the files among what was found: a link may lead to a device, which never ends."""
    return [path for path in found if path.is_file()]


def _conversation_files(folder: Path) -> list[Path]:
    return [file for file in _own(folder.rglob("*.json")) if _CONVERSATIONS.fullmatch(file.name)]


def _zipped(path: Path) -> Iterator[tuple[str, bytes | InvalidInput]]:
    room = _UNPACKED_BYTES_MAX
    try:
        archive = zipfile.ZipFile(path)
    except _BAD_ZIP as error:
        yield path.name, _damaged(path.name, error)
        return
    with archive:
        for name in _chosen(_members(archive)):
            place = f"{path.name}/{name}"
            try:
                with archive.open(name) as member:
                    content = member.read(room + 1)
            except _BAD_ZIP as error:
                yield place, _damaged(place, error)
                continue
            if len(content) > room:
                yield place, InvalidInput("PATH", place, f"give a ZIP that holds at most {_UNPACKED_BYTES_MAX} bytes")
                return
            room -= len(content)
            yield place, content


def _damaged(place: str, error: Exception) -> InvalidInput:
    return InvalidInput("PATH", place, f"give a ZIP that can be read ({error})")


def _members(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the JSON files in a ZIP."""
    members = [name for name in sorted(archive.namelist()) if name.lower().endswith(".json")]
    return [name for name in members if not PurePosixPath(name).name.startswith("._")]  # made by macOS


def _chosen(members: list[str]) -> list[str]:
    """Return those that hold conversations by their names, all where none does."""
    return [name for name in members if _CONVERSATIONS.fullmatch(PurePosixPath(name).name)] or members
