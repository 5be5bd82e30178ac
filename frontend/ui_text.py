"""The texts of the page, in every language.

To add a language: copy ``frontend/languages/en.py`` to ``frontend/languages/<code>.py``, translate the values (not the
keys, and not the ``{placeholders}``), and add the module to ``UI_TEXT`` below. ``tests/frontend/test_ui_text.py`` then
checks that no key and no placeholder is missing.

Texts are Markdown: whoever fills in a value escapes it with ``markdown_safety.plain``.
"""

from __future__ import annotations

from collections.abc import Sequence

from frontend.languages import en, zh

UI_TEXT: dict[str, dict[str, str]] = {"en": en.TEXTS, "zh": zh.TEXTS}
"""The texts by language (ISO 639-1) and key."""

DEFAULT_LANGUAGE = "en"


class Words:
    """The texts of one language: `words("retry")`, `words("turns_limited", count=50)`."""

    def __init__(self, language: str) -> None:

        self._texts = UI_TEXT[language]

    def __call__(self, key: str, /, **values: object) -> str:
        return self._texts[key].format(**values)

    def has(self, key: str) -> bool:
        """Whether there is a text of this name."""
        return key in self._texts


def best_language(wishes: Sequence[str | None]) -> str:
    """The first of the wishes ("zh", "zh-CN", "en-GB", ...) for which there are texts, otherwise English."""
    for wish in wishes:
        language = (wish or "").lower().replace("_", "-").partition("-")[0]
        if language in UI_TEXT:
            return language
    return DEFAULT_LANGUAGE
