"""``opm report`` writes one person's audit: complete, with the ledger's verification, and no text is more than text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from domain.events import TurnSuperseded
from domain.identity import StreamId
from domain.sqlite import DRIVER
from service.audit.report import Block, Heading, Line, Said, Table
from service.audit.report_page import as_html, as_markdown
from service.memory_commands import MemoryCommands
from tests.ledgers import new_ledger_file, opened, record, record_turn
from tests.service.opm import Ran, environment, opm
from tests.service.running import Running, running, until
from tests.upstream import ScriptedUpstream, gate_keeps_all

KEYS = {"a-key-of-ann": "ann"}
OF_ANN = {"authorization": "Bearer a-key-of-ann"}
HOSTILE = (
    "<script>alert(1)</script>",
    "![x](http://evil.example/a.png) <img src=http://evil.example/b.png>",
    "text\n\n</dd></dl><iframe src='http://evil.example'></iframe>\n# heading\n| a | b |",
    "```\n<b>out of the fence</b>\n```\r\n<u>and on</u>",
    'a"onmouseover="alert(1)" [link](javascript:alert(1)) <http://evil.example>',
    "\x1b[31mred \u202eturned",
)
TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "dl", "dt", "dd"} | {
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
}


class Page(HTMLParser):
    """What a browser would make of a page: its tags, their attributes and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@contextmanager
def remembering(folder: Path) -> Iterator[Running]:
    """Run a service in which ann says things, corrects one, withdraws one, and a stranger is refused."""
    with (
        ScriptedUpstream() as upstream,
        running(upstream, folder, api_keys=KEYS, access_log="reads", use_rerank_default=True) as service,
    ):
        upstream.responders["gate"] = gate_keeps_all
        http = service.client.http
        for number, text in enumerate(["My dog is called Bruno.", "Bruno the dog likes cheese.", *HOSTILE]):
            body = {"model": "m", "messages": [{"role": "user", "content": text}], "metadata": {"conversation_id": "c"}}
            assert http.post("/v1/chat/completions", json=body, headers=OF_ANN).status_code == 200, number
        service.settle()
        memories = http.get("/v1/memories", headers=OF_ANN).json()["data"]
        by_text = {memory["user"]: memory["memory_id"] for memory in memories}
        http.patch(
            f"/v1/memories/{by_text['My dog is called Bruno.']}",
            json={"summary": "The dog is called Max <b>now</b>."},
            headers=OF_ANN,
        ).raise_for_status()
        http.delete(
            f"/v1/memories/{by_text['Bruno the dog likes cheese.']}", params={"reason": "| no | more |"}, headers=OF_ANN
        ).raise_for_status()
        body = {"model": "m", "messages": [{"role": "user", "content": "Which dog is mine, Bruno?"}]}
        body["metadata"] = {"conversation_id": "later"}
        http.post("/v1/chat/completions", json=body, headers=OF_ANN).raise_for_status()
        refused = http.get("/v1/memories", params={"user": "ann"}, headers={"authorization": "Bearer no-key"})
        assert refused.status_code == 401
        service.settle()
        until("the read is in the log", lambda: _logged(service.ledger.path))
        yield service


def _logged(ledger: Path) -> bool:
    with closing(DRIVER.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        return bool(connection.execute("SELECT count(*) FROM access WHERE user_id = 'ann'").fetchone()[0])


def reported(service: Running, *arguments: str) -> Ran:
    return opm(environment(service.ledger.path.parent), "report", "--user", "ann", *arguments)


def section(markdown: str, heading: str) -> str:
    found = re.search(rf"^## {heading}.*?(?=^## |\Z)", markdown, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[0]


def test_it_tells_what_was_withdrawn_from_what_was_left_behind(tmp_path: Path) -> None:
    stream = StreamId("ann", "c")
    with opened(new_ledger_file(tmp_path)) as ledger:
        withdrawn, left, back = (record_turn(ledger, stream, f"Turn {number}?").event_id for number in range(3))
        for memory_id in (withdrawn, back):
            MemoryCommands(ledger).forget("ann", memory_id)
        MemoryCommands(ledger).restore("ann", back, "by mistake")
        superseded = TurnSuperseded(memory_id=left, turn_id=2, reason="regenerated")
        record(ledger, stream, superseded, causation_id=left)
    ran = opm(environment(tmp_path), "report", "--user", "ann")
    assert ran.status == 0, ran.err
    first, second, third = re.split(r"^### ", section(ran.out, "Questions and answers: 3"), flags=re.MULTILINE)[1:]
    assert "Withdrawn: it is remembered no more." in first
    assert "Superseded: the conversation went on without it." in second
    assert "Withdrawn" not in third
    assert "Superseded" not in third
    corrections = section(ran.out, "Corrections, withdrawals and erasures: 3")
    assert re.search(r"\| taken back \|.*\| by mistake \|", corrections)


def test_it_holds_all_of_a_person_and_what_the_ledger_is(tmp_path: Path) -> None:
    with remembering(tmp_path) as service:
        ran = reported(service)
        verified = opm(environment(service.ledger.path.parent), "verify", "--head").out.strip()
        last = service.ledger.stream("ann", "later")[0]
    assert ran.status == 0, ran.err
    assert verified in section(ran.out, "The ledger")
    assert "are as they were written" in section(ran.out, "The ledger")
    assert "embedding model" in section(ran.out, "Models, prompts and settings in use")
    questions = section(ran.out, "Questions and answers: 9")
    for text in ("My dog is called Bruno.", "Which dog is mine, Bruno?"):
        assert f"\n    {text}\n" in questions
    assert "Withdrawn: it is remembered no more." in questions
    assert "    The dog is called Max <b>now</b>." in questions
    newest = questions[questions.index(str(last.correlation_id)) :]
    assert re.search(r"^\| replayed \|.*My dog is called Bruno\.", newest, re.MULTILINE)
    assert newest.count("the same as sent, by its hash") >= 2
    assert "DIFFERS" not in questions
    corrections = section(ran.out, "Corrections, withdrawals and erasures: 2")
    assert "corrected" in corrections
    assert "withdrawn" in corrections
    assert corrections.count("key:") == 2
    usage = section(ran.out, "Calls and tokens")
    assert re.search(r"^\| answer \| \S+ \| 9 \| 0 \| \d+ \| \d+ \|$", usage, re.MULTILINE)
    assert "GET /v1/memories" in section(ran.out, "Reads of this memory, and refused calls: 1")


def test_a_changed_event_is_named_in_it(tmp_path: Path) -> None:
    with remembering(tmp_path) as service:
        path = service.ledger.path
    with closing(DRIVER.connect(path)) as connection:
        triggers = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE events SET payload = replace(payload, 'Bruno', 'Rex') WHERE type = 'TurnRecorded'")
        connection.commit()
    ran = opm(environment(path.parent), "report", "--user", "ann")
    assert "NOT as it was written" in ran.out
    assert "its payload was changed" in ran.out


def test_a_time_leaves_out_what_is_before_and_after(tmp_path: Path) -> None:
    with remembering(tmp_path) as service:
        turns = service.ledger.stream("ann", "c")
        from_here = next(event for event in turns if getattr(event.payload, "user", "") == HOSTILE[0])
        since = reported(service, "--since", from_here.recorded_at.isoformat())
        before = reported(service, "--until", from_here.recorded_at.isoformat())
        never = reported(service, "--until", "2001-01-01")
    assert "## Questions and answers: 7" in since.out
    assert "\n    My dog is called Bruno.\n" not in since.out
    assert "## Questions and answers: 2" in before.out
    assert "Withdrawn" not in before.out
    assert "## Questions and answers: 0" in never.out


def test_the_page_has_no_script_and_loads_nothing(tmp_path: Path) -> None:
    with remembering(tmp_path) as service:
        file = tmp_path / "ann.html"
        ran = reported(service, "--html", "--output", str(file))
        again = reported(service, "--html", "--output", str(file))
    assert ran.status == 0, ran.err
    assert file.stat().st_mode & 0o777 == 0o600
    assert again.status == 2
    page = Page(file.read_text(encoding="utf-8"))
    assert page.tags <= TAGS
    assert page.attributes <= {"lang", "charset", "http-equiv", "content", "name"}
    for text in HOSTILE[:5]:
        assert text.replace("\r", "\N{REPLACEMENT CHARACTER}") in page.text
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_the_file_is_for_its_owner_only_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    with remembering(tmp_path) as service:
        path = service.ledger.path
    before = os.umask(umask)
    try:
        ran = opm(environment(path.parent), "report", "-u", "ann", "-o", str(tmp_path / "ann.md"))
    finally:
        os.umask(before)
    assert ran.status == 0, ran.err
    assert (tmp_path / "ann.md").stat().st_mode & 0o777 == 0o600


def test_it_is_json_too(tmp_path: Path) -> None:
    with remembering(tmp_path) as service:
        ran, both = reported(service, "--json"), reported(service, "--json", "--html")
    assert ran.json[0] == {"block": "heading", "text": "Audit of ann", "level": 1}
    assert {block["block"] for block in ran.json} == {"heading", "line", "said", "table"}
    assert both.status == 2


def test_a_user_of_whom_nothing_is_kept_is_a_bad_argument(tmp_path: Path) -> None:
    with remembering(tmp_path) as service:
        ran = opm(environment(service.ledger.path.parent), "report", "-u", "nobody")
        bad = reported(service, "--since", "yesterday")
    assert (ran.status, bad.status) == (2, 2)
    assert "--user" in ran.err
    assert "--since" in bad.err


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_is_markup_in_either_format(text: str) -> None:
    blocks: list[Block] = [
        Heading(text, 1),
        Line(text),
        Said("Question", text),
        Table(("a", "b"), ((text, "x"),)),
        Line("end"),
    ]
    parsed = MarkdownIt("commonmark").enable("table").parse(as_markdown(blocks))
    inline = [child for token in parsed for child in token.children or []]
    kinds = {token.type for token in [*parsed, *inline]}
    assert not kinds & {"html_block", "html_inline", "image", "link_open", "fence", "hr", "list_item_open"}
    assert [token.tag for token in parsed if token.type == "heading_open"] == ["h1"]
    assert sum(token.type == "td_open" for token in parsed) == 2
    assert Page(as_html(blocks)).tags <= TAGS
