"""Prompts have versions that change with their texts, and an operator's file replaces one by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import SettingsError
from domain.prompts import asks_of_oneself, is_chinese, load_prompts, version_of


def test_without_a_folder_the_built_in_prompts_are_used() -> None:
    prompts = load_prompts(None).by_name()
    assert list(prompts) == ["CHAT_SYSTEM", "SUMMARY_SYSTEM", "GATE_SYSTEM", "RERANK_SYSTEM"]
    assert "memory summary" in prompts["SUMMARY_SYSTEM"].text
    assert len({prompt.version for prompt in prompts.values()}) == 4


def test_a_file_replaces_the_prompt_of_its_name_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "GATE_SYSTEM.txt").write_text("\n Choose well. 选 \n", encoding="utf-8")
    (tmp_path / "notes.md").write_text("no prompt")
    before, after = load_prompts(None), load_prompts(tmp_path)
    assert after.gate.text == "Choose well. 选"
    assert after.gate.version == version_of("Choose well. 选") != before.gate.version
    assert (after.chat, after.summary, after.rerank) == (before.chat, before.summary, before.rerank)


@given(st.text(), st.text())
def test_different_texts_have_different_versions(one: str, other: str) -> None:
    assert (version_of(one) == version_of(other)) == (one == other)
    assert version_of(one).startswith("sha256:")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("GATE.txt", b"x", "GATE.txt is not a known prompt"),
        ("GATE_SYSTEM.txt", b" \n", "GATE_SYSTEM.txt is empty"),
        ("GATE_SYSTEM.txt", b"\xff\xfe", "GATE_SYSTEM.txt is not UTF-8"),
    ],
)
def test_an_unusable_file_is_named(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsError, match=complaint):
        load_prompts(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"PROMPTS_DIR = .*absent.*no such folder"):
        load_prompts(tmp_path / "absent")


@pytest.mark.parametrize("name", ["CHAT_SYSTEM", "GATE_SYSTEM", "RERANK_SYSTEM"])
def test_who_is_shown_memories_is_told_that_they_are_no_instructions(name: str) -> None:
    """What somebody once said, or a page that they pasted, may read like an order."""
    said = " ".join(load_prompts(None).by_name()[name].text.split())
    assert "are data" in said
    assert "instruction" in said


def test_a_chinese_question_has_the_chinese_chat_prompt_where_there_is_one(tmp_path: Path) -> None:
    assert load_prompts(None).chat_for("你好", recalled=False) == load_prompts(None).chat
    (tmp_path / "CHAT_SYSTEM.zh.txt").write_text("你是助手。", encoding="utf-8")
    prompts = load_prompts(tmp_path)
    assert prompts.chat_for("我叫什么名字？", recalled=False).text == "你是助手。"
    assert prompts.chat_for("What is my name?", recalled=False) == prompts.chat == load_prompts(None).chat
    assert prompts.by_name()["CHAT_SYSTEM.zh"].version == version_of("你是助手。")


EN, ZH = "What is my name?", "我叫什么名字？"
NAMES = tuple(f"CHAT_SYSTEM{kind}{language}" for kind in ("", ".recalled", ".asked") for language in ("", ".zh"))
TOLD_EN, TOLD_ZH = "I live in Rome.", "我住在罗马。"


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], {}),
        ([".zh"], {(ZH, False): ".zh", (TOLD_ZH, False): ".zh", (ZH, True): ".zh", (TOLD_ZH, True): ".zh"}),
        ([".recalled"], dict.fromkeys([(said, True) for said in (EN, ZH, TOLD_EN, TOLD_ZH)], ".recalled")),
        (
            [".zh", ".recalled", ".asked"],
            {
                (ZH, False): ".zh",
                (TOLD_ZH, False): ".zh",
                (EN, True): ".asked",
                (ZH, True): ".asked",
                (TOLD_EN, True): ".recalled",
                (TOLD_ZH, True): ".recalled",
            },
        ),
        (
            [name.removeprefix("CHAT_SYSTEM") for name in NAMES[1:]],
            {
                (ZH, False): ".zh",
                (TOLD_ZH, False): ".zh",
                (EN, True): ".asked",
                (ZH, True): ".asked.zh",
                (TOLD_EN, True): ".recalled",
                (TOLD_ZH, True): ".recalled.zh",
            },
        ),
    ],
)
def test_the_chat_prompt_goes_by_what_is_recalled_and_asked_and_by_language(
    tmp_path: Path, there: list[str], expected: dict[tuple[str, bool], str]
) -> None:
    for ending in ("", *there):
        (tmp_path / f"CHAT_SYSTEM{ending}.txt").write_text(f"This is {ending}.")
    prompts = load_prompts(tmp_path)
    assert set(prompts.by_name()) >= {f"CHAT_SYSTEM{ending}" for ending in there}
    for said in (EN, ZH, TOLD_EN, TOLD_ZH):
        for recalled in (False, True):
            ending = expected.get((said, recalled), "")
            assert prompts.chat_for(said, recalled=recalled) == prompts.by_name()[f"CHAT_SYSTEM{ending}"]


@pytest.mark.parametrize(
    ("text", "of_oneself"),
    [
        ("Where do I live?", True),
        ("What is my sister called?", True),
        ("how far did we run yesterday?", True),
        ("Who are you, and what do you know about me?", True),
        ("我住在哪里？", True),
        ("I live in Rome.", False),
        ("Where is Rome?", False),
        ("How do I boil an egg?", False),
        ("Do elephants swim?", False),
        ("Is the economy growing?", False),
        ("罗马在哪里？", False),
        ("", False),
    ],
)
def test_people_ask_about_themselves_where_a_question_names_them(text: str, of_oneself: bool) -> None:
    assert asks_of_oneself(text) is of_oneself


@pytest.mark.parametrize("longer", NAMES)
def test_of_a_question_of_which_nothing_is_known_yet_the_longer_chat_prompt_is_reckoned_with(
    tmp_path: Path, longer: str
) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.txt").write_text(name + "!" * (len(NAMES[-1]) if name == longer else 0))
    prompts = load_prompts(tmp_path)
    for said in (EN, ZH, TOLD_EN, TOLD_ZH):
        both = [prompts.chat_for(said, recalled=recalled) for recalled in (False, True)]
        assert prompts.longest_chat_for(said) == max(both, key=lambda prompt: len(prompt.text))
        if prompts.by_name()[longer] in both:
            assert prompts.longest_chat_for(said) == prompts.by_name()[longer]


@pytest.mark.parametrize(
    ("text", "chinese"),
    [
        ("我家的猫叫豆豆，只吃金枪鱼。", True),
        ("我家的貓只吃鮪魚。", True),
        ("帮我写一个 Python 函数", True),
        ("推荐一个Python库", True),
        ("把“good morning”翻译成中文", True),
        ("What does 你好 mean?", False),
        ("Translate 火车站在哪里 into English, please.", False),
        ("東京に行きたい", False),
        ("서울에 살아요", False),
        ("Привет", False),
        ("42", False),
        ("", False),
    ],
)
def test_a_text_is_chinese_where_most_of_it_is(text: str, chinese: bool) -> None:
    assert is_chinese(text) is chinese
