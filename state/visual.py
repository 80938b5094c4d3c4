"""How a persona, or everybody in a scene, looks: the latest that was told of each, by its type."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Double, Row, String, and_, bindparam, delete, insert, or_, select

from persona_mcp.state import tables
from persona_mcp.state.fields import REFUSED
from persona_mcp.state.prepared import Prepared

V = tables.VisualContext
WORLD, NOW = bindparam("world", type_=String), bindparam("now", type_=Double)
KIND, NAME = bindparam("kind", type_=String), bindparam("target_name", type_=String)
TYPE = bindparam("type_name", type_=String)
TargetKind = Literal["persona", "scene"]

TEXT_CHARS = 2000
"""What a prompt is told of all that is seen, at most."""
WORD_CHARS = 200
"""A longer string without a space is data of a picture, not text."""

LASTS = or_(V.expires_at.is_(None), V.expires_at > NOW)
THIS = (V.world_id == WORLD, V.target_kind == KIND, V.target == NAME, V.type == TYPE)
VERSION = Prepared(select(V.version).where(*THIS, LASTS))
FORGET = Prepared(delete(V).where(*THIS))
FORGET_OLD = Prepared(delete(V).where(V.world_id == WORLD, V.expires_at <= NOW))
KEEP = Prepared(insert(V))
NEWEST = (V.updated_at.desc(), V.type)
OF_PERSONA = Prepared(
    select(V)
    .where(V.world_id == WORLD, V.target_kind == "persona", V.target == NAME, LASTS)
    .order_by(*NEWEST)
)
SEEN = Prepared(
    select(V.target_kind, V.type, V.data, V.description)
    .where(
        V.world_id == WORLD,
        or_(
            and_(V.target_kind == "persona", V.target == NAME),
            and_(V.target_kind == "scene", V.target == bindparam("scene", type_=String)),
        ),
        LASTS,
    )
    .order_by(*NEWEST)
)


@dataclass(frozen=True)
class Target:
    """Whom or what a visual context is of.

    Attributes:
        kind: A persona, or a scene: the place of conversations.
        name: The persona's id, or what the scene is called.
    """

    kind: TargetKind
    name: str


@dataclass(frozen=True)
class Look:
    """What is told of how something looks.

    Attributes:
        type: What it is about: general, clothes, room, ...
        data: Values by their names, as JSON.
        description: In words.
    """

    type: str
    data: Mapping[str, Any]
    description: str

    @property
    def size(self) -> int:
        """Return the bytes of data and description as JSON; 0 if there is neither."""
        if not self.data and not self.description:
            return 0
        return len(json.dumps([self.data, self.description], ensure_ascii=False).encode())


@dataclass(frozen=True)
class VisualContext:
    """A look as it is kept.

    Attributes:
        version: 1, 2, ... of this target and type, until it is removed.
        updated_at: Seconds since the epoch, UTC.
        expires_at: When it is forgotten; None for never.
    """

    look: Look
    version: int
    updated_at: float
    expires_at: float | None


@dataclass(frozen=True)
class Sight:
    """What stands in a prompt of a look.

    Attributes:
        of: persona: the one that answers; scene: where it is.
        text: The type, the description, and the data, as text.
    """

    of: TargetKind
    text: str


def keep_look(
    connection: Connection,
    world_id: str,
    target: Target,
    look: Look,
    expires_in: float,
    now: float,
) -> int:
    """Keep how a target looks in place of what was kept of this type; an empty look removes it.

    What has expired in the world goes in passing.

    Args:
        connection: The caller's transaction.
        world_id: Where.
        target: Of whom or what.
        look: How it looks.
        expires_in: Seconds until it is forgotten; 0 for never.
        now: Seconds since the epoch, UTC.

    Returns:
        Its version; 0 when it was removed.
    """
    its = {"world": world_id, "kind": target.kind, "target_name": target.name}
    this = {**its, "type_name": look.type}
    before = VERSION.scalar(connection, **this, now=now) or 0
    FORGET_OLD.run(connection, {"world": world_id, "now": now})
    FORGET.run(connection, this)
    if not look.size:
        return 0
    KEEP.run(
        connection,
        {
            "world_id": world_id,
            "target_kind": target.kind,
            "target": target.name,
            "type": look.type,
            "version": before + 1,
            "data": dict(look.data),
            "description": look.description,
            "size": look.size,
            "updated_at": now,
            "expires_at": now + expires_in if expires_in else None,
        },
    )
    return int(before + 1)


def of_persona(
    connection: Connection, world_id: str, persona_id: str, now: float
) -> list[VisualContext]:
    """Return how a persona looks now, the newest first."""
    rows = OF_PERSONA.all(connection, world=world_id, target_name=persona_id, now=now)
    return [to_context(row) for row in rows]


def sights(
    connection: Connection, world_id: str, persona_id: str, scene: str | None, now: float
) -> tuple[Sight, ...]:
    """Return what a persona's prompt is to tell of how it and its scene look, the newest first.

    All texts together are of at most 2,000 characters; the oldest are cut.
    """
    rows = SEEN.all(connection, world=world_id, target_name=persona_id, scene=scene, now=now)
    found, room = [], TEXT_CHARS
    for row in rows:
        text = cut(text_of(row), room)
        if not text:
            break
        found.append(Sight(row.target_kind, text))
        room -= len(text)
    return tuple(found)


def cut(text: str, most: int) -> str:
    """Shorten a text to a number of characters; three dots stand for what is missing."""
    return text if len(text) <= most else text[: max(0, most - 1)] + "…" * (most > 0)


def text_of(row: Row[Any]) -> str:
    """Write a look on one line: its type, its description, its values by their paths."""
    told = [row.description, "; ".join(values_of(row.data))]
    return f"{row.type}: {' '.join(REFUSED.sub(' ', ' '.join(told)).split())}"


def values_of(data: Any, path: Sequence[str] = ()) -> list[str]:
    """List the values of JSON with their paths; data of pictures and empty values are left out."""
    if isinstance(data, dict):
        return [line for key, value in data.items() for line in values_of(value, [*path, key])]
    if isinstance(data, list):
        return [line for value in data for line in values_of(value, path)]
    text = data if isinstance(data, str) else json.dumps(data)
    too_long = any(len(word) > WORD_CHARS for word in text.split())
    if data is None or not text.strip() or too_long:
        return []
    return [f"{' '.join(path)}: {text}"]


def to_context(row: Row[Any]) -> VisualContext:
    """Read a row."""
    look = Look(row.type, row.data, row.description)
    return VisualContext(look, row.version, row.updated_at, row.expires_at)
