"""The clients: where each comes from, the program that drives it, and the turns that a person would count after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.clients.environments import Environment, NodeEnvironment, PythonEnvironment

_PICTURE = "What is on this picture?"
_LIBRARY = ("My bicycle is red.", "It has three gears.")
_OPENAI = (
    *_LIBRARY,
    "What is the weather in Oslo?",
    "What is the weather in Bergen?",
    _PICTURE,
    "Please fail once.",
    "Pick a colour.",
    "My boat is called Wilma.",
    "What is my boat called?",
    "What is the weather in Tromso?",
)


@dataclass(frozen=True)
class Client:
    """A client, and what the ledger holds after its program ran.

    ``turns`` are the person's words, oldest first; a turn that was asked again stands there once. ``says`` is what the
    model answers where the prompt has these words.
    """

    name: str
    environment: Environment
    program: str
    turns: tuple[str, ...]
    says: Mapping[str, str] = field(default_factory=dict)


CLIENTS = (
    Client("openai-python-3", PythonEnvironment("openai3", ("openai>=3,<4",)), "openai_python.py", _OPENAI),
    Client("openai-python-2", PythonEnvironment("openai2", ("openai>=2,<3",)), "openai_python.py", _OPENAI),
    Client(
        "openai-node",
        NodeEnvironment("openai"),
        "openai_client.mjs",
        (
            *_LIBRARY,
            "What is the weather in Oslo?",
            _PICTURE,
            "Please fail once.",
            "My boat is called Wilma.",
            "What is my boat called?",
        ),
    ),
    Client(
        "langchain",
        PythonEnvironment("langchain", ("langchain-openai", "langchain")),
        "langchain_openai_.py",
        (
            *_LIBRARY,
            "What is the weather in Oslo?",
            _PICTURE,
            "My boat is called Wilma.",
            "What is my boat called?",
            "What is the weather in Tromso?",
        ),
    ),
    Client(
        "pydantic-ai",
        PythonEnvironment("pydantic-ai", ("pydantic-ai-slim[openai]",)),
        "pydantic_ai_.py",
        (
            *_LIBRARY,
            "What is the weather in Oslo?",
            _PICTURE,
            "My boat is red.",
            "It has three gears.",
            "What is the weather in Tromso?",
            _PICTURE,
        ),
    ),
    Client(
        "openai-agents",
        PythonEnvironment("agents", ("openai-agents",)),
        "openai_agents.py",
        (
            "My boat is red.",
            "It has three gears.",
            "What is the weather in Tromso?",
            "Transfer me and my boat to the Spanish agent.",
            "My hat is green.",
            "What colour is my hat?",
            *_LIBRARY,
            "What is the weather in Oslo?",
            "Transfer me and my bicycle to the Spanish agent.",
        ),
    ),
    Client(
        "litellm",
        PythonEnvironment("litellm", ("litellm[proxy]",)),
        "litellm_library.py",
        (*_LIBRARY, "What is the weather in Oslo?", _PICTURE, "My hat is green.", "My boat is called Wilma."),
    ),
    Client(
        "litellm-proxy",
        PythonEnvironment("litellm", ("litellm[proxy]",)),
        "litellm_proxy.py",
        (*_LIBRARY, "What is the weather in Oslo?", "My hat is green.", _PICTURE, "My boat is called Wilma."),
    ),
    Client(
        "llm",
        PythonEnvironment("llm", ("llm",)),
        "llm_cli.py",
        (*_LIBRARY, "What is the weather in Oslo?", "Thank you for the weather.", _PICTURE),
    ),
    Client(
        "ai-sdk",
        NodeEnvironment("ai"),
        "ai_sdk.mjs",
        tuple(
            text
            for thing, city in (("boat", "Tromso"), ("hat", "Bergen"), ("bicycle", "Oslo"))
            for text in (
                f"My {thing} is red.",
                f"The {thing} is old.",
                f"What is the weather in {city}?",
                f"Is this a picture of the {thing}?",
            )
        ),
    ),
    Client(
        "aider",
        PythonEnvironment("aider", ("aider-chat",)),
        "aider_cli.py",
        ("Add milk to my shopping list.", "What did you add?"),
        {
            "commit message": "docs: note the milk",
            "Add milk": "shopping.txt\n```\nBuy bread.\nBuy milk.\n```\n",
        },
    ),
    Client(
        "shell-gpt",
        PythonEnvironment("sgpt", ("shell-gpt", "click")),
        "shell_gpt.py",
        ("My bicycle is red.", "My boat is called Wilma.", "What is my boat called?", "list the files"),
    ),
)
