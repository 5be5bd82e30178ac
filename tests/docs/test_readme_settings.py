"""The README's table of settings names every setting, with its default, and no other."""

from __future__ import annotations

import json
import re

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from frontend.settings import FrontendSettings
from service.launch.command import LaunchSettings
from service.local_models.settings import LocalModelsSettings
from service.settings import ServiceSettings
from tests.ledgers import ROOT

FLOORS = ("domain", "projections", "service", "frontend", "migrations")
# The launcher reads some of the service's settings too, only to see whether they are set: the service's own count.
CLASSES: tuple[type[BaseSettings], ...] = (LaunchSettings, LocalModelsSettings, FrontendSettings, ServiceSettings)
SETTINGS = {name.upper(): field for kind in CLASSES for name, field in kind.model_fields.items()}
# Defaults that depend on the machine or on other settings: the table says in words on what.
TOLD_IN_WORDS = {
    "EMB_PASSAGE_PREFIX",
    "EMB_QUERY_PREFIX",
    "LLM_CONTEXT_TOKENS",
    "LOCAL_CHAT_MODEL",
    "LOCAL_CONTEXT",
    "LOCAL_MODELS_DIR",
    "LOCAL_THREADS",
    "PROMPT_BUDGET_TOKENS",
    "RERANKER",
    "RERANK_API_KEY",
}


def table() -> list[tuple[list[str], str]]:
    """Each row's variables and the text of its default."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Settings\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    assert rows[0] == ["variable", "default", "meaning"]
    return [(re.findall(r"`([A-Z_]+)`", variables), default) for variables, default, _meaning in rows[2:]]


def defaults() -> dict[str, str]:
    """The default of each variable in the table; several in a row have one each, in order, or share one."""
    found: dict[str, str] = {}
    for names, default in table():
        each = default.split(", ") if len(names) > 1 else [default]
        found |= zip(names, each if len(each) == len(names) else [default] * len(names), strict=True)
    return found


def written(field: FieldInfo) -> str:
    """A default as the table writes it: numbers and truth values plain, texts and JSON as code."""
    value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    if value is PydanticUndefined:
        return "required¹"
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:.15g}"
    return f"`{json.dumps(value) if isinstance(value, list | tuple | dict) else value}`"


def test_the_classes_are_all_there_are() -> None:
    sources = [path.read_text(encoding="utf-8") for floor in FLOORS for path in (ROOT / floor).rglob("*.py")]
    declared = {name for source in sources for name in re.findall(r"class (\w+)\(\w*Settings\)", source)}
    assert declared == {base.__name__ for kind in CLASSES for base in kind.mro() if issubclass(base, BaseSettings)} - {
        "BaseSettings"
    }


def test_every_setting_is_in_the_table_once_and_nothing_else_is() -> None:
    assert sorted(name for names, _default in table() for name in names) == sorted(SETTINGS)


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - TOLD_IN_WORDS))
def test_the_default_is_what_the_code_has(name: str) -> None:
    assert defaults()[name] == written(SETTINGS[name])


@pytest.mark.parametrize("name", sorted(TOLD_IN_WORDS))
def test_a_default_that_depends_on_something_is_told(name: str) -> None:
    assert defaults()[name]
    default = SETTINGS[name].default
    assert default is PydanticUndefined or not default, f"{name} has the fixed default {default!r}: write it"
