"""What was behind a reply: the memories in its prompt, and what it changed."""

import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, bindparam, select

from persona_mcp.server.operations.registry import rounded
from persona_mcp.server.operations.relationships import arrow_now, shown
from persona_mcp.server.runs import Run
from persona_mcp.state import tables
from persona_mcp.state.arrow import Arrow
from persona_mcp.state.emotion import label
from persona_mcp.state.exchange import Exchange
from persona_mcp.state.feelings import Feelings, read_feelings
from persona_mcp.state.memory.memory import Memory
from persona_mcp.state.memory.store import read_memories
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.personas import find
from persona_mcp.state.prepared import Prepared

if TYPE_CHECKING:
    from persona_mcp.server.service import Service

E = tables.RelationshipEvent
CHANGES = Prepared(
    select(E.why, E.deltas)
    .where(E.world_id == bindparam("world"), E.exchange_id == bindparam("exchange"))
    .order_by(E.seq)
)


async def explain(
    service: "Service", world_id: str, exchange: Exchange, run: Run
) -> dict[str, Any]:
    """Gather what was behind a done exchange, as JSON.

    Args:
        service: The live parts.
        world_id: Where.
        exchange: Which one.
        run: Its run: what the model was given and what the persona kept to itself are never
            stored, and known only if this run made the reply.
    """
    traces = await service.conversations.traces(world_id, [exchange.id])
    now, laws = time.time(), service.laws.effects

    def read(
        connection: Connection,
    ) -> tuple[list[Memory], list[Memory], Feelings, Arrow | None, list[dict[str, Any]]]:
        recalled = read_memories(connection, world_id, traces[exchange.id].used)
        held = read_memories(connection, world_id, run.held_back)
        persona = find(connection, world_id, exchange.persona_id)
        felt = read_feelings(connection, world_id, persona, now, laws)
        arrow = arrow_now(
            connection, world_id, persona.id, exchange.user_id, now, laws.relationships
        )
        changes = CHANGES.all(connection, world=world_id, exchange=exchange.id)
        made = [{"why": c.why, "changes": c.deltas} for c in changes]
        return recalled, held, felt, arrow, made

    recalled, held, felt, arrow, changes = await service.database.read(read)
    view = (
        shown(exchange.persona_id, exchange.user_id, arrow, None, laws.relationships)
        if arrow
        else None
    )
    found: dict[str, Any] = rounded(
        {
            "prompt": run.prompt,
            "memories": [
                {"id": m.id, "text": m.indexed_text, "created_at": rfc3339(m.created_at)}
                for m in recalled
            ],
            # Without their words: who reads this may be the one that they are kept from.
            "held_back": [{"id": m.id, "memory_type": m.memory_type} for m in held],
            "relationship": view.model_dump(mode="json") if view else None,
            "relationship_changes": changes,
            "mood": label(felt.emotion),
            "score_terms": exchange.outcome["score_terms"],
        }
    )
    return found
