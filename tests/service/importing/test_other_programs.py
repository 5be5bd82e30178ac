"""Exports of Claude, DeepSeek, Open WebUI, LibreChat and mem0: the branch that was shown, and only what was said."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.errors import InvalidInput
from service.importing.chatgpt import read_chatgpt
from service.importing.claude import read_claude
from service.importing.deepseek import read_deepseek
from service.importing.exchanges import Conversation, Exchange, ParsedImport
from service.importing.formats import Format, format_of
from service.importing.librechat import read_librechat
from service.importing.mem0 import read_mem0
from service.importing.open_webui import read_open_webui
from tests.service.importing.exports import (
    NOON,
    chatgpt,
    claude,
    deepseek,
    librechat,
    mem0,
    open_webui,
    written,
    zipped,
)

Make = Callable[..., dict[str, Any]]
Read = Callable[[Path], ParsedImport]
PROGRAMS: list[tuple[Make, Read, Format]] = [
    (chatgpt, read_chatgpt, Format.CHATGPT),
    (claude, read_claude, Format.CLAUDE),
    (deepseek, read_deepseek, Format.DEEPSEEK),
    (open_webui, read_open_webui, Format.OPENWEBUI),
    (librechat, read_librechat, Format.LIBRECHAT),
]


def said(parsed: ParsedImport) -> list[tuple[str, str]]:
    return [(each.user, each.assistant) for conversation in parsed.conversations for each in conversation.exchanges]


@pytest.mark.parametrize(("make", "read", "kind"), PROGRAMS)
class TestEveryProgram:
    def test_a_conversation_is_read(self, tmp_path: Path, make: Make, read: Read, kind: Format) -> None:
        path = written(tmp_path / "export.json", [make("a", "Where?", "To Lisbon.", "When?")])
        assert format_of(path, "ann") is kind
        exchanges = [
            Exchange("Where?", "To Lisbon.", NOON, source_ids=("a-0", "a-1")),
            Exchange("When?", "", NOON + timedelta(seconds=2 if kind is Format.OPENWEBUI else 120), None, ("a-2",)),
        ]
        assert read(path).conversations == [Conversation("a", exchanges)]
        assert +read(path).skipped == {}

    def test_a_single_one_and_a_zip(self, tmp_path: Path, make: Make, read: Read, kind: Format) -> None:
        one = make("a", "Where?", "To Lisbon.")
        for path in (
            written(tmp_path / "one.json", one),
            zipped(tmp_path / "export.zip", {"conversations.json": [one], "users.json": [{"email_address": "x"}]}),
        ):
            assert format_of(path, "ann") is kind
            assert said(read(path)) == [("Where?", "To Lisbon.")]

    def test_an_odd_one_is_named(self, tmp_path: Path, make: Make, read: Read, kind: Format) -> None:
        odd = {"title": "Broken one", "id": "x"}
        path = written(tmp_path / "export.json", [odd, make("a", "Where?", "To Lisbon."), 5])
        assert format_of(path, "ann") is kind
        parsed = read(path)
        assert said(parsed) == [("Where?", "To Lisbon.")]
        assert [line.partition(" = ")[0] for line in parsed.unread] == [
            "'Broken one': export.json, conversation 1",
            "export.json, conversation 3",
        ]

    def test_an_empty_one_is_counted(self, tmp_path: Path, make: Make, read: Read, kind: Format) -> None:
        parsed = read(written(tmp_path / f"{kind}.json", [make("a"), make("b", "Where?")]))
        assert said(parsed) == [("Where?", "")]
        assert +parsed.skipped == {"conversations without a question": 1}


class TestClaude:
    def test_blocks_of_text_are_said_and_tools_and_thoughts_are_not(self, tmp_path: Path) -> None:
        conversation = claude("a", "Where?", "This block is not supported on your current device yet.")
        conversation["chat_messages"][1]["content"] = [
            {"type": "thinking", "thinking": "Hm."},
            {"type": "tool_use", "name": "web_search", "input": {}},
            {"type": "tool_result", "content": [{"type": "text", "text": "found"}]},
            {"type": "text", "text": "To Lisbon."},
        ]
        parsed = read_claude(written(tmp_path / "c.json", [conversation]))
        assert said(parsed) == [("Where?", "To Lisbon.")]
        assert +parsed.skipped == {"tool calls and thoughts": 3}

    def test_a_message_without_blocks_and_a_paste_without_a_text(self, tmp_path: Path) -> None:
        conversation = claude("a", "Where?", "To Lisbon.", "", "I see.")
        del conversation["chat_messages"][0]["content"]
        conversation["chat_messages"][1]["content"] = []
        pasted = {"file_name": "", "file_type": "txt", "extracted_content": "A long paste."}
        conversation["chat_messages"][2] |= {"content": [], "attachments": [pasted]}
        conversation["chat_messages"][3]["files"] = [{"file_name": "map.png"}]
        parsed = read_claude(written(tmp_path / "c.json", [conversation]))
        assert said(parsed) == [("Where?", "To Lisbon."), ("A long paste.", "I see.")]
        assert +parsed.skipped == {"images and files": 1}

    @pytest.mark.parametrize(("leaf", "answer"), [(None, "To Rome."), ("a-1", "To Lisbon.")])
    def test_the_branch_shown_last_where_messages_name_their_parents(
        self, tmp_path: Path, leaf: str | None, answer: str
    ) -> None:
        conversation = claude("a", "Where?", "To Lisbon.", current_leaf_message_uuid=leaf)
        asked, answered = conversation["chat_messages"]
        asked["parent_message_uuid"] = "00000000-0000-4000-8000-000000000000"
        answered["parent_message_uuid"] = "a-0"
        again = {**copy.deepcopy(answered), "uuid": "a-2", "content": [{"type": "text", "text": "To Rome."}]}
        conversation["chat_messages"].append({**again, "created_at": (NOON + timedelta(hours=1)).isoformat()})
        parsed = read_claude(written(tmp_path / "c.json", [conversation]))
        assert said(parsed) == [("Where?", answer)]
        assert +parsed.skipped == {"messages of other branches": 1}

    def test_the_export_of_several_accounts_is_refused(self, tmp_path: Path) -> None:
        others = [claude("a", "Where?"), claude("b", "When?", account={"uuid": "account-2"})]
        with pytest.raises(InvalidInput, match="this one is of 2: account-1, account-2"):
            read_claude(written(tmp_path / "c.json", others))


class TestDeepSeek:
    def test_thoughts_searches_and_citations_are_nobodys_words(self, tmp_path: Path) -> None:
        export = deepseek("a", "What is new?", "Tuna is back[citation:1][citation:2]. See [1].")
        answer = export["mapping"]["a-1"]["message"]
        answer["fragments"] = [
            {"type": "SEARCH", "results": [{"url": "https://example.org"}]},
            {"type": "THINK", "content": "Fish, then."},
            *answer["fragments"],
            {"type": "RESPONSE", "content": "And cheap."},
        ]
        export["mapping"]["a-0"]["message"]["files"] = [{"file_name": "cat.png"}]
        parsed = read_deepseek(written(tmp_path / "conversations.json", [export]))
        assert said(parsed) == [("What is new?", "Tuna is back. See [1].\n\nAnd cheap.")]
        assert +parsed.skipped == {"tool calls and thoughts": 2, "images and files": 1}

    def test_the_newest_branch_is_the_conversation(self, tmp_path: Path) -> None:
        export = deepseek("a", "Where?", "To Lisbon.", "When?")
        other = copy.deepcopy(export["mapping"]["a-1"])
        other["id"] = "a-9"
        other["message"]["fragments"] = [{"id": 1, "type": "RESPONSE", "content": "To Rome."}]
        other["message"]["inserted_at"] = (NOON + timedelta(hours=1)).isoformat()
        export["mapping"]["a-9"] = other
        parsed = read_deepseek(written(tmp_path / "conversations.json", [export]))
        assert said(parsed) == [("Where?", "To Rome.")]
        assert +parsed.skipped == {"messages of other branches": 2}


class TestOpenWebUi:
    def test_the_branch_where_the_chat_was_left(self, tmp_path: Path) -> None:
        chat = open_webui("a", "Where?", "To Lisbon.")
        messages = chat["chat"]["history"]["messages"]
        messages["late"] = {**messages["a-1"], "id": "late", "content": "To Rome.", "timestamp": 1_900_000_000}
        messages["sys"] = {"id": "sys", "parentId": None, "role": "system", "content": "Be kind."}
        messages["a-0"]["parentId"] = "sys"
        parsed = read_open_webui(written(tmp_path / "c.json", [chat]))
        assert said(parsed) == [("Where?", "To Lisbon.")]
        assert +parsed.skipped == {"messages of other branches": 1, "system messages": 1}
        chat["chat"]["history"]["currentId"] = None
        assert said(read_open_webui(written(tmp_path / "c.json", [chat]))) == [("Where?", "To Rome.")]

    def test_reasoning_and_tools_are_no_answer_and_the_output_is_one(self, tmp_path: Path) -> None:
        chat = open_webui("a", "How much?", '<details type="reasoning" done="true"><summary>T</summary>Hm</details>255')
        other = open_webui("b", "How many?", "")
        output = [
            {"type": "reasoning", "content": [{"type": "output_text", "text": "Hm."}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Three."}]},
        ]
        other["chat"]["history"]["messages"]["b-1"]["output"] = output
        parsed = read_open_webui(written(tmp_path / "c.json", [chat, other]))
        assert said(parsed) == [("How much?", "255"), ("How many?", "Three.")]

    def test_a_chat_without_its_wrapping(self, tmp_path: Path) -> None:
        chat = open_webui("a", "Where?", "To Lisbon.")
        path = written(tmp_path / "c.json", [{**chat["chat"], "id": "a"}])
        assert format_of(path, "ann") is Format.OPENWEBUI
        assert said(read_open_webui(path)) == [("Where?", "To Lisbon.")]

    def test_everybodys_chats_are_refused(self, tmp_path: Path) -> None:
        chats = [open_webui("a", "Where?"), open_webui("b", "When?", user_id="u2")]
        with pytest.raises(InvalidInput, match="this one is of 2: u1, u2"):
            read_open_webui(written(tmp_path / "c.json", chats))


class TestLibreChat:
    def regenerated(self) -> dict[str, Any]:
        conversation = librechat("a", "Where?", "To Lisbon.", "When?", "In May.")
        again = {**conversation["messages"][1], "messageId": "again", "text": "To Rome."}
        conversation["messages"].append(again)
        return conversation

    def test_the_last_of_several_answers_is_the_one_shown(self, tmp_path: Path) -> None:
        parsed = read_librechat(written(tmp_path / "c.json", self.regenerated()))
        assert said(parsed) == [("Where?", "To Rome.")]
        assert +parsed.skipped == {"messages of other branches": 3}

    def test_without_branches_the_list_is_the_conversation(self, tmp_path: Path) -> None:
        conversation = librechat("a", "Where?", "To Lisbon.", "When?", branches=False)
        for message in conversation["messages"]:
            del message["parentMessageId"]
        assert said(read_librechat(written(tmp_path / "c.json", conversation))) == [
            ("Where?", "To Lisbon."),
            ("When?", ""),
        ]

    def test_a_tree_of_messages(self, tmp_path: Path) -> None:
        listed = self.regenerated()["messages"]
        children: dict[str, list[Any]] = {}
        for message in listed:
            children.setdefault(message["parentMessageId"], []).append(message)
        for message in listed:
            message["children"] = children.get(message["messageId"], [])
            del message["parentMessageId"]
        head = {"conversationId": "a", "title": "A tree", "branches": True, "recursive": True}
        for key in ("messagesTree", "messages"):
            path = written(tmp_path / "c.json", {**head, key: listed[:1]})
            assert format_of(path, "ann") is Format.LIBRECHAT
            assert said(read_librechat(path)) == [("Where?", "To Rome.")]

    def test_parts_errors_and_citations(self, tmp_path: Path) -> None:
        conversation = librechat("a", "Where?", "", "When?", "In May. \\ue202turn0search0", "And?", "Limit reached.")
        conversation["messages"][1]["content"] = [
            {"type": "think", "think": "Hm."},
            {"type": "tool_call", "tool_call": {"name": "search"}},
            {"type": "text", "text": {"value": "To Lisbon."}},
            {"type": "text", "text": "By train."},
        ]
        conversation["messages"][5]["error"] = True
        parsed = read_librechat(written(tmp_path / "c.json", conversation))
        assert said(parsed) == [("Where?", "To Lisbon.\nBy train."), ("When?", "In May."), ("And?", "")]
        assert +parsed.skipped == {"tool calls and thoughts": 2, "error messages": 1}

    def test_a_folder_of_conversations(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            written(tmp_path / f"{name}.json", librechat(name, "Where?", "To Lisbon."))
        assert format_of(tmp_path, "ann") is Format.LIBRECHAT
        assert [c.conversation_id for c in read_librechat(tmp_path).conversations] == ["a", "b"]


class TestMem0:
    def test_memories_become_statements_with_their_own_summary(self, tmp_path: Path) -> None:
        later = (NOON + timedelta(days=1)).isoformat()
        memories = [mem0("m2", "Moved to Rome", updated_at=later), mem0("m1", "Likes tuna", updated_at=None)]
        for content in (memories, {"results": memories, "relations": [{"source": "ann"}]}):
            path = written(tmp_path / "memories.json", content)
            assert format_of(path, "ann") is Format.MEM0
            parsed = read_mem0(path)
            [conversation] = parsed.conversations
            assert [(e.user, e.assistant, e.ts, e.summary) for e in conversation.exchanges] == [
                ("Likes tuna", "", NOON, "Likes tuna"),
                ("Moved to Rome", "", NOON + timedelta(days=1), "Moved to Rome"),
            ]
        assert +parsed.skipped == {"relations": 1}

    def test_an_odd_one_is_named_and_one_without_an_id_is_taken(self, tmp_path: Path) -> None:
        path = written(
            tmp_path / "m.json", {"results": [mem0("m1", "Likes tuna"), {"memory": "Has a cat"}, {"id": "x"}]}
        )
        parsed = read_mem0(path)
        assert sorted(said(parsed)) == [("Has a cat", ""), ("Likes tuna", "")]
        assert len(parsed.unread) == 1
        assert parsed.unread[0].startswith("m.json, memory 3")

    def test_nothing_kept_and_nothing_readable(self, tmp_path: Path) -> None:
        path = written(tmp_path / "m.json", {"results": []})
        assert format_of(path, "ann") is Format.MEM0
        assert read_mem0(path).conversations == []
        with pytest.raises(InvalidInput, match="memory 1"):
            read_mem0(written(tmp_path / "m.json", [5]))

    def test_the_memories_of_several_users_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="this one is of 2: ann, bob"):
            read_mem0(written(tmp_path / "m.json", [mem0("m1", "Likes tuna"), mem0("m2", "Sings", user_id="bob")]))
