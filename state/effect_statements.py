"""The statements that append effects, keep their caches and read their logs."""

from sqlalchemy import String, bindparam, func, insert, select, update

from persona_mcp.state import tables
from persona_mcp.state.prepared import Prepared, listed

E = tables.RelationshipEvent
R = tables.RelationshipState
P = tables.PersonaState
I = tables.MoodImpulse  # noqa: E741 - the table's letter, as in the other stores
S = tables.EnergySpent
V = tables.PersonaVersion
WORLD, KEY = bindparam("world", type_=String), bindparam("key", type_=String)
PERSONA = bindparam("persona", type_=String)
FROM, TO = bindparam("who", type_=String), bindparam("whom", type_=String)

ARROW = Prepared(select(R.arrow).where(R.world_id == WORLD, R.from_id == FROM, R.to_id == TO))
ARROWS = Prepared(
    select(R.from_id, R.to_id, R.arrow)
    .where(R.world_id == WORLD, R.from_id.in_(listed("ids")), R.to_id.in_(listed("ids")))
    .order_by(R.from_id, R.to_id)
)
BEFORE_EVENT = Prepared(
    select(
        select(R.arrow)
        .where(R.world_id == WORLD, R.from_id == FROM, R.to_id == TO)
        .scalar_subquery(),
        select(E.seq).where(E.world_id == WORLD, E.id == KEY).scalar_subquery(),
        select(func.max(E.seq))
        .where(E.world_id == WORLD, E.from_id == FROM, E.to_id == TO)
        .scalar_subquery(),
    )
)
"""The arrow; the event's number, if it is there; the last number."""
ADD_EVENT = Prepared(insert(E))
BEGIN_ARROW = Prepared(insert(R))
KEEP_ARROW = Prepared(
    update(R)
    .where(R.world_id == WORLD, R.from_id == FROM, R.to_id == TO)
    .values(
        arrow=bindparam("its_arrow"), as_of=bindparam("its_as_of"), last_seq=bindparam("its_seq")
    )
)
FEELINGS = Prepared(select(P).where(P.world_id == WORLD, P.persona_id == PERSONA))
BEFORE_IMPULSE = Prepared(
    select(
        select(I.seq).where(I.world_id == WORLD, I.id == KEY).scalar_subquery(),
        select(func.max(I.seq))
        .where(I.world_id == WORLD, I.persona_id == PERSONA)
        .scalar_subquery(),
        select(func.max(S.seq))
        .where(S.world_id == WORLD, S.persona_id == PERSONA)
        .scalar_subquery(),
    )
)
"""The impulse's number, if it is there; the last number of an impulse, and of a cost."""
ADD_IMPULSE = Prepared(insert(I))
ADD_COSTS = Prepared(insert(S))
BEGIN_FEELINGS = Prepared(insert(P))
KEEP_FEELINGS = Prepared(
    update(P)
    .where(P.world_id == WORLD, P.persona_id == PERSONA)
    .values(
        emotion=bindparam("its_emotion"),
        emotion_seq=bindparam("its_emotion_seq"),
        interaction=bindparam("its_interaction"),
        interaction_seq=bindparam("its_interaction_seq"),
    )
)
IMPULSES = Prepared(
    select(I.at, I.seq, I.impulse, I.absolute)
    .where(I.world_id == WORLD, I.persona_id == PERSONA, I.active)
    .order_by(I.seq)
)
COSTS = Prepared(
    select(S.at, S.talk_s, S.share)
    .where(S.world_id == WORLD, S.persona_id == PERSONA, S.active)
    .order_by(S.seq)
)
VERSIONS = Prepared(
    select(V.version, V.spec, V.created_at)
    .where(V.world_id == WORLD, V.persona_id == PERSONA)
    .order_by(V.version)
)
KNOWN_IMPULSE = Prepared(
    select(I.persona_id, I.absolute, I.why, I.seq, I.at).where(I.world_id == WORLD, I.id == KEY)
)
