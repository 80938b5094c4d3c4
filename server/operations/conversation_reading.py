"""Operations that read conversations: which there are, and the trace of their graph."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from sqlalchemy import Connection

from persona_mcp.server.current import current_conversation
from persona_mcp.server.operations.conversations import CURRENT
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.state.conversation_list import WantedTalks, list_conversations
from persona_mcp.state.cursors import bad_cursor
from persona_mcp.state.errors import NotFound
from persona_mcp.state.exchange import ConversationKind, Exchange
from persona_mcp.state.exchanges import get as get_exchange
from persona_mcp.state.fields import WHOLE, Id, Moment, Reference, Text
from persona_mcp.state.ids import thread_id
from persona_mcp.state.moments import check_span, rfc3339

if TYPE_CHECKING:  # it takes long to import, and tools are listed before that is done
    from langchain_core.runnables import RunnableConfig

END = "end"


class ConversationListArguments(Arguments):
    """Arguments of conversation_list."""

    persona_id: Reference | None = Field(
        None, description="Only those that this persona talks in: id or name, from persona_list"
    )
    status: Literal["active", "ended", "all"] = Field("all", description="Whether they are over")
    since: Moment | None = Field(None, description="Begun at this time or later")
    until: Moment | None = Field(None, description="Begun before this time")
    limit: Annotated[int, Field(ge=1, le=200), WHOLE] = Field(
        50, description="Conversations a page"
    )
    cursor: Id | None = Field(None, description="next_cursor of the page before")


class ListedConversation(Result):
    """A conversation, briefly."""

    id: str
    kind: ConversationKind
    participants: list[str]
    topic: str
    status: Literal["active", "ended"]
    turn_count: int
    started_at: str
    ended_at: str | None
    exit_reason: str | None


class ConversationList(Result):
    """Result of conversation_list."""

    conversations: list[ListedConversation]
    total_count: int
    next_cursor: str | None


@operation("List conversations", "conversation", "read", core=False)
async def conversation_list(call: Call, arguments: ConversationListArguments) -> ConversationList:
    """List chats with users and talks between personas, the last begun first.

    Each id goes to conversation_get for what was said, and to conversation_status.
    """
    since, until = arguments.since, arguments.until
    check_span(since, until)
    participant = None
    if arguments.persona_id is not None:
        participant = (await call.store.personas.resolve(call.world_id, arguments.persona_id)).id
    status = None if arguments.status == "all" else arguments.status
    found, total = await call.store.database.read(
        list_conversations,
        call.world_id,
        WantedTalks(participant, status, since, until),
        arguments.limit + 1,
        arguments.cursor,
    )
    page = found[: arguments.limit]
    return ConversationList(
        conversations=[
            ListedConversation(
                id=one.id,
                kind=one.kind,
                participants=list(one.participants),
                topic=one.topic,
                status=one.status,
                turn_count=one.turn_count,
                started_at=rfc3339(one.started_at),
                ended_at=None if one.ended_at is None else rfc3339(one.ended_at),
                exit_reason=one.exit_reason,
            )
            for one in page
        ],
        total_count=total,
        next_cursor=page[-1].id if len(found) > len(page) else None,
    )


class ConversationHistoryArguments(Arguments):
    """Arguments of conversation_history."""

    conversation_id: Id | None = Field(None, description=CURRENT)
    limit: Annotated[int, Field(ge=1, le=200), WHOLE] = Field(50, description="Checkpoints a page")
    cursor: Annotated[Text, Field(pattern=r"^[0-9a-f-]{1,64}$")] | None = Field(
        None, description="next_cursor of the page before"
    )


class Checkpoint(Result):
    """What the graph stood at."""

    turn: int | None = Field(description="The last turn of its exchange; null if that is not done")
    checkpoint_id: str
    parent_id: str | None = Field(description="The checkpoint before it; null for the first kept")
    branch: str = Field(description="The world that this line of it is in")
    created_at: str
    node: str = Field(description="The step that comes next; end after the last one")
    score: int | None = Field(description="The exchange's continue score, 0..100")


class ConversationHistory(Result):
    """Result of conversation_history."""

    conversation_id: str
    checkpoints: list[Checkpoint]
    next_cursor: str | None


@operation("Trace a conversation's graph", "conversation", "read", core=False)
async def conversation_history(
    call: Call, arguments: ConversationHistoryArguments
) -> ConversationHistory:
    """List the checkpoints of a conversation's graph, the newest first.

    A chat has one an exchange, a talk between personas one a step; old ones are dropped. LangGraph
    Studio can go on from each of them.
    """
    service, world_id = call.service, call.world_id
    found = await current_conversation(call, arguments.conversation_id)
    graphs = service.graphs
    graph = graphs.dialogue if found.kind == "dialogue" else graphs.conversation
    thread: RunnableConfig = {"configurable": {"thread_id": thread_id(world_id, found.id)}}
    before: RunnableConfig | None = None
    if arguments.cursor is not None:
        place = {**thread["configurable"], "checkpoint_id": arguments.cursor}
        before = {"configurable": place}
        if (await graph.aget_state(before)).created_at is None:
            raise bad_cursor(arguments.cursor, "checkpoint was dropped")
    limit = arguments.limit + 1
    states = [s async for s in graph.aget_state_history(thread, before=before, limit=limit)]
    page = states[: arguments.limit]
    ids = {state.values.get("exchange_id") for state in page} - {None}
    exchanges = await service.database.read(read_exchanges, world_id, sorted(ids))
    traces = await service.conversations.traces(world_id, list(exchanges))
    turns = {id: traces[id].last_turn for id in exchanges}
    return ConversationHistory(
        conversation_id=found.id,
        checkpoints=[shown_checkpoint(state, world_id, exchanges, turns) for state in page],
        next_cursor=id_of(page[-1].config) if len(states) > len(page) else None,
    )


def read_exchanges(connection: Connection, world_id: str, ids: list[str]) -> dict[str, Exchange]:
    """Return exchanges by their ids; one that a fork left out is not there."""
    found = {}
    for id in ids:
        try:
            found[id] = get_exchange(connection, world_id, id)
        except NotFound:
            continue
    return found


def shown_checkpoint(
    state: Any,
    world_id: str,
    exchanges: Mapping[str, Exchange],
    turns: Mapping[str, int | None],
) -> Checkpoint:
    """Show a checkpoint with what its exchange came to."""
    exchange_id = state.values.get("exchange_id", "")
    exchange = exchanges.get(exchange_id)
    score = exchange.outcome["continue_score"] if exchange else None
    return Checkpoint(
        turn=turns.get(exchange_id),
        checkpoint_id=id_of(state.config),
        parent_id=id_of(state.parent_config) if state.parent_config else None,
        branch=world_id,
        created_at=rfc3339(datetime.fromisoformat(state.created_at).timestamp()),
        node=", ".join(state.next) or END,
        score=None if score is None else round(score),
    )


def id_of(config: Mapping[str, Any]) -> str:
    """Return the id of a checkpoint."""
    found: str = config["configurable"]["checkpoint_id"]
    return found
