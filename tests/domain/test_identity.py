"""A file name stands for one id only, stays in its folder and fits every file system."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from domain.errors import InvalidInput
from domain.identity import ID_CHARS_MAX, check_id, file_name

AWKWARD = (
    *("a/b", "a_b", "a%2fb", "A/B", "../x", "..", ".", "x", "X", "用户", "~", "a~b", "a.b", "con", "\\", "-"),
    *("é", "e\u0301", "İ", "i\u0307", "ß", "ss"),
)
SHORT = st.text(alphabet="aA/_%2f~.é\u0301İiıßs 用", min_size=1, max_size=6)
IDS = SHORT | st.text(min_size=1) | st.sampled_from(AWKWARD) | st.text("x", min_size=100, max_size=200)


def name_on_a_folding_file_system(name: str) -> str:
    """What a file system that folds case and normalises Unicode makes of a name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


@given(IDS, IDS)
@example("é", "e\u0301")
@example("İ", "i\u0307")
@example("x" * 149, "x" * 150)
def test_two_ids_never_share_a_name(one: str, other: str) -> None:
    assume(one != other)
    assert name_on_a_folding_file_system(file_name(one)) != name_on_a_folding_file_system(file_name(other))


@given(IDS)
def test_a_name_is_safe_and_short(identifier: str) -> None:
    name = file_name(identifier)
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-%~")
    assert len(f"{name}.jsonl.new".encode()) <= 255
    assert Path("folder", name).parent == Path("folder")


def test_no_short_id_has_the_name_of_a_long_one() -> None:
    long = "x" * 10_000
    assert file_name(file_name(long)) != file_name(long)


def test_awkward_ids_have_different_names() -> None:
    identifiers = {*AWKWARD, "a" * 10_000, "a" * 10_001, "a" * 9_999 + "b", "用" * 10_000, "a" * 150, "a" * 151}
    assert len({name_on_a_folding_file_system(file_name(identifier)) for identifier in identifiers}) == len(identifiers)
    assert max(len(file_name(identifier)) for identifier in identifiers) <= 150


def test_a_plain_id_is_its_own_name() -> None:
    assert file_name("ann-2_x") == "ann-2_x"
    assert file_name("用户") == "%e7%94%a8%e6%88%b7"


@pytest.mark.parametrize("identifier", [*AWKWARD, "x" * 10_000, "ann@example.org", "👩‍👩‍👧"])
def test_a_valid_id_is_kept_as_it_is(identifier: str) -> None:
    assert check_id("user", identifier) == identifier


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("", "at least one visible character"),
        (" \t", "at least one visible character"),
        ("a\nb", r"U\+000A"),
        ("a\x00b", r"U\+0000"),
        ("\ud800", r"U\+D800"),
        ("x" * (ID_CHARS_MAX + 1), "at most 16384"),
        (7, "send a string"),
        (None, "send a string"),
    ],
)
def test_an_invalid_id_is_refused_in_one_line(value: object, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint) as raised:
        check_id("metadata.conversation_id", value)
    message = str(raised.value)
    assert message.startswith("metadata.conversation_id = ")
    assert "\n" not in message
    assert len(message) < 250


@given(st.text(min_size=1))
def test_an_accepted_id_can_be_stored(identifier: str) -> None:
    try:
        check_id("user", identifier)
    except InvalidInput:
        return
    assert identifier.encode("utf-8").decode("utf-8") == identifier
