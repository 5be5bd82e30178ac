"""The estimate is at least what common tokenizers count, and not much more on English prose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import tokens
from domain.tokens import estimate_tokens

# The most and the fewest tokens that the vocabularies of DeepSeek V3, Gemma 3, GPT-4o, Llama 2, Llama 3 and
# Qwen 3 make of each text, counted with their published tokenizers.
COUNTED = {
    "prose": (
        "The ferry was late again, so we walked along the harbour and argued about whether Bruno, the "
        "neighbor's dog, had really eaten the whole lemon cake that my sister baked for the anniversary.",
        42,
        38,
    ),
    "code": (
        "def replay(events: list[Event], *, limit: int = 5) -> dict[str, int]:\n"
        "    for index, event in enumerate(events):\n"
        "        if event.type == 'TurnRecorded' and index < limit:\n"
        '            totals[event.user_id] += len(event.payload["text"])\n'
        "    return totals\n",
        80,
        62,
    ),
    "digits": (
        "3.14159265358979 2024-11-03T12:45:59Z +49 170 1234567 0x7fffdeadbeef 1,234,567.89",
        74,
        45,
    ),
    "uuid": ("550e8400-e29b-41d4-a716-446655440000", 37, 18),
    "hash": ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", 60, 43),
    "chinese": (
        "我们家的橘猫叫年糕，下个月要搬到苏州，我在设计院做结构工程师，周末常去武功山爬山，晚上喜欢读小说。",
        58,
        33,
    ),
    "traditional": ("我養了一隻貓，牠叫做小虎。下個月我們會搬到臺北，準備開一間專賣烏龍茶的小店。", 57, 31),
    "japanese": (
        "私の犬の名前は小太郎です。来月、京都へ引っ越します。コーヒーよりも抹茶が好きです。",
        46,
        23,
    ),
    "korean": ("제 강아지 이름은 콩이예요. 다음 달에 부산으로 이사합니다.", 36, 20),
    "emoji": ("😀🎉🐕‍🦺👨‍👩‍👧‍👦🏳️‍🌈❤️🇩🇪🥑👍🏽✈️", 61, 27),
    "russian": ("Мою собаку зовут Шарик. В следующем месяце я переезжаю.", 28, 17),
    "german": ("Die Rückversicherungsverträge wurden außergewöhnlich gründlich überprüft.", 24, 14),
    "arabic": ("اسم كلبي ركس. سأنتقل إلى القاهرة الشهر القادم.", 41, 14),
    "hindi": ("मेरे कुत्ते का नाम शेरू है।", 28, 8),
    "mixed": (
        "我用Python写了一个脚本，版本3.11，耗时12.5秒；请看https://example.com/a?b=1。",
        40,
        28,
    ),
}


@pytest.mark.parametrize("name", COUNTED)
def test_never_fewer_than_the_greediest_tokenizer(name: str) -> None:
    text, most, _ = COUNTED[name]
    # Ten times the text, so that the frame alone cannot make up for a cost that is too low.
    assert estimate_tokens(text * 10) >= most * 10 - 10


def test_prose_is_overcounted_by_at_most_six_tenths() -> None:
    text, most, fewest = COUNTED["prose"]
    assert estimate_tokens(text * 10) <= 1.6 * fewest * 10
    assert estimate_tokens(text * 10) <= 1.45 * most * 10


@given(st.text(), st.text())
def test_joined_text_costs_as_much_as_its_parts_up_to_rounding(one: str, two: str) -> None:
    apart = estimate_tokens(one) + estimate_tokens(f"\n{two}")
    assert abs(estimate_tokens(f"{one}\n{two}") - apart) <= 2


@given(st.text())
def test_any_text_has_an_estimate_between_nothing_and_its_bytes(text: str) -> None:
    most = 2 * len(text.encode("utf-8", "surrogatepass"))
    assert 0 <= estimate_tokens(text) <= most


def test_what_is_kept_between_estimates_holds_no_word_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[int, float] = {}
    monkeypatch.setattr(tokens, "_costs", kept)
    monkeypatch.setattr(tokens, "PIECES_CACHED_MAX", 10)
    text = " ".join(f"Miso{'o' * number} sleeps" for number in range(30))
    assert estimate_tokens(text) == estimate_tokens(text)
    assert 0 < len(kept) <= 10
    assert {type(part) for item in kept.items() for part in item} <= {int, float}, "an erased person's words are gone"
