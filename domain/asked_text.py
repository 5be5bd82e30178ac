"""What a person asked, inside the template that a frontend put around it.

A frontend that adds documents to a question sends them in the same message. Memory is searched by what the person
said: a document in it would drown the question. The whole message still goes to the chat model and into the record.

Each rule knows one template, by what stands at the very beginning or the very end of the message, and takes off what
the frontend put there. What is left is looked at again, since templates stand in each other. A message without a
template is the question itself, whatever tags it has. Every rule looks for fixed texts, so the time that it takes grows
with the length of the message alone.

Seen in: Open WebUI 0.3.35 to 0.12.4 (backend/open_webui/config.py, utils/middleware.py), LibreChat
(packages/api/src/files/context.ts), AnythingLLM 2026-08 (server/utils/agents/index.js; else its context is in the
system text), Chatbox 1.19
(packages/context-management/attachment-payload.ts), Cherry Studio 2.0 (src/shared/ai/prompts.ts), Jan 0.5
(extensions/assistant-extension), Continue 1.5 (core/util/messageConversion.ts), aider 0.86 (aider/coders), and the
default templates of LangChain and LlamaIndex.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_TEMPLATES_MAX = 8
"""So many templates stand in each other at most; more are not looked for."""
_BEGINNING_CHARS = 1_000

_PREAMBLE_CHARS = 4_000
_OPENING = re.compile(
    r"^<(context|attached_files|attached_knowledge|attached_documents|documents)(?:[ \t][^<>\n]{0,300})?>[ \t]*\n",
    re.MULTILINE,
)
_ATTACHED = re.compile(r"(?:\n\[(?:image|audio|video|file)[:\]][^\n]{0,300})+\Z")
_ATTACHED_CHARS = 4_000
_RAG_TASK = re.compile(
    r"(?:### Task:\s+Respond to the user query using the provided context"
    r"|You are given a user query, some textual context and rules, all inside xml tags)"
)
_CODE_INTERPRETER = (
    "\n#### Code Interpreter\n\nYou have access to a Python code interpreter via:",
    "\n#### Tools Available\n\n1. **Code Interpreter**:",
)
_TOOL_OUTPUT = re.compile(r"\n\nTool `[^`\n]{1,200}` Output: ")
_AIDER_REMINDERS = (
    "\n\n# *SEARCH/REPLACE block* Rules:\n",
    "\n\n# File editing rules:\n\nReturn edits similar to unified diffs",
    "\n\nTo suggest changes to a file you MUST return the entire content of the updated file.\n",
)
_CHERRY = re.compile(r"Please answer the question based on the reference materials\b")
_LAST_QUESTION = re.compile(
    r"(?:Use the following (?:pieces of )?(?:retrieved )?context to answer the (?:user's )?question"
    r"|You are an assistant for question-answering tasks\. Use the following pieces of retrieved context"
    r"|Context information is below\.\s+-{5,})"
)
_QUESTION_MARKS = ("\nQUESTION: ", "\nQuestion: ", "\nQuery: ")
_ANSWER_MARK = re.compile(r"(?:\s+-{5,})?\s+(?:Helpful )?Answer:\s*\Z")
_ANSWER_MARK_CHARS = 100


def asked_text(text: str) -> str:
    """Return what the person asked in a message; the whole message where no template is known around it.

    Images and files that come after the text are said in brackets there, and stay.
    """
    attached = _ATTACHED.search(text, max(len(text) - _ATTACHED_CHARS, 0))
    return _asked(text) if attached is None else _asked(text[: attached.start()]) + attached[0]


def _asked(text: str) -> str:
    asked = text
    for _ in range(_TEMPLATES_MAX):
        inner = next((found for rule in _RULES if (found := rule(asked)) is not None and found.strip()), None)
        if inner is None:
            break
        asked = inner.strip()
    return asked


def _open_webui_documents(text: str) -> str | None:
    """Its RAG template: what follows the context, or stands in its own tags after it."""
    if _RAG_TASK.match(text.lstrip()[:_BEGINNING_CHARS]) is None:
        return None
    _, context, after = text.rpartition("</context>\n")
    if not context:
        return None
    _, query, tagged = after.partition("<user_query>\n")
    if not query:
        return after
    asked, closing, last = tagged.rpartition("\n</user_query>")
    if not closing:
        return after
    # For some models it stands before the question itself.
    return last if last.strip() else asked


def _query_in_tags(text: str) -> str | None:
    """A template of somebody's own, with a context block and, at its end, the query in tags."""
    if not text.rstrip().endswith("</user_query>") or "<context>\n" not in text:
        return None
    _, context, after = text.rpartition("</context>\n")
    _, query, asked = (after if context else text).partition("<user_query>")
    return asked.rstrip().removesuffix("</user_query>") if query else None


def _block_before(text: str) -> str | None:
    """A block in a tag for context, on lines of its own, and the question after it.

    Words before the block are a template's where they speak of the context that comes; else a person's.
    """
    opening = _OPENING.search(text[:_PREAMBLE_CHARS])
    if opening is None:
        return None
    preamble = text[: opening.start()]
    if preamble.strip() and "context" not in preamble.lower():
        return None
    # Several blocks of one kind may follow each other, and a document may hold the end of its own block.
    closing = f"\n</{opening[1]}>"
    end = text.rfind(closing, opening.end() - 1)
    after = text[end + len(closing) :] if end != -1 else ""
    return after if after.startswith(("\n", "\r")) else None


def _librechat_documents(text: str) -> str | None:
    """Attached documents in one fenced block, each under its name."""
    if not text.lstrip().startswith('Attached document(s):\n```md# "'):
        return None
    _, fence, after = text.rpartition("\n\n```\n")
    return after if fence else None


def _anythingllm_documents(text: str) -> str | None:
    return _before_last_block(text, "\n\n<attached_documents>\n<document name=", "</attached_documents>")


def _chatbox_files(text: str) -> str | None:
    return _before_last_block(text, "\n\n<ATTACHMENT_FILE>\n<FILE_INDEX>", "</ATTACHMENT_FILE>")


def _before_last_block(text: str, opening: str, closing: str) -> str | None:
    if not text.rstrip().endswith(closing):
        return None
    asked, found, _ = text.partition(opening)
    return asked if found else None


def _code_interpreter(text: str) -> str | None:
    for prompt in _CODE_INTERPRETER:
        asked, found, _ = text.partition(prompt)
        if found:
            return asked
    return None


def _tool_output(text: str) -> str | None:
    found = _TOOL_OUTPUT.search(text)
    return text[: found.start()] if found is not None else None


def _aider_reminder(text: str) -> str | None:
    for reminder in _AIDER_REMINDERS:
        asked, found, _ = text.rpartition(reminder)
        if found:
            return asked
    return None


def _cherry_references(text: str) -> str | None:
    if _CHERRY.match(text.lstrip()[:_BEGINNING_CHARS]) is None:
        return None
    _, question, after = text.partition("\n## My question is:\n\n")
    asked, materials, _ = after.partition("\n\n## Reference Materials:\n")
    return asked if question and materials else None


def _last_question(text: str) -> str | None:
    """The default templates of LangChain, LlamaIndex and Jan: a context, then the question, then a place to answer."""
    if _LAST_QUESTION.match(text.lstrip()[:_BEGINNING_CHARS]) is None:
        return None
    text = text.rstrip()
    answer = _ANSWER_MARK.search(text, max(len(text) - _ANSWER_MARK_CHARS, 0))
    text = text[: answer.start()] if answer is not None else text
    at, mark = max((text.rfind(mark), mark) for mark in _QUESTION_MARKS)
    return text[at + len(mark) :] if at != -1 else None


_RULES: tuple[Callable[[str], str | None], ...] = (
    _open_webui_documents,
    _query_in_tags,
    _cherry_references,
    _last_question,
    _librechat_documents,
    _block_before,
    _anythingllm_documents,
    _chatbox_files,
    _code_interpreter,
    _tool_output,
    _aider_reminder,
)
