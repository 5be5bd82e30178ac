"""A client that resends its history means it: the model gets it, and the ledger knows which turns it repeats."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain.audit_reader import AuditReader
from domain.events import MessagesSent, TurnRecorded
from domain.sqlite import open_engine
from service.audit.explain import find_answer, trace_of
from tests.service.running import Answer, Running, running, someone
from tests.upstream import ScriptedUpstream

PHOTO = base64.b64encode(bytes(range(256)) * 40).decode()


class Chat:
    """A client that keeps its own history and sends all of it each time, as most do."""

    def __init__(self, service: Running, user: str, **fields: Any) -> None:
        self.service = service
        self.user = user
        self.fields = fields
        self.messages: list[dict[str, Any]] = []

    def say(self, content: Any, **fields: Any) -> Answer:
        self.messages.append({"role": "user", "content": content})
        body = {"messages": self.messages, "user": self.user, **self.fields, **fields}
        answer = self.service.client.post(body)
        assert answer.status == 200, answer.body
        self.messages.append({"role": "assistant", "content": answer.text})
        return answer


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with ScriptedUpstream() as upstream, running(upstream, tmp_path_factory.mktemp("storage")) as service:
        yield service


@pytest.fixture(scope="module")
def each_anew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("storage")
    with ScriptedUpstream() as upstream, running(upstream, folder, conversation_without_id="new") as service:
        yield service


@pytest.fixture
def user() -> str:
    return someone()


def conversation_of(answer: Answer) -> str:
    named = str(answer.memory("turn")["conversation_id"])
    assert answer.headers["x-opm-conversation-id"] == named
    return named


def assert_proved(service: Running, *answers: Answer) -> None:
    """Every prompt of these answers can be made again from the ledger."""
    for answer in answers:
        assert_proved_exchange(service, answer.id)


def assert_proved_exchange(service: Running, answer_id: str) -> None:
    engine = open_engine(service.ledger.path, writer=False)
    try:
        reader = AuditReader(engine)
        trace = trace_of(reader, find_answer(reader, answer_id))
        assert [(proof.proof, proof.note) for _, proof in trace.proofs if proof.proof != "same_as_sent"] == []
        assert trace.prompt is not None
    finally:
        engine.dispose()


def test_a_chat_without_an_id_is_one_conversation(each_anew: Running, user: str) -> None:
    one, other = Chat(each_anew, user), Chat(each_anew, user)
    first = [one.say("I have a cat called Miso."), other.say("I have a cat called Miso.")]
    second = [other.say("She eats tuna."), one.say("She sleeps a lot.")]
    third = [one.say("What does she do?"), other.say("What does she eat?")]
    of_one = [conversation_of(answer) for answer in (first[0], second[1], third[0])]
    of_other = [conversation_of(answer) for answer in (first[1], second[0], third[1])]
    # Both begin alike, so the second may go on either: after it, each is a chat of its own.
    assert len(set(of_other[1:])) == len(set(of_one[1:])) == 1
    assert set(of_other[1:]) != set(of_one[1:])
    assert_proved(each_anew, *first, *second, *third)


def test_the_window_is_what_the_client_sent(each_anew: Running, user: str) -> None:
    chat = Chat(each_anew, user)
    for number in range(8):
        chat.say(f"Remark number {number}.")
    asked = chat.say("What was the first one?")
    assert each_anew.messages()[1:] == [(each["role"], each["content"]) for each in chat.messages[:-1]]
    turn = each_anew.ledger.one(TurnRecorded, asked)
    assert turn.from_client is not None
    assert turn.from_client.history == turn.window
    assert len(turn.window) == 8
    assert turn.follows == turn.window[-1]
    assert each_anew.ledger.all(MessagesSent, user, conversation_of(asked)) == []
    assert_proved(each_anew, asked)


def test_a_history_is_cut_only_where_the_request_says_so(each_anew: Running, user: str) -> None:
    chat = Chat(each_anew, user)
    for number in range(4):
        chat.say(f"Remark number {number}.")
    chat.say("And now?", metadata={"recent_turns": 1, "candidate_n": 0})
    assert [text for _, text in each_anew.messages()[1:]] == [
        "Remark number 3.",
        chat.messages[-3]["content"],
        "And now?",
    ]


def test_what_the_shared_conversation_began_goes_on_by_itself(service: Running, user: str) -> None:
    one, other = Chat(service, user), Chat(service, user)
    began = [one.say("My plant is a fern."), other.say("My bike is blue.")]
    assert {conversation_of(answer) for answer in began} == {"default"}
    went_on = [one.say("It needs water."), other.say("It has a bell."), one.say("And light.")]
    names = [conversation_of(answer) for answer in went_on]
    assert names == [f"chat-{began[at].memory('turn')['memory_id']}" for at in (0, 1, 0)]
    assert_proved(service, *began, *went_on)


@pytest.mark.parametrize(
    "changed",
    [
        lambda text: f"\n{text}  \n\n",
        lambda text: f"**{text}**",
        lambda text: text.upper(),
        lambda text: f"<think>Hm, a cat.</think>{text}",
        lambda text: f'<details type="reasoning"><summary>Thought</summary>\n> Hm.\n</details>\n{text}',
    ],
)
def test_a_changed_history_is_recognised_and_kept_once(each_anew: Running, user: str, changed: Any) -> None:
    chat = Chat(each_anew, user)
    first = chat.say("I have a cat called Miso.")
    chat.messages[1]["content"] = changed(chat.messages[1]["content"])
    second = chat.say("She eats tuna.")
    third = chat.say("What does she eat?")
    conversations = {conversation_of(answer) for answer in (first, second, third)}
    assert len(conversations) == 1
    told = each_anew.ledger.all(MessagesSent, user, conversations.pop())
    assert [said.memory_id for said in told] == [first.memory("turn")["memory_id"]]
    assert list(told[0].messages) == chat.messages[:2]
    assert_proved(each_anew, second, third)


def test_a_history_without_its_beginning_is_recognised(each_anew: Running, user: str) -> None:
    chat = Chat(each_anew, user)
    first = chat.say("I have a cat called Miso.")
    for number in range(3):
        chat.say(f"Remark number {number}.")
    chat.messages = [{"role": "system", "content": "Earlier they spoke of a cat."}, *chat.messages[-2:]]
    asked = chat.say("What is she called?", metadata={"use_gate": False})
    assert conversation_of(asked) == conversation_of(first)
    # What it left out is a memory like any other.
    assert "I have a cat called Miso." in asked.replayed
    assert_proved(each_anew, asked)


def test_a_history_begun_elsewhere_is_shown_and_not_remembered(each_anew: Running, user: str) -> None:
    chat = Chat(each_anew, user)
    chat.messages = [
        {"role": "user", "content": "Translate: dog"},
        {"role": "assistant", "content": "chien"},
        {"role": "user", "content": "Translate: cat"},
        {"role": "assistant", "content": "chat"},
    ]
    first = chat.say("Translate: bird")
    second = chat.say("Translate: horse")
    assert each_anew.messages()[1:3] == [("user", "Translate: dog"), ("assistant", "chien")]
    conversation = conversation_of(first)
    assert conversation_of(second) == conversation
    assert [turn.user for turn in each_anew.ledger.all(TurnRecorded, user, conversation)] == [
        "Translate: bird",
        "Translate: horse",
    ]
    assert len(each_anew.ledger.all(MessagesSent, user, conversation)) == 2
    assert_proved(each_anew, first, second)


def test_a_conversation_that_is_named_stays_that_one(service: Running, user: str) -> None:
    chat = Chat(service, user, metadata={"conversation_id": "mine"})
    chat.say("I like tea.")
    assert conversation_of(chat.say("And biscuits.")) == "mine"


@pytest.mark.parametrize(
    "name", ["x-conversation-id", "x-openwebui-chat-id", "x-librechat-conversation-id", "x-claude-session-id"]
)
def test_a_header_names_the_conversation(service: Running, user: str, name: str) -> None:
    body = {"messages": [{"role": "user", "content": "Hi there."}], "user": user}
    answer = service.client.post(body, **{name: "chat 7"})
    assert answer.memory("turn")["conversation_id"] == "chat 7"


def test_a_photo_reaches_the_model_and_stays_out_of_the_ledger(each_anew: Running, user: str) -> None:
    chat = Chat(each_anew, user)
    photo = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PHOTO}"}}
    first = chat.say([{"type": "text", "text": "Who is this?"}, photo])
    sent = each_anew.upstream.calls_of("answer")[-1].body["messages"][-1]["content"]
    assert sent == [{"type": "text", "text": "Who is this?"}, photo]
    second = chat.say("And what is he doing?")
    assert each_anew.upstream.calls_of("answer")[-1].body["messages"][1]["content"][1] == photo
    turn = each_anew.ledger.one(TurnRecorded, first)
    assert turn.user.startswith("Who is this?\n[image: image/png, 10240 bytes, sha256 ")
    assert conversation_of(second) == conversation_of(first)
    each_anew.settle()
    for file in each_anew.ledger.path.parent.rglob("*"):
        assert not file.is_file() or PHOTO[:60].encode() not in file.read_bytes(), file
    assert_proved(each_anew, first, second)


def test_every_other_field_reaches_the_model(service: Running, user: str) -> None:
    fields = {
        "logprobs": True,
        "top_logprobs": 3,
        "service_tier": "flex",
        "grammar": "root ::= [a-z]+",
        "prediction": {"type": "content", "content": "x"},
        "anything": {"at": ["all"]},
        "seed": 7,
    }
    own = {"store": True, "metadata": {"conversation_id": "c", "candidate_n": 0, "trace": "t1"}, "max_tokens": -1}
    answer = service.client.post({"messages": [{"role": "user", "content": "Hi."}], "user": user, **fields, **own})
    assert answer.status == 200
    sent = service.upstream.calls_of("answer")[-1].body
    assert {name: sent[name] for name in fields} == fields
    assert sent["metadata"] == {"trace": "t1"}
    assert {"user", "store", "max_tokens"}.isdisjoint(sent)


@pytest.mark.parametrize(("given", "meant"), [("", "anonymous"), (7, "7"), (None, "anonymous")])
def test_a_user_is_taken_as_meant(service: Running, given: Any, meant: str) -> None:
    body = {"messages": [{"role": "user", "content": "Hi."}], "user": given, "metadata": {"conversation_id": "taken"}}
    answer = service.client.post(body)
    assert answer.status == 200
    assert service.ledger.of_answer(answer)[-1].user_id == meant


def test_a_history_begun_elsewhere_is_remembered_where_the_request_wants_it(each_anew: Running, user: str) -> None:
    chat = Chat(each_anew, user, metadata={"memory_import": True, "use_gate": False})
    chat.messages = [
        {"role": "user", "content": "My aunt lives in Porto."},
        {"role": "assistant", "content": "How nice."},
        {"role": "user", "content": "Her dog is called Bruno."},
        {"role": "assistant", "content": "**Bruno**, a fine name."},
    ]
    first = chat.say("She is 70.")
    second = chat.say("She likes figs.")
    turns = each_anew.ledger.all(TurnRecorded, user, conversation_of(first))
    assert [turn.user for turn in turns] == [
        "My aunt lives in Porto.",
        "Her dog is called Bruno.",
        "She is 70.",
        "She likes figs.",
    ]
    assert [turn.imported_from for turn in turns] == ["client history", "client history", None, None]
    assert [turn.turn_id for turn in turns] == [1, 2, 3, 4]
    assert each_anew.ledger.all(MessagesSent, user, conversation_of(first)) == []
    assert_proved(each_anew, first, second)
    elsewhere = Chat(each_anew, user, metadata={"use_gate": False}).say("Where does my aunt live?")
    assert "My aunt lives in Porto." in elsewhere.replayed


def test_a_long_history_is_imported_once(each_anew: Running, user: str) -> None:
    chat = Chat(each_anew, user, metadata={"memory_import": True, "use_gate": False, "candidate_n": 0})
    for number in range(250):
        chat.messages.append({"role": "user", "content": f"My number {number} is {number * 7}."})
        chat.messages.append({"role": "assistant", "content": f"Noted: {number * 7}."})
    told = [str(message["content"]) for message in chat.messages[::2]]
    first = chat.say("She is 70.")
    chat.say("She likes figs.")
    turns = each_anew.ledger.all(TurnRecorded, user, conversation_of(first))
    assert [turn.user for turn in turns] == [*told, "She is 70.", "She likes figs."]


def test_each_person_has_a_cache_of_their_own(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, running(upstream, tmp_path, cache_salt=True) as service:
        for someone_else in ("ann", "ben", "ann"):
            service.client.tell("Hello.", someone_else)
        salts = [call.body["cache_salt"] for call in upstream.calls_of("answer")]
    assert salts[0] == salts[2] != salts[1]
    assert not any("ann" in salt for salt in salts)
