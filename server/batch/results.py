"""The results of a batch, written at its end; and its recording, read again."""

import asyncio
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from persona_mcp.config.settings import Settings
from persona_mcp.server.batch.casts import Casts
from persona_mcp.server.batch.folder import RECORDING, TIMINGS, BatchFolder, lines, writable
from persona_mcp.server.batch.manifest import (
    Manifest,
    manifest_of,
    read_manifest,
    with_file,
    write_manifest,
)
from persona_mcp.server.batch.outputs import REPORT, write_outputs
from persona_mcp.server.batch.rows import PAGE
from persona_mcp.server.batch.settings import Begun
from persona_mcp.server.batch.store import BatchStore
from persona_mcp.server.prompt_texts import prompts_sha256
from persona_mcp.state.batch import codec
from persona_mcp.state.batch.plan import BatchPlan
from persona_mcp.state.batch.values import RecordedCall
from persona_mcp.state.errors import BadSnapshot

BEGUN = "begun"


async def finish(
    folder: BatchFolder, plan: BatchPlan, casts: Casts, settings: Settings
) -> Manifest:
    """Write the outputs, the recording and the measured times, and the manifest at last.

    Args:
        folder: Of a batch whose dialogues are all kept.
        plan: What was held.
        casts: Who was cast.
        settings: That it was held with.

    Raises:
        StorageUnavailable: The store cannot be read.
    """
    counts = await folder.store.counts()
    begun: Begun = await folder.store.fact(BEGUN)
    models = await folder.store.models()

    def write() -> Manifest:
        laws = settings.relationships
        with writable(folder.path), folder.beside() as new:
            files = write_outputs(new, plan, folder.store.outcomes, casts.of, laws)
            write_lines(new / RECORDING, folder.store.recording())
            write_lines(new / TIMINGS, timing_lines(folder.store))
        with writable(folder.path):
            told = manifest_of(
                folder.path, [*files, RECORDING], plan, begun, models, prompts_sha256(), counts
            )
            write_manifest(folder.path, told)
        return told

    return await asyncio.to_thread(write)


async def report_again(
    folder: BatchFolder, plan: BatchPlan, casts: Casts, settings: Settings
) -> Path:
    """Write the report of what is done so far; a finished batch's manifest then has its sum.

    Nothing else of the manifest changes: what was changed in the folder is still told by it.

    Raises:
        BadSnapshot: The manifest is damaged.
        StorageUnavailable: The store cannot be read, or the folder cannot be written.
    """

    def write() -> Path:
        only = plan_with_report(plan)
        manifest = read_manifest(folder.path) if folder.finished else None
        with writable(folder.path), folder.beside(keep=True) as new:
            write_outputs(new, only, folder.store.outcomes, casts.of, settings.relationships)
            for path in list(new.iterdir()):
                if path.name != REPORT:
                    path.unlink()
        if manifest is not None and REPORT in manifest["files"]:
            with writable(folder.path):
                write_manifest(folder.path, with_file(manifest, folder.path / REPORT))
        return folder.path / REPORT

    return await asyncio.to_thread(write)


def plan_with_report(plan: BatchPlan) -> BatchPlan:
    """Return a plan whose outputs are the report alone."""
    return BatchPlan(plan.spec.model_copy(update={"outputs": ["report"]}))


def write_lines(path: Path, texts: Iterator[str]) -> None:
    """Write a file of lines."""
    with path.open("wb") as file:
        file.writelines(lines(texts))


def timing_lines(store: BatchStore) -> Iterator[str]:
    """Write what was measured, a line for each dialogue."""
    for index, measured in store.timings():
        yield json.dumps({"index": index, **measured}, sort_keys=True)


async def read_recording(path: Path, store: BatchStore) -> None:
    """Take the recording in a batch's folder into a store; it may be larger than memory.

    Raises:
        BadSnapshot: A line is no call; the message has its number.
        StorageUnavailable: The store does not take it.
    """
    with path.open("rb") as file:
        at = 0
        while page := list(islice(file, PAGE)):
            numbered = enumerate(page, start=at + 1)
            await store.add_calls([call_in(line, path.name, n) for n, line in numbered])
            at += len(page)


def call_in(line: bytes, name: str, at: int) -> RecordedCall:
    """Read a line of a recording.

    Raises:
        BadSnapshot: It is no call.
    """
    try:
        return codec.read_call(line.decode())
    except (ValueError, KeyError, TypeError, BadSnapshot) as error:
        raise BadSnapshot(f"{name}, line {at}: it is no recorded call", line=at) from error
