"""What the documents for developers name exists: files, what is defined in them, and where links lead."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ledgers import ROOT

DOCUMENTS = ("docs/architecture.md", "CONTRIBUTING.md")
FOLDERS = ("domain", "projections", "service", "frontend", "migrations", "tests", "benchmarks", "docs")
NAMED = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)(?::([\w.]+))?`")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def named_in(document: str) -> list[tuple[str, str]]:
    """Every path in code quotes, and the name after the colon, empty where there is none."""
    return NAMED.findall(text_of(document))


def definitions(body: list[ast.stmt], inside: str = "") -> Iterator[str]:
    """Yield the name of every function, class and constant, those of a class both with and without its name."""
    for statement in body:
        names: list[str] = []
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [statement.name]
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        for name in names:
            yield name
            if inside:
                yield f"{inside}.{name}"
        if isinstance(statement, ast.ClassDef):
            yield from definitions(statement.body, statement.name)


def defined_in(path: Path) -> set[str]:
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".sql":
        return set(re.findall(r"^-- name: (\w+)$", source, re.MULTILINE))
    return set(definitions(ast.parse(source).body))


def anchors(path: Path) -> set[str]:
    """The anchors that headings of a Markdown file get."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_and_name_exists(document: str) -> None:
    named = named_in(document)
    assert named
    missing = [
        f"{path}:{name}".rstrip(":")
        for path, name in named
        if not (ROOT / path).exists() or (name and name not in defined_in(ROOT / path))
    ]
    assert missing == []


def test_something_that_is_not_there_is_noticed() -> None:
    assert NAMED.findall("`domain/ledger.py:Ledger.append`, `domain/sql/`") == [
        ("domain/ledger.py", "Ledger.append"),
        ("domain/sql/", ""),
    ]
    names = defined_in(ROOT / "domain" / "ledger.py")
    assert {"Ledger", "Ledger.append", "append"} <= names
    assert not {"Writer", "Ledger.read", "StreamHead.append"} & names


@pytest.mark.parametrize("document", [*DOCUMENTS, "docs/decisions/README.md"])
def test_every_link_leads_somewhere(document: str) -> None:
    for target, anchor in LINK.findall(text_of(document)):
        path = (ROOT / document).parent / target if target else ROOT / document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


def test_every_decision_is_in_the_list() -> None:
    records = {path.name for path in (ROOT / "docs" / "decisions").glob("*.md")} - {"README.md"}
    assert {target for target, _anchor in LINK.findall(text_of("docs/decisions/README.md"))} == records
