"""Any text can be printed on any console, and printed JSON keeps its meaning."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.console import print_any_text


@contextmanager
def console(encoding: str) -> Iterator[io.BytesIO]:
    shown, before = io.BytesIO(), sys.stdout
    sys.stdout = io.TextIOWrapper(shown, encoding, errors="strict")
    try:
        print_any_text()
        yield shown
    finally:
        sys.stdout.flush()
        sys.stdout = before


@given(st.text(), st.sampled_from(("ascii", "cp1252", "gbk", "cp437", "utf-8")))
def test_printed_json_keeps_its_meaning(text: str, encoding: str) -> None:
    with console(encoding) as shown:
        sys.stdout.write(json.dumps({"text": text}, ensure_ascii=False))
        sys.stdout.flush()
        assert json.loads(shown.getvalue().decode(encoding)) == {"text": text}


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [("ascii", r"\u00e9 \u5317 \ud83d\udc08 \udcff"), ("cp1252", r"é \u5317 \ud83d\udc08 \udcff")],
)
def test_what_cannot_be_shown_is_escaped(encoding: str, printed: str) -> None:
    with console(encoding) as shown:
        sys.stdout.write("é 北 🐈 \udcff")
        sys.stdout.flush()
        assert shown.getvalue().decode(encoding) == printed
