"""``uvicorn --workers 2`` on one ``STORAGE_DIR``: both processes answer, and one of them does the background work."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from domain.events import EmbeddingModelActivated, PromptsActivated, SummaryRecorded, TurnRecorded
from tests.processes import Service, service_process
from tests.service.opm import environment, opm
from tests.service.running import Client, LedgerView, until
from tests.upstream import UNTIL_RELEASED, Fault, ScriptedUpstream

USERS = [f"user-{number}" for number in range(8)]
PETS = ["dog", "cat", "parrot", "hamster"]
# The kernel gives a new connection to any worker; one of them may take many in a row.
CONNECTIONS_MAX = 500
# Longer than a test, so that a connection stays with the worker that took it.
KEEP_ALIVE_S = "120"
WAITS = re.compile(r"^(\d+) WARNING \S+: another service does the background work", re.MULTILINE)
TOOK_OVER = re.compile(r"^(\d+) WARNING \S+: the other service on this STORAGE_DIR has ended", re.MULTILINE)


@dataclass(frozen=True)
class Workers:
    """The service, and which of its two processes does what."""

    service: Service
    ledger: LedgerView
    storage: Path
    busy: int
    """Does the background work."""
    idle: int
    """Waits to take it over."""

    def connect(self, pid: int) -> Client:
        """Return a client whose one connection goes to this worker."""
        for _ in range(CONNECTIONS_MAX):
            client, found = connect_to_any(self.service)
            if found == pid:
                return client
            client.http.close()
        raise AssertionError(f"worker {pid} took none of {CONNECTIONS_MAX} connections")

    def recorded_questions(self, user: str, conversation: str) -> list[str]:
        return [turn.user for turn in self.ledger.all(TurnRecorded, user, conversation)]

    def summarised(self, user: str, conversation: str) -> Counter[int]:
        """How often each turn was summarised, by its number."""
        return Counter(summary.turn_id for summary in self.ledger.all(SummaryRecorded, user, conversation))

    def mirrored_once(self, user: str, conversation: str) -> bool:
        """Whether the conversation's JSONL file holds one line for each event."""
        path = self.storage / "users" / user / "conversations" / f"{conversation}.jsonl"
        return path.exists() and len(path.read_text().splitlines()) == len(self.ledger.stream(user, conversation))


def connect_to_any(service: Service) -> tuple[Client, int]:
    client = Client(service.base_url)
    return client, int(client.get("/health").headers["x-worker"])


@contextmanager
def two_workers(upstream: ScriptedUpstream, storage: Path) -> Iterator[Workers]:
    options = ("--workers", "2", "--timeout-keep-alive", KEEP_ALIVE_S)
    variables = environment(storage, upstream)
    with service_process(variables, app="tests.service.named_worker:app", options=options) as service:
        pids = wait_for_pids(service, 2)
        until("one of them waits", lambda: WAITS.search(service.log()))
        [idle] = map(int, WAITS.findall(service.log()))
        [busy] = pids - {idle}
        with closing(LedgerView(storage / "ledger.sqlite3")) as ledger:
            yield Workers(service, ledger, storage, busy, idle)


def wait_for_pids(service: Service, count: int) -> set[int]:
    found: set[int] = set()

    def all_answer() -> bool:
        client, pid = connect_to_any(service)
        client.http.close()
        found.add(pid)
        return len(found) == count

    until(f"{count} workers answer", all_answer)
    return found


def fact(user: str, pet: str) -> str:
    return f"My {pet} is called {pet}-of-{user}."


def tell(workers: Workers, pid: int, user: str, texts: Sequence[str], conversation: str) -> list[list[str]]:
    """Tell one worker these texts one after the other; return the memories that each answer was given."""
    client = workers.connect(pid)
    with closing(client.http):
        answers = [client.tell(text, user, conversation, neighbor_turns=0) for text in texts]
    assert {int(answer.headers["x-worker"]) for answer in answers} == {pid}
    return [answer.replayed for answer in answers]


def test_two_workers_share_one_ledger_and_its_background_work(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with two_workers(upstream, tmp_path) as workers, ThreadPoolExecutor(2 * len(USERS)) as at_once:
        # Every user tells both workers at the same time, in the same conversation.
        facts = {user: [fact(user, pet) for pet in PETS] for user in USERS}
        telling = [
            at_once.submit(tell, workers, pid, user, texts, "facts")
            for user in USERS
            for pid, texts in ((workers.busy, facts[user][:2]), (workers.idle, facts[user][2:]))
        ]
        for told in telling:
            told.result()
        for user in USERS:
            assert sorted(workers.recorded_questions(user, "facts")) == sorted(facts[user])
        assert len(upstream.calls_of("answer")) == len(USERS) * len(PETS)

        # What one worker was told, the other recalls; nobody else's memory is among it.
        asking = {
            (user, pid): at_once.submit(tell, workers, pid, user, [f"What is my {pet} called?"], f"asked {pid}")
            for user in USERS
            for pid, pet in ((workers.busy, PETS[3]), (workers.idle, PETS[0]))
        }
        for (user, pid), asked in asking.items():
            [replayed] = asked.result()
            assert fact(user, PETS[3] if pid == workers.busy else PETS[0]) in replayed
            assert not any(other in text for text in replayed for other in USERS if other != user)

        until(
            "every turn is summarised",
            lambda: all(workers.summarised(user, "facts").total() >= len(PETS) for user in USERS),
        )
        for user in USERS:
            assert workers.summarised(user, "facts") == Counter(range(1, len(PETS) + 1))
        until("every event is mirrored once", lambda: all(workers.mirrored_once(user, "facts") for user in USERS))
        # What a start records is recorded once, although two processes started on an empty folder.
        for recorded_once in (PromptsActivated, EmbeddingModelActivated):
            assert len(workers.ledger.all(recorded_once, "", "")) == 1
        until("ledger, mirror and indices agree", lambda: opm(environment(tmp_path, upstream), "verify").status == 0)
        assert workers.service.terminate() == 0
        assert "Traceback" not in workers.service.log()


def test_a_killed_worker_is_replaced_and_the_other_takes_over_its_background_work(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.fail_always("summary", Fault(hang_s=UNTIL_RELEASED))
    with two_workers(upstream, tmp_path) as workers:
        tell(workers, workers.busy, "ann", [fact("ann", "dog")], "facts")
        upstream.wait_for("summary")
        # Stopped, uvicorn's own process puts no new worker in the dead one's place: the other one has to take over.
        os.kill(workers.service.pid, signal.SIGSTOP)
        os.kill(workers.busy, signal.SIGKILL)
        upstream.heal("summary")
        upstream.release()
        until("the other one takes over", lambda: TOOK_OVER.findall(workers.service.log()) == [str(workers.idle)])
        [replayed] = tell(workers, workers.idle, "ann", ["What is my dog called?"], "asked")
        assert fact("ann", "dog") in replayed
        tell(workers, workers.idle, "ann", [fact("ann", "cat")], "facts")
        until("both turns are summarised", lambda: workers.summarised("ann", "facts").keys() == {1, 2})
        os.kill(workers.service.pid, signal.SIGCONT)
        [replacement] = wait_for_pids(workers.service, 2) - {workers.idle}
        assert replacement != workers.busy
        [replayed] = tell(workers, replacement, "ann", ["What is my cat called?"], "asked the new one")
        assert fact("ann", "cat") in replayed
        assert workers.summarised("ann", "facts") == {1: 1, 2: 1}
        until("ledger, mirror and indices agree", lambda: opm(environment(tmp_path, upstream), "verify").status == 0)
        assert workers.service.terminate() == 0
