"""Every language of the page is complete: the same keys, the same placeholders, no text unused."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

from frontend.ui_text import UI_TEXT, Words, best_language

FRONTEND = Path(__file__).resolve().parents[2] / "frontend"
SOURCES = "\n".join(path.read_text("utf-8") for path in sorted(FRONTEND.glob("*.py")) if path.name != "ui_text.py")
SUFFIXES = ("_help", "_fix", "_empty", "_field")


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_every_module_of_texts_is_a_language_of_the_page() -> None:
    assert sorted(UI_TEXT) == sorted(path.stem for path in (FRONTEND / "languages").glob("[a-z]*.py"))


@pytest.mark.parametrize("language", UI_TEXT)
def test_every_language_has_the_same_texts_with_the_same_placeholders(language: str) -> None:
    expected = {key: placeholders(text) for key, text in UI_TEXT["en"].items()}
    assert {key: placeholders(text) for key, text in UI_TEXT[language].items()} == expected
    assert all(text.strip() for text in UI_TEXT[language].values())


def test_every_text_is_shown_somewhere() -> None:
    def is_named(key: str) -> bool:
        return re.search(rf"['\"]{key}['\"]", SOURCES) is not None

    unused = [
        key
        for key in UI_TEXT["en"]
        if not is_named(key) and not any(is_named(key.removesuffix(suffix)) for suffix in SUFFIXES)
    ]
    assert unused == []


def test_every_text_that_is_asked_for_exists() -> None:
    asked = set(re.findall(r'\bwords\(\s*"(\w+)"', SOURCES))
    assert asked
    assert asked <= set(UI_TEXT["en"])


def test_the_chinese_texts_are_chinese() -> None:
    same = {key for key, text in UI_TEXT["zh"].items() if text == UI_TEXT["en"][key]}
    assert same == {"page_title", "backend_line", "backend_model_line"}


@pytest.mark.parametrize(
    ("wishes", "language"),
    [
        (["zh-CN"], "zh"),
        (["zh_TW"], "zh"),
        ([None, "en-GB"], "en"),
        (["zh", "en-US"], "zh"),
        (["xx", "zh-Hans-CN"], "zh"),
        ([None, None], "en"),
        (["", "de-DE"], "en"),
    ],
)
def test_the_first_wish_that_is_spoken_wins(wishes: list[str | None], language: str) -> None:
    assert best_language(wishes) == language


def test_words_fills_in_values() -> None:
    assert Words("en")("request_id", request_id="r-1") == "Request id: `r-1`"
