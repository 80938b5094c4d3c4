"""The SQL tables of what personas remember; `state/tables.py` has the rest, and these too."""

from typing import Any

from sqlalchemy import (
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

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

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
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
    memory_type: Mapped[str] = mapped_column(String(32))
    speaker_id: Mapped[str | None] = mapped_column(ID)
    importance: Mapped[float]
    importance_terms: Mapped[dict[str, Any]]
    emotional_valence: Mapped[float] = mapped_column(default=0.0)
    visibility: Mapped[str] = mapped_column(String(8), default="private")
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

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    """Grows with every write, so that a reader can fetch what is new."""
    world_id: Mapped[str] = mapped_column(ID)
    memory_id: Mapped[str] = mapped_column(ID)
    persona_id: Mapped[str] = mapped_column(ID)
    model_id: Mapped[str] = mapped_column(String(200))
    version: Mapped[int]
    """Of the memory that was embedded."""
    vector: Mapped[bytes] = mapped_column(LargeBinary)


class OutboxEntry(Base):
    """Work for the index, written in one transaction with the memory it is about."""

    __tablename__ = "outbox"
    __table_args__ = (
        to_world(),
        Index(None, "claimed_until", "seq"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    world_id: Mapped[str] = mapped_column(ID)
    memory_id: Mapped[str] = mapped_column(ID)
    operation: Mapped[str] = mapped_column(String(8))
    """upsert: its vector is to be made; delete: an index that has its vector is to forget it."""
    version: Mapped[int]
    attempts: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None]
    claimed_by: Mapped[str | None] = mapped_column(String(128))
    claimed_until: Mapped[float] = mapped_column(default=0.0)
    created_at: Mapped[float]
