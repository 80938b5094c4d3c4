"""The turns of a dialogue that has its world to itself: begun without a lease that others respect.

What a server does in several writes, since others may be at the same conversation, is one here.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, String, bindparam, func, insert, select, update

from persona_mcp.state import dialogues, exchange_statements, relationship_store, tables
from persona_mcp.state.dialect import INTEGER
from persona_mcp.state.dialogue import Plan
from persona_mcp.state.effects import EffectParams
from persona_mcp.state.exchanges import Lease
from persona_mcp.state.ids import derived_id
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.relationship import shown
from persona_mcp.state.request import Request
from persona_mcp.state.small_world import WORLD

C, X, M, T, V = (
    tables.Conversation,
    tables.Exchange,
    tables.Memory,
    tables.Turn,
    tables.MemoryVector,
)
PROCESS = "batch"
"""In whose name exchanges are run; nobody else is there."""
DIMENSIONS = ("affinity", "trust", "respect", "intimacy", "strength", "familiarity")
KEY = bindparam("key", type_=String)
HOLD = Prepared(
    update(C).where(C.world_id == WORLD, C.id == KEY).values(lease_owner=bindparam("holder"))
)
FAIL = Prepared(
    update(X)
    .where(X.world_id == WORLD, X.id == KEY, X.status == "running")
    .values(
        status="failed",
        error=bindparam("its_error"),
        partial=bindparam("its_partial"),
        finished_at=bindparam("now"),
    )
)
SAID = Prepared(
    select(T.number, T.speaker_id, T.content, X.tokens_used)
    .join(X, (X.world_id == T.world_id) & (X.id == T.exchange_id))
    .where(T.world_id == WORLD, T.conversation_id == KEY, T.number > bindparam("after"))
    .order_by(T.number)
)
UNEMBEDDED = Prepared(
    select(M.seq, M.id, M.persona_id, M.version, M.indexed_text)
    .where(M.seq > bindparam("after", type_=INTEGER))
    .order_by(M.seq)
)
REASON = Prepared(select(C.exit_reason).where(C.world_id == WORLD, C.id == KEY))
LAST_MEMORY = Prepared(select(func.coalesce(func.max(M.seq), 0)))
WITHOUT_VECTOR = Prepared(
    select(M.seq, M.id, M.persona_id, M.version, M.indexed_text)
    .outerjoin(
        V,
        (V.world_id == M.world_id)
        & (V.memory_id == M.id)
        & (V.model_id == bindparam("model", type_=String)),
    )
    .where(M.active, M.archived_at.is_(None), V.seq.is_(None))
    .order_by(M.seq)
)
ADD_VECTORS = Prepared(insert(V))
Views = dict[tuple[str, str], dict[str, float]]


class Said(NamedTuple):
    """A turn that was said."""

    number: int
    speaker_id: str
    content: str
    tokens_used: int | None


class Unembedded(NamedTuple):
    """A memory without a vector."""

    seq: int
    id: str
    persona_id: str
    version: int
    indexed_text: str


def begin_talk(
    connection: Connection, talk_id: str, participants: Sequence[str], topic: str, plan: Plan
) -> None:
    """Write a talk of personas that nobody has spoken in yet; its plan says when it begins."""
    at = plan.starts_at or 0.0
    dialogues.begin_dialogue(connection, WORLD, talk_id, participants, topic, plan, at)


def change_talk(connection: Connection, talk_id: str, topic: str, plan: Plan) -> None:
    """Go on with a talk under another plan."""
    its = C.world_id == WORLD, C.id == talk_id
    connection.execute(update(C).where(*its).values(topic=topic, plan=plan.as_json()))


def begin_turn(connection: Connection, talk_id: str, number: int, now: float) -> str:
    """Write an exchange that runs, and return its id; who speaks is written when it is done.

    Args:
        connection: A transaction that writes.
        talk_id: Of the conversation.
        number: Of the exchange in it, 1, 2, ...
        now: Simulated, in seconds since the epoch, UTC.
    """
    exchange_id = derived_id(WORLD, talk_id, "exchange", number)
    lease = Lease(WORLD, talk_id, exchange_id, PROCESS)
    request = Request(WORLD, talk_id, "", "", exchange_id, "", {}, kind="dialogue")
    exchange_statements.ACCEPT.run(
        connection,
        {
            "world_id": WORLD,
            "id": exchange_id,
            "conversation_id": talk_id,
            "request_id": exchange_id,
            "request_hash": request.hash,
            "number": number,
            "status": "running",
            "persona_id": "",
            "user_id": "",
            "message": "",
            "attempts": 1,
            "owner": PROCESS,
            "created_at": now,
        },
    )
    HOLD.run(connection, {"key": talk_id, "holder": lease.owner})
    return exchange_id


def fail_turn(
    connection: Connection, exchange_id: str, error: dict[str, Any], partial: str, now: float
) -> None:
    """Write that an exchange failed, and what had been said of it; one that is done stays so."""
    failed = {"its_error": error, "its_partial": partial or None, "now": now}
    FAIL.run(connection, {"key": exchange_id, **failed})


def said_since(connection: Connection, talk_id: str, after: int) -> list[Said]:
    """Return the turns of a talk behind number `after`, in order."""
    return [Said(*row) for row in SAID.all(connection, key=talk_id, after=after)]


def duration_of(connection: Connection, talk_id: str) -> float:
    """Return how long a talk has taken so far, in simulated seconds."""
    return float(dialogues.SPENT.scalar(connection, world=WORLD, key=talk_id))


def exit_reason(connection: Connection, talk_id: str) -> str:
    """Return why a talk ended; empty for one that has not, or that is not there."""
    return REASON.scalar(connection, key=talk_id) or ""


def last_memory(connection: Connection) -> int:
    """Return the number of the last memory."""
    return int(LAST_MEMORY.scalar(connection))


def remembered_since(connection: Connection, after: int) -> list[Unembedded]:
    """Return the memories that were made behind number `after`, in order."""
    return [Unembedded(*row) for row in UNEMBEDDED.all(connection, after=after)]


def without_vector(connection: Connection, model_id: str) -> list[Unembedded]:
    """Return the memories that can be found and that an embedder has not embedded, in order."""
    return [Unembedded(*row) for row in WITHOUT_VECTOR.all(connection, model=model_id)]


def add_vectors(
    connection: Connection, rows: Sequence[Unembedded], vectors: Sequence[bytes], model_id: str
) -> None:
    """Write the vectors of memories.

    Args:
        connection: A transaction that writes.
        rows: At least one.
        vectors: As many, from `embedding.pack`.
        model_id: Of the embedder.
    """
    ADD_VECTORS.run(
        connection,
        [
            {
                "world_id": WORLD,
                "memory_id": row.id,
                "persona_id": row.persona_id,
                "model_id": model_id,
                "version": row.version,
                "vector": vector,
            }
            for row, vector in zip(rows, vectors, strict=True)
        ],
    )


def views(connection: Connection, ids: Sequence[str], at: float, params: EffectParams) -> Views:
    """Return how some personas see each other at a time, by who and whom; those who have met."""
    laws = params.relationships
    found: Views = {}
    for one in relationship_store.arrows_at(connection, WORLD, at, laws, ids):
        values = shown(one.arrow, laws)
        found[one.from_id, one.to_id] = {name: getattr(values, name) for name in DIMENSIONS}
    return found
