"""Search every file under a folder for texts: in its bytes and in its name."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from domain.identity import file_name


def spellings(text: str) -> set[bytes]:
    """Return the byte forms that a text may have in a file: as it is, escaped in JSON, as a file name."""
    escaped = json.dumps(text)[1:-1]
    return {
        text.encode(),
        json.dumps(text, ensure_ascii=False)[1:-1].encode(),
        escaped.encode(),
        file_name(text).encode(),
    }


def traces(folder: Path, texts: Iterable[str]) -> list[tuple[str, bytes]]:
    """Return the file and the bytes of each place where one of ``texts`` is found."""
    wanted = {spelling for text in texts for spelling in spellings(text)}
    found = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder)).encode()
        content = path.read_bytes() if path.is_file() else b""
        found += [(str(path.relative_to(folder)), word[:80]) for word in wanted if word in content or word in name]
    return found
