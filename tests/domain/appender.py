"""Append turns to one conversation and print the id of each acknowledged event, one a line.

    python -m tests.domain.appender LEDGER USER CONVERSATION COUNT

It prints a line only after the append's future has resolved.
"""

from __future__ import annotations

import sys
from pathlib import Path

from domain.identity import StreamId
from tests.ledgers import opened, record_turn


def main() -> None:
    path, user, conversation, count = sys.argv[1:]
    with opened(Path(path)) as ledger:
        for _ in range(int(count)):
            event = record_turn(ledger, StreamId(user, conversation), "q" * 500, "a" * 500)
            sys.stdout.write(f"{event.event_id}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
