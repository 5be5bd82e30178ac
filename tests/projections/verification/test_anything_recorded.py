"""Whatever is recorded can be verified, mirrored and restored: by turns, by an import, from a mirror that was tampered.

What cannot be is refused before it is an event.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain import chain
from domain.errors import InvalidInput, LedgerError, OpmError
from domain.events import NewEvent
from domain.identity import StreamId
from domain.settings import StorageSettings
from migrations.runner import migrate
from projections.backup.restore import restore_from_mirror
from projections.mirror.event_file import event_of, line_of
from projections.mirror.mirror import Mirror
from projections.verification.storage import verify_ledger_file
from service.importing.own_export import read_export
from service.importing.record import record_export
from tests.ledgers import STREAM, all_stored, new_ledger_file, one_of_each, opened, record, turn

TEXTS = st.text(st.characters(), max_size=5) | st.sampled_from(("\ud800", "\x00", "a\x00b", "\u2028", "\ufeff", ""))
NUMBERS = st.integers() | st.floats() | st.sampled_from((-0.0, 2**63, 2**64, 10**30, 10**4000, 5e-324, 1e22))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
LEVELS = st.integers(min_value=0, max_value=400)
MANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PAYLOADS = {payload.type: payload for payload in one_of_each() if payload.type != "UserErased"}


def nested(value: Any, levels: int) -> Any:
    for _ in range(levels):
        value = [value]
    return value


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


def emptied(folder: Path) -> StorageSettings:
    """Return the settings of a storage folder with an empty ledger."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    new_ledger_file(folder)
    return StorageSettings(storage_dir=folder)


def comes_back(storage: StorageSettings) -> None:
    """What was recorded verifies, is mirrored in lines that give it back, and can be restored from them."""
    assert verify_ledger_file(storage.ledger_path, deep=True)[1] == []
    with opened(storage.ledger_path) as ledger:
        rows = all_stored(ledger)
        assert [event_of(line_of(row)) for row in rows] == rows
        ledger.reader.events_after(0, len(rows) + 1)
        Mirror(ledger.reader, storage.storage_dir).complete()
    if rows:
        restore_from_mirror(storage)
        assert verify_ledger_file(storage.ledger_path, deep=True)[1] == []
        with opened(storage.ledger_path) as ledger:
            assert all_stored(ledger) == rows


@MANY
@given(
    parameters=st.dictionaries(TEXTS, VALUES, max_size=3),
    levels=LEVELS,
    texts=st.tuples(TEXTS, TEXTS, TEXTS),
    ids=st.tuples(VALUES, VALUES, VALUES),
    odd_ids=st.booleans(),
)
def test_what_is_appended(
    folder: Path, parameters: Any, levels: int, texts: tuple[str, str, str], ids: tuple[Any, Any, Any], odd_ids: bool
) -> None:
    storage = emptied(folder / "appended")
    user, assistant, conversation = texts
    with opened(storage.ledger_path) as ledger:
        beside = ledger.append(STREAM, lambda _head: [NewEvent("e-0", turn(1))])
        with suppress(LedgerError):
            payload = turn(1, user, assistant).model_copy(update={"parameters": {"p": nested(parameters, levels)}})
            event_id, correlation_id, causation_id = ids if odd_ids else ("e-1", "c-1", None)
            event = NewEvent(event_id, payload, correlation_id, causation_id)
            ledger.append(StreamId("ann", conversation), lambda _head: [event]).result()
        assert beside.result()[0].position == 1
        record(ledger, STREAM, turn(1))
    comes_back(storage)


@MANY
@given(st.data())
def test_what_a_tampered_line_brings_in(folder: Path, data: st.DataObject) -> None:
    """A line with any value at any place and a hash that fits: as an import, and in a mirror that is restored."""
    source = emptied(folder / "source")
    with opened(source.ledger_path) as ledger:
        record(ledger, STREAM, PAYLOADS[data.draw(st.sampled_from(sorted(PAYLOADS)))])
        Mirror(ledger.reader, source.storage_dir).complete()
        [line] = map(line_of, all_stored(ledger))
    tampered = data.draw(lines_like(json.loads(line)))
    [mirrored] = source.storage_dir.rglob("*.jsonl")
    mirrored.write_bytes(f"{tampered}\n".encode("utf-8", "surrogatepass"))
    target = StorageSettings(storage_dir=folder / "target")
    shutil.rmtree(target.storage_dir, ignore_errors=True)
    migrate(target.ledger_path)
    with opened(target.ledger_path) as ledger:
        with suppress(InvalidInput):
            record_export(ledger, "ann", read_export(mirrored))
        record(ledger, STREAM, turn(1))
    comes_back(target)
    with suppress(OpmError):
        restore_from_mirror(source)
    assert verify_ledger_file(source.ledger_path, deep=True)[1] == []


@st.composite
def lines_like(draw: st.DrawFn, whole: Any) -> str:
    """Draw a line with another value at one place, its hashes made anew where there are any."""
    whole = deepcopy(whole)
    inner = whole["event"] if draw(st.booleans()) else whole
    name = draw(st.sampled_from(sorted(inner)) | TEXTS)
    inner[name] = nested(draw(VALUES), draw(st.just(0) | LEVELS))
    event = whole.get("event")
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        payload = {name: value for name, value in whole.items() if name != "event"}
        event["payload_hash"] = chain.payload_hash(event["salt"], chain.canonical(payload))
        event["identity_hash"] = chain.identity_hash(event["salt"], event["user_id"], event["conversation_id"])
        hashed = {key: value for key, value in event.items() if key not in {"type", "salt", "hash"}}
        del hashed["user_id"], hashed["conversation_id"]
        event["hash"] = chain.event_hash(event_type=event["type"], **hashed)
    return json.dumps(whole, ensure_ascii=draw(st.booleans()))
