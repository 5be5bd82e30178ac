"""``/v1/responses`` through OpenAI's own client: answers, streams, conversations, and responses given back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response
from pydantic import BaseModel, TypeAdapter

from domain.audit_reader import AuditReader
from domain.events import MemoryForgotten, ResponseDeleted, TurnFailed, TurnRecorded
from domain.sqlite import open_engine
from service.audit.explain import trace_of
from tests.service.running import Running, running, someone
from tests.upstream import ChatRequest, Fault, Reply, ScriptedUpstream

RESPONSE: TypeAdapter[Any] = TypeAdapter(Response)
QUIET = {"candidate_n": "0"}
PNG = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("storage")
    with ScriptedUpstream() as upstream, running(upstream, folder, conversation_without_id="new") as service:
        yield service


@pytest.fixture(autouse=True)
def healthy(service: Running) -> Iterator[None]:
    responders = dict(service.upstream.responders)
    service.upstream.forget_calls()
    yield
    service.upstream.responders.update(responders)
    service.upstream.heal()


@pytest.fixture
def client(service: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.client.base_url}/v1", api_key="none", max_retries=0, timeout=30) as opened:
        yield opened


@pytest.fixture
def user() -> str:
    return someone()


def turns(service: Running, response: Response) -> list[TurnRecorded]:
    """The turns of the conversation in which a response was given."""
    events = service.ledger.reader.events_of_answer(f"chatcmpl-{response.id.removeprefix('resp_')[:32]}")
    return service.ledger.all(TurnRecorded, events[0].user_id, events[0].conversation_id)


def asked(service: Running) -> list[tuple[str, str]]:
    """What the model was sent for the newest answer, without the system text."""
    return [(role, text) for role, text in service.messages() if role != "system"]


def test_a_response_is_a_turn(service: Running, client: OpenAI, user: str) -> None:
    response = client.responses.create(
        model="m", input="I like tea.", instructions="Be brief.", user=user, metadata=QUIET
    )
    RESPONSE.validate_python(response.model_dump())
    [turn] = turns(service, response)
    assert (turn.user, turn.assistant) == ("I like tea.", response.output_text)
    assert (turn.client_system, response.instructions) == ("Be brief.", "Be brief.")
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.total_tokens > 0
    assert response.model_extra is not None
    assert response.model_extra["turn"]["turn_id"] == 1
    assert response.model_extra["memory_status"]["retrieval"] == "skipped"
    assert "Be brief." in service.messages()[0][1]


def test_a_response_recalls_what_was_said_elsewhere(service: Running, client: OpenAI, user: str) -> None:
    client.responses.create(model="m", input="My boat is called Fram.", user=user)
    service.settle()
    response = client.responses.create(model="m", input="What is my boat called?", user=user)
    assert response.model_extra is not None
    assert [each["raw_user"] for each in response.model_extra["retrieved"]["replay"]] == ["My boat is called Fram."]


def test_a_stream_says_what_the_whole_response_says(client: OpenAI, user: str) -> None:
    with client.responses.stream(model="m", input="I like tea.", user=user, metadata=QUIET) as stream:
        said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert final.output_text == said
    assert final.status == "completed"
    kept = client.responses.retrieve(final.id)
    assert kept.output_text == said
    assert kept.output[0].model_dump()["id"] == final.output[0].model_dump()["id"]


def test_the_events_of_a_stream_are_numbered_and_named(service: Running, user: str) -> None:
    body = {"model": "m", "input": "I like tea.", "user": user, "stream": True, "metadata": QUIET}
    with service.client.http.stream("POST", "/v1/responses", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-opm-conversation-id"]
        lines = [line for line in response.iter_lines() if line and not line.startswith(":")]
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert (names[0], names[-1]) == ("response.created", "response.completed")
    assert len(lines) == 2 * len(names)
    assert not any("[DONE]" in line for line in lines)


def test_reasoning_is_shown_and_not_kept(service: Running, client: OpenAI, user: str) -> None:
    service.upstream.responders["answer"] = lambda _: Reply("Yes.", reasoning="Hm, let me think.")
    with client.responses.stream(model="m", input="Tea?", user=user, metadata=QUIET) as stream:
        thought = "".join(event.delta for event in stream if event.type == "response.reasoning_summary_text.delta")
        final = stream.get_final_response()
    assert thought == "Hm, let me think."
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert [item.type for item in client.responses.retrieve(final.id).output] == ["message"]
    # What it thought may be sent again, and is not sent on.
    again = [*[item.model_dump() for item in final.output], {"role": "user", "content": "Sure?"}]
    history: Any = [{"role": "user", "content": "Tea?"}, *again]
    client.responses.create(model="m", input=history, user=user)
    assert [text for _, text in asked(service)][-3:] == ["Tea?", "Yes.", "Sure?"]


def test_an_answer_of_a_shape_is_parsed(service: Running, client: OpenAI, user: str) -> None:
    class Drink(BaseModel):
        name: str

    service.upstream.responders["answer"] = lambda _: Reply('{"name": "tea"}')
    parsed = client.responses.parse(model="m", input="A drink?", text_format=Drink, user=user, metadata=QUIET)
    assert parsed.output_parsed == Drink(name="tea")
    wanted = service.upstream.calls_of("answer")[-1].body["response_format"]
    assert wanted["json_schema"]["schema"]["properties"].keys() == {"name"}
    assert client.responses.retrieve(parsed.id).text == parsed.text


def test_a_response_goes_on_from_the_one_before(service: Running, client: OpenAI, user: str) -> None:
    first = client.responses.create(model="m", input="I like tea.", user=user, metadata=QUIET)
    second = client.responses.create(
        model="m", input="And milk in it.", previous_response_id=first.id, user=user, metadata=QUIET
    )
    client.responses.create(
        model="m", input="What do I like?", previous_response_id=second.id, user=user, metadata=QUIET
    )
    assert [text for role, text in asked(service) if role == "user"] == [
        "I like tea.",
        "And milk in it.",
        "What do I like?",
    ]
    told = turns(service, first)
    assert [turn.user for turn in told] == ["I like tea.", "And milk in it.", "What do I like?"]
    assert second.previous_response_id == first.id
    assert client.responses.retrieve(second.id).previous_response_id == first.id


def test_a_response_that_is_not_the_newest_begins_a_branch(service: Running, client: OpenAI, user: str) -> None:
    def ask(text: str, before: Response | None = None) -> Response:
        before_id = before.id if before is not None else None
        return client.responses.create(model="m", input=text, previous_response_id=before_id, user=user, metadata=QUIET)

    first = ask("I like tea.")
    left = ask("Green tea.", first)
    other = ask("Black tea.", first)
    ask("With milk.", other)
    assert [text for role, text in asked(service) if role == "user"] == ["I like tea.", "Black tea.", "With milk."]
    ask("With lemon.", left)
    assert [text for role, text in asked(service) if role == "user"] == ["I like tea.", "Green tea.", "With lemon."]
    followed = {turn.user: turn.follows for turn in turns(service, first)}
    assert followed["Black tea."] == followed["Green tea."] == _memory_of(first)
    assert followed["With lemon."] == _memory_of(left)


def _memory_of(response: Response) -> str:
    assert response.model_extra is not None
    return str(response.model_extra["turn"]["memory_id"])


def test_what_a_branch_leaves_behind_is_hidden_until_it_is_gone_on_from(
    service: Running, client: OpenAI, user: str
) -> None:
    more: Any = {"model": "m", "user": user, "metadata": QUIET}
    first = client.responses.create(input="I like tea.", **more)
    left = client.responses.create(input="Green tea.", previous_response_id=first.id, **more)
    other = client.responses.create(input="Black tea.", previous_response_id=first.id, **more)
    assert _listed(service, user) == {"I like tea.", "Black tea."}
    assert client.responses.retrieve(left.id).output_text == left.output_text
    client.responses.create(input="With lemon.", previous_response_id=left.id, **more)
    assert _listed(service, user) == {"I like tea.", "Green tea.", "With lemon."}
    client.responses.create(input="With milk.", previous_response_id=other.id, **more)
    assert _listed(service, user) == {"I like tea.", "Black tea.", "With milk."}


def _listed(service: Running, user: str) -> set[str]:
    """The questions among a person's memories."""
    return {each["user"] for each in service.client.get("/v1/memories", user=user).json()["data"]}


def test_a_conversation_is_named_by_response_and_by_id_in_turns(service: Running, client: OpenAI, user: str) -> None:
    more: Any = {"model": "m", "user": user, "metadata": QUIET}
    first = client.responses.create(input="I like tea.", conversation="conv_2", **more)
    client.responses.create(input="And milk.", previous_response_id=first.id, **more)
    client.responses.create(input="What do I like?", conversation="conv_2", **more)
    assert len(service.ledger.all(TurnRecorded, user, "conv_2")) == 3
    assert len(_listed(service, user)) == 3


def test_the_same_question_is_answered_with_tools_again(service: Running, client: OpenAI, user: str) -> None:
    service.upstream.responders["answer"] = uses_tools
    more: Any = {"model": "m", "tools": [WEATHER], "user": user, "metadata": QUIET}
    before: str | None = None
    for _ in range(2):
        called = client.responses.create(input="What is the weather?", previous_response_id=before, **more)
        answered = client.responses.create(input=outputs(called), previous_response_id=called.id, **more)
        before = answered.id
    assert len(turns(service, answered)) == 2
    assert service.client.get("/v1/memories", user=user).json()["data"][1]["user"] == "What is the weather?"


def test_the_same_question_in_a_conversation_is_another_turn(service: Running, client: OpenAI, user: str) -> None:
    service.upstream.responders["answer"] = uses_tools
    more: Any = {"model": "m", "tools": [WEATHER], "user": user, "metadata": QUIET, "conversation": "conv_3"}
    question: Any = {"role": "user", "content": "What is the weather?"}
    for _ in range(2):
        called = client.responses.create(input=[question], **more)
        given = [question, *(item.model_dump() for item in called.output), *outputs(called)]
        client.responses.create(input=given, **more)
    listed = service.client.get("/v1/memories", user=user).json()["data"]
    assert [each["user"] for each in listed] == ["What is the weather?"] * 2


def test_instructions_do_not_go_on_and_system_messages_do(service: Running, client: OpenAI, user: str) -> None:
    given: Any = [{"role": "developer", "content": "Answer in French."}, {"role": "user", "content": "Hi there."}]
    first = client.responses.create(model="m", input=given, instructions="Be brief.", user=user, metadata=QUIET)
    client.responses.create(
        model="m", input="And now?", previous_response_id=first.id, instructions="Be long.", user=user, metadata=QUIET
    )
    system = service.messages()[0][1]
    assert "Be brief." not in system
    assert system.count("Answer in French.") == 1
    assert "Be long." in system


def test_a_conversation_is_gone_on_with(service: Running, client: OpenAI, user: str) -> None:
    for given in ("conv_1", {"id": "conv_1"}):
        response = client.responses.create(model="m", input=f"As {type(given)}.", conversation=given, user=user)  # type: ignore[arg-type]
        assert response.conversation is not None
        assert response.conversation.id == "conv_1"
    assert [turn.turn_id for turn in service.ledger.all(TurnRecorded, user, "conv_1")] == [1, 2]
    assert len(asked(service)) == 3


def test_a_client_that_sends_its_history_is_recognised(service: Running, client: OpenAI, user: str) -> None:
    first = client.responses.create(model="m", input="I like tea.", user=user, metadata=QUIET)
    history: Any = [{"role": "user", "content": "I like tea."}, *(item.model_dump() for item in first.output)]
    history.append({"role": "user", "content": "What do I like?"})
    client.responses.create(model="m", input=history, user=user, metadata=QUIET)
    assert [turn.user for turn in turns(service, first)] == ["I like tea.", "What do I like?"]


def test_items_are_referred_to_by_id(service: Running, client: OpenAI, user: str) -> None:
    first = client.responses.create(model="m", input="I like tea.", user=user, metadata=QUIET)
    given: Any = [
        {"role": "user", "content": "I like tea."},
        {"type": "item_reference", "id": first.output[0].id},
        {"role": "user", "content": "What do I like?"},
    ]
    client.responses.create(model="m", input=given, user=user, metadata=QUIET)
    assert asked(service)[1] == ("assistant", first.output_text)
    with pytest.raises(openai.BadRequestError) as error:
        client.responses.create(model="m", input=given, user=someone())
    assert error.value.param == "input.1.id"


def test_a_response_is_given_back_as_it_was(client: OpenAI, user: str) -> None:
    made = client.responses.create(
        model="m",
        input="I like tea.",
        instructions="Be brief.",
        user=user,
        metadata={**QUIET, "trace": "t1"},
        temperature=0.5,
        max_output_tokens=99,
        reasoning={"effort": "low"},
        truncation="auto",
        tools=[{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
    )
    kept = client.responses.retrieve(made.id)
    shared = kept.model_dump().keys() & made.model_dump().keys() - {"turn", "completed_at"}
    assert {name: getattr(kept, name) for name in shared} == {name: getattr(made, name) for name in shared}
    assert kept.max_output_tokens == 99
    assert kept.instructions == "Be brief."
    assert len(kept.tools) == 1


def test_input_items_are_listed_page_by_page(client: OpenAI, user: str) -> None:
    given: Any = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "I like tea."},
        {"role": "assistant", "content": "Me too."},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": PNG}],
        },
    ]
    made = client.responses.create(model="m", input=given, user=user, metadata=QUIET)
    pages = list(client.responses.input_items.list(made.id, limit=1, order="asc"))
    assert [getattr(item, "role", None) for item in pages] == ["developer", "user", "assistant", "user"]
    newest = client.responses.input_items.list(made.id).data[0]
    assert newest.id == pages[-1].id
    texts = [part.text for part in newest.content]  # type: ignore[union-attr]
    assert texts[0] == "What is this?"
    assert texts[1].startswith("[image: image/png, 8 bytes, sha256 ")


def test_a_deleted_response_is_gone_and_forgotten(service: Running, client: OpenAI, user: str) -> None:
    made = client.responses.create(model="m", input="My secret is 7.", user=user, metadata=QUIET)
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.input_items.list(made.id)
    with pytest.raises(openai.BadRequestError) as error:
        client.responses.create(model="m", input="And?", previous_response_id=made.id, user=user)
    assert error.value.code == "previous_response_not_found"
    conversation = service.ledger.reader.events_of_answer(f"chatcmpl-{made.id[5:]}")[0].conversation_id
    assert len(service.ledger.all(MemoryForgotten, user, conversation)) == 1
    assert service.ledger.all(ResponseDeleted, user, conversation) == []


def test_a_forgotten_memory_is_no_response_any_more(service: Running, client: OpenAI, user: str) -> None:
    made = client.responses.create(model="m", input="My secret is 8.", user=user, metadata=QUIET)
    service.client.http.delete(f"/v1/memories/{_memory_of(made)}", params={"user": user}).raise_for_status()
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


@pytest.mark.parametrize("response_id", ["resp_0", "resp_" + "0" * 32, "chatcmpl-" + "0" * 32, "x"])
def test_an_unknown_response_is_not_found(client: OpenAI, response_id: str) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        client.responses.retrieve(response_id)
    assert error.value.param == "response_id"


def test_nobody_reads_anothers_response(service: Running, client: OpenAI, user: str) -> None:
    made = client.responses.create(model="m", input="I like tea.", user=user, metadata=QUIET)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id, extra_query={"user": someone()})
    with pytest.raises(openai.BadRequestError) as error:
        client.responses.create(model="m", input="And?", previous_response_id=made.id, user=someone())
    assert error.value.param == "previous_response_id"
    assert client.responses.retrieve(made.id, extra_query={"user": user}).id == made.id


def test_a_key_reads_the_responses_of_its_own_person(tmp_path: Path) -> None:
    keys = {"ann-key": "ann", "bob-key": "bob", "any-key": "*"}
    with ScriptedUpstream() as upstream, running(upstream, tmp_path, api_keys=keys) as service:

        def of(key: str) -> OpenAI:
            return OpenAI(base_url=f"{service.client.base_url}/v1", api_key=key, max_retries=0, timeout=30)

        with of("ann-key") as ann, of("bob-key") as bob, of("any-key") as anybody:
            made = ann.responses.create(model="m", input="I like tea.", metadata=QUIET)
            assert ann.responses.retrieve(made.id).output_text == made.output_text
            assert anybody.responses.retrieve(made.id).output_text == made.output_text
            with pytest.raises(openai.NotFoundError):
                bob.responses.retrieve(made.id)
            with pytest.raises(openai.NotFoundError):
                bob.responses.delete(made.id)
            with pytest.raises(openai.BadRequestError):
                bob.responses.create(model="m", input="And?", previous_response_id=made.id)
            with pytest.raises(openai.BadRequestError):
                anybody.responses.create(model="m", input="And?", previous_response_id=made.id)
            anybody.responses.create(model="m", input="And?", previous_response_id=made.id, user="ann", metadata=QUIET)
            assert service.ledger.reader.count_turns("ann") == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"input": ""}, "input"),
        ({"input": [{"role": "user", "content": "Hi."}, {"role": "user", "content": " "}]}, "input.1.content"),
        ({"input": "Hi.", "tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"input": "Hi.", "metadata": {"recent_turns": "many"}}, "metadata.recent_turns"),
        ({"input": 7}, "input"),
        ({"input": "Hi.", "max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_an_error_names_the_field_of_the_request(client: OpenAI, body: dict[str, Any], field: str) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.post("/responses", body=body, cast_to=object)
    assert str(error.value.param).startswith(field)


def test_tools_that_are_left_out_are_named(service: Running, client: OpenAI, user: str) -> None:
    raw = client.responses.with_raw_response.create(
        model="m",
        input="Hi there.",
        tools=[{"type": "function", "name": "f", "parameters": {}, "strict": False}, {"type": "web_search"}],
        user=user,
        metadata=QUIET,
    )
    assert raw.headers["x-opm-tools-left-out"] == "web_search"
    assert len(service.upstream.calls_of("answer")[-1].body["tools"]) == 1
    assert [tool.type for tool in raw.parse().tools] == ["function"]


def test_a_failure_before_the_answer_has_its_status(service: Running, client: OpenAI, user: str) -> None:
    service.upstream.fail_always("answer", Fault(status=429))
    with pytest.raises(openai.RateLimitError):
        client.responses.create(model="m", input="Hi there.", user=user, metadata=QUIET)
    with pytest.raises(openai.RateLimitError):
        client.responses.create(model="m", input="Hi there.", user=user, metadata=QUIET, stream=True)


def test_a_failure_in_the_answer_is_a_failed_response(service: Running, client: OpenAI, user: str) -> None:
    service.upstream.fail("answer", Fault(after_chunks=2, error=True))
    events = list(
        client.responses.create(model="m", input="I like tea and milk.", user=user, metadata=QUIET, stream=True)
    )
    failed = events[-1]
    assert failed.type == "response.failed"
    assert failed.response.error is not None
    assert failed.response.error.code == "server_error"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kept = client.responses.retrieve(failed.response.id)
    assert (kept.status, kept.id) == ("failed", failed.response.id)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="m", input="And?", previous_response_id=kept.id, user=user)
    client.responses.delete(kept.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(kept.id)
    conversation = service.ledger.reader.events_of_answer(f"chatcmpl-{kept.id[5:]}")[0].conversation_id
    assert len(service.ledger.all(TurnFailed, user, conversation)) == 1
    assert len(service.ledger.all(ResponseDeleted, user, conversation)) == 1


def test_an_answer_that_was_cut_is_incomplete(service: Running, client: OpenAI, user: str) -> None:
    service.upstream.responders["answer"] = lambda _: Reply("Once upon", finish_reason="length")
    made = client.responses.create(model="m", input="A story?", user=user, max_output_tokens=2, metadata=QUIET)
    assert made.status == "incomplete"
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"
    assert client.responses.retrieve(made.id).incomplete_details == made.incomplete_details


WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Tell the weather.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    "strict": False,
}


def calling(*calls: tuple[str, str], text: str = "") -> Reply:
    """Return an answer that calls tools by name, with arguments that come in two pieces."""
    deltas: list[dict[str, Any]] = []
    for index, (name, arguments) in enumerate(calls):
        begun = {"name": name, "arguments": arguments[:3]}
        deltas.append({"tool_calls": [{"index": index, "id": f"call_{index}", "type": "function", "function": begun}]})
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": arguments[3:]}}]})
    return Reply(text, finish_reason="tool_calls", deltas=tuple(deltas))


def uses_tools(request: ChatRequest) -> Reply:
    """Call the weather for a question, and answer by its result."""
    last = request.body["messages"][-1]
    if last["role"] == "tool":
        return Reply(f"It is {last['content']}.")
    if "tools" not in request.body:
        return Reply("I see.")
    return calling(("weather", '{"place": "Bern"}'))


def outputs(response: Response, said: str = "sunny") -> Any:
    """The outputs of all calls of a response."""
    return [
        {"type": "function_call_output", "call_id": item.call_id, "output": said}
        for item in response.output
        if item.type == "function_call"
    ]


def test_tools_are_used_over_the_response_before(service: Running, client: OpenAI, user: str) -> None:
    service.upstream.responders["answer"] = uses_tools
    more: Any = {"model": "m", "tools": [WEATHER], "user": user, "metadata": QUIET}
    first = client.responses.create(input="What is the weather?", **more)
    [called] = first.output
    assert called.type == "function_call"
    assert (called.name, called.arguments) == ("weather", '{"place": "Bern"}')
    second = client.responses.create(input=outputs(first), previous_response_id=first.id, **more)
    assert second.output_text == "It is sunny."
    sent = service.upstream.calls_of("answer")[-1].body["messages"][1:]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert sent[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"place": "Bern"}'}
    [turn] = turns(service, second)
    assert (turn.user, turn.assistant, turn.tools_used) == ("What is the weather?", "It is sunny.", ("weather",))
    third = client.responses.create(input="And tomorrow?", previous_response_id=second.id, **{**more, "tools": []})
    assert [turn.user for turn in turns(service, third)] == ["What is the weather?", "And tomorrow?"]
    for response in (first, second):
        kept = client.responses.retrieve(response.id)
        assert [item.model_dump() for item in kept.output] == [item.model_dump() for item in response.output]
        assert kept.tools == response.tools
    items = client.responses.input_items.list(second.id, order="asc").data
    assert [item.type for item in items] == ["message", "function_call", "function_call_output"]


def test_every_prompt_of_a_conversation_is_proved(service: Running, client: OpenAI, user: str) -> None:
    service.upstream.responders["answer"] = uses_tools
    more: Any = {"model": "m", "tools": [WEATHER], "user": user}
    first = client.responses.create(input="What is the weather?", **more)
    second = client.responses.create(input=outputs(first), previous_response_id=first.id, **more)
    third = client.responses.create(model="m", input="And then?", previous_response_id=second.id, user=user)
    engine = open_engine(service.ledger.path, writer=False)
    try:
        reader = AuditReader(engine)
        for response in (second, third):
            events = reader.events_of_answer(f"chatcmpl-{response.id[5:37]}")
            trace = trace_of(reader, events)
            assert [proof.proof for _, proof in trace.proofs] == ["same_as_sent"] * len(trace.proofs)
            assert trace.prompt is not None
    finally:
        engine.dispose()


def test_a_retry_gets_the_response_that_it_had(service: Running, client: OpenAI, user: str) -> None:
    service.upstream.responders["answer"] = uses_tools
    more: Any = {"model": "m", "tools": [WEATHER], "user": user, "metadata": QUIET}
    first = client.responses.create(input="What is the weather?", **more)
    same: Any = {"input": outputs(first), "previous_response_id": first.id, **more}
    once = client.responses.create(**same, extra_headers={"Idempotency-Key": "k1"})
    again = client.responses.create(**same, extra_headers={"Idempotency-Key": "k1"})
    assert (again.id, again.output_text) == (once.id, once.output_text)
    assert len(turns(service, once)) == 1
    assert client.responses.retrieve(again.id).output_text == once.output_text


def test_tools_are_used_over_a_history_that_is_sent_again(service: Running, client: OpenAI, user: str) -> None:
    service.upstream.responders["answer"] = uses_tools
    more: Any = {"model": "m", "tools": [WEATHER], "user": user, "metadata": QUIET}
    history: Any = [{"role": "user", "content": "What is the weather?"}]
    first = client.responses.create(input=history, **more)
    history += [*(item.model_dump() for item in first.output), *outputs(first)]
    second = client.responses.create(input=history, **more)
    assert second.output_text == "It is sunny."
    assert [turn.user for turn in turns(service, second)] == ["What is the weather?"]
    assert second.id[:37] == first.id


def test_tools_are_used_over_references_to_items(service: Running, client: OpenAI, user: str) -> None:
    service.upstream.responders["answer"] = uses_tools
    more: Any = {"model": "m", "tools": [WEATHER], "user": user, "metadata": QUIET}
    question: Any = {"role": "user", "content": "What is the weather?"}
    first = client.responses.create(input=[question], **more)
    reference: Any = {"type": "item_reference", "id": first.output[0].id}
    second = client.responses.create(input=[question, reference, *outputs(first)], **more)
    assert second.output_text == "It is sunny."
    assert len(turns(service, second)) == 1


def test_calls_of_tools_are_streamed(service: Running, client: OpenAI, user: str) -> None:
    both = (("weather", '{"place": "Bern"}'), ("weather", '{"place": "Oslo"}'))
    service.upstream.responders["answer"] = lambda _: calling(*both, text="Let me see.")
    with client.responses.stream(model="m", input="Weather?", tools=[WEATHER], user=user, metadata=QUIET) as stream:
        deltas = [event for event in stream if event.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    assert [item.type for item in final.output] == ["message", "function_call", "function_call"]
    said = {at: "".join(event.delta for event in deltas if event.output_index == at) for at in (1, 2)}
    assert [said[1], said[2]] == [arguments for _, arguments in both]
    assert len({item.model_dump()["id"] for item in final.output}) == 3


def test_a_custom_tool_is_called_with_free_text(service: Running, client: OpenAI, user: str) -> None:
    service.upstream.responders["answer"] = lambda request: (
        Reply("Done.")
        if request.body["messages"][-1]["role"] == "tool"
        else calling(("apply_patch", '{"input": "*** Begin Patch"}'))
    )
    more: Any = {"model": "m", "tools": [{"type": "custom", "name": "apply_patch"}], "user": user, "metadata": QUIET}
    with client.responses.stream(input="Edit it.", **more) as stream:
        said = [event for event in stream if event.type == "response.custom_tool_call_input.done"]
        first = stream.get_final_response()
    assert [event.input for event in said] == ["*** Begin Patch"]
    [called] = first.output
    assert called.type == "custom_tool_call"
    assert [item.model_dump() for item in client.responses.retrieve(first.id).output] == [called.model_dump()]
    done: Any = [{"type": "custom_tool_call_output", "call_id": called.call_id, "output": "ok"}]
    second = client.responses.create(input=done, previous_response_id=first.id, **more)
    assert second.output_text == "Done."


def test_a_photo_in_a_question_that_calls_tools_is_said_in_words(service: Running, client: OpenAI, user: str) -> None:
    service.upstream.responders["answer"] = uses_tools
    more: Any = {"model": "m", "tools": [WEATHER], "user": user, "metadata": QUIET}
    parts: Any = [{"type": "input_text", "text": "Where is this?"}, {"type": "input_image", "image_url": PNG}]
    first = client.responses.create(input=[{"role": "user", "content": parts}], **more)
    second = client.responses.create(input=outputs(first), previous_response_id=first.id, **more)
    sent = service.upstream.calls_of("answer")[-1].body["messages"][1]["content"]
    assert sent.startswith("Where is this?\n[image: image/png, 8 bytes, sha256 ")
    [turn] = turns(service, second)
    assert turn.user == sent


def test_a_deleted_call_of_a_tool_is_gone(service: Running, client: OpenAI, user: str) -> None:
    service.upstream.responders["answer"] = uses_tools
    made = client.responses.create(model="m", input="Weather?", tools=[WEATHER], user=user, metadata=QUIET)
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="m", input=outputs(made), previous_response_id=made.id, user=user)


def test_what_is_not_to_be_stored_is_recalled_for_and_not_kept(service: Running, client: OpenAI, user: str) -> None:
    made = client.responses.create(model="m", input="I like tea.", user=user, store=False)
    assert made.model_dump()["store"] is False
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    assert service.ledger.reader.count_turns(user) == 0
    streamed = client.responses.create(model="m", input="I like tea.", user=user, store=False, stream=True)
    assert [event.type for event in streamed][-1] == "response.completed"


def test_a_side_task_is_answered_and_not_kept(client: OpenAI, user: str) -> None:
    made = client.responses.create(model="m", input="A title?", user=user, metadata={"task": "title_generation"})
    assert made.output_text
    assert made.model_dump()["store"] is False
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_a_refusal_comes_as_one(service: Running, client: OpenAI, user: str) -> None:
    service.upstream.responders["answer"] = lambda _: Reply("", deltas=({"refusal": "I will "}, {"refusal": "not."}))
    with client.responses.stream(model="m", input="Do it.", user=user, metadata=QUIET) as stream:
        final = stream.get_final_response()
    message = final.output[0]
    assert message.type == "message"
    assert [part.model_dump() for part in message.content] == [{"type": "refusal", "refusal": "I will not."}]


def test_details_of_usage_and_probabilities_come_along(service: Running, client: OpenAI, user: str) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 2}}
    service.upstream.responders["answer"] = lambda _: Reply("Yes.", usage=details)
    made = client.responses.create(
        model="m", input="Tea?", user=user, metadata=QUIET, include=["message.output_text.logprobs"], top_logprobs=2
    )
    assert made.usage is not None
    assert made.usage.input_tokens_details.cached_tokens == 3
    assert made.usage.output_tokens_details.reasoning_tokens == 2
    part = made.output[0].model_dump()["content"][0]
    assert [each["token"] for each in part["logprobs"]] == ["Yes."]
    assert service.upstream.calls_of("answer")[-1].body["top_logprobs"] == 2
