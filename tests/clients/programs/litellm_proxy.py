"""The LiteLLM proxy between a client and the service: what of a request reaches the next endpoint."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from openai import OpenAI
from steps import API_KEY, BASE_URL, MODEL, PIXEL, WEATHER, get_weather, step

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": WEATHER}}
folder = Path(tempfile.mkdtemp())
(folder / "config.yaml").write_text(
    f"""
model_list:
  - model_name: memory
    litellm_params:
      model: openai/{MODEL}
      api_base: {BASE_URL}
      api_key: {API_KEY}
      allowed_openai_params: ["user"]
general_settings:
  master_key: sk-master
  forward_client_headers_to_llm_api: true
"""
)
with (folder / "log.txt").open("wb") as log:
    proxy = subprocess.Popen(
        [Path(sys.executable).parent / "litellm", "--config", folder / "config.yaml", "--port", str(PORT)],
        env={**os.environ, "HOME": str(folder)},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
try:
    with step("start"):
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health/liveliness", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        else:
            raise TimeoutError((folder / "log.txt").read_text()[-300:])
    client = OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key="sk-master")
    chat: list = []

    with step("first message"):
        chat.append({"role": "user", "content": "My bicycle is red."})
        answer = client.chat.completions.create(model="memory", messages=chat)
        assert "Noted" in answer.choices[0].message.content
        chat.append({"role": "assistant", "content": answer.choices[0].message.content})

    with step("second message, streamed"):
        chat.append({"role": "user", "content": "It has three gears."})
        text = ""
        for chunk in client.chat.completions.create(model="memory", messages=chat, stream=True):
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
        assert "Noted" in text
        chat.append({"role": "assistant", "content": text})

    with step("tools"):
        chat.append({"role": "user", "content": "What is the weather in Oslo?"})
        message = client.chat.completions.create(model="memory", messages=chat, tools=[TOOL]).choices[0].message
        chat.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            result = get_weather(**json.loads(call.function.arguments))
            chat.append({"role": "tool", "tool_call_id": call.id, "content": result})
        answer = client.chat.completions.create(model="memory", messages=chat, tools=[TOOL])
        assert "rain in Oslo" in answer.choices[0].message.content

    with step("a person and a session"):
        client.chat.completions.create(
            model="memory",
            messages=[{"role": "user", "content": "My hat is green."}],
            user="ada",
            extra_headers={"x-litellm-session-id": "hats"},
        )

    with step("image"):
        parts = [
            {"type": "text", "text": "What is on this picture?"},
            {"type": "image_url", "image_url": {"url": PIXEL}},
        ]
        client.chat.completions.create(model="memory", messages=[{"role": "user", "content": parts}])

    with step("responses"):
        first = client.responses.create(model="memory", input="My boat is called Wilma.")
        assert "Noted" in first.output_text
finally:
    proxy.terminate()
    proxy.wait(30)
