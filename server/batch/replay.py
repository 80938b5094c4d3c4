"""A batch held again from its recording, in a folder of its own; no model is asked."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from persona_mcp.config.settings import Settings
from persona_mcp.config.spec_files import read_plan
from persona_mcp.server.batch.batches import Batch, Told
from persona_mcp.server.batch.casts import Casts
from persona_mcp.server.batch.dialogue_host import DialogueHost, dialogue_host
from persona_mcp.server.batch.folder import CAST, RECORDING, SPEC, BatchFolder, begin_folder
from persona_mcp.server.batch.local_engine import LocalEngine
from persona_mcp.server.batch.results import BEGUN, read_recording
from persona_mcp.server.batch.settings import Begun, as_begun, check_embedder
from persona_mcp.server.batch.worlds import Worlds
from persona_mcp.state.batch.plan import BatchPlan
from persona_mcp.state.embedding import Embedder

AT_ONCE = 8
"""Dialogues that are held again at once: nobody waits for a model."""


@dataclass(frozen=True)
class Replay:
    """A batch that is being held again.

    Attributes:
        folder: Where; its store has the recorded calls.
        plan: What was held.
        casts: Who was cast.
        settings: That it was held with.
        host: Likewise; closed by the engine.
        engine: Plays, and asks nobody.
    """

    folder: BatchFolder
    plan: BatchPlan
    casts: Casts
    settings: Settings
    host: DialogueHost
    engine: LocalEngine

    def batch(self, told: Told) -> Batch:
        """Return it as it can be run, in whole or in part."""
        worlds, stopping = Worlds(self.host), asyncio.Event()
        return Batch(self.plan, self.casts, self.folder.store, self.engine, worlds, told, stopping)


@asynccontextmanager
async def open_replay(
    path: Path, begun: Begun, settings: Settings, embedder: Embedder | None = None
) -> AsyncIterator[Replay]:
    """Copy specification, cast and recording of a batch to a temporary folder, to hold it there.

    Args:
        path: The batch's folder; nothing is written there.
        begun: What it was begun with, from its manifest.
        settings: In effect here; only what a dialogue does not depend on counts.
        embedder: In place of the one that they name.

    Raises:
        BadSnapshot: The cast, the recording or the settings cannot be read.
        InvalidParams: The specification cannot be.
        Conflict: Another embedder is set here.
    """
    _, plan = await asyncio.to_thread(read_plan, path / SPEC)
    kept = as_begun(settings, begun)
    host = dialogue_host(kept, embedder)
    engine = LocalEngine(host, None, AT_ONCE)
    try:
        check_embedder(begun, host.embedder.model_id)
        with tempfile.TemporaryDirectory(prefix="persona-replay-") as temporary:
            copy = Path(temporary) / "batch"
            async with begin_folder(copy, (path / SPEC).read_bytes()) as folder:
                (copy / CAST).write_bytes((path / CAST).read_bytes())
                casts = await asyncio.to_thread(folder.casts)
                assert casts is not None
                await folder.store.note_fact(BEGUN, begun)
                await read_recording(path / RECORDING, folder.store)
                yield Replay(folder, plan, casts, kept, host, engine)
    finally:
        await engine.aclose()
