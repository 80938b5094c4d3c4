"""The one write of an exchange: turns, effects, caches, memories, vectors; all or nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert

from persona_mcp.state import exchange_statements as statements
from persona_mcp.state import exchanges, tables
from persona_mcp.state.database import Database
from persona_mcp.state.dialogues import end_conversation
from persona_mcp.state.effects import EffectParams, RelationshipChange, add_relationship_change
from persona_mcp.state.errors import Conflict
from persona_mcp.state.exchange import Exchange
from persona_mcp.state.exchanges import Lease
from persona_mcp.state.feelings import FeelingChange, add_feeling_change
from persona_mcp.state.ids import id_within
from persona_mcp.state.index.work import Vectors
from persona_mcp.state.memory.memory import NewMemory
from persona_mcp.state.memory.store import Source, add_memories
from persona_mcp.state.memory.uses import add_uses
from persona_mcp.state.prepared import Prepared

ADD_TURNS = Prepared(insert(tables.Turn))
ADD_WITNESSES = Prepared(insert(tables.TurnWitness))


@dataclass(frozen=True)
class NewTurn:
    """An utterance that is about to be stored.

    Attributes:
        id: Derived from the exchange and the position.
        speaker_id: Persona or user.
        speaker_version: The persona's version; None for a user.
        content: What was said.
        witnesses: Who said or heard it.
        at: When, in seconds since the epoch, UTC; None for the time of the write.
    """

    id: str
    speaker_id: str
    speaker_version: int | None
    content: str
    witnesses: tuple[str, ...]
    at: float | None = None


@dataclass(frozen=True)
class Commit:
    """Everything that an exchange leaves behind.

    Attributes:
        lease: The run that writes it; it must still hold the conversation.
        at: When, in seconds since the epoch, UTC.
        turns: In order: the message, the reply.
        relationships: Events, in order.
        feelings: What it does to personas.
        memories: What is remembered of it.
        used_memories: Ids of the memories that were in the prompt.
        report: Columns of the exchange: response, score, tokens and so on.
        ends: Why the conversation is over with it; None if it is not.
        vectors: Of the memories, where they could be embedded in time.
        releases: Whether the lease is given back with it; not where the run goes on behind it.
    """

    lease: Lease
    at: float
    turns: tuple[NewTurn, ...]
    relationships: tuple[RelationshipChange, ...]
    feelings: tuple[FeelingChange, ...]
    memories: tuple[NewMemory, ...]
    used_memories: tuple[str, ...]
    report: Mapping[str, Any]
    ends: str | None = None
    vectors: Vectors | None = None
    releases: bool = True


@dataclass(frozen=True)
class Stored:
    """What was written.

    Attributes:
        exchange: As it is done.
        has_work: Whether there is work left for the index.
    """

    exchange: Exchange
    has_work: bool


async def commit_exchange(database: Database, commit: Commit, params: EffectParams) -> Stored:
    """Write an exchange as done; writing it again changes nothing.

    Raises:
        Conflict: Another run has taken the conversation; nothing was written.
        StorageUnavailable: The database did not answer; nothing was written.
    """
    lease = commit.lease

    def write(connection: Connection) -> Stored:
        status = statements.STATUS.scalar(connection, world=lease.world_id, key=lease.exchange_id)
        if status == "done":
            return Stored(exchanges.get(connection, lease.world_id, lease.exchange_id), True)
        turn_count = statements.HELD_TURNS.scalar(
            connection, world=lease.world_id, key=lease.conversation_id, holder=lease.owner
        )
        if status != "running" or turn_count is None:
            raise Conflict(
                "this run lost its conversation to another one before it was stored; send it again",
                retryable=True,
            )
        write_turns(connection, commit, turn_count)
        for relation in commit.relationships:
            add_relationship_change(
                connection, lease.world_id, lease.exchange_id, relation, params.relationships
            )
        for feeling in commit.feelings:
            add_feeling_change(
                connection,
                lease.world_id,
                lease.exchange_id,
                feeling,
                feeling_ids(lease, feeling),
                commit.at,
                params,
            )
        numbers = {turn.id: turn_count + n for n, turn in enumerate(commit.turns, start=1)}
        where = (lease.conversation_id, lease.exchange_id)
        work = add_memories(
            connection,
            lease.world_id,
            commit.memories,
            commit.at,
            Source(*where, numbers),
            commit.vectors,
        )
        add_uses(connection, lease.world_id, commit.used_memories, *where, commit.at)
        finish(connection, commit, turn_count)
        if commit.ends is not None:
            end_conversation(
                connection,
                lease.world_id,
                lease.conversation_id,
                commit.ends,
                commit.at,
                params,
            )
        return Stored(exchanges.get(connection, lease.world_id, lease.exchange_id), work)

    return await database.write(write)


def feeling_ids(lease: Lease, change: FeelingChange) -> tuple[str, ...]:
    """Name the impulse and the costs of an exchange, the same each time."""
    names = ("impulse", *(f"talk{n}" for n in range(len(change.talk))))
    return tuple(
        id_within(lease.world_id, lease.exchange_id, change.persona.id, name) for name in names
    )


def write_turns(connection: Connection, commit: Commit, turn_count: int) -> None:
    """Write the turns and who witnessed them."""
    lease = commit.lease
    ADD_TURNS.run(
        connection,
        [
            {
                "world_id": lease.world_id,
                "id": turn.id,
                "conversation_id": lease.conversation_id,
                "exchange_id": lease.exchange_id,
                "position": position,
                "number": turn_count + position + 1,
                "speaker_id": turn.speaker_id,
                "speaker_version": turn.speaker_version,
                "content": turn.content,
                "created_at": commit.at if turn.at is None else turn.at,
            }
            for position, turn in enumerate(commit.turns)
        ],
    )
    ADD_WITNESSES.run(
        connection,
        [
            {"world_id": lease.world_id, "turn_id": turn.id, "party_id": party}
            for turn in commit.turns
            for party in sorted({turn.speaker_id, *turn.witnesses})
        ],
    )


def finish(connection: Connection, commit: Commit, turn_count: int) -> None:
    """Mark the exchange as done, move its conversation's head, and maybe give back the lease."""
    lease = commit.lease
    where = {"world": lease.world_id, "now": commit.at}
    report = {f"its_{name}": value for name, value in commit.report.items()}
    done = statements.done(tuple(commit.report))
    done.run(connection, {**where, "key": lease.exchange_id, **report})
    moved = {"head": lease.exchange_id, "turns": turn_count + len(commit.turns)}
    move = statements.MOVE_HEAD_AND_RELEASE if commit.releases else statements.MOVE_HEAD
    move.run(connection, {**where, "key": lease.conversation_id, **moved})
