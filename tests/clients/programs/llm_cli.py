"""``llm``: a question, ``-c`` to go on, tools as functions, an attachment, and a chat from a template."""

import base64
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from steps import BASE_URL, MODEL, PIXEL, step

FUNCTIONS = '''
def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"rain in {city}"
'''
folder = Path(tempfile.mkdtemp())
(folder / "extra-openai-models.yaml").write_text(
    f"- model_id: memory\n  model_name: {MODEL}\n  api_base: {BASE_URL}\n  supports_tools: true\n  vision: true\n"
)
picture = folder / "picture.png"
picture.write_bytes(base64.b64decode(PIXEL.partition(",")[2]))


def llm(*arguments):
    program = Path(sys.executable).parent / "llm"
    environment = {**os.environ, "LLM_USER_PATH": str(folder)}
    done = subprocess.run(
        [program, "-m", "memory", *arguments], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


with step("first message"):
    assert "Noted" in llm("My bicycle is red.")

with step("second message, -c"):
    assert "Noted" in llm("-c", "It has three gears.")

with step("tools, -c"):
    assert "rain in Oslo" in llm("-c", "--functions", FUNCTIONS, "What is the weather in Oslo?")

with step("after the tools, -c, not streamed"):
    assert "Noted" in llm("-c", "--no-stream", "Thank you for the weather.")

with step("image"):
    assert "Noted" in llm("What is on this picture?", "-a", str(picture))
