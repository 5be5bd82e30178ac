"""openai-python: chat completions with every feature that chats use, then responses."""

import json

from openai import OpenAI
from steps import MODEL, PIXEL, WEATHER, get_weather, step

client = OpenAI(max_retries=2)
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": WEATHER}}
chat: list = []


def ask(text, **fields):
    chat.append({"role": "user", "content": text})
    answer = client.chat.completions.create(model=MODEL, messages=chat, **fields)
    chat.append({"role": "assistant", "content": answer.choices[0].message.content})
    return answer


with step("first message"):
    assert "Noted" in ask("My bicycle is red.").choices[0].message.content

with step("second message, streamed"):
    chat.append({"role": "user", "content": "It has three gears."})
    text, usage = "", None
    options = {"include_usage": True}
    for chunk in client.chat.completions.create(model=MODEL, messages=chat, stream=True, stream_options=options):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert "Noted" in text
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    chat.append({"role": "assistant", "content": text})

with step("regenerate"):
    chat.pop()
    chat.pop()
    ask("It has three gears.")

with step("tools"):
    chat.append({"role": "user", "content": "What is the weather in Oslo?"})
    answer = client.chat.completions.create(model=MODEL, messages=chat, tools=[TOOL], parallel_tool_calls=False)
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    chat.append(message.model_dump(exclude_none=True))
    for call in message.tool_calls:
        result = get_weather(**json.loads(call.function.arguments))
        chat.append({"role": "tool", "tool_call_id": call.id, "content": result})
    answer = client.chat.completions.create(model=MODEL, messages=chat, tools=[TOOL], parallel_tool_calls=False)
    assert "rain in Oslo" in answer.choices[0].message.content
    chat.append({"role": "assistant", "content": answer.choices[0].message.content})

with step("tools, streamed"):
    messages = [{"role": "user", "content": "What is the weather in Bergen?"}]
    with client.chat.completions.stream(model=MODEL, messages=messages, tools=[TOOL]) as stream:
        answer = stream.get_final_completion()
    called = answer.choices[0].message
    messages += [
        {"role": "assistant", "tool_calls": [call.to_dict() for call in called.tool_calls]},
        {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": get_weather("Bergen")},
    ]
    with client.chat.completions.stream(model=MODEL, messages=messages, tools=[TOOL]) as stream:
        assert "rain in Bergen" in stream.get_final_completion().choices[0].message.content

with step("image"):
    parts = [
        {"type": "text", "text": "What is on this picture?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
    ]
    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])

with step("retry after a failure"):
    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Please fail once."}])

with step("fields of the chat model"):
    client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Pick a colour."}],
        seed=7,
        temperature=0.2,
        stop=["END"],
        service_tier="auto",
        reasoning_effort="low",
        extra_body={"top_k": 20},
    )

with step("responses"):
    first = client.responses.create(model=MODEL, input="My boat is called Wilma.", instructions="Be brief.")
    assert "Noted" in first.output_text
    kinds = []
    text = ""
    events = client.responses.create(
        model=MODEL, input="What is my boat called?", previous_response_id=first.id, stream=True
    )
    for event in events:
        kinds.append(event.type)
        text += event.delta if event.type == "response.output_text.delta" else ""
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert "Noted" in text

with step("responses, tools"):
    tool = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}
    asked = client.responses.create(model=MODEL, input="What is the weather in Tromso?", tools=[tool])
    [call] = [item for item in asked.output if item.type == "function_call"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": get_weather("Tromso")}
    told = client.responses.create(model=MODEL, input=[result], previous_response_id=asked.id, tools=[tool])
    assert "rain in Tromso" in told.output_text

with step("models"):
    assert MODEL in [model.id for model in client.models.list()]
