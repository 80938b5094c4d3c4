"""The SQL tables of what personas remember; `state/tables.py` has the rest, and these too."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from persona_mcp.state.dialect import INTEGER, text_type
from persona_mcp.state.table_base import ID, Base, to_world


class Memory(Base):
    """Something a persona knows: what it said, heard, was told, or thought."""

    __tablename__ = "memories"
    __table_args__ = (
        to_world(),
        UniqueConstraint("world_id", "id"),
        Index(None, "world_id", "persona_id", "created_at"),
        Index(None, "world_id", "visibility"),
        Index(None, "world_id", "exchange_id"),
        Index(None, "world_id", "persona_id", "conversation_id", "turn_number"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(INTEGER, primary_key=True, autoincrement=True)
    """Order of writing; the full-text index refers to it."""
    world_id: Mapped[str] = mapped_column(ID)
    id: Mapped[str] = mapped_column(ID)
    version: Mapped[int] = mapped_column(default=1)
    persona_id: Mapped[str] = mapped_column(ID)
    """Its owner."""
    content: Mapped[str]
    """The bare text."""
    indexed_text: Mapped[str]
    """With day and speaker in front: what is embedded and searched."""
    memory_type: Mapped[str] = mapped_column(text_type(32))
    speaker_id: Mapped[str | None] = mapped_column(ID)
    importance: Mapped[float]
    importance_terms: Mapped[dict[str, Any]]
    emotional_valence: Mapped[float] = mapped_column(default=0.0)
    visibility: Mapped[str] = mapped_column(text_type(8), default="private")
    related_personas: Mapped[list[str]]
    details: Mapped[dict[str, Any]]
    """What the caller wants to keep beside it (`metadata` outside)."""
    pinned: Mapped[bool] = mapped_column(default=False)
    conversation_id: Mapped[str | None] = mapped_column(ID)
    exchange_id: Mapped[str | None] = mapped_column(ID)
    turn_id: Mapped[str | None] = mapped_column(ID)
    turn_number: Mapped[int | None]
    """Of that turn in the conversation: its neighbours are found by it."""
    source_id: Mapped[str | None] = mapped_column(ID)
    """Who told it, for hearsay."""
    origin: Mapped[dict[str, Any] | None]
    """What else is known of where it comes from: the chain of hearsay; the memories that were
    merged; the turns that are summed up. Ours alone: a caller writes `details`."""
    active: Mapped[bool] = mapped_column(default=True)
    archived_at: Mapped[float | None]
    prune_id: Mapped[str | None] = mapped_column(ID)
    """The run that archived it; empty where something else did."""
    created_at: Mapped[float]
    updated_at: Mapped[float]


class MemoryWitness(Base):
    """A party that may know a memory because it was there."""

    __tablename__ = "memory_witnesses"
    __table_args__ = (
        ForeignKeyConstraint(
            ["world_id", "memory_id"], ["memories.world_id", "memories.id"], ondelete="CASCADE"
        ),
        Index(None, "world_id", "party_id"),
    )

    world_id: Mapped[str] = mapped_column(ID, primary_key=True)
    memory_id: Mapped[str] = mapped_column(ID, primary_key=True)
    party_id: Mapped[str] = mapped_column(ID, primary_key=True)


class MemoryUse(Base):
    """Effect: a memory was in the prompt of an exchange that is done."""

    __tablename__ = "memory_uses"
    __table_args__ = (
        ForeignKeyConstraint(
            ["world_id", "memory_id"], ["memories.world_id", "memories.id"], ondelete="CASCADE"
        ),
        Index(None, "world_id", "exchange_id"),
    )

    world_id: Mapped[str] = mapped_column(ID, primary_key=True)
    memory_id: Mapped[str] = mapped_column(ID, primary_key=True)
    exchange_id: Mapped[str] = mapped_column(ID, primary_key=True)
    conversation_id: Mapped[str] = mapped_column(ID)
    active: Mapped[bool] = mapped_column(default=True)
    at: Mapped[float]


class MemoryRevision(Base):
    """What a change of a memory replaced: only the fields that it changed, as they were."""

    __tablename__ = "memory_revisions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["world_id", "memory_id"], ["memories.world_id", "memories.id"], ondelete="CASCADE"
        ),
    )

    world_id: Mapped[str] = mapped_column(ID, primary_key=True)
    memory_id: Mapped[str] = mapped_column(ID, primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Of the memory before the change."""
    before: Mapped[dict[str, Any]]
    replaced_at: Mapped[float]


class MemoryVector(Base):
    """The vector of a memory by one embedder, as little-endian float16."""

    __tablename__ = "memory_vectors"
    __table_args__ = (
        ForeignKeyConstraint(
            ["world_id", "memory_id"], ["memories.world_id", "memories.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("world_id", "memory_id", "model_id"),
        Index(None, "world_id", "model_id", "persona_id", "seq"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(INTEGER, primary_key=True, autoincrement=True)
    """Grows with every write, so that a reader can fetch what is new."""
    world_id: Mapped[str] = mapped_column(ID)
    memory_id: Mapped[str] = mapped_column(ID)
    persona_id: Mapped[str] = mapped_column(ID)
    model_id: Mapped[str] = mapped_column(text_type(200))
    version: Mapped[int]
    """Of the memory that was embedded."""
    vector: Mapped[bytes] = mapped_column(LargeBinary)


class MemoryStamp(Base):
    """Tells whether memories were changed or deleted: triggers write another one after each.

    No key refers to the world: they write while a world is deleted, too.
    """

    __tablename__ = "memory_stamps"

    world_id: Mapped[str] = mapped_column(ID, primary_key=True)
    owner: Mapped[str] = mapped_column(ID, primary_key=True)
    """Whose memories; empty for all in the world that are open to others than their owner."""
    stamp: Mapped[int] = mapped_column(BigInteger)
    """A random number."""


class OutboxEntry(Base):
    """Work for the index, written in one transaction with the memory it is about."""

    __tablename__ = "outbox"
    __table_args__ = (
        to_world(),
        Index(None, "claimed_until", "seq"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(INTEGER, primary_key=True, autoincrement=True)
    world_id: Mapped[str] = mapped_column(ID)
    memory_id: Mapped[str] = mapped_column(ID)
    operation: Mapped[str] = mapped_column(text_type(8))
    """upsert: its vector is to be made; delete: an index that has its vector is to forget it."""
    version: Mapped[int]
    attempts: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None]
    claimed_by: Mapped[str | None] = mapped_column(text_type(128))
    claimed_until: Mapped[float] = mapped_column(default=0.0)
    created_at: Mapped[float]


class PruneRun(Base):
    """A run that archived memories of one persona; its rows are the audit."""

    __tablename__ = "prune_runs"
    __table_args__ = (to_world(), Index(None, "world_id", "persona_id", "at"))

    world_id: Mapped[str] = mapped_column(ID, primary_key=True)
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    persona_id: Mapped[str] = mapped_column(ID)
    origin: Mapped[str] = mapped_column(text_type(16))
    """asked, all, upkeep or share: what wanted it"""
    strategy: Mapped[str] = mapped_column(text_type(32))
    params: Mapped[dict[str, Any]]
    """The settings of pruning and of fading that it went by."""
    memory_ids: Mapped[list[str]]
    """What it archived, lowest score first."""
    scores: Mapped[list[float]] = mapped_column(JSON)
    """Of these, in the same order."""
    before: Mapped[int]
    archived: Mapped[int]
    faded: Mapped[int]
    """How many of them had faded."""
    importance_archived: Mapped[float]
    """A mean."""
    importance_kept: Mapped[float]
    """A mean."""
    at: Mapped[float]
    took_s: Mapped[float]
    undone_at: Mapped[float | None]
    restored: Mapped[int | None]
    """How many of them undoing it brought back."""


class DecayRun(Base):
    """What a forced fading changed of one persona's memories; one call has a row for each."""

    __tablename__ = "decay_runs"
    __table_args__ = (to_world(),)

    world_id: Mapped[str] = mapped_column(ID, primary_key=True)
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    persona_id: Mapped[str] = mapped_column(ID, primary_key=True)
    factor: Mapped[float]
    processed: Mapped[int]
    decayed: Mapped[int]
    memory_ids: Mapped[list[str]]
    """What it changed."""
    importance_before: Mapped[list[float]] = mapped_column(JSON)
    """Of these, in the same order."""
    importance_after: Mapped[list[float]] = mapped_column(JSON)
    at: Mapped[float]
    undone_at: Mapped[float | None]
    restored: Mapped[int | None]


class Upkeep(Base):
    """The switch of a world's background upkeep, who does it now, and what it has done."""

    __tablename__ = "upkeep"
    __table_args__ = (to_world(),)

    world_id: Mapped[str] = mapped_column(ID, primary_key=True)
    switched_on: Mapped[bool]
    interval_hours: Mapped[int]
    auto_pruning: Mapped[bool]
    """It also prunes what is too much, beside archiving what has faded."""
    last_run: Mapped[float | None]
    """When the last whole cycle began; the next one is due an interval later."""
    lease_owner: Mapped[str | None] = mapped_column(text_type(128))
    lease_until: Mapped[float] = mapped_column(default=0.0)
    cycles: Mapped[int] = mapped_column(default=0)
    errors: Mapped[int] = mapped_column(default=0)
    """Personas whose upkeep failed, over all cycles."""
    recent: Mapped[dict[str, Any]]
    """What the last whole cycle did."""
