"""Operations that save a world and load it; `server/operations/state_files.py` has the rest."""

import asyncio
import base64
import time
from typing import Annotated, Any

import structlog
from pydantic import Field

from persona_mcp.server.admission import check_named
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.state.errors import InvalidParams, LimitExceeded, PersonaError, StorageUnavailable
from persona_mcp.state.fields import WHOLE, Id, Reference, Text
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.sessions import Session
from persona_mcp.state.snapshots.file import enveloped, open_file
from persona_mcp.state.snapshots.rows import Rows, Selection
from persona_mcp.state.snapshots.store import (
    About,
    Loaded,
    Mode,
    Saved,
    SnapshotStore,
    Which,
    Wish,
    rows_of,
)
from persona_mcp.state.snapshots.tables import PARTS, Part
from persona_mcp.state.validation import shorten

log = structlog.get_logger(__name__)

INLINE_BYTES = 8 * 1024 * 1024
FILE_BYTES = 256 * 1024 * 1024
BASE64_CHARS = (FILE_BYTES + 2) // 3 * 4
FLOAT16 = 2
NEWEST = "default"

Name = Annotated[Text, Field(min_length=1, max_length=80)]
Version = Annotated[int, Field(ge=1, le=1_000_000_000), WHOLE]
SAVED_ID = "From state_save or state_list"


class StateSaveArguments(Arguments):
    """Arguments of state_save."""

    name: Name = Field(NEWEST, description="What to call it; each name counts versions of its own")
    note: Annotated[Text, Field(max_length=500)] = Field("", description="What to say about it")
    persona_ids: Annotated[list[Reference], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="Only these from persona_list and what is theirs; left out: all"
    )
    include: Annotated[list[Part], Field(min_length=1, max_length=len(PARTS))] | None = Field(
        None, description="Only these parts; left out: all"
    )
    inline: bool = Field(False, description="Also return the file; one of at most 8 MiB")


class SavedState(Result):
    """What was saved."""

    current_persona_id: str | None = Field(description="Of your session; not part of what is saved")
    current_conversation_id: str | None
    active_conversations: int
    timestamp: str
    snapshot_id: str
    name: str
    version: int
    format: str
    sha256: str = Field(description="Of the payload")
    bytes: int = Field(description="Of the payload")
    counts: dict[str, int] = Field(description="Rows by table")


class StateSave(Result):
    """Result of state_save."""

    state_saved: bool
    state: SavedState
    data: str | None = Field(description="The file as base64, if it was asked for")


@operation("Save the world", "system", "manage", core=False)
async def state_save(call: Call, arguments: StateSaveArguments) -> StateSave:
    """Save the world as it stands: personas, relationships, moods, memories and conversations.

    What is saved stays with the world as the next version of its name; state_load brings it back
    and state_export carries it out as a file.
    """
    wanted = arguments.persona_ids
    ids = None
    if wanted is not None:
        found = [await call.store.personas.resolve(call.world_id, one) for one in wanted]
        ids = frozenset(persona.id for persona in found)
    selection = Selection(tuple(arguments.include or PARTS), ids)
    about = About(call.made_id("state_save"), arguments.name, time.time(), arguments.note)
    saved = await store_of(call).save(call.world_id, about, selection)
    return StateSave(
        state_saved=True,
        state=await saved_state(call, saved),
        data=await inlined(call, saved) if arguments.inline else None,
    )


async def saved_state(call: Call, saved: Saved) -> SavedState:
    """Describe what was saved, and what is current for the caller."""
    session = call.session
    return SavedState(
        current_persona_id=session.persona_id if session else None,
        current_conversation_id=session.conversation_id if session else None,
        active_conversations=await call.store.conversations.count_active(call.world_id),
        timestamp=rfc3339(saved.created_at),
        snapshot_id=saved.id,
        name=saved.name,
        version=saved.version,
        format=saved.format,
        sha256=saved.sha256,
        bytes=saved.size,
        counts=saved.counts,
    )


async def inlined(call: Call, saved: Saved) -> str:
    """Return the file of a saved state as base64.

    Raises:
        LimitExceeded: It is too large for one answer; it stays saved.
    """
    if saved.size > INLINE_BYTES:
        raise LimitExceeded(
            f"inline: the file has {saved.size} bytes, and {INLINE_BYTES} are allowed; it is saved "
            f"as '{saved.id}': call state_export, which returns it in pieces",
            snapshot_id=saved.id,
            bytes=saved.size,
        )
    payload = await store_of(call).payload(call.world_id, saved.id)
    return await asyncio.to_thread(lambda: base64.b64encode(enveloped(payload)).decode())


class StateLoadArguments(Arguments):
    """Arguments of state_load."""

    snapshot_id: Id | None = Field(None, description=f"{SAVED_ID}; or give name, or data")
    name: Name | None = Field(None, description="Newest of this name; left out: 'default'")
    version: Version | None = Field(None, description="Of the name; left out: the newest")
    data: Annotated[str, Field(min_length=1, max_length=BASE64_CHARS)] | dict[str, Any] | None = (
        Field(None, description="A file of state_export, as base64 or as its JSON; <= 256 MiB")
    )
    into: Id | None = Field(
        None, description="World to load into, made if it is not there; left out: this one"
    )
    mode: Mode = Field(
        "replace", description="replace: in place of what is there; merge: beside it"
    )
    dry_run: bool = Field(False, description="Only tell what it would do; nothing is changed")
    confirm: bool = Field(False, description="true is needed to replace a world with things in it")


class StateConflict(Result):
    """Something that is saved and cannot be beside what is in the world."""

    table: str
    id: str
    reason: str


class StateLoad(Result):
    """Result of state_load."""

    state_loaded: bool = Field(description="false in a dry run")
    world_id: str = Field(description="Where it was loaded")
    world_made: bool
    mode: Mode
    current_persona_id: str | None = Field(description="Of your session; loading leaves it alone")
    current_conversation_id: str | None
    restored: dict[str, int] = Field(description="Rows that were written, by table")
    already_there: int = Field(description="By a merge: rows that are there with the same content")
    replaced: dict[str, int] = Field(description="Rows that were there and went, by table")
    conflicts: list[StateConflict] = Field(description="In a dry run: why a merge cannot be done")
    memories_to_embed: int = Field(
        description="Their vectors are of another embedder, or missing; found by words until then"
    )
    previous_snapshot_id: str | None = Field(
        description="What was there, saved; loading it undoes this"
    )
    message: str


@operation("Load a world", "system", "admin", core=False, destructive=True)
async def state_load(call: Call, arguments: StateLoadArguments) -> StateLoad:
    """Bring a saved world back: in place of what is there, or beside it, or as a new world.

    What is replaced is saved first. A file that is edited, cut off or of another format is refused.
    A merge adds what is new, and refuses everything if something is there with other content.
    """
    world_id = arguments.into or call.world_id
    await check_named(call.store, world_id)
    rows = await rows_to_load(call, arguments)
    previous_id = call.made_id("state_load")
    wish = Wish(world_id, arguments.mode, *await embedder_of(call), previous_id, time.time())
    store = store_of(call)
    if arguments.dry_run:
        return told(call.session, wish, await store.plan(rows, wish), dry_run=True)
    if arguments.mode == "replace" and not arguments.confirm:
        planned = await store.plan(rows, wish)
        if any(planned.replaced.values()):
            allowed = f"true, since what is in world '{world_id}' is replaced"
            raise InvalidParams.one("confirm", allowed, False)
    done = await store.load(rows, wish)
    await seen_at_once(call)
    session = call.session  # what it stood for may be gone
    if session is not None:
        session = await call.store.sessions.use(session.id, time.time())
    return told(session, wish, done, dry_run=False)


async def seen_at_once(call: Call) -> None:
    """Have this process's index take up what was loaded; other processes' do so in seconds."""
    try:
        await call.service.index.forget()
    except StorageUnavailable as error:  # it is loaded; the worker tries again
        log.warning("index not told of a load", reason=error.message)
    call.store.wake()


async def rows_to_load(call: Call, arguments: StateLoadArguments) -> Rows:
    """Return the rows that are meant.

    Raises:
        InvalidParams: They are named in two ways.
        NotFound: There is no such saved state.
        BadSnapshot: It cannot be read.
    """
    named = arguments.name is not None or arguments.version is not None
    ways = [arguments.snapshot_id is not None, named, arguments.data is not None]
    if sum(ways) > 1:
        raise InvalidParams.one(
            "snapshot_id", "one of snapshot_id, name with version, and data", "several"
        )
    if arguments.data is not None:
        return await asyncio.to_thread(read_file, arguments.data)
    which = Which(arguments.snapshot_id, arguments.name or NEWEST, arguments.version)
    found = await store_of(call).find(call.world_id, which)
    return await store_of(call).open(call.world_id, found.id, found.sha256)


def read_file(data: str | dict[str, Any]) -> Rows:
    """Read a file, and check its rows.

    Raises:
        InvalidParams: It is no base64.
        BadSnapshot: It cannot be read.
    """
    if isinstance(data, dict):
        return rows_of(open_file(data))
    try:
        file = base64.b64decode(data, validate=True)
    except ValueError:  # binascii.Error is one
        raise InvalidParams.one(
            "data", "base64 of a file, or its JSON as an object", shorten(data)
        ) from None
    return rows_of(open_file(file))


async def embedder_of(call: Call) -> tuple[str, int | None]:
    """Return the embedder's id, and the bytes of one of its vectors, None where it is silent."""
    embedder = call.service.embedder
    try:
        return embedder.model_id, FLOAT16 * await embedder.dimension()
    except PersonaError:  # loading does not need it; its worker tries again
        return embedder.model_id, None


def told(session: Session | None, wish: Wish, done: Loaded, *, dry_run: bool) -> StateLoad:
    """Say what loading did, or would do."""
    rows, gone = sum(done.written.values()), sum(done.replaced.values())
    would = "would be " if dry_run else ""
    parts = [f"{rows} rows {would}written to world '{wish.world_id}'"]
    if gone:
        parts.append(f"{gone} {would}replaced")
    if done.clashes:
        parts = [f"{len(done.clashes)} rows are there with other content: nothing would be written"]
    return StateLoad(
        state_loaded=not dry_run,
        world_id=wish.world_id,
        world_made=done.made and not dry_run,
        mode=wish.mode,
        current_persona_id=session.persona_id if session else None,
        current_conversation_id=session.conversation_id if session else None,
        restored=done.written,
        already_there=done.known,
        replaced=done.replaced,
        conflicts=[StateConflict(**vars(clash)) for clash in done.clashes],
        memories_to_embed=done.to_embed,
        previous_snapshot_id=done.previous.id if done.previous else None,
        message="; ".join(parts),
    )


def store_of(call: Call) -> SnapshotStore:
    """Return the saved states of the call's database."""
    return SnapshotStore(call.store.database)
