"""While the embedding endpoint is away, a fact is found by its words, in whatever script and spelling."""

from __future__ import annotations

import unicodedata

import pytest

from tests.service.running import Running
from tests.upstream import Fault, gate_keeps_all

NOISE = ["I moved to Oslo.", "我喜欢喝咖啡。", "ฉันแพ้ถั่วลิสง", "أحب القهوة", "Я люблю кофе."]
CASES = [
    ("Thai", "แมวของฉันชื่อมะม่วง", "แมวชื่ออะไร"),
    ("Arabic", "قِطَّتِي اسْمُهَا ميسو", "ما اسمها قطتي؟"),
    ("Hebrew", "לַחֲתוּלָה שֶׁלִּי קוֹרְאִים מִיסוֹ", "איך קוראים לחתולה שלי?"),
    ("Russian", "Моего ежа зовут Пётр", "Кто такой Петр?"),
    ("Hindi", "मेरी बिल्ली का नाम मिसो है", "बिल्ली का नाम क्या है?"),
    ("decomposed", unicodedata.normalize("NFD", "Meine Tante heißt Zoë Grün"), "Wer ist ZOË GRÜN?"),
    ("full width", "我的猫叫ＭＩＳＯ", "who is miso"),
    ("Chinese", "我的猫叫米索", "猫叫什么名字"),
]


@pytest.mark.parametrize(("fact", "question"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_fact_is_found(service: Running, user: str, fact: str, question: str) -> None:
    service.upstream.responders["gate"] = gate_keeps_all
    service.tell_all([*NOISE, fact], user)
    service.upstream.fail("embed", *[Fault(status=503)] * 20)
    answer = service.client.tell(question, user, retrieve_k=1)
    assert answer.memory("memory_status")["mode"] == "lexical"
    assert answer.replayed == [fact]
