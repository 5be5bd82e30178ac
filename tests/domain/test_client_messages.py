"""What a client sends: turns of its messages, their texts, and how bytes are said."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.client_messages import (
    ClientTurn,
    Message,
    beginning_with,
    ending_with,
    exchange_key,
    text_of,
    turns_of,
    without_bytes,
)

BYTES = b"\x89PNG and more"
BASE64 = base64.b64encode(BYTES).decode()
SAID = f"{len(BYTES)} bytes, sha256 {hashlib.sha256(BYTES).hexdigest()}"
PNG = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}", "detail": "low"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": BASE64, "format": "wav"}}
FILE = {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{BASE64}"}}

PARTS = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, st.text(max_size=20)),
    st.sampled_from([PNG, AUDIO, FILE]),
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant", "tool"]),
            "content": st.one_of(st.none(), st.text(max_size=30), st.lists(PARTS, max_size=3)),
        }
    ),
    max_size=12,
)


@given(MESSAGES)
def test_turns_are_the_messages_in_their_order(messages: list[Message]) -> None:
    turns = turns_of(messages)
    assert [message for turn in turns for message in turn.messages] == messages
    for turn in turns[1:]:
        assert turn.messages[0]["role"] == "user"
    assert all(message["role"] != "user" for turn in turns for message in turn.messages[1:])


@given(MESSAGES)
def test_what_is_kept_has_no_bytes_and_stays_as_it_is(messages: list[Message]) -> None:
    kept = without_bytes(messages)
    assert without_bytes(kept) == kept
    assert not any(BASE64 in str(message["content"]) for message in kept if isinstance(message["content"], list))
    # A text that holds such data is somebody's text.
    texts = [message for message in messages if not isinstance(message["content"], list)]
    assert [message for message in kept if not isinstance(message["content"], list)] == texts


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (PNG, f"[image: image/png, {SAID}]"),
        (AUDIO, f"[audio: {SAID}]"),
        (FILE, f"[file: a.pdf, application/pdf, {SAID}]"),
        (
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            "[image: https://example.org/a.png]",
        ),
        ({"type": "image_url", "image_url": f"data:image/png;base64,{BASE64}"}, f"[image: image/png, {SAID}]"),
        ({"type": "file", "file": {"file_id": "file-7"}}, "[file: file-7]"),
        ({"type": "image_url"}, "[image]"),
        ({"type": ["text"], "text": "A list is no name of a kind."}, "[['text']]"),
        ({"type": "thing", "thing": 7}, "[thing]"),
        ({"type": "refusal", "refusal": "No."}, "No."),
        ({"type": "input_text", "text": "Hi."}, "Hi."),
        ("plain", "plain"),
        (7, ""),
    ],
)
def test_a_part_is_said_in_words(part: Any, said: str) -> None:
    assert text_of({"role": "user", "content": [part]}) == said


@pytest.mark.parametrize("content", [None, 7, {"a": 1}])
def test_content_without_text_has_none(content: Any) -> None:
    assert text_of({"role": "user", "content": content}) == ""


def test_a_text_is_put_before_or_after_all_that_is_said() -> None:
    plain, parts = {"role": "user", "content": "b"}, {"role": "user", "content": [PNG]}
    assert beginning_with("a", plain) == {"role": "user", "content": "ab"}
    assert ending_with(plain, "c") == {"role": "user", "content": "bc"}
    assert beginning_with("a", parts)["content"] == [{"type": "text", "text": "a"}, PNG]
    assert ending_with(parts, "c")["content"] == [PNG, {"type": "text", "text": "c"}]


WORDS = st.text(st.sampled_from("abzé019用户 "), min_size=1, max_size=12).filter(str.strip)


@given(WORDS, WORDS, st.sampled_from(["  ", "\n", "**", "_", "\t> ", "# "]))
def test_whitespace_markdown_and_case_do_not_change_an_exchange(user: str, assistant: str, mark: str) -> None:
    key = exchange_key(user, assistant)
    assert exchange_key(f"{mark}{user}{mark}", f"{mark}{assistant}") == key
    assert exchange_key(user.upper(), assistant) == key


@given(st.lists(st.tuples(WORDS, WORDS), min_size=2, max_size=6))
def test_other_words_are_another_exchange(exchanges: list[tuple[str, str]]) -> None:
    plain = {("".join(user.split()), "".join(assistant.split())) for user, assistant in exchanges}
    assert len({exchange_key(*each) for each in exchanges}) == len(plain)


def test_emoji_alone_are_told_apart() -> None:
    assert exchange_key("👍", "🙂") != exchange_key("👎", "🙂")


def test_a_turn_with_tools_is_known_by_its_question_and_its_last_text() -> None:
    call = {"role": "assistant", "content": "Let me look.", "tool_calls": [{"id": "c"}]}
    result = {"role": "tool", "content": "sunny", "tool_call_id": "c"}
    question, answer = {"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "Sunny."}
    turn = ClientTurn((question, call, result, answer))
    assert (turn.user, turn.assistant) == ("Weather?", "Sunny.")
    assert turn.key == exchange_key("Weather?", "Sunny.")
    assert not turn.is_exchange("Weather?", "Sunny.")
