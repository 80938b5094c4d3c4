"""Operations on what is saved: list it, carry it out as a file."""

import asyncio
import base64
from typing import Annotated, Literal

from pydantic import Field

from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.server.operations.states import (
    NEWEST,
    SAVED_ID,
    Name,
    Version,
    store_of,
)
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.fields import WHOLE, Id
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.snapshots.file import enveloped
from persona_mcp.state.snapshots.store import AUTOMATIC, Which

PIECE_BYTES = 4 * 1024 * 1024
"""Of a file that is carried out; a door that takes messages of 8 MiB takes it as base64."""


class StateListArguments(Arguments):
    """Arguments of state_list."""

    name: Name | None = Field(None, description=f"Only this name; '{AUTOMATIC}': saved by loads")
    limit: Annotated[int, Field(ge=1, le=200), WHOLE] = Field(50, description="Of a page")
    cursor: Id | None = Field(None, description="next_cursor of the page before")


class ListedState(Result):
    """A saved state, briefly."""

    snapshot_id: str
    name: str
    version: int
    timestamp: str
    bytes: int = Field(description="Of the payload")
    sha256: str = Field(description="Of the payload")
    counts: dict[str, int] = Field(description="Rows by table")
    note: str
    automatic: bool = Field(description="Made by a load, of what it replaced")


class StateList(Result):
    """Result of state_list."""

    snapshots: list[ListedState]
    total_count: int
    next_cursor: str | None


@operation("List saved states", "system", "read", core=False)
async def state_list(call: Call, arguments: StateListArguments) -> StateList:
    """List the saved states of the world, the newest first.

    Of what a load replaced, the last ten are kept.
    """
    found, total = await store_of(call).listed(
        call.world_id, arguments.name, arguments.cursor, arguments.limit + 1
    )
    page = found[: arguments.limit]
    return StateList(
        snapshots=[
            ListedState(
                snapshot_id=saved.id,
                name=saved.name,
                version=saved.version,
                timestamp=rfc3339(saved.created_at),
                bytes=saved.size,
                sha256=saved.sha256,
                counts=saved.counts,
                note=saved.note,
                automatic=saved.automatic,
            )
            for saved in page
        ],
        total_count=total,
        next_cursor=page[-1].id if len(found) > len(page) else None,
    )


class StateExportArguments(Arguments):
    """Arguments of state_export."""

    snapshot_id: Id | None = Field(None, description=f"{SAVED_ID}; or give name")
    name: Name | None = Field(None, description="Newest of this name; left out: 'default'")
    version: Version | None = Field(None, description="Of the name; left out: the newest")
    offset: Annotated[int, Field(ge=0, le=1 << 40), WHOLE] = Field(
        0, description="next_offset of the piece before"
    )


class StateExport(Result):
    """Result of state_export."""

    snapshot_id: str
    name: str
    version: int
    data: str = Field(description="A piece of the file as base64; decode each, then join them")
    encoding: Literal["base64"]
    bytes: int = Field(description="Of the whole file")
    sha256: str = Field(description="Of the payload in it; the file holds it too")
    next_offset: int | None = Field(description="Call again with it as offset; null at the end")


@operation("Export a saved state", "system", "manage", core=False, reads=True)
async def state_export(call: Call, arguments: StateExportArguments) -> StateExport:
    """Return a saved state as a file that state_load takes, here or elsewhere.

    The file holds everything that was saved, private memories too. A large one comes in pieces of
    4 MiB: call again with next_offset.
    """
    named = arguments.name is not None or arguments.version is not None
    if arguments.snapshot_id is not None and named:
        raise InvalidParams.one(
            "snapshot_id", "one of snapshot_id, and name with version", "several"
        )
    store = store_of(call)
    which = Which(arguments.snapshot_id, arguments.name or NEWEST, arguments.version)
    saved = await store.find(call.world_id, which)
    payload = await store.payload(call.world_id, saved.id)
    file = await asyncio.to_thread(enveloped, payload)
    start, end = arguments.offset, arguments.offset + PIECE_BYTES
    if start >= len(file):
        raise InvalidParams.one("offset", f"whole number 0..{len(file) - 1}", start)
    return StateExport(
        snapshot_id=saved.id,
        name=saved.name,
        version=saved.version,
        data=base64.b64encode(file[start:end]).decode(),
        encoding="base64",
        bytes=len(file),
        sha256=saved.sha256,
        next_offset=end if end < len(file) else None,
    )
