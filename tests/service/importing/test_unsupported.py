"""What cannot be imported is named by what it looks like, and no content makes a reader stumble."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInput
from service.importing.chatgpt import read_chatgpt
from service.importing.claude import read_claude
from service.importing.deepseek import read_deepseek
from service.importing.exchanges import ParsedImport
from service.importing.formats import Format, format_of
from service.importing.librechat import read_librechat
from service.importing.mem0 import read_mem0
from service.importing.open_webui import read_open_webui
from tests.service.importing.exports import chatgpt, claude, deepseek, librechat, mem0, open_webui, written, zipped

GROK = {"conversations": [{"conversation": {"id": "a"}, "responses": []}], "projects": []}
SILLY = [
    {"user_name": "Ann", "character_name": "Cat", "chat_metadata": {}},
    {"name": "Ann", "is_user": True, "mes": "x"},
]


@pytest.mark.parametrize(
    ("name", "content", "looks_like"),
    [
        ("chat.jsonl", SILLY, "a SillyTavern chat file (JSONL); not supported: "),
        ("grok.json", GROK, "a Grok export; not supported: "),
        ("takeout.json", [{"header": "Gemini Apps", "title": "Prompted x", "titleUrl": "x"}], "a Gemini export"),
        ("ui.json", {"version": 4, "history": [], "folders": [], "prompts": []}, "a Chatbot UI export"),
        ("log.json", {"internal": [["a", "b"]], "visible": [["a", "b"]]}, "a chat of text-generation-webui"),
        ("session.jsonl", [{"type": "user", "sessionId": "x", "message": {}}], "a session of Claude Code (JSONL)"),
        (
            "user.json",
            {"id": "u", "email": "ann@example.org"},
            "the account data of an export; not supported: give the",
        ),
        ("chat.html", "<!DOCTYPE html>", "a web page (ChatGPT's chat.html?); not supported: give the ZIP"),
        ("notes.md", "# Notes", "a text file (Markdown, CSV or a log)"),
        ("notes.jsonl", "Ann: hello", "a text file (Markdown, CSV or a log)"),
        ("memories.json", "{'results': [{'id': 'x'}]}", "what Python prints of a value; not supported: write it with"),
        ("x.json", {"colour": "red", "size": 5}, "nothing that is known here (an object with colour, size)"),
        ("x.json", 5, "a text file"),
    ],
)
def test_it_is_named(tmp_path: Path, name: str, content: Any, looks_like: str) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(InvalidInput) as raised:
        format_of(path, "ann")
    assert f"PATH = '{name}': this looks like {looks_like}" in str(raised.value)


def test_files_of_bytes_are_named(tmp_path: Path) -> None:
    database = tmp_path / "webui.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE chat (id)")
    connection.close()
    export = zipped(tmp_path / "export.zip", {"conversations.json": [chatgpt("a", "Where?")]})
    cut = tmp_path / "cut.zip"
    cut.write_bytes(export.read_bytes()[:-30])
    packed = tmp_path / "export.tar.gz"
    packed.write_bytes(b"\x1f\x8b\x08\x00")
    for path, looks_like in (
        (database, "a SQLite database"),
        (cut, "a damaged ZIP"),
        (packed, "a PDF or a compressed"),
    ):
        with pytest.raises(InvalidInput, match=f"this looks like {looks_like}"):
            format_of(path, "ann")


@pytest.mark.parametrize("content", ["[" * 5000, "[" + "1" * 5000, "[{"])
def test_json_that_cannot_be_read_names_its_file(tmp_path: Path, content: str) -> None:
    for name in ("x.json", "x.jsonl"):
        with pytest.raises(InvalidInput, match=r"x\.json"):
            format_of(written(tmp_path / name, [content] if name == "x.jsonl" else content), "ann")


def test_a_zip_or_folder_of_other_things(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"give a ZIP or a folder with JSON files in it"):
        format_of(zipped(tmp_path / "pictures.zip", {"cat.png": "x"}), "ann")
    broken = zipped(tmp_path / "broken.zip", {"conversations.json": "x" * 200})
    broken.write_bytes(broken.read_bytes().replace(b"x" * 9, b"y" * 9))
    with pytest.raises(InvalidInput, match=r"give a ZIP that can be read \(Bad CRC-32"):
        format_of(broken, "ann")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="users/<id>/conversations"):
        format_of(tmp_path / "empty", "ann")


def test_a_file_in_utf_16_is_read(tmp_path: Path) -> None:
    path = tmp_path / "memories.json"
    path.write_bytes(json.dumps([mem0("m1", "喜欢金枪鱼")], ensure_ascii=False).encode("utf-16"))
    assert format_of(path, "ann") is Format.MEM0
    assert read_mem0(path).conversations[0].exchanges[0].user == "喜欢金枪鱼"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**18) | st.floats() | st.sampled_from(("", "a-0", "x", "\ud800")),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("id", "text", "a-0")), inner, max_size=2)
    ),
    max_leaves=4,
)
READERS: dict[str, tuple[Callable[[Path], ParsedImport], Any]] = {
    "chatgpt": (read_chatgpt, [chatgpt("a", "Where?", "To Lisbon.")]),
    "claude": (read_claude, [claude("a", "Where?", "To Lisbon.")]),
    "deepseek": (read_deepseek, [deepseek("a", "Where?", "To Lisbon.")]),
    "openwebui": (read_open_webui, [open_webui("a", "Where?", "To Lisbon.")]),
    "librechat": (read_librechat, [librechat("a", "Where?", "To Lisbon.")]),
    "mem0": (read_mem0, [mem0("m1", "Likes tuna")]),
}


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every container in a value with each of its keys."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_in_any_place_is_read_or_refused_by_name(tmp_path: Path, name: str, data: st.DataObject) -> None:
    read, export = READERS[name]
    changed = json.loads(json.dumps(export))
    container, key = data.draw(st.sampled_from(places(changed)))
    container[key] = data.draw(ANYTHING)
    path = tmp_path / "export.json"
    path.write_text(json.dumps(changed))
    try:
        parsed = read(path)
    except InvalidInput as error:
        parsed = ParsedImport(name, unread=[str(error)])
    assert all("export.json" in line for line in parsed.unread)
    for conversation in parsed.conversations:
        for exchange in conversation.exchanges:
            (exchange.user + exchange.assistant).encode()
            assert exchange.ts is None or 1990 <= exchange.ts.year <= 2099
