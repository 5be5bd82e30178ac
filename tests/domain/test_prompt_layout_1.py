"""The first layout stays what it was, word for word: prompts of its time are proved by it."""

from __future__ import annotations

from dataclasses import replace

from domain.prompt import messages_hash
from domain.prompt_layout_1 import messages_1
from tests.memories import memory


def test_all_parts() -> None:
    messages = messages_1(
        system=" Be kind.\n",
        client_system="Speak French.",
        window=[memory(8, "Hello."), replace(memory(9, assistant="Yes."), user="")],
        replay=[memory(4, "Where to?", "To Lisbon."), memory(2, "What else?", "")],
        notes=[memory(7, summary="Likes tea."), memory(3, "A\nremark.", "Noted.")],
        question="Who?",
    )
    assert [(message["role"], message["content"]) for message in messages] == [
        (
            "system",
            "Be kind.\n\nSpeak French.\n\nWhat you remember:\n- (2026-01-05) A remark. — Noted.\n"
            "- (2026-01-09) Likes tea.",
        ),
        ("user", "[2026-01-04] What else?"),
        ("assistant", "(no text)"),
        ("user", "[2026-01-06] Where to?"),
        ("assistant", "To Lisbon."),
        ("user", "Hello."),
        ("assistant", "Noted."),
        ("user", "(no text)"),
        ("assistant", "Yes."),
        ("user", "Who?"),
    ]


def test_its_hash_is_fixed() -> None:
    messages = messages_1(
        system="Be kind.",
        client_system="",
        window=[memory(3)],
        replay=[memory(1)],
        notes=[memory(2, summary="S.")],
        question="Q",
    )
    assert messages_hash(messages) == "sha256:5c488ae6ae03928da05021a28a58fddc6846b9d968dd89ba15dd01e47fbe954f"


def test_nothing_but_a_question() -> None:
    messages = messages_1(system="S", client_system=" ", window=[], replay=[], notes=[], question="Q")
    assert messages == [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
