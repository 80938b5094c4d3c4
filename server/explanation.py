"""What was behind a reply: the memories in its prompt, and what it changed."""

import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from persona_mcp.server.operations import rounded
from persona_mcp.server.relationship_operations import arrow_now, shown
from persona_mcp.state import tables
from persona_mcp.state.effects import read_feelings
from persona_mcp.state.emotion import label
from persona_mcp.state.exchange import Exchange
from persona_mcp.state.memories import read_memories
from persona_mcp.state.memory import rfc3339
from persona_mcp.state.personas import find

if TYPE_CHECKING:
    from persona_mcp.server.service import Service

E = tables.RelationshipEvent


async def explain(
    service: "Service", world_id: str, exchange: Exchange, prompt: list[dict[str, str]]
) -> dict[str, Any]:
    """Gather what was behind a done exchange, as JSON.

    Args:
        service: The live parts.
        world_id: Where.
        exchange: Which one.
        prompt: What the model was given, if this process made the reply; it is never stored.
    """
    traces = await service.conversations.traces(world_id, [exchange.id])
    now, laws = time.time(), service.laws.effects
    async with service.database.read() as connection:
        recalled = await read_memories(connection, world_id, traces[exchange.id].used)
        persona = await find(connection, world_id, exchange.persona_id)
        felt = await read_feelings(connection, world_id, persona, now, laws)
        arrow = await arrow_now(
            connection, world_id, persona.id, exchange.user_id, now, laws.relationships
        )
        query = select(E.why, E.deltas).where(E.world_id == world_id, E.exchange_id == exchange.id)
        changes = [
            {"why": row.why, "changes": row.deltas}
            for row in await connection.execute(query.order_by(E.seq))
        ]
    view = shown(persona.id, exchange.user_id, arrow, None, laws.relationships) if arrow else None
    found: dict[str, Any] = rounded(
        {
            "prompt": prompt,
            "memories": [
                {"id": m.id, "text": m.indexed_text, "created_at": rfc3339(m.created_at)}
                for m in recalled
            ],
            "relationship": view.model_dump(mode="json") if view else None,
            "relationship_changes": changes,
            "mood": label(felt.emotion),
            "score_terms": exchange.outcome["score_terms"],
        }
    )
    return found
