"""How prompts quote what was stored, so that it stays something that was said. Pure.

Anybody may have written what a memory says: a web page that was pasted, a document, an import. Two things are done:

- Marks of chat templates, which an endpoint may read as the end of one message and the beginning of another, are broken
  by a blank (:func:`inert`). No text may speak in a role that it does not have.
- Lines of several memories stand before a last line that no stored text can know (:func:`until`), since it is made from
  all these lines and the question together. So nothing in them can end the quotation.

Whether a model believes what it reads there, these cannot decide: ``docs/security.md``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from domain.chain import canonical, digest
from domain.memory import Memory

END_CHARS = 10
_TEMPLATE_MARK = re.compile(
    r"""
    < (?= [|｜] [^|｜<>\s]{1,60} [|｜] > )  # ChatML, Llama 3, Phi, GLM: <|im_start|>, <|eot_id|>; DeepSeek: <｜User｜>
  | < (?= < /? SYS >> )  # Llama 2
  | < (?= /? (?: s | bos | eos | start_of_turn | end_of_turn | start_of_image | tool_call | tool_response ) > )
  | \[ (?= /? (?: INST | SYSTEM_PROMPT | AVAILABLE_TOOLS | TOOL_CALLS | TOOL_RESULTS | TOOL_CONTENT ) \] )  # Mistral
    """,
    re.VERBOSE,
)
_LIKE_ANOTHER = re.compile("(?<=[\n\r\x85\u2028\u2029])(?=- \\()")
"""Where one text has a line that begins as the lines of summaries and notes do."""


def inert(text: str) -> str:
    """Return a text in which no mark of a chat template is whole. It is the same if there was none."""
    return _TEMPLATE_MARK.sub(r"\g<0> ", text)


def inert_memory(memory: Memory) -> Memory:
    """Return a memory whose texts are all :func:`inert`; itself if they were."""
    user, assistant = inert(memory.user), inert(memory.assistant)
    summary = inert(memory.summary) if memory.summary is not None else None
    if (user, assistant, summary) == (memory.user, memory.assistant, memory.summary):
        return memory
    return replace(memory, user=user, assistant=assistant, summary=summary)


def until(heading: str, lines: Sequence[str], question: str) -> list[str]:
    """Return lines of stored text between a heading that says where they end and the line that ends them.

    A line may hold several; none of them looks like the next one.
    """
    lines = [_LIKE_ANOTHER.sub(" ", line) for line in lines]
    end = f"end-{digest(canonical([heading, question, *lines])).partition(':')[2][:END_CHARS]}"
    return [f"{heading}, until the line {end}:", *lines, end]
