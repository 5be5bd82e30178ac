"""The LiteLLM library, with its provider for OpenAI-compatible endpoints."""

import json

import litellm
from steps import API_KEY, BASE_URL, MODEL, PIXEL, WEATHER, get_weather, step

TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": WEATHER}}
WHERE = {"model": f"openai/{MODEL}", "api_base": BASE_URL, "api_key": API_KEY}
chat: list = []

with step("first message"):
    chat.append({"role": "user", "content": "My bicycle is red."})
    answer = litellm.completion(messages=chat, **WHERE)
    assert "Noted" in answer.choices[0].message.content
    chat.append({"role": "assistant", "content": answer.choices[0].message.content})

with step("second message, streamed"):
    chat.append({"role": "user", "content": "It has three gears."})
    chunks = list(litellm.completion(messages=chat, stream=True, **WHERE))
    text = litellm.stream_chunk_builder(chunks).choices[0].message.content
    assert "Noted" in text
    chat.append({"role": "assistant", "content": text})

with step("tools"):
    chat.append({"role": "user", "content": "What is the weather in Oslo?"})
    message = litellm.completion(messages=chat, tools=[TOOL], **WHERE).choices[0].message
    chat.append(message.model_dump())
    for call in message.tool_calls:
        result = get_weather(**json.loads(call.function.arguments))
        chat.append({"role": "tool", "tool_call_id": call.id, "content": result})
    answer = litellm.completion(messages=chat, tools=[TOOL], **WHERE)
    assert "rain in Oslo" in answer.choices[0].message.content

with step("image"):
    parts = [{"type": "text", "text": "What is on this picture?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    litellm.completion(messages=[{"role": "user", "content": parts}], **WHERE)

with step("a person and a session"):
    litellm.completion(
        messages=[{"role": "user", "content": "My hat is green."}],
        user="ada",
        allowed_openai_params=["user"],
        extra_headers={"X-Session-Id": "hats"},
        **WHERE,
    )

with step("responses"):
    first = litellm.responses(input="My boat is called Wilma.", **WHERE)
    assert "Noted" in first.output[0].content[0].text
