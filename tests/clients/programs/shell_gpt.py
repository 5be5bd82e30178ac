"""shell-gpt: a question, a chat that it keeps itself, and a shell command."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from steps import API_KEY, BASE_URL, MODEL, step

home = tempfile.mkdtemp()
ENVIRONMENT = {
    **os.environ,
    "HOME": home,
    "API_BASE_URL": BASE_URL,
    "OPENAI_API_KEY": API_KEY,
    "DEFAULT_MODEL": MODEL,
    "PRETTIFY_MARKDOWN": "false",
    "SHELL_INTERACTION": "false",
    "OPENAI_USE_FUNCTIONS": "true",
}


def sgpt(*arguments):
    program = Path(sys.executable).parent / "sgpt"
    done = subprocess.run(
        [program, *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr[-300:]
    return done.stdout


with step("first message"):
    assert "Noted" in sgpt("--no-cache", "My bicycle is red.")

with step("a chat"):
    assert "Noted" in sgpt("--no-cache", "--chat", "boats", "My boat is called Wilma.")

with step("second message of the chat"):
    assert "Noted" in sgpt("--no-cache", "--chat", "boats", "What is my boat called?")

with step("a shell command"):
    sgpt("--no-cache", "--shell", "--no-interaction", "list the files")
