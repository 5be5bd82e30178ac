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


@pytest.mark.parametrize(
    "identifier",
    [*sorted({unicodedata.normalize("NFC", each) for each in AWKWARD}), "x" * 10_000, "ann@example.org", "👩 x"],
)
def test_a_valid_id_is_kept_as_it_is(identifier: str) -> None:
    assert check_id("user", identifier) == identifier


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("José", "Jose\u0301"),
        ("Nguyễn", "Nguye\u0302\u0303n"),
        ("한국", unicodedata.normalize("NFD", "한국")),
        ("\u212bngström", "Ångström"),
        ("ann", "  ann\t"),
        ("ann", "\u00a0ann\u3000"),
        ("ann", "ann\n"),
    ],
)
def test_ids_that_look_alike_are_one(one: str, other: str) -> None:
    assert check_id("user", one) == check_id("user", other)


UNSEEN = {
    "\u200b": "U+200B ZERO WIDTH SPACE",
    "\u200d": "U+200D ZERO WIDTH JOINER",
    "\u00ad": "U+00AD SOFT HYPHEN",
    "\u202e": "U+202E RIGHT-TO-LEFT OVERRIDE",
    "\u2066": "U+2066 LEFT-TO-RIGHT ISOLATE",
    "\ufeff": "U+FEFF ZERO WIDTH NO-BREAK SPACE",
    "\u2028": "U+2028 LINE SEPARATOR",
    "\u3164": "U+3164 HANGUL FILLER",
    "\ufe0f": "U+FE0F VARIATION SELECTOR-16",
    "\U000e0041": "U+E0041 TAG LATIN CAPITAL LETTER A",
    "\u00a0": "U+00A0 NO-BREAK SPACE",
}


@pytest.mark.parametrize("char", UNSEEN, ids=UNSEEN.get)
def test_what_cannot_be_seen_is_refused_by_name(char: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        check_id("user", f"an{char}n")
    assert f"it contains {UNSEEN[char]}, which cannot be seen" in str(raised.value)


@given(st.text(max_size=30) | st.text("ae\u0301\u0308 \u00a0\u200bé한", max_size=6))
def test_an_accepted_id_is_one_spelling_and_looks_like_what_was_sent(sent: str) -> None:
    try:
        identifier = check_id("user", sent)
    except InvalidInput:
        return
    assert check_id("user", identifier) == identifier
    assert unicodedata.is_normalized("NFC", identifier)
    assert unicodedata.normalize("NFD", identifier) == unicodedata.normalize("NFD", sent.strip())
    assert check_id("user", unicodedata.normalize("NFD", sent)) == identifier


@pytest.mark.parametrize("old", ["Jose\u0301", "an\u200bn", " ann"])
def test_a_spelling_of_an_earlier_version_stays_reachable(old: str) -> None:
    assert check_id("user", old, {old}.__contains__) == old
    assert check_id("user", "José", {old}.__contains__) == "José"


def test_no_ledger_is_asked_about_a_spelling_that_new_ids_have() -> None:
    def kept(spelling: str) -> bool:
        raise AssertionError(spelling)

    assert check_id("user", "José 한국", kept) == "José 한국"
    with pytest.raises(InvalidInput, match="control character"):
        check_id("user", "a\x00b", kept)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("", "at least one visible character"),
        (" \t", "at least one visible character"),
        ("a\nb", r"U\+000A: remove this control character"),
        ("\u0958" * (ID_CHARS_MAX - 1), "at most 16384"),
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
