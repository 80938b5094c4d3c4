"""Talks of two to twelve personas, held in one run of the dialogue's graph."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from sqlalchemy import Connection, func, insert, select

from persona_mcp.graphs.dialogue import build_dialogue
from persona_mcp.nodes.parts import ChatContext, ChatIds, Parts
from persona_mcp.server.service import Service
from persona_mcp.state import conversations, tables
from persona_mcp.state.dialogue import Plan
from persona_mcp.state.dialogues import begin_dialogue
from persona_mcp.state.exchanges import Lease
from persona_mcp.state.ids import derived_id, name_key
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.request import Request

STARTS = 1_800_000_000.0
TIRELESS = {"available_time": 86400, "social_energy": 200, "charisma": 18}
Event = dict[str, Any]


def plan(first: str, **more: Any) -> Plan:
    """Plan a talk that nothing ends but its budgets, in simulated time."""
    values = {"token_budget": 30_000, "max_duration": 86_400.0, "max_turns": 500, "seed": 7}
    return Plan(**{**values, "first_speaker": first, "starts_at": STARTS, "bow_out": False, **more})


async def begin(
    service: Service, who: Sequence[str], asked: Plan, talk_id: str = "c1", topic: str = "general"
) -> str:
    """Make personas and a talk between those of them who are no witnesses of the plan."""

    def write(connection: Connection) -> None:
        for id in who:
            spec = PersonaSpec.model_validate({"name": id.title(), **TIRELESS})
            row = {
                **spec.model_dump(mode="json"),
                "world_id": "main",
                "id": id,
                "version": 1,
                "name_key": name_key(spec.name),
                "created_at": STARTS,
                "updated_at": STARTS,
            }
            connection.execute(insert(tables.Persona).values(row))
        talkers = [id for id in who if id not in asked.witnesses]
        begin_dialogue(connection, "main", talk_id, talkers, topic, asked, STARTS)

    await service.database.write(write)
    return talk_id


def looped(service: Service, **more: Any) -> Parts:
    """Give the graph ids for each turn of a run, with the lease that its write asks for."""
    store = service.exchanges
    held: list[Lease] = []

    async def accept(state: Mapping[str, Any], context: ChatContext) -> ChatIds:
        talk_id = str(state["conversation_id"])
        made = await exchanges_of(service, talk_id)
        id = derived_id("main", talk_id, "exchange", made)
        asked = Request("main", talk_id, "", "", id, "", {}, kind="dialogue")
        await store.accept(asked, id, service.process, None, STARTS)
        lease, after = Lease("main", talk_id, id, service.process), held.pop() if held else None
        await store.claim(lease, 60.0, STARTS, after=after)
        held.append(lease)
        return ChatIds(world_id="main", conversation_id=talk_id, exchange_id=id)

    return replace(service.parts, accept=accept, **more)


async def exchanges_of(service: Service, talk_id: str) -> int:
    """Count the exchanges of a talk, those that were switched off too."""
    of_talk = tables.Exchange.conversation_id == talk_id
    query = Prepared(select(func.count()).select_from(tables.Exchange).where(of_talk))
    count: int = await service.database.read(query.scalar)
    return count


async def hold(parts: Parts, talk_id: str, turns: int) -> list[Event]:
    """Make turns of a talk in one run, and return what was told of it."""
    graph = build_dialogue(parts).compile()
    found = await parts.database.read(conversations.get, "main", talk_id)
    asked: Any = {
        "world_id": "main",
        "conversation_id": talk_id,
        "follows": found.head_exchange_id,
        "direction": "",
        "turns": turns,
    }
    context = ChatContext(routing="score")
    config: RunnableConfig = {"recursion_limit": 20 * turns}
    return [
        event async for event in graph.astream(asked, config, context=context, stream_mode="custom")
    ]
