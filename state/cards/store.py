"""Character cards in SQL: put in with the persona that is made of them, and read again."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, cast

from sqlalchemy import Connection, Row, bindparam, delete, insert, select

from persona_mcp.state import tables
from persona_mcp.state.cards.card import CardUse, persona_of, read_card, use_of
from persona_mcp.state.cards.files import CardFile, Carrier
from persona_mcp.state.effects import EffectParams
from persona_mcp.state.errors import Conflict
from persona_mcp.state.ids import name_key
from persona_mcp.state.persona import Persona, PersonaSpec
from persona_mcp.state.persona_changes import update_persona
from persona_mcp.state.personas import add
from persona_mcp.state.prepared import Prepared

T = tables.PersonaCard
P = tables.Persona
MINE = (T.world_id == bindparam("world"), T.persona_id == bindparam("persona"))
TEXT, WHOLE = Prepared(select(T.card).where(*MINE)), Prepared(select(T).where(*MINE))
FORGET, KEEP = Prepared(delete(T).where(*MINE)), Prepared(insert(T))
CALLED = Prepared(
    select(P.id).where(P.world_id == bindparam("world"), P.name_key == bindparam("folded"))
)
NAME_CHARS = 80
OnConflict = Literal["fail", "rename", "replace"]


@dataclass(frozen=True)
class Import:
    """What becomes of a card.

    Attributes:
        persona: The persona that it makes; its id is empty in a dry run where it would be new.
        replaced: It was there before, and is changed.
        warnings: What did not fit.
    """

    persona: Persona
    replaced: bool
    warnings: tuple[str, ...]


def import_card(
    connection: Connection,
    world_id: str,
    came: CardFile,
    on_conflict: OnConflict,
    now: float,
    params: EffectParams,
    reserved: Collection[str] = (),
) -> Import:
    """Make a persona of a card, and keep the card, inside a transaction.

    Args:
        connection: The caller's transaction.
        world_id: Where.
        came: The card.
        on_conflict: What to do where the name is taken.
        now: Seconds since the epoch, UTC.
        params: Constants of what feelings fall back to.
        reserved: Ids that a new persona cannot have.

    Raises:
        BadSnapshot: What stands in our extension of the card is no persona.
        Conflict: The name is taken, and on_conflict is fail.
    """
    spec, warnings = persona_of(came.card)
    there = CALLED.first(connection, world=world_id, folded=name_key(spec.name))
    if there is not None and on_conflict == "fail":
        raise Conflict(
            f"name: a persona called '{spec.name}' is there already; set on_conflict to rename "
            "the new one, or to replace the fields of the other",
            field="on_conflict",
            given=spec.name,
        )
    if there is not None and on_conflict == "replace":
        fields = spec.model_dump(mode="json")
        persona, _ = update_persona(connection, world_id, there.id, fields, None, now, params)
    else:
        spec = spec.model_copy(update={"name": free_name(connection, world_id, spec)})
        persona = add(connection, world_id, spec, now, reserved)
    keep(connection, world_id, persona.id, came, now)
    replaced = there is not None and on_conflict == "replace"
    return Import(persona, replaced, (*came.warnings, *warnings))


def free_name(connection: Connection, world_id: str, spec: PersonaSpec) -> str:
    """Return the name, or the first of `name 2`, `name 3`, ... that nobody has."""
    number, name = 1, spec.name
    while CALLED.first(connection, world=world_id, folded=name_key(name)) is not None:
        number += 1
        end = f" {number}"
        name = spec.name[: NAME_CHARS - len(end)] + end
    return name


def keep(
    connection: Connection, world_id: str, persona_id: str, came: CardFile, now: float
) -> None:
    """Keep a card beside its persona, in place of the one before."""
    FORGET.run(connection, {"world": world_id, "persona": persona_id})
    KEEP.run(
        connection,
        {
            "world_id": world_id,
            "persona_id": persona_id,
            "spec": came.card.spec,
            "spec_version": came.card.version,
            "carrier": came.carrier,
            "card": came.card.text,
            "file": came.file,
            "imported_at": now,
        },
    )


def kept_card(connection: Connection, world_id: str, persona_id: str) -> CardFile | None:
    """Return the card that a persona was made from; None if it was made without one."""
    row: Row[Any] | None = WHOLE.first(connection, world=world_id, persona=persona_id)
    if row is None:
        return None
    return CardFile(read_card(row.card), cast("Carrier", row.carrier), row.file)


def card_use(connection: Connection, world_id: str, persona_id: str) -> CardUse | None:
    """Return what of a persona's card bears on prompts; None if it has none."""
    row = TEXT.first(connection, world=world_id, persona=persona_id)
    return None if row is None else use_of(row.card)
