"""ChatGPT's export is read as it is sent: what was said, on the branch that was shown, and nothing else."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from domain.errors import InvalidInput
from service.importing.chatgpt import read_chatgpt
from service.importing.exchanges import Conversation, Exchange
from service.importing.formats import Format, format_of
from tests.service.importing.exports import BEGUN, NOON, chatgpt, node, tree, written, zipped


def test_the_branch_last_shown_is_read(tmp_path: Path) -> None:
    at = NOON.timestamp()
    exported = tree(
        node("root", None),
        node("sys", "root", "system", "Be kind."),
        node("q", "sys", "user", "Where?", at=at),
        node("old", "q", "assistant", "To Rome."),
        node("think", "q", "assistant", "Hm.", kind="thoughts"),
        node("call", "think", "assistant", "search()", recipient="browser"),
        node("tool", "call", "tool", "found"),
        node("a", "tool", "assistant", "To Lisbon."),
        node("q2", "a", "user", [{"asset_pointer": "file"}, "And this?"], kind="multimodal_text"),
        current="q2",
    )
    parsed = read_chatgpt(written(tmp_path / "conversations.json", [exported]))
    assert parsed.conversations == [
        Conversation(
            "conv-1",
            [
                Exchange("Where?", "To Lisbon.", NOON, source_ids=("q", "a")),
                Exchange("And this?", "", BEGUN, source_ids=("q2",)),
            ],
        )
    ]
    assert +parsed.skipped == {
        "system messages": 1,
        "tool messages": 1,
        "tool calls and thoughts": 2,
        "images and files": 1,
        "messages of other branches": 1,
    }


def test_without_a_current_node_the_newest_leaf_counts(tmp_path: Path) -> None:
    exported = tree(
        {**node("q", None, "user", "Where?"), "children": ["a", "b"]},
        node("a", "q", "assistant", "Late.", at=NOON.timestamp() + 9),
        node("b", "q", "assistant", "Early.", at=NOON.timestamp()),
        current=None,
    )
    [conversation] = read_chatgpt(written(tmp_path / "c.json", [exported])).conversations
    assert conversation.exchanges[0].assistant == "Late."


@pytest.mark.parametrize(
    ("exported", "named"),
    [
        ([{"id": "x"}], "conversation 1 = \"no 'mapping'\""),
        ([5], "conversation 1"),
        ([tree(node("a", "a", "user", "x"), current="a")], "conversation 1: node = 'a'"),
        ([tree(node("a", "gone", "user", "x"), current="a")], "node = 'gone'"),
        ([tree(node("a", None, "user", "x"), current="a", id=None)], "conversation id = None"),
        ("[{", "line 1"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, exported: Any, named: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        read_chatgpt(written(tmp_path / "conversations.json", exported))
    assert named in str(raised.value)
    assert str(raised.value).startswith("conversations.json")


PARTS = {
    "conversations-000.json": [chatgpt("a", "Where?", "To Lisbon.")],
    "conversations-001.json": [chatgpt("b", "When?", "In May.")],
}
BESIDE = {
    "chat.html": "<html>",
    "user.json": {"id": "u", "email": "ann@example.org"},
    "shared_conversations.json": [{"id": "s", "conversation_id": "a", "is_anonymous": True}],
    "__MACOSX/._conversations-000.json": "Mac OS X",
}


def test_a_split_export_is_read_from_its_zip_from_a_folder_and_by_file(tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    for name, content in PARTS.items():
        written(folder / "export" / name, content)
    written(folder / "export" / "user.json", BESIDE["user.json"])
    in_zip = zipped(tmp_path / "export.zip", {**BESIDE, **{f"export/{name}": part for name, part in PARTS.items()}})
    (tmp_path / "zips").mkdir()
    zipped(tmp_path / "zips" / "export.zip", PARTS)
    for path in (in_zip, folder, tmp_path / "zips"):
        assert format_of(path, "ann") is Format.CHATGPT
        parsed = read_chatgpt(path)
        assert [c.conversation_id for c in parsed.conversations] == ["a", "b"]
        assert parsed.unread == []
    assert len(read_chatgpt(folder / "export" / "conversations-001.json").conversations) == 1


def test_a_conversation_in_two_exports_comes_once(tmp_path: Path) -> None:
    written(tmp_path / "old" / "conversations.json", [chatgpt("a", "Where?", "To Lisbon.")])
    written(tmp_path / "new" / "conversations.json", [chatgpt("a", "Where?", "To Lisbon.", "When?", "In May.")])
    [conversation] = read_chatgpt(tmp_path).conversations
    assert sorted(exchange.user for exchange in conversation.exchanges) == ["When?", "Where?"]


def test_an_odd_conversation_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    odd = [{"id": "x", "title": "Broken one"}, None, tree(node("a", "a", "user", "x"), current="a", title=None)]
    exported = [odd[0], chatgpt("a", "Where?", "To Lisbon."), *odd[1:]]
    path = written(tmp_path / "conversations.json", exported)
    assert format_of(path, "ann") is Format.CHATGPT
    parsed = read_chatgpt(path)
    assert [c.conversation_id for c in parsed.conversations] == ["a"]
    assert [line.split(" = ")[0] for line in parsed.unread] == [
        "'Broken one': conversations.json, conversation 1",
        "conversations.json, conversation 3",
        "conversations.json, conversation 4: node",
    ]


def test_a_damaged_part_of_an_export_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "export.zip", {**PARTS, "conversations-000.json": "[{"})
    assert format_of(path, "ann") is Format.CHATGPT
    parsed = read_chatgpt(path)
    assert [c.conversation_id for c in parsed.conversations] == ["b"]
    assert [line.split(" = ")[0] for line in parsed.unread] == ["export.zip/conversations-000.json, line 1"]


def test_messages_without_an_author_or_content_spoil_nothing(tmp_path: Path) -> None:
    nobody = node("n", "q", "x", "?")
    nobody["message"]["author"] = None
    nameless = node("m", "n", "x", "?")
    nameless["message"]["author"] = {"role": None}
    empty = node("e", "m", "assistant", "x")
    empty["message"]["content"] = None
    exported = tree(
        node("q", None, "user", "Where?"), nobody, nameless, empty, node("a", "e", "assistant", ["To ", None, "Rome"]),
        current="a", title=None,
    )  # fmt: skip
    parsed = read_chatgpt(written(tmp_path / "c.json", [exported]))
    [exchange] = parsed.conversations[0].exchanges
    assert (exchange.user, exchange.assistant) == ("Where?", "To \nRome")
    assert +parsed.skipped == {"messages without an author": 2}


@pytest.mark.parametrize(
    ("at", "read"),
    [
        (NOON.timestamp(), NOON),
        (NOON.timestamp() * 1000, NOON),
        (str(NOON.timestamp()), NOON),
        ("2023-05-04T12:00:00Z", NOON),
        ("2023-05-04T14:00:00.000000+02:00", NOON),
        (None, BEGUN),
        (0, BEGUN),
        (-1, BEGUN),
        (9999, BEGUN),
        (1e300, BEGUN),
        (float("nan"), BEGUN),
        (True, BEGUN),
        ("soon", BEGUN),
        ("0001-01-01T00:00:00Z", BEGUN),
        ("0001-01-01T00:00:00+14:00", BEGUN),
        ("9999-12-31T23:59:59-12:00", BEGUN),
        ([], BEGUN),
    ],
)
def test_times_of_every_kind_and_absurd_ones(tmp_path: Path, at: Any, read: datetime) -> None:
    exported = tree(node("q", None, "user", "Where?", at=at), node("a", "q", "assistant", "Rome."), current="a")
    [exchange] = read_chatgpt(written(tmp_path / "c.json", [exported])).conversations[0].exchanges
    assert exchange.ts == read


def test_a_conversation_without_any_time_has_none(tmp_path: Path) -> None:
    exported = tree(node("q", None, "user", "Where?", at=0), current="q", create_time="never", update_time=None)
    [exchange] = read_chatgpt(written(tmp_path / "c.json", [exported])).conversations[0].exchanges
    assert exchange.ts is None


def test_what_was_spoken_is_kept_and_recordings_are_counted(tmp_path: Path) -> None:
    def spoken(text: str, direction: str) -> list[Any]:
        pointer = {"content_type": "real_time_user_audio_video_asset_pointer", "audio_asset_pointer": {"format": "wav"}}
        return [{"content_type": "audio_transcription", "text": text, "direction": direction}, pointer]

    exported = tree(
        node("q", None, "user", spoken("Where shall we go?", "in"), kind="multimodal_text"),
        node("a", "q", "assistant", spoken("To Rome.", "out"), kind="multimodal_text"),
        node("q2", "a", "user", ["And this?", {"content_type": "image_asset_pointer"}], kind="multimodal_text"),
        current="q2",
    )
    parsed = read_chatgpt(written(tmp_path / "c.json", [exported]))
    said = [(exchange.user, exchange.assistant) for exchange in parsed.conversations[0].exchanges]
    assert said == [("Where shall we go?", "To Rome."), ("And this?", "")]
    assert +parsed.skipped == {"images and files": 3}


def test_hidden_texts_tools_and_thoughts_are_nobodys_words(tmp_path: Path) -> None:
    hidden = {"is_visually_hidden_from_conversation": True}
    context = node("ctx", None, "user", "", metadata=hidden)
    context["message"]["content"] = {"content_type": "user_editable_context", "user_profile": "An engineer."}
    exported = tree(
        context,
        node("old", "ctx", "user", "I am an engineer.", metadata={"is_user_system_message": True}),
        node("q", "old", "user", "Where?"),
        node("think", "q", "assistant", "Hm.", channel="analysis"),
        node("call", "think", "assistant", '{"q": "rome"}', recipient="web"),
        node("code", "call", "assistant", "search()", kind="code"),
        node("tool", "code", "tool", "Found it."),
        node("note", "tool", "assistant", "A hidden note.", metadata=hidden),
        node("a", "note", "assistant", "To Rome.", recipient=None),
        current="a",
    )
    parsed = read_chatgpt(written(tmp_path / "c.json", [exported]))
    [exchange] = parsed.conversations[0].exchanges
    assert (exchange.user, exchange.assistant) == ("Where?", "To Rome.")
    assert +parsed.skipped == {"hidden messages": 3, "tool calls and thoughts": 3, "tool messages": 1}


def test_a_current_node_that_is_not_there_gives_way_to_the_newest_leaf(tmp_path: Path) -> None:
    exported = tree(node("q", None, "user", "Where?"), node("a", "q", "assistant", "Rome."), current="gone")
    del exported["mapping"]["a"]["children"], exported["mapping"]["q"]["children"]  # as newer exports have it
    [exchange] = read_chatgpt(written(tmp_path / "c.json", [exported])).conversations[0].exchanges
    assert exchange.assistant == "Rome."
