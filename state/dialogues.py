"""Talks between personas in SQL: begun, read as they stand, and ended with their pauses."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from sqlalchemy import Connection, String, bindparam, func, insert, select, update

from persona_mcp.state import conversations, feelings, interaction, personas, relationship, tables
from persona_mcp.state.arrow import Shown
from persona_mcp.state.dialogue import NARRATOR, Member, Plan, Standing, plan_of
from persona_mcp.state.effects import EffectParams, arrows_among
from persona_mcp.state.errors import Conflict, NotFound
from persona_mcp.state.exchange import Conversation, Exchange, Turn
from persona_mcp.state.exchanges import to_exchange
from persona_mcp.state.persona import Persona
from persona_mcp.state.prepared import Prepared, listed
from persona_mcp.state.request import ended

C = tables.Conversation
X = tables.Exchange
S = tables.EnergySpent
T = tables.Turn
A = tables.Persona
P = tables.PersonaState
WORLD = bindparam("world", type_=String)
KEY = bindparam("key", type_=String)
USED = Prepared(
    select(func.coalesce(func.sum(X.tokens_used), 0).label("tokens"), func.count().label("said"))
    .select_from(X)
    .where(X.world_id == WORLD, X.conversation_id == KEY, X.status == "done", X.active)
)
SPENT = Prepared(
    select(func.coalesce(func.sum(S.talk_s), 0.0))
    .join(X, (X.world_id == S.world_id) & (X.id == S.exchange_id))
    .where(
        X.world_id == WORLD,
        X.conversation_id == KEY,
        S.persona_id == X.persona_id,
        S.active,
    )
)
"""Each turn of a talk costs its speaker all of its seconds; a message costs who answers it too."""
SPEAKER = Prepared(select(X.persona_id).where(X.world_id == WORLD, X.id == KEY))
LAST_SCORE = Prepared(
    select(X.continue_score, X.score_terms).where(X.world_id == WORLD, X.id == KEY)
)
LAST_TURNS = Prepared(
    select(T)
    .where(T.world_id == WORLD, T.conversation_id == KEY, T.active)
    .order_by(T.number.desc())
    .limit(bindparam("most"))
)
NARRATED = Prepared(
    select(T.content).where(
        T.world_id == WORLD,
        T.conversation_id == KEY,
        T.active,
        T.speaker_id == bindparam("who", type_=String),
    )
)
ACTIVE = Prepared(
    select(C.id, C.participants)
    .where(C.world_id == WORLD, C.kind == "dialogue", C.status == "active")
    .order_by(C.started_at, C.id)
)
PERSONA = Prepared(select(A).where(A.world_id == WORLD, A.id == KEY))
"""A deleted one, too: it rests like the others of its talk."""
ASKED = Prepared(
    select(X)
    .where(X.world_id == WORLD, X.request_id.in_(listed("ids")), X.status == "done")
    .order_by(X.number)
)
TURNS = Prepared(
    select(T)
    .where(T.world_id == WORLD, T.exchange_id.in_(listed("ids")), T.active)
    .order_by(T.number)
)
REST = Prepared(
    update(P)
    .where(P.world_id == WORLD, P.persona_id == bindparam("persona", type_=String))
    .values(interaction=bindparam("rested"))
)
BEGIN = Prepared(insert(C))
END = Prepared(
    update(C)
    .where(C.world_id == WORLD, C.id == KEY)
    .values(
        status="ended",
        ended_at=bindparam("now"),
        updated_at=bindparam("now"),
        exit_reason=bindparam("reason"),
        plan=bindparam("planned"),
    )
)
LEASE = Prepared(select(C.lease_owner, C.lease_until).where(C.world_id == WORLD, C.id == KEY))


@dataclass(frozen=True)
class Ending:
    """What a conversation comes to.

    Attributes:
        reason: Why it ended.
        ended_at: When, in seconds since the epoch, UTC.
        duration: Seconds of talk.
        turns: How many.
        tokens_used: By all that was said.
        cooldowns: How long each of its personas rests, in seconds.
    """

    reason: str
    ended_at: float
    duration: float
    turns: int
    tokens_used: int
    cooldowns: dict[str, float]


@dataclass(frozen=True)
class Spent:
    """What a conversation has come to so far.

    Attributes:
        duration: Seconds of talk.
        tokens_used: By all that was said.
        said: How many turns were spoken; in a chat with a user, how often it was answered.
        score: The last continue score, 0..100; None before the first.
        score_terms: What that is made of.
    """

    duration: float
    tokens_used: int
    said: int
    score: float | None
    score_terms: dict[str, float]


def read_spent(connection: Connection, world_id: str, conversation: Conversation) -> Spent:
    """Return what a conversation has come to so far."""
    where = {"world": world_id, "key": conversation.id}
    last = LAST_SCORE.first(connection, world=world_id, key=conversation.head_exchange_id or "")
    used = USED.first(connection, **where)
    return Spent(
        duration=SPENT.scalar(connection, **where),
        tokens_used=used.tokens,
        said=used.said,
        score=last.continue_score if last else None,
        score_terms=dict(last.score_terms or {}) if last else {},
    )


def begin_dialogue(
    connection: Connection,
    world_id: str,
    conversation_id: str,
    participants: Sequence[str],
    topic: str,
    plan: Plan,
    now: float,
) -> Conversation:
    """Write a talk between personas that nobody has spoken in yet."""
    row = {
        "world_id": world_id,
        "id": conversation_id,
        "kind": "dialogue",
        "persona_id": None,
        "user_id": None,
        "participants": list(participants),
        "topic": topic,
        "plan": plan.as_json(),
        "status": "active",
        "turn_count": 0,
        "started_at": now,
        "updated_at": now,
    }
    BEGIN.run(connection, row)
    return conversations.get(connection, world_id, conversation_id)


def active_dialogues(connection: Connection, world_id: str, persona_id: str) -> list[str]:
    """Return the talks between personas that one is in now, the oldest first."""
    rows = ACTIVE.all(connection, world=world_id)
    return [row.id for row in rows if persona_id in row.participants]


def read_standing(
    connection: Connection,
    world_id: str,
    conversation: Conversation,
    now: float,
    window: int,
    params: EffectParams,
    head: str | None = None,
) -> Standing:
    """Return how a talk between personas stands.

    Args:
        connection: An open transaction.
        world_id: Where.
        conversation: Which; a dialogue.
        now: Seconds since the epoch, UTC; where the talk's time is simulated, that stands in its
            place.
        window: How many of its last turns.
        params: Of relationships and feelings.
        head: The exchange that it is read after, if that is not its last one.

    Raises:
        NotFound: One of its personas is not there any more.
    """
    plan = plan_of(conversation.plan or {})
    everybody = [*conversation.participants, *plan.witnesses]
    there = {one.id: one for one in personas.those(connection, world_id, everybody)}
    found = [member_of(there, id) for id in conversation.participants]
    last = head or conversation.head_exchange_id
    most = window + plan.stale_turns
    rows = LAST_TURNS.all(connection, world=world_id, key=conversation.id, most=most)
    past = tuple(conversations.to_turn(row) for row in reversed(rows))
    spent = read_spent(connection, world_id, conversation)
    if plan.starts_at is not None:
        now = plan.starts_at + spent.duration
    return Standing(
        now=now,
        conversation=conversation,
        plan=plan,
        members=tuple(
            Member(one, feelings.read_feelings(connection, world_id, one, now, params))
            for one in found
        ),
        last_speaker=SPEAKER.scalar(connection, world=world_id, key=last) if last else None,
        duration=spent.duration,
        tokens_used=spent.tokens_used,
        window=past[-window:] if window else (),
        past=past,
        views=views_of(connection, world_id, found, now, params),
        said=spent.said,
        narrated=narrated(connection, world_id, conversation.id) if plan.interventions else {},
        heard_by=tuple(there[id] for id in sorted(there) if id in plan.witnesses),
    )


def narrated(connection: Connection, world_id: str, conversation_id: str) -> Counter[str]:
    """Return what a narrator has brought into a talk, and how often."""
    rows = NARRATED.all(connection, world=world_id, key=conversation_id, who=NARRATOR)
    return Counter(row.content for row in rows)


def member_of(there: Mapping[str, Persona], persona_id: str) -> Persona:
    """Return one of a talk, by its id alone.

    Raises:
        NotFound: It is not there any more, whoever else may be called so.
    """
    if persona_id not in there:
        raise NotFound.of("persona", persona_id)
    return there[persona_id]


def views_of(
    connection: Connection,
    world_id: str,
    members: Sequence[Persona],
    now: float,
    params: EffectParams,
) -> dict[tuple[str, str], Shown]:
    """Return how each of some personas sees each other one that it has met."""
    laws = params.relationships
    met = arrows_among(connection, world_id, [one.id for one in members], now, laws)
    return {pair: relationship.shown(arrow, laws) for pair, arrow in met.items()}


def end_conversation(
    connection: Connection,
    world_id: str,
    conversation_id: str,
    reason: str,
    now: float,
    params: EffectParams,
) -> Ending:
    """End a talk and let its personas rest, inside a transaction; nobody rests after no turn.

    Raises:
        NotFound: It is not there.
        Conflict: It has ended already.
    """
    found = conversations.get(connection, world_id, conversation_id)
    if found.status == "ended":
        raise ended(conversation_id)
    spent = read_spent(connection, world_id, found)
    ending = Ending(
        reason=reason,
        ended_at=now,
        duration=spent.duration,
        turns=found.turn_count,
        tokens_used=spent.tokens_used,
        cooldowns=cooldowns_of(connection, world_id, found, now, params),
    )
    for persona_id, pause in ending.cooldowns.items():
        rest_until(connection, world_id, persona_id, now + pause)
    until = {id: now + pause for id, pause in ending.cooldowns.items()}
    plan = {**(found.plan or {}), feelings.COOLDOWNS: until}
    its = {"world": world_id, "key": conversation_id}
    END.run(connection, {**its, "now": now, "reason": reason, "planned": plan})
    return ending


def cooldowns_of(
    connection: Connection, world_id: str, talk: Conversation, now: float, params: EffectParams
) -> dict[str, float]:
    """Return how long each persona of a talk rests after it, in seconds."""
    last = read_spent(connection, world_id, talk).score
    ids = talk.participants if talk.kind == "dialogue" else (talk.persona_id,)
    pauses = {}
    for id in ids:
        felt = feelings.stored_feelings(connection, world_id, id)
        if felt is None:  # it has said and heard nothing
            pauses[id] = 0.0
            continue
        persona = personas.to_persona(PERSONA.first(connection, world=world_id, key=id))
        left = feelings.at_time(felt, persona, now, params).interaction
        pauses[id] = interaction.cooldown(talk.turn_count, last, left.fatigue, params.interaction)
    return pauses


def rest_until(connection: Connection, world_id: str, persona_id: str, until: float) -> None:
    """Let a persona rest until a time, unless it rests longer anyway.

    Its state stays as it was at its last effect: time passes by what is computed alone.
    """
    felt = feelings.stored_feelings(connection, world_id, persona_id)
    if felt is None:
        return
    left = felt.interaction
    rested = replace(left, cooldown_until=max(left.cooldown_until or until, until))
    its = {"world": world_id, "persona": persona_id}
    REST.run(connection, {**its, "rested": asdict(rested)})


def busy(conversation_id: str, retry_after_s: float) -> Conflict:
    """Say that somebody else goes on with a conversation."""
    return Conflict(
        f"conversation '{conversation_id}' is busy: another call goes on with it; send this one "
        "again later, with the same request_id if it has one",
        conversation_id=conversation_id,
        retry_after_seconds=retry_after_s,
        retryable=True,
    )


def turns_asked_for(
    connection: Connection, world_id: str, request_ids: Sequence[str]
) -> tuple[list[Turn], list[Exchange]]:
    """Return the turns that were made under some request ids, in order, and their exchanges."""
    made = [to_exchange(row) for row in ASKED.all(connection, world=world_id, ids=request_ids)]
    rows = TURNS.all(connection, world=world_id, ids=[exchange.id for exchange in made])
    heard = conversations.witnesses_of(connection, world_id, [row.id for row in rows])
    return [conversations.to_turn(row, heard.get(row.id, ())) for row in rows], made


def holder_of(
    connection: Connection, world_id: str, conversation_id: str
) -> tuple[str | None, float | None]:
    """Return who holds a conversation's lease, and until when."""
    row = LEASE.first(connection, world=world_id, key=conversation_id)
    return (row.lease_owner, row.lease_until) if row else (None, None)
