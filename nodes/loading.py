"""The first step of an exchange: what stands before it."""

from collections.abc import Mapping
from typing import Any

from langgraph.runtime import Runtime
from sqlalchemy import Connection

from persona_mcp.nodes.carded import played
from persona_mcp.nodes.chat_state import ChatState, ChatUpdate, Scene
from persona_mcp.nodes.parts import ChatContext, ChatIds, Parts
from persona_mcp.state import conversations, effects, feelings, personas, visual
from persona_mcp.state.exchange import Conversation, Turn
from persona_mcp.state.summaries import Outgrown, recent
from persona_mcp.state.summarising import Summary


async def load_scene(parts: Parts, state: ChatState, runtime: Runtime[ChatContext]) -> ChatUpdate:
    """Read persona, feelings, relationship, sights and the window of the transcript in one go.

    Reads: world_id, conversation_id, follows, head.
    Writes: scene; the ids, where the run was started without an exchange; resets what the last
        exchange left.

    Raises:
        NotFound: The conversation or its persona is not there.
        StorageUnavailable: The database did not answer.
    """
    ids = await ids_of(parts, state, runtime.context)
    world_id, now = ids["world_id"], parts.now()
    follows = state["follows"] if "follows" in state else state.get("head")

    def read(connection: Connection) -> Scene:
        conversation = conversations.get(connection, world_id, ids["conversation_id"])
        persona = personas.find(connection, world_id, conversation.persona_id)
        user_id, laws = conversation.user_id, parts.laws.effects
        pair = [persona.id, user_id]
        arrows = effects.arrows_among(connection, world_id, pair, now, laws.relationships)
        window = conversations.window(
            connection,
            world_id,
            conversation.id,
            persona.id,
            follows,
            parts.limits.window_turns,
            conversation.turns_each,
        )
        heard = [*(turn.content for turn in window), state["message"]]
        its = played(connection, parts, world_id, persona, user_id, heard)
        return Scene(
            now=now,
            persona=its.persona,
            conversation=conversation,
            window=tuple(window),
            arrow=arrows.get((persona.id, user_id)),
            feelings=feelings.read_feelings(connection, world_id, persona, now, laws),
            # Counted only where it matters: the count takes longer as the conversation grows.
            answers=conversations.spoken(connection, world_id, conversation.id, persona.id)
            if runtime.context.routing == "score"
            else 0,
            summaries=summaries_of(connection, parts, world_id, conversation, follows, window),
            reverse=arrows.get((user_id, persona.id)),
            sights=visual.sights(connection, world_id, persona.id, conversation.scene, now),
            card=its.card,
            lore=its.lore,
        )

    scene = await parts.database.read(read)
    return ChatUpdate(
        world_id=world_id,
        conversation_id=ids["conversation_id"],
        exchange_id=ids["exchange_id"],
        scene=scene,
        head=follows,
        attempts=0,
        reply="",
    )


async def ids_of(parts: Parts, state: Mapping[str, Any], context: ChatContext) -> ChatIds:
    """Return which exchange a run makes; one that was started without is given its ids here."""
    if parts.accept is not None:
        return await parts.accept(state, context)
    return ChatIds(
        world_id=state.get("world_id", ""),
        conversation_id=state.get("conversation_id", ""),
        exchange_id=state.get("exchange_id", ""),
    )


def summaries_of(
    connection: Connection,
    parts: Parts,
    world_id: str,
    conversation: Conversation,
    head: str | None,
    window: list[Turn],
) -> tuple[Summary, ...]:
    """Read what was summed up of a conversation; nothing is looked for while it fits the window."""
    turns, params = parts.limits.window_turns, parts.laws.summaries
    if head is None or not params.shown or conversation.turn_count < turns + params.every:
        return ()
    before = window[0].number if window else conversation.turn_count + 1
    its = conversation.id, conversation.persona_id, head, conversation.turns_each
    talk = Outgrown(world_id, *its)
    return tuple(recent(connection, talk, turns, before, params))
