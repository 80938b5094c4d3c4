"""Who is in a batch: personas said in its file, from cards, bundled, or of a data folder's world.

Everything is read here, once; nothing outside of the cast is read after that.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from persona_mcp.config.persona_files import bundled_personas
from persona_mcp.state.batch.checks import fault
from persona_mcp.state.batch.faults import FAULTS_MOST, refused
from persona_mcp.state.batch.values import Cast, CastMember
from persona_mcp.state.cards.card import persona_of
from persona_mcp.state.cards.files import FILE_BYTES, read_file
from persona_mcp.state.cards.store import kept_card
from persona_mcp.state.dialogue_spec import CastEntry, DialogueSpec
from persona_mcp.state.errors import BadSnapshot, Fault, InvalidParams, NotFound
from persona_mcp.state.ids import id_from_name, name_key
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.personas import find, near
from persona_mcp.state.snapshots.rows import Row, Rows, Selection, read_chosen
from persona_mcp.state.snapshots.tables import Part
from persona_mcp.state.validation import validate

if TYPE_CHECKING:
    from persona_mcp.server.store import Store

BROUGHT: tuple[Part, ...] = ("relationships", "emotions", "memories")
"""Parts of a world that personas of a data folder bring with them; conversations stay there."""
PARTIES = ("persona_id", "from_id", "to_id", "party_id", "speaker_id", "source_id")
"""Columns that name a persona; so does the list `related_personas`."""


@dataclass(frozen=True)
class Found:
    """A persona, before it is changed.

    Attributes:
        spec: Who it is.
        card: Text of its card; None if it has none.
        kept_as: Its id in the data folder's world; None if it is not from there.
    """

    spec: PersonaSpec
    card: str | None = None
    kept_as: str | None = None


async def cast_of(
    spec: DialogueSpec, folder: Path | None, store: "Store | None", world_id: str | None = None
) -> Cast:
    """Read the cast of an arm.

    Args:
        spec: Without a grid.
        folder: Where paths of cards are from; None where no files may be read.
        store: The data folder, None if there is none; it is only read.
        world_id: Of the data folder; None for the one of the settings.

    Raises:
        InvalidParams: Somebody is not to be found, or a card cannot be read; `errors` has each
            fault with its path.
        StorageUnavailable: The database did not answer.
    """
    if store is None:
        return await asyncio.to_thread(read_cast, spec, folder, None, "")
    world = store.settings.world if world_id is None else world_id
    return await store.database.read(lambda connection: read_cast(spec, folder, connection, world))


def read_cast(
    spec: DialogueSpec, folder: Path | None, connection: Connection | None, world_id: str
) -> Cast:
    """Read the cast of an arm in one transaction, or without a database.

    Raises:
        InvalidParams: As `cast_of`.
    """
    faults: list[Fault] = []
    members: list[CastMember] = []
    kept: dict[str, str] = {}
    names: dict[str, str] = {}
    for id, entry in spec.personas.items():
        try:
            found = found_for(id, entry or CastEntry(), folder, connection, world_id)
            member = member_of(id, entry or CastEntry(), found)
        except InvalidParams as error:
            faults += error.faults
            continue
        first = names.setdefault(name_key(member.spec.name), id)
        if first != id:
            allowed = f"a persona of another name than {first}'s; changes can give it one"
            faults.append(fault(f"personas.{id}", allowed, member.spec.name))
        if found.kept_as is not None and kept.setdefault(found.kept_as, id) != id:
            allowed = f"a persona of the data folder once: {kept[found.kept_as]} is it, too"
            faults.append(fault(f"personas.{id}.source", allowed, found.kept_as))
        members.append(member)
    if faults:
        raise refused(faults[:FAULTS_MOST])
    rows: Rows = {}
    if connection is not None and kept:
        selection = Selection(BROUGHT, frozenset(kept))
        rows = renamed(read_chosen(connection, world_id, selection), kept, set(spec.personas))
    return Cast(tuple(members), tuple(spec.relationships), rows)


def member_of(id: str, entry: CastEntry, found: Found) -> CastMember:
    """Make a member of a persona, with what is different here.

    Raises:
        InvalidParams: A change is not allowed.
    """
    spec = found.spec
    if entry.changes:
        fields = {**spec.model_dump(mode="json"), **entry.changes}
        spec = validate(PersonaSpec, fields, f"personas.{id}.changes")
    return CastMember(id, spec, tuple(entry.memories), found.card)


def found_for(
    id: str,
    entry: CastEntry,
    folder: Path | None,
    connection: Connection | None,
    world_id: str,
) -> Found:
    """Find the persona that an entry of the cast means.

    Raises:
        InvalidParams: There is none, or its card cannot be read.
    """
    if entry.persona is not None:
        return Found(entry.persona)
    if entry.card is not None:
        return from_card(f"personas.{id}.card", entry.card, folder)
    reference = entry.source or id
    there: list[str] = []
    if connection is not None:
        try:
            persona = find(connection, world_id, reference)
            card = kept_card(connection, world_id, persona.id)
            return Found(persona.spec, card.card.text if card else None, persona.id)
        except NotFound as error:
            there = error.data["suggestions"]
    for spec in bundled_personas():
        if reference == id_from_name(spec.name) or name_key(reference) == name_key(spec.name):
            return Found(spec)
    bundled = [id_from_name(spec.name) for spec in bundled_personas()]
    hints = ", ".join(dict.fromkeys([*near(reference, bundled), *there]))
    path = f"personas.{id}.source" if entry.source else f"personas.{id}"
    where = "bundled" if connection is None else "bundled or in the data folder"
    allowed = f"persona or card, or one that is {where}, such as {hints}"
    raise refused([fault(path, allowed, reference)])


def from_card(path: str, card: str, folder: Path | None) -> Found:
    """Read a persona from a card.

    Raises:
        InvalidParams: No file may be read here, it is not there, or no card.
    """
    if folder is None:
        raise refused([fault(path, "no files here: persona, with what the card says", card)])
    file = folder / card
    try:
        with file.open("rb") as opened:
            came = read_file(opened.read(FILE_BYTES + 1))
        return Found(persona_of(came.card)[0], came.card.text)
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or "no path of a file").lower()
        allowed = "the path of a character card, from the folder of the specification"
        raise refused([fault(path, allowed, f"{card}: {why}")]) from error
    except BadSnapshot as error:
        raise refused([fault(path, "a character card", f"{card}: {error.message}")]) from error


def renamed(rows: Rows, kept: Mapping[str, str], cast: set[str]) -> Rows:
    """Have rows name personas as the batch does.

    Args:
        rows: As the data folder has them.
        kept: Ids of the batch, by those of the data folder.
        cast: All ids of the batch; somebody else of the data folder who has such an id gets
            another one.
    """

    def name(id: Any) -> Any:
        if id in kept:
            return kept[id]
        return f"{id[:50]}-elsewhere" if id in cast else id

    if all(old == new for old, new in kept.items()) and cast <= set(kept):
        return rows
    return {table: [row_named(row, name) for row in its] for table, its in rows.items()}


def row_named(row: Row, name: Callable[[Any], Any]) -> Row:
    """Write a row with other names of personas."""
    found = {column: name(row[column]) for column in PARTIES if row.get(column) is not None}
    if row.get("related_personas"):
        found["related_personas"] = [name(id) for id in row["related_personas"]]
    return {**row, **found}
