"""aider: a change to a file of a git repository, twice, and the commit messages that it asks for."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from steps import API_KEY, BASE_URL, MODEL, step

home = Path(tempfile.mkdtemp())
repository = home / "repository"
repository.mkdir()
ENVIRONMENT = {
    **os.environ,
    "HOME": str(home),
    "OPENAI_API_BASE": BASE_URL,
    "OPENAI_API_KEY": API_KEY,
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}
OPTIONS = [
    "--yes-always",
    "--no-check-update",
    "--analytics-disable",
    "--no-show-model-warnings",
    "--no-show-release-notes",
    "--no-detect-urls",
    "--no-gitignore",
    "--no-pretty",
    "--edit-format=whole",
    "--restore-chat-history",
]


def run(*command):
    done = subprocess.run(
        command,
        cwd=repository,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr[-300:]
    return done.stdout


def aider(message):
    program = Path(sys.executable).parent / "aider"
    return run(program, "--model", f"openai/{MODEL}", *OPTIONS, "--message", message, "shopping.txt")


run("git", "init", "-q")
(repository / "shopping.txt").write_text("Buy bread.\n")
run("git", "add", ".")
run("git", "commit", "-qm", "Begin")

with step("a change to a file"):
    aider("Add milk to my shopping list.")
    assert "milk" in (repository / "shopping.txt").read_text()
    assert run("git", "log", "--format=%s").splitlines() == ["docs: note the milk", "Begin"]

with step("a question in the same chat"):
    aider("What did you add?")
