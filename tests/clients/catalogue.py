"""The clients: where each comes from, the program that drives it, and the chats that a person would count after it."""

from __future__ import annotations

from tests.clients.client import Client, Program
from tests.clients.environments import NodeEnvironment, PythonEnvironment
from tests.clients.open_webui_clients import OpenWebUi, OpenWebUiWithPeople

_PICTURE = "What is on this picture?"
_PICTURE_SENT = f"{_PICTURE}\n[image: image/png, 70 bytes, sha256 ..."
_BICYCLE = ("My bicycle is red.", "It has three gears.")
_OSLO = "What is the weather in Oslo?"
_BOAT = ("My boat is called Wilma.", "What is my boat called?")
_TROMSO = "What is the weather in Tromso?"
_OPENAI = (
    (*_BICYCLE, _OSLO),
    ("What is the weather in Bergen?",),
    (_PICTURE_SENT,),
    ("Please fail once.",),
    ("Pick a colour.",),
    _BOAT,
    (_TROMSO,),
)

CLIENTS: tuple[Client, ...] = (
    Program("openai-python-3", PythonEnvironment("openai3", ("openai>=3,<4",)), "openai_python.py", _OPENAI),
    Program("openai-python-2", PythonEnvironment("openai2", ("openai>=2,<3",)), "openai_python.py", _OPENAI),
    Program(
        "openai-node",
        NodeEnvironment("openai"),
        "openai_client.mjs",
        ((*_BICYCLE, _OSLO), (_PICTURE_SENT,), ("Please fail once.",), _BOAT),
    ),
    Program(
        "langchain",
        PythonEnvironment("langchain", ("langchain-openai", "langchain")),
        "langchain_openai_.py",
        ((*_BICYCLE, _OSLO), (_PICTURE_SENT,), _BOAT, (_TROMSO,)),
    ),
    Program(
        "pydantic-ai",
        PythonEnvironment("pydantic-ai", ("pydantic-ai-slim[openai]",)),
        "pydantic_ai_.py",
        (
            (*_BICYCLE, _OSLO),
            (_PICTURE_SENT,),
            ("My boat is red.", "It has three gears.", _TROMSO),
            (_PICTURE_SENT,),
        ),
    ),
    Program(
        "openai-agents",
        PythonEnvironment("agents", ("openai-agents",)),
        "openai_agents.py",
        (
            ("My boat is red.", "It has three gears.", _TROMSO, "Transfer me and my boat to the Spanish agent."),
            ("My hat is green.", "What colour is my hat?"),
            (*_BICYCLE, _OSLO, "Transfer me and my bicycle to the Spanish agent."),
        ),
    ),
    Program(
        "litellm",
        PythonEnvironment("litellm", ("litellm[proxy]",)),
        "litellm_library.py",
        ((*_BICYCLE, _OSLO), (_PICTURE_SENT,), (_BOAT[0],)),
        people={"ada": (("My hat is green.",),)},
    ),
    Program(
        "litellm-proxy",
        PythonEnvironment("litellm", ("litellm[proxy]",)),
        "litellm_proxy.py",
        ((*_BICYCLE, _OSLO), (_PICTURE_SENT,), (_BOAT[0],)),
        people={"ada": (("My hat is green.",),)},
    ),
    Program(
        "llm",
        PythonEnvironment("llm", ("llm",)),
        "llm_cli.py",
        ((*_BICYCLE, _OSLO, "Thank you for the weather."), (_PICTURE_SENT,)),
    ),
    Program(
        "ai-sdk",
        NodeEnvironment("ai"),
        "ai_sdk.mjs",
        tuple(
            chat
            for thing, city in (("boat", "Tromso"), ("hat", "Bergen"), ("bicycle", "Oslo"))
            for chat in (
                (f"My {thing} is red.", f"The {thing} is old.", f"What is the weather in {city}?"),
                (_PICTURE_SENT.replace(_PICTURE, f"Is this a picture of the {thing}?"),),
            )
        ),
    ),
    Program(
        "aider",
        PythonEnvironment("aider", ("aider-chat",)),
        "aider_cli.py",
        (("Add milk to my shopping list.", "What did you add?"),),
        {
            "commit message": "docs: note the milk",
            "Add milk": "shopping.txt\n```\nBuy bread.\nBuy milk.\n```\n",
        },
    ),
    Program(
        "shell-gpt",
        PythonEnvironment("sgpt", ("shell-gpt", "click")),
        "shell_gpt.py",
        (("My bicycle is red.",), _BOAT, ("list the files",)),
    ),
    OpenWebUi(),
    OpenWebUiWithPeople(),
)
