"""What the programs of all clients share; it imports nothing that an environment might lack.

A program reads where to ask from its environment and prints one line of JSON for each step.
"""

import http.client
import json
import os
import sys
import traceback
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
    proxy = http.client.HTTPConnection(BASE_URL.split("/")[2], timeout=10)
    proxy.request("POST", "/_step", name.encode())
    proxy.getresponse().read()
    proxy.close()
    failed = ""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the next step is still to be tried, and this one told
        traceback.print_exc()
        failed = f"{type(error).__name__}: {error}"[:300] or "failed"
    sys.stdout.write(json.dumps({"step": name, "failed": failed}) + "\n")
    sys.stdout.flush()
