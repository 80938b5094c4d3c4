"""Changes of a stored persona: rewritten, hidden, erased; each in the caller's transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Double,
    String,
    bindparam,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from persona_mcp.state import tables
from persona_mcp.state.dialect import members, savepoint
from persona_mcp.state.effects import EffectParams
from persona_mcp.state.emotion import Impulses
from persona_mcp.state.erasing import count_persona, erase_persona
from persona_mcp.state.errors import Conflict
from persona_mcp.state.exchange import UNFINISHED
from persona_mcp.state.feelings import FeelingChange, add_feeling_change, stored_feelings
from persona_mcp.state.ids import derived_id, name_key
from persona_mcp.state.persona import Persona, PersonaSpec
from persona_mcp.state.personas import find, keep_version, name_taken
from persona_mcp.state.prepared import Prepared

T = tables.Persona
C = tables.Conversation
X = tables.Exchange
H = tables.PersonaVersion
WORLD, PERSONA = bindparam("world", type_=String), bindparam("persona", type_=String)
NOW = bindparam("now", type_=Double)

RESTS = ("personality_traits", "social_energy", "available_time")
"""Fields that say what feelings fall back to."""
DELETED = "persona_deleted"
"""Why its conversations ended."""
STOPPED = {"code": "cancelled", "message": "the persona was deleted while it answered"}
PARTY = members(C.participants)
ITS_TALKS = (
    C.world_id == WORLD,
    C.status == "active",
    or_(C.persona_id == PERSONA, exists(select(PARTY).where(PARTY == PERSONA))),
)
ITS_RUNS = (
    X.world_id == WORLD,
    X.status.in_((*UNFINISHED, "waiting")),
    X.conversation_id.in_(select(C.id).where(*ITS_TALKS)),
)
COUNT_TALKS = Prepared(select(func.count()).select_from(C).where(*ITS_TALKS))
RUNS = Prepared(select(X.id).where(*ITS_RUNS).order_by(X.id))
STOP_RUNS = Prepared(
    update(X)
    .where(*ITS_RUNS)
    .values(status="cancelled", error=STOPPED, finished_at=NOW)
    .execution_options(synchronize_session=False)
)
END_TALKS = Prepared(
    update(C)
    .where(*ITS_TALKS)
    .values(
        status="ended",
        ended_at=NOW,
        exit_reason=DELETED,
        lease_owner=None,
        lease_until=None,
    )
    .execution_options(synchronize_session=False)
)
HIDE = Prepared(
    update(T)
    .where(T.world_id == WORLD, T.id == bindparam("persona_key"))
    .values(name_key=None, deleted_at=NOW, updated_at=NOW)
)
HIDDEN = Prepared(
    select(T.id, T.name).where(
        T.world_id == WORLD, T.id == PERSONA, T.deleted_at.is_not(None), T.name != ""
    )
)
HAS_VERSION = Prepared(
    select(H.version).where(
        H.world_id == WORLD, H.persona_id == PERSONA, H.version == bindparam("version")
    )
)


@dataclass(frozen=True)
class Removal:
    """What deleting a persona did, or would do.

    Attributes:
        persona_id: Which.
        name: What it is called.
        counts: Conversations ended, replies stopped, and of a purge the rows that go, by what
            they are.
        stopped: Ids of the exchanges whose replies are stopped.
    """

    persona_id: str
    name: str
    counts: Mapping[str, int]
    stopped: tuple[str, ...]


def update_persona(
    connection: Connection,
    world_id: str,
    reference: str,
    fields: Mapping[str, Any],
    expected: int | None,
    now: float,
    params: EffectParams,
) -> tuple[Persona, tuple[str, ...]]:
    """Change fields of a persona; each is replaced whole, and who it was is kept by version.

    Args:
        connection: The caller's transaction.
        world_id: Where.
        reference: Its id or name.
        fields: Of `PersonaSpec`, by their names, as JSON.
        expected: The version that it must have; None for any.
        now: Seconds since the epoch, UTC.
        params: Constants of what feelings fall back to.

    Returns:
        The persona as it is now, and the fields that changed; without any, the version stays.

    Raises:
        NotFound: It is not there.
        Conflict: It has another version, or the new name is taken.
    """
    found = find(connection, world_id, reference)
    if expected not in (None, found.version):
        raise Conflict(
            f"expected_version: persona '{found.id}' has version {found.version}, not {expected}: "
            "it was changed meanwhile; read it with persona_get and try again",
            field="expected_version",
            expected_version=expected,
            version=found.version,
        )
    before = found.spec.model_dump(mode="json")
    spec = PersonaSpec.model_validate({**before, **fields})
    after = spec.model_dump(mode="json")
    changed = tuple(name for name in after if after[name] != before[name])
    if not changed:
        return found, ()
    version, at = found.version + 1, now
    if any(name in changed for name in RESTS):
        at = settle_feelings(connection, world_id, found, now, params)
    keep_known_version(connection, world_id, found)
    values = {name: after[name] for name in changed}
    if "name" in changed:
        values["name_key"] = name_key(spec.name)
    try:
        with savepoint(connection):
            connection.execute(
                update(T)
                .where(T.world_id == world_id, T.id == found.id)
                .values(**values, version=version, updated_at=now)
            )
    except IntegrityError as error:
        raise name_taken(spec.name) from error
    keep_version(connection, world_id, found.id, version, spec, at)
    return Persona(found.id, version, spec, found.created_at, now), changed


def settle_feelings(
    connection: Connection, world_id: str, persona: Persona, now: float, params: EffectParams
) -> float:
    """Let time pass over a persona's feelings before what they fall back to changes.

    An entry of the log that pushes nothing marks the moment, so that a fold of the log knows where
    the old rests end.

    Returns:
        That moment.
    """
    if stored_feelings(connection, world_id, persona.id) is None:
        return now
    key = derived_id(world_id, persona.id, "version", persona.version + 1)
    change = FeelingChange(persona, Impulses(), (), "it became another")
    felt = add_feeling_change(connection, world_id, None, change, (key,), now, params)
    return felt.emotion.as_of


def keep_known_version(connection: Connection, world_id: str, persona: Persona) -> None:
    """Keep the present version of a persona that was made before versions were kept."""
    its = {"world": world_id, "persona": persona.id, "version": persona.version}
    if HAS_VERSION.first(connection, **its) is None:
        keep_version(
            connection, world_id, persona.id, persona.version, persona.spec, persona.updated_at
        )


def plan_removal(connection: Connection, world_id: str, reference: str, purge: bool) -> Removal:
    """Tell what deleting a persona would do; nothing is changed.

    Args:
        connection: The caller's transaction.
        world_id: Where.
        reference: Its id or name; of one to be purged that is deleted already, its id.
        purge: Everything that is its own goes for good, in place of being hidden.

    Raises:
        NotFound: It is not there.
    """
    hidden = HIDDEN.first(connection, world=world_id, persona=reference) if purge else None
    found = hidden or find(connection, world_id, reference)
    its = {"world": world_id, "persona": found.id}
    stopped = tuple(id for (id,) in RUNS.all(connection, **its))
    counts = {
        "conversations_ended": COUNT_TALKS.scalar(connection, **its),
        "replies_stopped": len(stopped),
    }
    if purge:
        counts |= count_persona(connection, world_id, found.id)
    return Removal(found.id, found.name, counts, stopped)


def remove_persona(
    connection: Connection, world_id: str, reference: str, purge: bool, now: float
) -> Removal:
    """Hide a persona and free its name, or erase it; its open conversations end.

    A reply that is being made is not stored.

    Args:
        connection: The caller's transaction.
        world_id: Where.
        reference: As `plan_removal` takes it.
        purge: Everything that is its own goes for good, in place of being hidden.
        now: Seconds since the epoch, UTC.

    Raises:
        NotFound: It is not there.
    """
    planned = plan_removal(connection, world_id, reference, purge)
    its = {"world": world_id, "persona": planned.persona_id, "now": now}
    STOP_RUNS.run(connection, its)
    END_TALKS.run(connection, its)
    if purge:
        erase_persona(connection, world_id, planned.persona_id, now)
    else:
        HIDE.run(connection, {"world": world_id, "persona_key": planned.persona_id, "now": now})
    return planned
