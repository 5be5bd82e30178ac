"""Each format is read as its writer meant it, and what is wrong in one is named by its place."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidInput
from service.importing.exchanges import Conversation, Exchange, Message, paired
from service.importing.formats import Format, format_of
from service.importing.old_layout import read_old_layout
from service.importing.openai_messages import read_openai
from tests.service.importing.exports import NOON, written


class TestOpenAi:
    QUESTION, ANSWER = {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "To Lisbon."}

    @pytest.mark.parametrize(
        ("name", "content", "ids"),
        [
            ("one.json", [QUESTION, ANSWER], ["one-1"]),
            ("one.json", {"messages": [QUESTION, ANSWER], "conversation_id": "trip"}, ["trip"]),
            ("many.json", [{"messages": [QUESTION, ANSWER]}, {"messages": [QUESTION, ANSWER]}], ["many-1", "many-2"]),
            ("lines.jsonl", [{"messages": [QUESTION, ANSWER], "id": "a"}, [QUESTION, ANSWER]], ["a", "lines-2"]),
        ],
    )
    def test_every_shape_of_a_list_is_read(self, tmp_path: Path, name: str, content: Any, ids: list[str]) -> None:
        path = written(tmp_path / name, content)
        assert format_of(path, "ann") is Format.OPENAI
        read = read_openai(path).conversations
        assert read == [Conversation(each, [Exchange("Where?", "To Lisbon.")]) for each in ids]

    def test_parts_and_other_roles(self, tmp_path: Path) -> None:
        parts = [{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": {"url": "data:"}}]
        messages = [{"role": "system", "content": "x"}, {"role": "user", "content": parts}, self.ANSWER, self.ANSWER]
        parsed = read_openai(written(tmp_path / "c.json", messages))
        assert parsed.conversations[0].exchanges == [Exchange("Look:", "To Lisbon.\n\nTo Lisbon.")]
        assert parsed.skipped == {"system messages": 1, "images and files": 1}

    @pytest.mark.parametrize(
        ("lines", "named"),
        [
            (["{"], "c.jsonl, line 1"),
            ([[QUESTION, {"content": "x"}]], "c.jsonl, line 1, message 2"),
            ([{"message": []}], "c.jsonl, line 1"),
            ([[{"role": "user", "content": 5}]], "content = 5"),
            ([{"messages": [QUESTION], "id": "erased:1"}], "erased:"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, lines: list[Any], named: str) -> None:
        with pytest.raises(InvalidInput) as raised:
            read_openai(written(tmp_path / "c.jsonl", lines))
        assert named in str(raised.value)

    @pytest.mark.parametrize("bad", ["{", {"message": []}, [QUESTION, {"content": "x"}]])
    def test_one_bad_line_is_named_and_the_others_are_read(self, tmp_path: Path, bad: Any) -> None:
        parsed = read_openai(written(tmp_path / "c.jsonl", [[self.QUESTION], bad, [self.QUESTION]]))
        assert [conversation.conversation_id for conversation in parsed.conversations] == ["c-1", "c-3"]
        [unread] = parsed.unread
        assert "c.jsonl, line 2" in unread


class TestOldLayout:
    def line(self, turn_id: int, user: str = "Where?", **more: Any) -> dict[str, Any]:
        return {"turn_id": turn_id, "ts": "2023-05-04T12:00:00Z", "user": user, "assistant": "Lisbon.", **more}

    def test_times_and_summaries_are_kept_and_the_id_comes_back(self, tmp_path: Path) -> None:
        folder = tmp_path / "users" / "ann_x"
        written(folder / "conversations" / "a_b.jsonl", [self.line(1), self.line(2, "And then?")])
        meta = {"conv_id": "a/b", "turn_id": 2, "summary": "Asked on."}
        written(folder / "meta.jsonl", [meta, {"conv_id": "other", "turn_id": 1}])
        assert format_of(tmp_path, "ann@x") is Format.OPENPERSISTENTMEMORY
        for path in (tmp_path, folder):
            parsed = read_old_layout(path, "ann@x")
            exchanges = [
                Exchange("Where?", "Lisbon.", NOON),
                Exchange("And then?", "Lisbon.", NOON, "Asked on."),
            ]
            assert parsed.conversations == [Conversation("a/b", exchanges)]
            assert parsed.notes == []

    def test_ids_that_led_to_one_name_are_reported_and_parted_where_lines_say(self, tmp_path: Path) -> None:
        folder = tmp_path / "users" / "ann"
        lines = [
            self.line(1, "A", conv_id="a/b"),
            self.line(1, "B", conv_id="a_b"),
            self.line(1, "C"),
            self.line(1, "D"),
        ]
        written(folder / "conversations" / "a_b.jsonl", lines)
        meta = [{"conv_id": name, "turn_id": 1, "summary": f"of {name}"} for name in ("a/b", "a_b")]
        written(folder / "meta.jsonl", meta)
        parsed = read_old_layout(tmp_path, "ann")
        said = {c.conversation_id: [(e.user, e.summary) for e in c.exchanges] for c in parsed.conversations}
        assert said == {"a/b": [("A", "of a/b")], "a_b": [("B", None), ("C", None), ("D", None)]}
        assert parsed.notes == [
            "a_b.jsonl: the ids 'a/b', 'a_b' led to the same name; 2 lines that do not say which stay under 'a_b'"
        ]
        assert parsed.skipped == {"summaries of a turn number that two turns have": 3}

    def test_lines_of_another_user_in_the_same_folder_are_left_out_and_reported(self, tmp_path: Path) -> None:
        lines = [self.line(1, user_id="a@b"), self.line(1, "Mine?", user_id="a_b")]
        written(tmp_path / "users" / "a_b" / "conversations" / "c.jsonl", lines)
        parsed = read_old_layout(tmp_path, "a_b")
        assert [e.user for c in parsed.conversations for e in c.exchanges] == ["Mine?"]
        assert len(parsed.notes) == 1
        assert "1 lines belong to user 'a@b'" in parsed.notes[0]

    def test_other_json_beside_it_is_none_of_it(self, tmp_path: Path) -> None:
        written(tmp_path / "users" / "ann" / "conversations" / "c.jsonl", [self.line(1)])
        written(tmp_path / "settings.json", {"colour": "red"})
        assert format_of(tmp_path, "ann") is Format.OPENPERSISTENTMEMORY

    def test_an_absurd_time_is_none(self, tmp_path: Path) -> None:
        path = written(tmp_path / "conversations" / "c.jsonl", [self.line(1, ts="0001-01-01T00:00:00Z")])
        assert read_old_layout(path, "ann").conversations[0].exchanges[0].ts is None

    def test_a_folder_of_several_users_needs_one(self, tmp_path: Path) -> None:
        for user in ("bob", "cy"):
            written(tmp_path / "users" / user / "conversations" / "c.jsonl", [self.line(1)])
        with pytest.raises(InvalidInput, match="there are: bob, cy"):
            format_of(tmp_path, "ann")

    @pytest.mark.parametrize("bad", ["{", '{"user": "x"}', "[]", '{"user": "x", "assistant": "y", "ts": "soon"}'])
    def test_a_bad_line_is_named(self, tmp_path: Path, bad: str) -> None:
        written(tmp_path / "conversations" / "c.jsonl", [self.line(1), bad])
        with pytest.raises(InvalidInput, match=r"c\.jsonl, line 2"):
            read_old_layout(tmp_path, "ann")
        written(tmp_path / "conversations" / "d.jsonl", [self.line(1)])
        parsed = read_old_layout(tmp_path, "ann")
        assert [conversation.conversation_id for conversation in parsed.conversations] == ["d"]
        assert "c.jsonl, line 2" in parsed.unread[0]


MESSAGES = st.lists(st.builds(Message, st.sampled_from(("user", "assistant")), st.text(min_size=1, max_size=3)))


@given(MESSAGES)
def test_pairing_loses_nothing_it_does_not_count(messages: list[Message]) -> None:
    skipped: Counter[str] = Counter()
    exchanges = paired(messages, skipped)
    asked = "\n\n".join(exchange.user for exchange in exchanges)
    assert asked == "\n\n".join(message.text for message in messages if message.role == "user")
    answered = [message.text for message in messages if message.role == "assistant"][skipped.total() :]
    assert "\n\n".join(e.assistant for e in exchanges if e.assistant) == "\n\n".join(answered)
