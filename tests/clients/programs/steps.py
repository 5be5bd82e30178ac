"""What the programs of all clients share; it imports nothing that an environment might lack.

A program reads where to ask from its environment and prints one line of JSON for each step.
"""

import json
import os
import sys
import traceback
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

BASE_URL = os.environ["OPENAI_BASE_URL"]
API_KEY = os.environ["OPENAI_API_KEY"]
MODEL = os.environ["CLIENT_MODEL"]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8Dw"
    "HwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"rain in {city}"


@contextmanager
def step(name: str) -> Iterator[None]:
    """Name what follows to the proxy, and tell whether it worked."""
    root = BASE_URL.removesuffix("/v1")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(f"{root}/_step", data=name.encode(), method="POST"), timeout=10):
        pass
    failed = ""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        failed = f"{type(error).__name__}: {error}"[:300] or "failed"
    sys.stdout.write(json.dumps({"step": name, "failed": failed}) + "\n")
    sys.stdout.flush()
