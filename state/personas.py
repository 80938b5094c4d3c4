"""Worlds and personas in SQL."""

import difflib
import math
import time
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, or_, select
from sqlalchemy.exc import IntegrityError

from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.dialect import savepoint
from persona_mcp.state.effects import EffectParams
from persona_mcp.state.errors import SUGGESTIONS_SHOWN, Conflict, InvalidParams, NotFound
from persona_mcp.state.feelings import Feelings, at_rest, at_time, to_feelings
from persona_mcp.state.ids import ID_LENGTH, id_from_name, name_key
from persona_mcp.state.persona import Persona, PersonaSpec
from persona_mcp.state.prepared import Prepared, listed

T = tables.Persona
C = tables.Conversation
S = tables.PersonaState
MATCHES = (
    T.world_id == bindparam("world"),
    T.deleted_at.is_(None),
    or_(T.id == bindparam("reference"), T.name_key == bindparam("folded")),
)
FIND = Prepared(select(T).where(*MATCHES), made=lambda row: to_persona(row))
FIND_ID = Prepared(select(T.id).where(*MATCHES))
THOSE = Prepared(
    select(T)
    .where(T.world_id == bindparam("world"), T.deleted_at.is_(None), T.id.in_(listed("ids")))
    .order_by(T.id),
    made=lambda row: to_persona(row),
)
HAS_WORLD = Prepared(select(tables.World.id).where(tables.World.id == bindparam("world")))
HAS_ID = Prepared(select(T.id).where(T.world_id == bindparam("world"), T.id == bindparam("key")))
KEEP_VERSION = Prepared(insert(tables.PersonaVersion))
VERSIONS = Prepared(
    select(tables.PersonaVersion.spec).where(
        tables.PersonaVersion.world_id == bindparam("world"),
        tables.PersonaVersion.persona_id == bindparam("key"),
    )
)
SPEC_COLUMNS = tuple(PersonaSpec.model_fields)
WORLD_STAYS_S = 2.0
"""A world that was found this short a while ago is not looked for again: every call asks."""


class PersonaStore:
    """Reads and writes worlds and personas."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database
        self._there: dict[str, float] = {}

    async def ensure_world(
        self, world_id: str, name: str, personas: Sequence[PersonaSpec], now: float
    ) -> bool:
        """Make a world with its first personas, once; a later call changes nothing.

        Returns:
            Whether it was made now.
        """
        if await self._database.read(world_exists, world_id):
            return False

        def write(connection: Connection) -> bool:
            if world_exists(connection, world_id):
                return False
            connection.execute(
                insert(tables.World).values(id=world_id, name=name, created_at=now, bundled_at=now)
            )
            for spec in personas:
                add(connection, world_id, spec, now)
            return True

        return await self._database.write(write)

    async def check_world(self, world_id: str) -> None:
        """Make sure that a world is there.

        Raises:
            NotFound: It is not.
        """
        now = time.monotonic()
        if now - self._there.get(world_id, -math.inf) < WORLD_STAYS_S:
            return
        if not await self._database.read(world_exists, world_id):
            self._there.pop(world_id, None)
            raise NotFound.of("world", world_id)
        self._there[world_id] = now

    async def miss_world(self, world_id: str) -> None:
        """Answer as for a world that is not there, at the same cost, whether it is or not.

        Raises:
            NotFound: Always.
        """
        await self._database.read(world_exists, world_id)
        raise NotFound.of("world", world_id)

    async def worlds(self) -> dict[str, str]:
        """Return the names of all worlds by their ids, in order of these."""
        query = select(tables.World.id, tables.World.name).order_by(tables.World.id)
        return {row.id: row.name for row in await self._database.read(Prepared(query).all)}

    async def with_feelings(
        self, world_id: str, now: float, params: EffectParams
    ) -> list[tuple[Persona, Feelings]]:
        """Return all personas of a world with their feelings now, in order of their ids."""
        query = (
            select(T, S.emotion, S.interaction)
            .outerjoin(S, (S.world_id == T.world_id) & (S.persona_id == T.id))
            .where(T.world_id == world_id, T.deleted_at.is_(None))
            .order_by(T.id)
        )
        rows = await self._database.read(Prepared(query).all)
        found = []
        for row in rows:
            persona = to_persona(row)
            felt = (
                at_time(to_feelings(row), persona, now, params)
                if row.emotion
                else at_rest(persona, now, params)
            )
            found.append((persona, felt))
        return found

    async def count(self, world_id: str) -> int:
        """Count the personas of a world."""
        query = select(func.count()).where(T.world_id == world_id, T.deleted_at.is_(None))
        found: int = await self._database.read(Prepared(query).scalar)
        return found

    async def names(self, world_id: str) -> dict[str, str]:
        """Return the names of all personas of a world by their ids, in order of these."""
        query = select(T.id, T.name).where(T.world_id == world_id, T.deleted_at.is_(None))
        rows = await self._database.read(Prepared(query.order_by(T.id)).all)
        return {row.id: row.name for row in rows}

    async def resolve(self, world_id: str, reference: str) -> Persona:
        """Find a persona by its id, else by its exact name in any case.

        Raises:
            NotFound: Neither; suggests near names.
        """
        return await self._database.read(find, world_id, reference)

    async def create(
        self, world_id: str, spec: PersonaSpec, now: float, reserved: Collection[str] = ()
    ) -> Persona:
        """Store a new persona; its id is nobody's who talks, nor one of the `reserved` ones.

        Raises:
            NotFound: The world is not there.
            Conflict: The name is taken.
        """

        def write(connection: Connection) -> Persona:
            if not world_exists(connection, world_id):
                raise NotFound.of("world", world_id)
            return add(connection, world_id, spec, now, reserved)

        return await self._database.write(write)


def world_exists(connection: Connection, world_id: str) -> bool:
    """Tell whether a world is there."""
    return HAS_WORLD.first(connection, world=world_id) is not None


def answering(connection: Connection, world_id: str, reference: str, user_id: str) -> str:
    """Find the id of the persona that is to answer a user, as `find` finds a persona.

    Raises:
        NotFound: There is no such persona; suggests near names.
        InvalidParams: The user's id is a persona's; a deleted one keeps its id.
    """
    persona_id = find_id(connection, world_id, reference)
    if HAS_ID.first(connection, world=world_id, key=user_id) is not None:
        raise InvalidParams.one("user_id", "an id that no persona has", user_id)
    return persona_id


def was_called(connection: Connection, world_id: str, persona_id: str, reference: str) -> bool:
    """Tell whether a persona has this id or had this name once, be it deleted by now or not."""
    if reference == persona_id:
        return True
    versions = VERSIONS.all(connection, world=world_id, key=persona_id)
    return name_key(reference) in {name_key(row.spec["name"]) for row in versions}


def those(connection: Connection, world_id: str, ids: Sequence[str]) -> list[Persona]:
    """Return personas by their ids alone, in order of these; one that is not there is left out."""
    return list(THOSE.all(connection, world=world_id, ids=list(ids)))


def find(connection: Connection, world_id: str, reference: str) -> Persona:
    """Find a persona inside a transaction: id first, then name.

    Raises:
        NotFound: Neither; suggests near names.
    """
    rows = FIND.all(connection, world=world_id, reference=reference, folded=name_key(reference))
    found: Persona = best(connection, rows, world_id, reference)
    return found


def find_id(connection: Connection, world_id: str, reference: str) -> str:
    """Find a persona's id inside a transaction, as `find` finds a persona.

    Raises:
        NotFound: Neither; suggests near names.
    """
    rows = FIND_ID.all(connection, world=world_id, reference=reference, folded=name_key(reference))
    id: str = best(connection, rows, world_id, reference).id
    return id


def best(connection: Connection, rows: Sequence[Any], world_id: str, reference: str) -> Any:
    """Choose the persona or row whose id it is, else the one whose name it is.

    Raises:
        NotFound: There is no row; suggests near names.
    """
    if rows:
        return next((row for row in rows if row.id == reference), rows[0])
    names = connection.scalars(
        select(T.name).where(T.world_id == world_id, T.deleted_at.is_(None)).order_by(T.name)
    )
    raise NotFound.of("persona", reference, near(reference, list(names)))


def near(reference: str, names: Sequence[str]) -> list[str]:
    """Pick up to three names that look like what was asked for; without any, the first three."""
    folded = {name.casefold(): name for name in names}
    found = difflib.get_close_matches(reference.casefold(), folded, SUGGESTIONS_SHOWN)
    return [folded[f] for f in found] or list(names[:SUGGESTIONS_SHOWN])


def add(
    connection: Connection,
    world_id: str,
    spec: PersonaSpec,
    now: float,
    reserved: Collection[str] = (),
) -> Persona:
    """Store a persona inside a transaction; its id is made from its name.

    An id names one party of a world, so it is nobody's who has talked there.

    Raises:
        Conflict: The name is taken.
    """
    wanted = id_from_name(spec.name)
    like = select(T.id).where(T.world_id == world_id, T.id.startswith(wanted, autoescape=True))
    talked = select(C.user_id).where(
        C.world_id == world_id, C.user_id.startswith(wanted, autoescape=True)
    )
    taken = {*connection.scalars(like), *connection.scalars(talked), *reserved}
    persona_id = free_id(wanted, {name for name in taken if name is not None})
    values = {
        **spec.model_dump(mode="json"),
        "world_id": world_id,
        "id": persona_id,
        "version": 1,
        "name_key": name_key(spec.name),
        "created_at": now,
        "updated_at": now,
    }
    try:
        with savepoint(connection):
            connection.execute(insert(T).values(values))
    except IntegrityError as error:
        raise name_taken(spec.name) from error
    keep_version(connection, world_id, persona_id, 1, spec, now)
    return Persona(persona_id, 1, spec, now, now)


def name_taken(name: str) -> Conflict:
    """Make the error for a name that another persona has."""
    return Conflict(
        f"name: a persona called '{name}' is there already; choose another name",
        field="name",
        given=name,
    )


def keep_version(
    connection: Connection,
    world_id: str,
    persona_id: str,
    version: int,
    spec: PersonaSpec,
    now: float,
) -> None:
    """Keep who a persona is from now on under the number that turns and events refer to it by."""
    KEEP_VERSION.run(
        connection,
        {
            "world_id": world_id,
            "persona_id": persona_id,
            "version": version,
            "spec": spec.model_dump(mode="json"),
            "created_at": now,
        },
    )


def free_id(wanted: str, taken: set[str]) -> str:
    """Return the id, or the first of id-2, id-3, ... that is free."""
    number, found = 1, wanted
    while found in taken:
        number += 1
        found = f"{wanted}-{number}"
    return found[:ID_LENGTH]


def to_persona(row: Row[Any]) -> Persona:
    """Read a row."""
    values = {column: getattr(row, column) for column in SPEC_COLUMNS}
    return Persona(
        id=row.id,
        version=row.version,
        spec=PersonaSpec.model_validate(values),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
