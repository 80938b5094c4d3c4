"""The small world of a dialogue: made of a cast, and frozen to bytes."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, delete, func, insert, select, union_all, update

from persona_mcp.state import appraisal, compatibility, relationship, tables
from persona_mcp.state.arrow import Event, Origin
from persona_mcp.state.batch.values import Cast, CastMember
from persona_mcp.state.cards.card import read_card
from persona_mcp.state.dialogue_spec import Tie
from persona_mcp.state.effects import EffectParams, RelationshipChange, add_relationship_change
from persona_mcp.state.errors import Fault, InvalidParams
from persona_mcp.state.ids import derived_id, name_key
from persona_mcp.state.inline_database import InlineDatabase
from persona_mcp.state.memory.importance import ImportanceParams, Occasion, importance, interests_of
from persona_mcp.state.memory.memory import NewMemory
from persona_mcp.state.memory.store import add_memories
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.relationship_params import RelationshipParams
from persona_mcp.state.snapshots.rows import Row, Rows, write_rows
from persona_mcp.state.snapshots.tables import KEPT, PLACE
from persona_mcp.state.traits import big_five

WORLD = "main"
"""Of every small world."""
OWN = frozenset({"personas", "persona_versions", "persona_cards"})
"""Tables that the members themselves are written to."""
TOLD = "fact"
"""The type of what a member knows at the beginning."""
MOMENTS = (
    tables.World.created_at,
    tables.Conversation.updated_at,
    tables.RelationshipEvent.at,
    tables.MoodImpulse.at,
    tables.EnergySpent.at,
    tables.Memory.updated_at,
)
"""Times at which something happened."""
HAPPENED = union_all(*(select(func.max(column).label("at")) for column in MOMENTS)).subquery()
LATEST = Prepared(select(func.max(HAPPENED.c.at)))
ADD_WORLD = Prepared(insert(tables.World))
BEGAN = Prepared(update(tables.World).values(created_at=bindparam("now")))
NO_WORK = Prepared(delete(tables.OutboxEntry))


def begin_world(
    template: bytes,
    cast: Cast,
    starts_at: float,
    effects: EffectParams,
    importances: ImportanceParams,
) -> bytes:
    """Make the world that a run begins in: its personas, what they bring, know and feel.

    Args:
        template: An empty database, from `persona_mcp.config.database.empty_database`.
        cast: Who is in it.
        starts_at: When, in seconds since the epoch, UTC; where what somebody brings is later than
            that, it begins then.
        effects: Constants of the relationships at the beginning.
        importances: Constants of the weight of what the members know.

    Returns:
        The world, frozen. Its memories have the vectors that `cast.kept` brings and no others.

    Raises:
        InvalidParams: Two of the cast have one name, or a tie names somebody who is not in it.
    """
    check_cast(cast)
    with InlineDatabase(template) as database:
        with database.writing() as connection:
            fill(connection, cast, starts_at, effects, importances)
        return database.freeze()


def fill(
    connection: Connection,
    cast: Cast,
    starts_at: float,
    effects: EffectParams,
    importances: ImportanceParams,
) -> None:
    """Write a cast into an empty database, inside a transaction."""
    kept = complete({name: its for name, its in cast.kept.items() if name not in OWN})
    world = {"id": WORLD, "name": WORLD, "created_at": starts_at, "bundled_at": starts_at}
    ADD_WORLD.run(connection, world)
    write_rows(connection, WORLD, {**kept, **member_rows(cast.members, starts_at)})
    now = max(starts_at, latest_of(connection))
    BEGAN.run(connection, {"now": now})
    brought = {row["id"] for row in kept["memories"]}
    for member in cast.members:
        new = [one for one in known_by(member, importances) if one.id not in brought]
        add_memories(connection, WORLD, new, now)
    specs = {member.id: member.spec for member in cast.members}
    for number, tie in enumerate(cast.ties):
        change = met(tie, specs, number, now, effects.relationships)
        add_relationship_change(connection, WORLD, None, change, effects.relationships)
    NO_WORK.run(connection)


def check_cast(cast: Cast) -> None:
    """Refuse a cast that cannot be in one world.

    Raises:
        InvalidParams: Two have one name, or a tie names somebody who is not in it.
    """
    ids = {member.id for member in cast.members}
    names: dict[str, str] = {}
    faults: list[Fault] = []
    for member in cast.members:
        first = names.setdefault(name_key(member.spec.name), member.id)
        if first != member.id:
            allowed = f"another name than that of {first}: {member.spec.name}"
            faults.append({"field": f"personas.{member.id}", "allowed": allowed, "given": "it"})
    for number, tie in enumerate(cast.ties):
        field = f"relationships.{number}"
        faults += [
            {"field": f"{field}.{end}", "allowed": "an id of the cast", "given": id}
            for end, id in (("of", tie.of), ("to", tie.to))
            if id not in ids
        ]
        if tie.of == tie.to:
            faults.append({"field": f"{field}.to", "allowed": "another one", "given": tie.to})
    if faults:
        raise InvalidParams.of(faults)


def member_rows(members: Sequence[CastMember], at: float) -> Rows:
    """Write members as rows: who they are now, their first version, their card."""
    rows: Rows = {name: [] for name in OWN}
    for member in members:
        spec = member.spec.model_dump(mode="json")
        rows["personas"].append(
            {
                **spec,
                "id": member.id,
                "version": 1,
                "name_key": name_key(member.spec.name),
                "created_at": at,
                "updated_at": at,
                "deleted_at": None,
            }
        )
        rows["persona_versions"].append(
            {"persona_id": member.id, "version": 1, "spec": spec, "created_at": at}
        )
        if member.card is not None:
            rows["persona_cards"].append(card_row(member.id, member.card, at))
    return rows


def card_row(persona_id: str, text: str, at: float) -> Row:
    """Write the card that a member is from.

    Raises:
        BadSnapshot: It is none.
    """
    card = read_card(text)
    return {
        "persona_id": persona_id,
        "spec": card.spec,
        "spec_version": card.version,
        "carrier": "json",
        "card": text,
        "file": None,
        "imported_at": at,
    }


def known_by(member: CastMember, params: ImportanceParams) -> list[NewMemory]:
    """Make the memories of what a member alone knows at the beginning."""
    spec = member.spec
    own = interests_of(spec.topic_preferences, spec.personality_traits)
    made = []
    for number, text in enumerate(member.memories):
        weighed = importance(text, own, None, Occasion(memory_type=TOLD), params)
        made.append(
            NewMemory(
                id=derived_id(WORLD, member.id, "knows", number, text),
                persona_id=member.id,
                content=text,
                importance=weighed.value,
                importance_terms=dict(weighed.terms),
                memory_type=TOLD,
            )
        )
    return made


def met(
    tie: Tie, specs: Mapping[str, PersonaSpec], number: int, at: float, laws: RelationshipParams
) -> RelationshipChange:
    """Make a tie the event of a meeting, as relationship_update does for one of the two."""
    own, theirs = specs[tie.of], specs[tie.to]
    owner = big_five(own.personality_traits)
    taken = appraisal.appraisal_for(tie.quality, tie.context, laws)
    turning = appraisal.is_turning_point(tie.context, laws)
    size = appraisal.update_size(tie.minutes, laws, turning_point=turning)
    weight = appraisal.weights("joint", laws)
    match = compatibility.static_compatibility(
        compatibility.profile_of(own), compatibility.profile_of(theirs)
    )
    return RelationshipChange(
        id=derived_id(WORLD, "tie", number, tie.of, tie.to),
        from_id=tie.of,
        to_id=tie.to,
        event=Event(
            at=at,
            seq=0,
            deltas=appraisal.deltas(taken, size, weight, owner, tie.minutes, laws),
            kind="update",
            context=tie.context,
            appraisal=taken,
            size=size,
            weight=weight.omega,
            disclosure_weight=weight.disclosure,
            direct=weight.direct,
            minutes=tie.minutes,
        ),
        priors=relationship.priors(match, owner, laws),
        why=f"{tie.context} before the first dialogue, {tie.minutes:g} min",
        origin=Origin(appraiser="quality"),
    )


def complete(rows: Mapping[str, Sequence[Row]]) -> Rows:
    """Give every table that can be kept, and every row of one with an order its place."""
    found: Rows = {}
    for kept in KEPT:
        its = [dict(row) for row in rows.get(kept.name, ())]
        if kept.ordered:
            its = [{PLACE: place, **row} for place, row in enumerate(its, start=1)]
        found[kept.name] = its
    return found


def latest(frozen: bytes) -> float:
    """Return when the last thing in a frozen world happened, in seconds since the epoch, UTC."""
    with InlineDatabase(frozen) as database, database.reading() as connection:
        return latest_of(connection)


def latest_of(connection: Connection) -> float:
    """Return when the last thing in a world happened."""
    return LATEST.scalar(connection) or 0.0
