"""Words are found by stem, weighed by BM25 and withdrawn, and the order of updates does not matter."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain.errors import IndexCorrupt, IndexUnavailable
from domain.events import Facet
from domain.memory import FacetText
from domain.sqlite import DRIVER
from projections.lexical import analysis
from projections.lexical import index as lexical
from projections.lexical.index import Checkpoint, LexicalIndex


def said(position: int, text: str | None, *, facet: Facet = "exchange", turn: int | None = None) -> FacetText:
    return FacetText("ann", position, turn if turn is not None else position, facet, text)


def index_of(*changes: FacetText) -> LexicalIndex:
    index = LexicalIndex.in_memory()
    index.apply(changes)
    return index


def found(index: LexicalIndex, query: str, count: int = 10) -> list[int]:
    return [hit.turn_position for hit in index.search(query, count).hits]


def test_words_are_found_by_stem_case_and_without_accents() -> None:
    index = index_of(said(1, "We painted the café."), said(2, "Miso eats tuna."), said(3, "A long walk."))
    assert found(index, "Who was PAINTING?") == [1]
    assert found(index, "cafe") == [1]
    assert found(index, "What does my cat eat?") == [2]
    assert found(index, "violin") == []
    assert found(index, "?!") == []


FACTS_AND_QUESTIONS = [
    ("Thai", "แมวของฉันชื่อมะม่วง มันชอบกินปลาทูน่า", "แมวชื่ออะไร"),
    ("Thai", "เมื่อวานฉันไปเชียงใหม่กับแม่", "ฉันไปเชียงใหม่กับใคร"),
    ("Thai", "ฉันแพ้ถั่วลิสง", "แพ้อะไร"),
    ("Lao", "ແມວຂອງຂ້ອຍຊື່ມະມ່ວງ", "ແມວຊື່ຫຍັງ"),
    ("Khmer", "ឆ្មារបស់ខ្ញុំឈ្មោះស្វាយ", "ឆ្មាឈ្មោះអ្វី"),
    ("Burmese", "ကျွန်တော့်ကြောင်နာမည်က မိုးမိုး", "ကြောင်နာမည်ဘယ်လိုလဲ"),
    ("Hindi", "मेरी बिल्ली का नाम मिसो है", "बिल्ली का नाम क्या है?"),
    ("Tamil", "என் பூனையின் பெயர் மிசோ", "பூனையின் பெயர் என்ன?"),
    ("Bengali", "আমার বিড়ালের নাম মিসো", "বিড়ালের নাম কী?"),
    ("Arabic", "قِطَّتِي اسْمُهَا ميسو", "ما اسمها قطتي؟"),
    ("Arabic", "اختي امال تسكن في القاهره", "أين تسكن أختي آمال في القاهرة؟"),
    ("Persian", "گربه‌ام ميسو ماهی می‌خورد", "گربه‌ام چه ماهي می‌خورد؟"),
    ("Hebrew", "לַחֲתוּלָה שֶׁלִּי קוֹרְאִים מִיסוֹ", "איך קוראים לחתולה שלי?"),
    ("Russian", "Моего ежа зовут Пётр", "Как зовут Петр?"),
    ("Russian", "Мы живем на Королева, 12", "дом на Королёва"),
    ("Greek", "Η γάτα μου λέγεται Μίσο", "ΠΩΣ ΛΕΓΕΤΑΙ Η ΓΑΤΑ ΜΟΥ;"),
    ("German", "Ich wohne in der Hauptstraße", "Hauptstrasse"),
    ("Turkish", "Ablam İzmir'de oturuyor", "izmir'de kim oturuyor?"),
    ("Vietnamese", "Con me\u0300o cu\u0309a to\u0302i te\u0302n la\u0300 Miso", "mèo tên gì?"),
    ("Japanese", "うちの猫はﾐｿという名前です", "猫のミソ"),
    ("Korean", unicodedata.normalize("NFD", "제 고양이 이름은 미소예요"), "고양이 이름이 뭐예요?"),
    ("Chinese, full width", "我的猫叫ＭＩＳＯ", "miso"),
]


@pytest.mark.parametrize(
    ("fact", "question"), [case[1:] for case in FACTS_AND_QUESTIONS], ids=[case[0] for case in FACTS_AND_QUESTIONS]
)
def test_a_fact_is_found_by_its_question_in_many_scripts(fact: str, question: str) -> None:
    others = [other for _, other, _ in FACTS_AND_QUESTIONS if other != fact]
    index = index_of(said(1, fact), *(said(number, other) for number, other in enumerate(others, start=2)))
    assert found(index, question)[:1] == [1]


WITHOUT_SPACES = {
    "Thai": [
        ("แมวของฉันชื่อมะม่วง", "แมวชื่ออะไร"),
        ("ฉันแพ้ถั่วลิสง", "ฉันแพ้อาหารอะไร"),
        ("พี่สาวของฉันทำงานเป็นพยาบาลที่เชียงใหม่", "พี่สาวทำงานที่ไหน"),
        ("รถของฉันเป็นโตโยต้าสีแดง", "รถสีอะไร"),
        ("วันเกิดของแม่คือวันที่ 5 มิถุนายน", "วันเกิดแม่วันไหน"),
        ("ฉันชอบกินข้าวมันไก่ร้านหน้าโรงเรียน", "ฉันชอบกินข้าวอะไร"),
        ("ลูกชายเรียนเปียโนทุกวันเสาร์", "ลูกชายเรียนดนตรีวันไหน"),
        ("รหัสไวไฟที่บ้านคือ 4711", "รหัสไวไฟคืออะไร"),
        ("หมอนัดตรวจฟันวันพฤหัส", "หมอฟันนัดเมื่อไหร่"),
    ],
    "Khmer": [
        ("ឆ្មារបស់ខ្ញុំឈ្មោះស្វាយ", "ឆ្មាឈ្មោះអ្វី"),
        ("ខ្ញុំរស់នៅភ្នំពេញ", "ខ្ញុំរស់នៅឯណា"),
        ("បងស្រីខ្ញុំជាគ្រូពេទ្យ", "បងស្រីធ្វើការអ្វី"),
        ("ខ្ញុំចូលចិត្តកាហ្វេ", "ខ្ញុំចូលចិត្តផឹកអ្វី"),
    ],
    "Burmese": [
        ("ကျွန်တော့်ကြောင်နာမည်က မိုးမိုး", "ကြောင်နာမည်ဘယ်လိုလဲ"),
        ("ကျွန်တော် ရန်ကုန်မှာ နေတယ်", "ဘယ်မှာ နေလဲ"),
        ("အစ်မက ဆရာဝန်ပါ", "အစ်မ အလုပ်ကဘာလဲ"),
        ("ကျွန်တော် ကော်ဖီကြိုက်တယ်", "ဘာကော်ဖီကြိုက်လဲ"),
    ],
}


@pytest.mark.parametrize("talk", WITHOUT_SPACES.values(), ids=WITHOUT_SPACES)
def test_among_facts_of_one_script_each_question_finds_its_own(talk: list[tuple[str, str]]) -> None:
    index = index_of(*(said(number, fact) for number, (fact, _) in enumerate(talk)))
    for number, (_, question) in enumerate(talk):
        assert found(index, question)[:1] == [number], question


@given(st.text(max_size=40))
@example("a\x00b \ud83d".encode("utf-8", "ignore").decode() + "\ue000\U000f0000 c\u2028d \u202be\u202c")
def test_a_text_is_found_by_each_of_its_words(text: str) -> None:
    index = index_of(said(1, text))
    for term in analysis.terms(text):
        assert found(index, term.text) == [1]


@pytest.mark.parametrize("odd", ["\x00", "\u2028", "\u202e", "\ue000", "\ufeff", "\x1b", "\u0085", "\U000f0000"])
def test_odd_characters_hide_no_word(odd: str) -> None:
    index = index_of(said(1, f"My locker code is {odd} zebra{odd} 4711."))
    assert found(index, "locker code") == [1]
    assert found(index, f"{odd} zebra") == [1]
    assert found(index, "4711") == [1]


def test_the_rarer_word_weighs_more_and_the_shorter_text_too() -> None:
    index = index_of(
        said(1, "The cat sleeps."), said(2, "The cat runs."), said(3, "A dog sleeps."), said(4, "The cat eats."),
        said(5, "Rain."), said(6, "Snow."), said(7, "A dog eats whatever it finds on the long way down to the river."),
    )  # fmt: skip
    assert found(index, "cat dog")[0] == 3
    assert found(index, "dog") == [3, 7]


def test_a_memory_counts_by_its_best_text() -> None:
    index = index_of(
        said(1, "Tuna, and little else, is what she will have."),
        said(2, "Cats: tuna.", facet="summary", turn=1),
        said(3, "We had tuna on the boat, and bread, and then cheese and more of that tuna."),
        *(said(number, "Nothing of note.") for number in range(4, 9)),
    )
    hits = index.search("tuna", 10).hits
    assert [(hit.turn_position, hit.matched) for hit in hits] == [(1, "summary"), (3, "exchange")]
    assert hits[0].score > hits[1].score > 0


@pytest.mark.parametrize(
    ("query", "positions"),
    [
        ("猫", [1, 2]),
        ("喜欢猫", [1]),
        ("猫爱吃什么", [2]),
        ("京都", [3]),
        ("した", [3]),
        ("고양이", [4]),
        ("Miso", [2]),
    ],
)
def test_chinese_japanese_and_korean_are_found(query: str, positions: list[int]) -> None:
    index = index_of(
        said(1, "我很喜欢猫"),
        said(2, "我的猫Miso爱吃鱼。"),
        said(3, "京都で生まれました"),
        said(4, "우리 고양이는 귀엽다"),
        *(said(number, f"备注 {number}") for number in range(5, 12)),
    )
    assert sorted(found(index, query)) == positions


def test_an_exchange_is_found_by_its_date() -> None:
    day = datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
    index = index_of(
        FacetText("ann", 1, 1, "exchange", "We ran.", day),
        FacetText("ann", 2, 2, "exchange", "We ran.", day + timedelta(days=40)),
        *(said(number, "Nothing of note.") for number in range(3, 9)),
    )
    assert found(index, "Who ran in May 2023?")[0] == 1
    assert found(index, "Who ran on 17 June?")[0] == 2


def test_a_text_is_replaced_and_withdrawn() -> None:
    index = index_of(said(1, "The ferry leaves at nine."), said(2, "Ferry at nine.", facet="summary", turn=1))
    index.apply([said(3, "The boat leaves at ten.", facet="summary", turn=1)])
    assert found(index, "boat") == [1]
    index.apply([said(4, None, turn=1), said(4, None, facet="summary", turn=1), said(5, None, turn=4)])
    assert found(index, "ferry boat") == []


def test_it_moves_only_from_where_it_stands() -> None:
    index = LexicalIndex.in_memory()
    assert index.apply([said(3, "tuna")], after=0, position=3, anchor="three")
    assert not index.apply([said(3, "salmon")], after=0, position=4, anchor="four")
    assert index.checkpoint() == Checkpoint(3, "three")
    assert found(index, "salmon") == []


def test_a_result_names_the_position_of_the_index_even_where_nothing_is_found() -> None:
    index = LexicalIndex.in_memory()
    index.apply([said(3, "tuna")], after=0, position=3, anchor="three")
    for query in ("tuna", "salmon", "?!"):
        assert index.search(query, 5).position == 3, query
    index.close()


def test_a_search_is_bounded_however_common_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical, "_POSTINGS_MAX", 5)
    index = index_of(
        *(said(number, f"The cat sat on mat {number}.") for number in range(1, 31)),
        *(said(number, f"A heron came on day {number}.") for number in range(31, 34)),
    )
    assert found(index, "cat heron") == [31, 32, 33], "there is room for the rare word alone"
    assert found(index, "cat") == [26, 27, 28, 29, 30], "a lone common word finds the newest texts"


@given(st.text())
def test_no_question_is_syntax(query: str) -> None:
    for asked in (query, f'{query}" OR text:*', f"NEAR({query})"):
        assert set(found(_SHARED, asked)) <= {1, 2}


_SHARED = index_of(said(1, "The near cat, or text and not."), said(2, "猫 1"))

TEXTS = st.lists(st.sampled_from(["cat", "dogs", "runs", "running", "猫狗", "tuna", "the"]), max_size=8).map(" ".join)
CHANGES = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from(["exchange", "summary"]), st.one_of(st.none(), TEXTS)), max_size=25
)


@settings(max_examples=50)
@given(CHANGES, st.integers(1, 5))
def test_grown_step_by_step_it_equals_one_made_at_once(
    said_of: Sequence[tuple[int, Facet, str | None]], step: int
) -> None:
    changes = [said(at, text, facet=facet, turn=turn) for at, (turn, facet, text) in enumerate(said_of, start=10)]
    grown = LexicalIndex.in_memory()
    for start in range(0, len(changes), step):
        grown.apply(changes[start : start + step])
    at_once = index_of(*changes)
    for query in ("cat", "run tuna", "猫", "dog 狗"):
        assert grown.search(query, 10) == at_once.search(query, 10)
    grown.close()
    at_once.close()


def test_a_file_keeps_what_it_was_told(tmp_path: Path) -> None:
    path = tmp_path / "users" / "ann" / "lexical.sqlite3"
    index = LexicalIndex.on_disk(path)
    index.apply([said(1, "Miso eats tuna.")], after=0, position=1, anchor="one")
    hits = index.search("tuna", 1)
    index.close()
    again = LexicalIndex.on_disk(path)
    assert again.checkpoint() == Checkpoint(1, "one")
    assert again.search("tuna", 1) == hits
    again.settle()
    again.close()


def test_a_file_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LexicalIndex.on_disk(tmp_path / "lexical.sqlite3").close()
    monkeypatch.setattr(lexical, "_MADE_WITH", "format 1, words 0")
    with pytest.raises(IndexCorrupt, match="another version"):
        LexicalIndex.on_disk(tmp_path / "lexical.sqlite3")


def test_a_busy_file_is_not_a_broken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical, "_BUSY_TIMEOUT_S", 0.01)
    path = tmp_path / "lexical.sqlite3"
    index = LexicalIndex.on_disk(path)
    other = DRIVER.connect(str(path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(IndexUnavailable, match="locked"):
        index.apply([said(1, "tuna")])
    other.execute("ROLLBACK")
    assert index.apply([said(1, "tuna")])
    other.close()
    index.close()
