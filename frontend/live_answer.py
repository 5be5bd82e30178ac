"""One streaming answer, read by its own thread so that the page can be redrawn at any time.

Streamlit restarts the script whenever a person touches a widget. If the script read the stream, turning a knob would
cut the answer off. Instead a thread reads, and each run of the script looks at the same answer. When the person presses
Stop or the browser is gone, `stop` closes the connection and keeps what has arrived.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import aclosing
from dataclasses import dataclass, replace
from time import monotonic
from typing import Literal

from frontend.backend import Backend, ChatPiece, ChatRequest
from frontend.backend_errors import BackendError, BackendFailedError
from frontend.wire import MemoryStatus, Retrieved, TurnRef

logger = logging.getLogger(__name__)

AnswerState = Literal["running", "done", "stopped", "failed"]


@dataclass(frozen=True)
class AnswerSnapshot:
    """An answer at one moment. `version` increases with every change; `error` is set if `state` is "failed"."""

    state: AnswerState = "running"
    text: str = ""
    retrieved: Retrieved | None = None
    memory_status: MemoryStatus | None = None
    turn: TurnRef | None = None
    finish_reason: str | None = None
    request_id: str | None = None
    error: BackendError | None = None
    version: int = 0


class LiveAnswer:
    """Reads one answer in a daemon thread. All methods are thread-safe."""

    def __init__(self, backend: Backend, request: ChatRequest) -> None:
        self.request = request
        self._backend = backend
        self._changed = threading.Condition()
        self._snapshot = AnswerSnapshot()
        self._stop_wanted = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._began = monotonic()
        self._thread = threading.Thread(target=self._run, name="live-answer", daemon=True)

    def start(self) -> None:
        """Start reading. Call it once."""
        self._thread.start()

    @property
    def age_s(self) -> float:
        """Seconds since the question."""
        return monotonic() - self._began

    def stop(self) -> None:
        """Close the connection and keep what has arrived. Does nothing once the answer has ended."""
        with self._changed:
            self._stop_wanted = True
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)

    def snapshot(self) -> AnswerSnapshot:
        """The answer as it is now."""
        with self._changed:
            return self._snapshot

    def wait(self, seen_version: int, timeout_s: float) -> AnswerSnapshot:
        """Wait until the answer differs from `seen_version`, at most `timeout_s` seconds, and return it."""
        with self._changed:
            self._changed.wait_for(lambda: self._snapshot.version != seen_version, timeout_s)
            return self._snapshot

    def _run(self) -> None:
        try:
            asyncio.run(self._read())
        except Exception as error:  # noqa: BLE001 - outermost frame of the thread: the page must not wait for ever
            # The message and the traceback may contain the person's text, so neither is logged.
            logger.error("live_answer_failed error=%s", type(error).__name__)  # noqa: TRY400
            self._end("failed", BackendFailedError())

    async def _read(self) -> None:
        with self._changed:
            stopped_before_start = self._stop_wanted
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            if stopped_before_start:
                self._end("stopped")
                return
            async with aclosing(self._backend.chat(self.request)) as pieces:
                async for piece in pieces:
                    self._take(piece)
        except asyncio.CancelledError:
            self._end("stopped")
        except BackendError as error:
            self._end("failed", error)
        else:
            self._end("done")
        finally:
            # The loop is closed next, and a call into a closed loop raises.
            with self._changed:
                self._loop = self._task = None

    def _take(self, piece: ChatPiece) -> None:
        with self._changed:
            now, chunk = self._snapshot, piece.chunk
            self._snapshot = replace(
                now,
                text=now.text + chunk.text,
                retrieved=chunk.retrieved or now.retrieved,
                memory_status=chunk.memory_status or now.memory_status,
                turn=chunk.turn or now.turn,
                finish_reason=chunk.finish_reason or now.finish_reason,
                request_id=piece.request_id or now.request_id,
                version=now.version + 1,
            )
            self._changed.notify_all()

    def _end(self, state: AnswerState, error: BackendError | None = None) -> None:
        with self._changed:
            if self._snapshot.state == "running":
                now = self._snapshot
                self._snapshot = replace(now, state=state, error=error, version=now.version + 1)
                self._changed.notify_all()
