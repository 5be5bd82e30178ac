"""Sends sixty ordinary first messages to the embedded chat model, and asks later for what was told.

Forty messages are English and twenty Chinese. Each is the first of a person of their own, as after a fresh ``make
run``: the real embedded endpoints, the real service, the settings of the launcher. Twenty of the people go on: two
further turns, and then, in another conversation, a question about what they told first.

Every answer is printed. A program finds answers in the wrong language, refusals, and answers that lack an expected
word; read the others too, because whether an answer is to the point is judged by eye.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

from benchmarks.remembered import embedded_models
from benchmarks.running import progress
from service.launch.command import api_environment
from tests.processes import ROOT, service_process

_ANSWER_S_MAX = 600.0
_TOKENS_MAX = 160
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_LATIN = re.compile(r"[A-Za-z]")
_OTHER_SCRIPT = re.compile(r"[\u0400-\u04ff\u0600-\u06ff\u3040-\u30ff\uac00-\ud7af]")
_NOT_ENGLISH = re.compile(r"\b(désolé|je|lo siento|tut mir leid|ich|mi dispiace|desculpe)\b", re.IGNORECASE)
_REFUSAL = re.compile(
    r"can(?:no|')t (?:help|assist|answer|do)|unable to (?:help|assist|answer)|don't have (?:any|enough|access)"
    r"|I'm sorry|I am sorry|As an AI|无法|抱歉|对不起|不能回答|作为一个|没有关于",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class First:
    """A first message; ``asked`` is what its person asks three turns later, ``right`` the words of a right answer."""

    text: str
    asked: str = ""
    right: tuple[str, ...] = ()


ENGLISH = (
    First("My cat is called Miso and she only eats tuna.", "What does my cat eat?", ("tuna",)),
    First("Remember that my car is a grey Skoda.", "What car do I drive?", ("skoda",)),
    First("I'm allergic to peanuts.", "Is there any food I have to avoid?", ("peanut",)),
    First("My sister Anna lives in Lisbon.", "Where does my sister live?", ("lisbon",)),
    First("I work as a nurse at night.", "What is my job?", ("nurse",)),
    First("My dentist appointment is on 14 March at 10:30.", "When is my dentist appointment?", ("14",)),
    First(
        "Please note: the wifi password at the cabin is heron-42.",
        "What is the wifi password at the cabin?",
        ("heron-42",),
    ),
    First("I'm learning to play the cello.", "Which instrument am I learning?", ("cello",)),
    First("My favourite colour is dark green.", "What is my favourite colour?", ("green",)),
    First("We are moving to Bristol in June.", "Which city are we moving to?", ("bristol",)),
    First("My son Leo turns seven on Saturday.", "How old is my son going to be?", ("seven", "7")),
    First("I don't drink coffee, only green tea.", "What do I drink instead of coffee?", ("tea",)),
    First("My boss is called Priya Raman.", "What is my boss called?", ("priya",)),
    First(
        "hi",
    ),
    First("Hello, who are you?"),
    First("What can you do?"),
    First("Good morning! How are you?"),
    First("Can you remember things I tell you?"),
    First("What do you know about me?"),
    First("What is my name?"),
    First("What is the capital of Australia?"),
    First("How long do I boil an egg so that the yolk stays soft?"),
    First("Give me three ideas for a birthday present for my mother."),
    First("Write a short email to my landlord that the heating is broken."),
    First("What is 17 times 6?"),
    First("Explain in two sentences why the sky is blue."),
    First("Translate 'Where is the train station?' into Spanish."),
    First("I feel a bit down today."),
    First("Suggest a name for a small brown dog."),
    First("What should I cook with rice, eggs and spinach?"),
    First("I ran my first half marathon yesterday!"),
    First("Tell me a joke."),
    First("How do I get a coffee stain out of a white shirt?"),
    First("Which is farther from the sun, Mars or Venus?"),
    First("I have two meetings tomorrow, one at nine and one at two."),
    First("Write a Python function that reverses a string."),
    First("My name is Tom."),
    First("Recommend a book for a long flight."),
    First("Thanks for your help!"),
    First("I want to save money for a trip to Japan. Where do I start?"),
)
CHINESE = (
    First("我家的猫叫豆豆，只吃金枪鱼。", "我的猫吃什么？", ("金枪鱼",)),
    First("请记住，我的车是一辆灰色的斯柯达。", "我开什么车？", ("斯柯达",)),
    First("我对花生过敏。", "有什么食物我不能吃？", ("花生",)),
    First("我妹妹住在成都。", "我妹妹住在哪里？", ("成都",)),
    First("我是一名夜班护士。", "我的工作是什么？", ("护士",)),
    First("我下周三下午三点要去看牙医。", "我什么时候去看牙医？", ("三",)),
    First("我最近在学拉大提琴。", "我在学什么乐器？", ("大提琴",)),
    First("你好"),
    First("你是谁？"),
    First("你能做什么？"),
    First("你能记住我说的话吗？"),
    First("我叫什么名字？"),
    First("中国的首都是哪里？"),
    First("帮我写一条请假的短信，我感冒了。"),
    First("西红柿炒鸡蛋怎么做？"),
    First("今天心情不太好。"),
    First("把“火车站在哪里？”翻译成英文。"),
    First("给我讲个笑话。"),
    First("我叫王小明。"),
    First("推荐三个适合周末去的活动。"),
)
MESSAGES = (*ENGLISH, *CHINESE)
_BETWEEN = {
    False: ("What is a good way to fall asleep faster?", "Name three European rivers."),
    True: ("怎样才能更快入睡？", "说出三条中国的河流。"),
}


def complaints(asked: str, answer: str, right: Sequence[str] = ()) -> list[str]:
    """What a program can find wrong with an answer: language, refusal, and the lack of every one of ``right``."""
    found = []
    chinese, latin = len(_CHINESE.findall(answer)), len(_LATIN.findall(answer))
    as_asked = chinese > latin / 4 if _is_chinese(asked) else latin > chinese
    if "翻译成英文" in asked:
        as_asked = latin > 0
    if not as_asked or _OTHER_SCRIPT.search(answer) or _NOT_ENGLISH.search(answer):
        found.append("language")
    if _REFUSAL.search(answer):
        found.append("refusal?")
    if right and not any(word in answer.lower() for word in right):
        found.append("wrong")
    return found


def _is_chinese(text: str) -> bool:
    return _CHINESE.search(text) is not None


def _ask(client: httpx2.Client, user: str, conversation: str, text: str) -> str:
    request = {
        "user": user,
        "metadata": {"conversation_id": conversation},
        "max_tokens": _TOKENS_MAX,
        "messages": [{"role": "user", "content": text}],
    }
    response = client.post("/v1/chat/completions", json=request)
    body = response.json()
    if response.status_code != httpx2.codes.OK:
        return f"({body['error']['message']})"
    said: str = body["choices"][0]["message"]["content"]
    return " ".join(said.split())


def measure(client: httpx2.Client, messages: Sequence[First]) -> None:
    """Ask everything and print every answer and the counts."""
    first_found, later_found, later = 0, 0, 0
    for number, message in enumerate(messages, start=1):
        user, started = f"person {number}", time.perf_counter()
        answer = _ask(client, user, "first", message.text)
        found = complaints(message.text, answer)
        first_found += bool(found)
        print(f"{number:2} {', '.join(found) or 'ok'}: {message.text}\n      {answer}", flush=True)
        if message.asked:
            for text in _BETWEEN[_is_chinese(message.text)]:
                _ask(client, user, "first", text)
            answer = _ask(client, user, "second", message.asked)
            found = complaints(message.asked, answer, message.right)
            later, later_found = later + 1, later_found + bool(found)
            print(f"   {', '.join(found) or 'ok'}: {message.asked}\n      {answer}", flush=True)
        progress(f"[{number}/{len(messages)}] {time.perf_counter() - started:.0f} s")
    print(f"\nfirst answers without complaint: {len(messages) - first_found} of {len(messages)}")
    print(f"later questions without complaint: {later - later_found} of {later}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the messages to send (default: all)")
    given = parser.parse_args()
    chosen = [MESSAGES[number - 1] for number in given.only] if given.only else MESSAGES
    embedded = ["chat", "embeddings"]
    with embedded_models(embedded) as announced, tempfile.TemporaryDirectory(prefix="first-") as folder:
        own = {"STORAGE_DIR": str(Path(folder) / "storage"), "PYTHONPATH": str(ROOT)}
        with (
            service_process(api_environment(announced, embedded, {}) | own) as service,
            httpx2.Client(base_url=service.base_url, timeout=_ANSWER_S_MAX, trust_env=False) as client,
        ):
            measure(client, chosen)


if __name__ == "__main__":
    main()
