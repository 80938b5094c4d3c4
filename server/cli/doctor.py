"""The doctor's checks: each part is really used once, and what is wrong says what to do."""

import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from persona_mcp.config.checkpoints import PersonaSqliteSaver
from persona_mcp.config.embedder import open_embedder
from persona_mcp.config.llm import open_model
from persona_mcp.config.llm_faults import DOCTOR
from persona_mcp.config.settings import Settings
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import tables
from persona_mcp.state.embedding import Embedder
from persona_mcp.state.errors import PersonaError, StorageUnavailable
from persona_mcp.state.model import ChatModel, Message, Sampling
from persona_mcp.state.soundness import fault_in, fault_in_words

PROBE = "Say hello."
PROBE_TOKENS = 8
MILLISECONDS = 1000


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        part: model, embedder, database, index or data folder.
        ok: Nothing is to be done.
        detail: What was found, and what to do if something is.
    """

    part: str
    ok: bool
    detail: str


async def check_all(settings: Settings) -> list[Finding]:
    """Check every part; one that fails does not keep the others from being checked."""
    chosen, encoder = open_model(settings.llm), open_embedder(settings.embedder)
    try:
        found = await kept(settings, chosen, encoder)
        found.append(await tried("embedder", lambda: embedder(encoder)))
        found.append(await tried("model", lambda: model(chosen)))
    finally:
        await encoder.aclose()
        await chosen.aclose()
    return found


async def kept(settings: Settings, chosen: ChatModel, encoder: Embedder) -> list[Finding]:
    """Check what lies in the data folder."""
    try:
        async with open_service(settings, chosen, encoder, holds_batches=False) as service:
            return [
                Finding("data folder", True, f"{settings.data_dir} can be written"),
                await tried("database", lambda: database(service)),
                await tried("index", lambda: index(service)),
            ]
    except PersonaError as error:
        folder, said = str(settings.data_dir), error.message
        return [Finding("data folder", False, said if folder in said else f"{folder}: {said}")]


async def tried(part: str, check: Callable[[], Awaitable[str]]) -> Finding:
    """Make a finding of a check."""
    try:
        return Finding(part, True, await check())
    except PersonaError as error:
        said = error.message
        for joint in ("; ", ": "):  # whoever reads this has asked the doctor
            said = said.removesuffix(joint + DOCTOR)
        return Finding(part, False, said)


async def database(service: Service) -> str:
    """Check that it is whole, and count what is in it.

    Raises:
        StorageUnavailable: It is damaged.
    """

    def read(connection: Connection) -> tuple[str, int, int]:
        exchanges, memories = (
            connection.scalar(select(func.count()).select_from(table)) or 0
            for table in (tables.Exchange, tables.Memory)
        )
        return fault_in(connection), exchanges, memories

    fault, exchanges, memories = await service.database.read(read)
    if fault := fault or await service.database.write(fault_in_words):
        raise StorageUnavailable(fault)
    if isinstance(service.checkpointer, PersonaSqliteSaver):
        await service.checkpointer.acheck()
    return f"sound; exchanges: {exchanges}, memories: {memories}"


async def index(service: Service) -> str:
    """Compare index and database."""
    world_id = service.settings.world
    anew = bool(service.index.trouble)
    missing, extra = await service.index.reconcile(world_id)
    waiting = await service.indexer.pending()
    if given_up := await service.indexer.given_up():
        raise StorageUnavailable(
            f"{given_up} memories could not be embedded, words alone find them; when the embedder "
            "is well, run `persona memory reindex`"
        )
    mended = "; made anew" if anew else ""
    mended += f"; mended {missing} missing, {extra} too many" if missing or extra else ""
    why = "" if service.index.kind == "chroma" else " (another process holds Chroma, or it is off)"
    return f"{service.index.kind}{why}; {waiting} memories wait{mended}"


async def embedder(encoder: Embedder) -> str:
    """Embed a text."""
    started = time.monotonic()
    vector = await encoder.embed_query(PROBE)
    took = (time.monotonic() - started) * MILLISECONDS
    return f"{encoder.model_id}; {vector.size} dimensions, first text in {took:.0f} ms"


async def model(chosen: ChatModel) -> str:
    """Have the model say a few words, within its own limits."""
    info = await chosen.info()
    started = time.monotonic()
    sampling = Sampling(max_tokens=PROBE_TOKENS, temperature=0.0)
    async with aclosing(chosen.stream([Message("user", PROBE)], sampling)) as stream:
        words = "".join([chunk.text async for chunk in stream]).strip()
    took = time.monotonic() - started
    weak = (
        "; small: for better replies install Ollama, `ollama pull llama3.2`" if info.small else ""
    )
    return f"{info.id} said {words!r} in {took:.1f} s{weak}"
