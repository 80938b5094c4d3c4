"""Operations on character cards: import, export."""

import asyncio
import base64
import json
import time
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field
from sqlalchemy import Connection

from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.state.cards.files import (
    FILE_BYTES,
    CardFile,
    Exported,
    Format,
    export_card,
    read_file,
)
from persona_mcp.state.cards.store import Import, OnConflict, import_card, kept_card
from persona_mcp.state.cards.text import bad_card
from persona_mcp.state.errors import BadSnapshot, InvalidParams
from persona_mcp.state.feelings import read_feelings
from persona_mcp.state.fields import Reference, Text
from persona_mcp.state.persona import Persona
from persona_mcp.state.personas import find
from persona_mcp.state.relationship_store import outgoing

if TYPE_CHECKING:
    from persona_mcp.server.store import Store

BASE64_CHARS = FILE_BYTES * 4 // 3 + 4
Wanted = Literal["auto", "v1", "v2", "v3", "charx"]
DEFAULT_ICON = {"type": "icon", "uri": "ccdefault:", "name": "main", "ext": "png"}


class PersonaImportArguments(Arguments):
    """Arguments of persona_import."""

    card: dict[str, Any] | None = Field(None, description="The card as JSON; or give data")
    data: Annotated[Text, Field(max_length=BASE64_CHARS)] | None = Field(
        None, description="The file in base64: JSON, PNG, APNG or CHARX; or give card"
    )
    format: Wanted = Field("auto", description="Refuse a card of another shape than this")
    on_conflict: OnConflict = Field(
        "fail",
        description="If the name is taken: fail; rename the new one; or replace the fields of the "
        "one that is there, which keeps its memories",
    )
    dry_run: bool = Field(False, description="Only tell what would be made")


class CardAsset(Result):
    """Something that belongs to a card."""

    type: str
    uri: str
    name: str
    ext: str


class PersonaImport(Result):
    """Result of persona_import."""

    persona_id: str = Field(description="Of the persona that was made, or would be")
    name: str
    spec: str = Field(description="v1, v2 or v3")
    spec_version: str
    replaced: bool
    dry_run: bool
    warnings: list[str] = Field(description="What was not used; all of it is kept in the card")
    lore_entries: int
    assets: list[CardAsset] = Field(description="Kept, never fetched")


@operation("Import a character card", "persona", "manage", core=False, idempotent=False)
async def persona_import(call: Call, arguments: PersonaImportArguments) -> PersonaImport:
    """Make a persona of a character card (V1, V2 or V3; JSON, PNG, APNG or CHARX).

    The card is kept whole, so that persona_export gives it back; its lorebook bears on replies. A
    file that is damaged, too large or tries what a card never does is refused with the reason.
    """
    came = await asyncio.to_thread(read_given, arguments)
    check_shape(came, arguments.format)
    done = await carried_in(call.store, call.world_id, came, arguments)
    data = came.card.data
    assets = [asset.model_dump() for asset in data.assets or []] or [DEFAULT_ICON]
    return PersonaImport(
        persona_id=done.persona.id,
        name=done.persona.name,
        spec=came.card.spec,
        spec_version=came.card.version,
        replaced=done.replaced,
        dry_run=arguments.dry_run,
        warnings=list(done.warnings),
        lore_entries=len(data.character_book.entries) if data.character_book else 0,
        assets=[CardAsset(**asset) for asset in assets],
    )


def read_given(arguments: PersonaImportArguments) -> CardFile:
    """Read the card that a call brings.

    Raises:
        InvalidParams: It brings none, or two.
        BadSnapshot: It cannot be read.
    """
    if (arguments.card is None) == (arguments.data is None):
        given = "none" if arguments.card is None else "both"
        raise InvalidParams.one("card", "card or data", given)
    if arguments.data is None:
        try:
            return read_file(json.dumps(arguments.card, ensure_ascii=False).encode())
        except (ValueError, RecursionError) as error:
            raise bad_card("its JSON cannot be written as text") from error
    try:
        file = base64.b64decode(arguments.data, validate=True)
    except ValueError as error:  # binascii.Error is one
        raise BadSnapshot(
            "data is not base64; send the bytes of the file in base64, or its JSON as card"
        ) from error
    return read_file(file)


def check_shape(came: CardFile, wanted: Wanted) -> None:
    """Make sure that a card is what the caller says it is.

    Raises:
        BadSnapshot: It is not.
    """
    if wanted not in ("auto", came.card.spec, came.carrier):
        raise BadSnapshot(
            f"format: this is a card of {came.card.spec} in {came.carrier}, not {wanted}; leave "
            "format out to take any"
        )


class NotKept(Exception):
    """Rolls a dry run back."""

    def __init__(self, would: Import) -> None:
        """Say what would have been done."""
        super().__init__()
        self.would = would


async def carried_in(
    store: "Store", world_id: str, came: CardFile, arguments: PersonaImportArguments
) -> Import:
    """Make the persona, or find out what would be made."""

    def write(connection: Connection) -> Import:
        done = import_card(
            connection,
            world_id,
            came,
            arguments.on_conflict,
            time.time(),
            store.laws.effects,
            {store.settings.user},
        )
        if arguments.dry_run:
            raise NotKept(done)
        return done

    try:
        return await store.database.write(write)
    except NotKept as dry:
        return dry.would


class PersonaExportArguments(Arguments):
    """Arguments of persona_export."""

    persona_id: Reference = Field(description="Persona's id or name, from persona_list")
    format: Format = Field(
        "v3",
        description="v2 or v3: JSON; same: JSON of the version that it came in, else v3; png or "
        "charx: a file with the card in it",
    )
    include_state: bool = Field(
        False, description="Also how it sees others and feels now, in the extension persona_mcp"
    )


class PersonaExport(Result):
    """Result of persona_export."""

    exact: ClassVar[frozenset[str]] = frozenset({"card"})

    persona_id: str
    name: str
    card: dict[str, Any] = Field(description="The card as JSON")
    data: str = Field(description="The file in base64, with the card as it was spelled")
    mime: str
    bytes: int
    sha256: str = Field(description="Of the file")
    warnings: list[str]


@operation("Export a character card", "persona", "manage", core=False, reads=True)
async def persona_export(call: Call, arguments: PersonaExportArguments) -> PersonaExport:
    """Return a persona as a character card for other applications.

    One that came from a card is given back as it came, with what was changed since. Memories are
    not in it: memory_export and state_save have them.
    """
    now = time.time()

    def read(connection: Connection) -> tuple[Persona, CardFile | None, dict[str, Any] | None]:
        persona = find(connection, call.world_id, arguments.persona_id)
        kept = kept_card(connection, call.world_id, persona.id)
        state = state_of(call, connection, persona, now) if arguments.include_state else None
        return persona, kept, state

    persona, kept, state = await call.store.database.read(read)

    def write() -> tuple[Exported, dict[str, Any]]:
        done = export_card(persona.spec, kept, arguments.format, persona.updated_at, state)
        return done, json.loads(done.text)

    done, card = await asyncio.to_thread(write)
    return PersonaExport(
        persona_id=persona.id,
        name=persona.name,
        card=card,
        data=base64.b64encode(done.data).decode(),
        mime=done.mime,
        bytes=len(done.data),
        sha256=done.sha256,
        warnings=list(done.warnings),
    )


def state_of(call: Call, connection: Connection, persona: Persona, now: float) -> dict[str, Any]:
    """Return how a persona sees others and feels, as our extension of a card has it."""
    laws = call.store.laws.effects
    felt = read_feelings(connection, call.world_id, persona, now, laws)
    arrows = outgoing(connection, call.world_id, persona.id)
    return {
        "as_of": now,
        "params_version": laws.relationships.params_version,
        "emotion": vars(felt.emotion),
        "relationships": {one.other.id: vars(one.arrow) for one in arrows},
    }
