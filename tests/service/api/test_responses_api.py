"""``/v1/responses`` through OpenAI's own client: answers, streams, conversations, and responses given back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response
from pydantic import BaseModel, TypeAdapter

from domain.events import MemoryForgotten, ResponseDeleted, TurnFailed, TurnRecorded
from tests.service.running import Running, running, someone
from tests.upstream import Fault, Reply, ScriptedUpstream

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
    assert kept.output[0].id == final.output[0].id


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
    client.responses.create(model="m", input=[{"role": "user", "content": "Tea?"}, *again], user=user)  # type: ignore[arg-type]
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
        more: Any = {"previous_response_id": before.id} if before is not None else {}
        return client.responses.create(model="m", input=text, user=user, metadata=QUIET, **more)

    first = ask("I like tea.")
    left = ask("Green tea.", first)
    other = ask("Black tea.", first)
    ask("With milk.", other)
    assert [text for role, text in asked(service) if role == "user"] == ["I like tea.", "Black tea.", "With milk."]
    ask("With lemon.", left)
    assert [text for role, text in asked(service) if role == "user"] == ["I like tea.", "Green tea.", "With lemon."]
    assert service.ledger.reader.events_of_answer(f"chatcmpl-{other.id[5:]}")[-1].payload.follows == _memory_of(first)  # type: ignore[attr-defined]


def _memory_of(response: Response) -> str:
    assert response.model_extra is not None
    return str(response.model_extra["turn"]["memory_id"])


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
    assert error.value.param == "input"


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
