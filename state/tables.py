"""The SQL tables: what is known, in one schema for SQLite and PostgreSQL.

Everything belongs to a world; keys are `(world_id, id)`. Times are seconds since the epoch, UTC, as
doubles, so that a fold of the log gives the same bits as the cache. Effects (relationship events,
mood impulses, energy spent, memories made and used) are append-only rows that name their exchange
and carry `active`; the tables of states are caches, a fold of the active rows, and can be dropped.
A change here needs a migration: docs/migrations.md.
"""

from typing import Any

from sqlalchemy import Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from persona_mcp.state.access_tables import Process as Process
from persona_mcp.state.access_tables import Spending as Spending
from persona_mcp.state.access_tables import Token as Token
from persona_mcp.state.dialect import text_type
from persona_mcp.state.kept_tables import Answer as Answer
from persona_mcp.state.kept_tables import Batch as Batch
from persona_mcp.state.kept_tables import Snapshot as Snapshot
from persona_mcp.state.memory_tables import DecayRun as DecayRun
from persona_mcp.state.memory_tables import Memory as Memory
from persona_mcp.state.memory_tables import MemoryRevision as MemoryRevision
from persona_mcp.state.memory_tables import MemoryStamp as MemoryStamp
from persona_mcp.state.memory_tables import MemoryUse as MemoryUse
from persona_mcp.state.memory_tables import MemoryVector as MemoryVector
from persona_mcp.state.memory_tables import MemoryWitness as MemoryWitness
from persona_mcp.state.memory_tables import OutboxEntry as OutboxEntry
from persona_mcp.state.memory_tables import PruneRun as PruneRun
from persona_mcp.state.memory_tables import Upkeep as Upkeep
from persona_mcp.state.persona_tables import PersonaCard as PersonaCard
from persona_mcp.state.persona_tables import PersonaVersion as PersonaVersion
from persona_mcp.state.persona_tables import VisualContext as VisualContext
from persona_mcp.state.table_base import ID, Base, Called, Effect, WorldKey, in_world, to_world


class World(Base):
    """Everything remembered belongs to one; `main` is there from the start."""

    __tablename__ = "worlds"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(text_type(80))
    created_at: Mapped[float]
    bundled_at: Mapped[float | None]
    """When the bundled personas were put in; a deleted one does not come back."""


class Persona(WorldKey, Base):
    """Who a persona is; what it feels lies in the tables of states."""

    __tablename__ = "personas"
    __table_args__ = (to_world(), UniqueConstraint("world_id", "name_key"))

    version: Mapped[int] = mapped_column(default=1)
    name: Mapped[str] = mapped_column(text_type(80))
    name_key: Mapped[str | None] = mapped_column(text_type(320))
    """NFC and casefolded; empty once deleted, which frees the name."""
    description: Mapped[str]
    personality_traits: Mapped[dict[str, Any]]
    topic_preferences: Mapped[dict[str, Any]]
    charisma: Mapped[int]
    intelligence: Mapped[int]
    social_rank: Mapped[str] = mapped_column(text_type(40))
    social_energy: Mapped[float]
    available_time: Mapped[float]
    current_priority: Mapped[str] = mapped_column(text_type(16))
    tags: Mapped[list[str]]
    system_prompt: Mapped[str]
    exit_lines: Mapped[dict[str, Any]]
    examples: Mapped[list[dict[str, Any]]]
    """Short exchanges that show how it talks: `{"user": ..., "reply": ...}`."""
    created_at: Mapped[float]
    updated_at: Mapped[float]
    deleted_at: Mapped[float | None]


class Session(Called, Base):
    """A handle that a client sends with its calls: whom it talks to, and where it goes on."""

    __tablename__ = "sessions"
    __table_args__ = (to_world(), Index(None, "used_at"))

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    world_id: Mapped[str] = mapped_column(ID)
    persona_id: Mapped[str | None] = mapped_column(ID)
    conversation_id: Mapped[str | None] = mapped_column(ID)
    """May be of a conversation that is still to be begun."""
    created_at: Mapped[float]
    used_at: Mapped[float]


class Conversation(WorldKey, Base):
    """A thread between parties, and the lease of who runs it now."""

    __tablename__ = "conversations"
    __table_args__ = (
        to_world(),
        Index(None, "world_id", "user_id", "persona_id", "updated_at"),
    )

    kind: Mapped[str] = mapped_column(text_type(16))
    persona_id: Mapped[str | None] = mapped_column(ID)
    user_id: Mapped[str | None] = mapped_column(ID)
    participants: Mapped[list[str]]
    topic: Mapped[str] = mapped_column(text_type(200))
    scene: Mapped[str | None] = mapped_column(text_type(80))
    """Where it takes place: visual contexts of a scene bear on it."""
    plan: Mapped[dict[str, Any] | None]
    """Of a talk between personas: budgets, seed, who begins, who listens."""
    status: Mapped[str] = mapped_column(text_type(16))
    head_exchange_id: Mapped[str | None] = mapped_column(ID)
    """The last exchange that is done and active; the next one follows it."""
    turn_count: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[float]
    updated_at: Mapped[float]
    ended_at: Mapped[float | None]
    exit_reason: Mapped[str | None] = mapped_column(text_type(200))
    """Why it ended; empty while it is active."""
    lease_owner: Mapped[str | None] = mapped_column(text_type(128))
    lease_until: Mapped[float | None]


class Exchange(WorldKey, Called, Base):
    """One graph run: a message and its reply, from its acceptance to its end."""

    __tablename__ = "exchanges"
    __table_args__ = (
        in_world("conversations", "conversation_id"),
        UniqueConstraint("world_id", "request_id"),
        Index(None, "world_id", "conversation_id", "number"),
        Index(None, "world_id", "prompt_id", unique=True),
    )

    conversation_id: Mapped[str] = mapped_column(ID)
    request_id: Mapped[str] = mapped_column(ID)
    request_hash: Mapped[str] = mapped_column(text_type(64))
    number: Mapped[int]
    """1, 2, ... in the conversation, in order of acceptance."""
    follows_id: Mapped[str | None] = mapped_column(ID)
    """The exchange that was the head when this one ran."""
    status: Mapped[str] = mapped_column(text_type(16))
    active: Mapped[bool] = mapped_column(default=True)
    persona_id: Mapped[str] = mapped_column(ID)
    persona_version: Mapped[int | None]
    user_id: Mapped[str] = mapped_column(ID)
    message: Mapped[str]
    response: Mapped[str | None]
    partial: Mapped[str | None]
    response_type: Mapped[str | None] = mapped_column(text_type(16))
    continue_score: Mapped[float | None]
    score_terms: Mapped[dict[str, Any] | None]
    trimmed: Mapped[list[str] | None]
    """Soft faults of the reply that were mended: too_long, repeats."""
    tokens_used: Mapped[int | None]
    tokens_estimated: Mapped[bool | None]
    finish_reason: Mapped[str | None] = mapped_column(text_type(8))
    """Why the reply ended: stop, or length; of one that was made before this was kept, nothing."""
    processing_s: Mapped[float | None]
    model: Mapped[str | None] = mapped_column(text_type(200))
    error: Mapped[dict[str, Any] | None]
    prompt_id: Mapped[str | None] = mapped_column(ID)
    """Of the prompt that a host's own model is to answer."""
    prompt_until: Mapped[float | None]
    """When that prompt is no longer taken."""
    prompt: Mapped[dict[str, Any] | None]
    """What the host was given with it."""
    attempts: Mapped[int] = mapped_column(default=0)
    owner: Mapped[str] = mapped_column(text_type(64))
    """The process that accepted it last."""
    correlation_id: Mapped[str | None] = mapped_column(ID)
    created_at: Mapped[float]
    finished_at: Mapped[float | None]


class Turn(WorldKey, Base):
    """One utterance by one speaker, of an exchange that is done."""

    __tablename__ = "turns"
    __table_args__ = (
        in_world("exchanges", "exchange_id"),
        UniqueConstraint("world_id", "exchange_id", "position"),
        Index(None, "world_id", "conversation_id", "number"),
    )

    conversation_id: Mapped[str] = mapped_column(ID)
    exchange_id: Mapped[str] = mapped_column(ID)
    position: Mapped[int]
    """0 for the message, 1 for the reply."""
    number: Mapped[int]
    """1, 2, ... in the conversation; a turn that was switched off keeps its number."""
    active: Mapped[bool] = mapped_column(default=True)
    speaker_id: Mapped[str] = mapped_column(ID)
    speaker_version: Mapped[int | None]
    content: Mapped[str]
    created_at: Mapped[float]


class TurnWitness(Base):
    """A party that said or heard a turn."""

    __tablename__ = "turn_witnesses"
    __table_args__ = (in_world("turns", "turn_id"),)

    world_id: Mapped[str] = mapped_column(ID, primary_key=True)
    turn_id: Mapped[str] = mapped_column(ID, primary_key=True)
    party_id: Mapped[str] = mapped_column(ID, primary_key=True)


class RelationshipEvent(Effect, Base):
    """Something that happened to the arrow from one party to another."""

    __tablename__ = "relationship_events"
    __table_args__ = (
        to_world(),
        UniqueConstraint("world_id", "from_id", "to_id", "seq"),
        Index(None, "world_id", "exchange_id"),
    )

    from_id: Mapped[str] = mapped_column(ID)
    to_id: Mapped[str] = mapped_column(ID)
    kind: Mapped[str] = mapped_column(text_type(16))
    context: Mapped[str] = mapped_column(text_type(60))
    appraisal: Mapped[dict[str, Any] | None]
    size: Mapped[float]
    weight: Mapped[float]
    disclosure_weight: Mapped[float]
    minutes: Mapped[float]
    direct: Mapped[bool]
    deltas: Mapped[dict[str, Any]]
    """What it adds to each latent value, as computed then."""
    priors: Mapped[dict[str, Any] | None]
    """Baselines, on the event that begins the arrow."""
    bond: Mapped[str | None] = mapped_column(text_type(16))
    source_id: Mapped[str | None] = mapped_column(ID)
    """Who told it; empty for what the arrow's owner witnessed."""
    appraiser: Mapped[str | None] = mapped_column(text_type(16))
    """local, model, quality or given; empty where nobody could say."""
    note: Mapped[str | None]
    """Why the appraiser that was asked did not answer."""
    turn_id: Mapped[str | None] = mapped_column(ID)


class MoodImpulse(Effect, Base):
    """A push on a persona's emotions, or a value that was set."""

    __tablename__ = "mood_impulses"
    __table_args__ = (
        to_world(),
        UniqueConstraint("world_id", "persona_id", "seq"),
        Index(None, "world_id", "exchange_id"),
    )

    persona_id: Mapped[str] = mapped_column(ID)
    impulse: Mapped[dict[str, Any]]
    absolute: Mapped[dict[str, Any] | None]


class EnergySpent(Effect, Base):
    """What a turn cost a persona."""

    __tablename__ = "energy_spent"
    __table_args__ = (
        to_world(),
        UniqueConstraint("world_id", "persona_id", "seq"),
        Index(None, "world_id", "exchange_id"),
    )

    persona_id: Mapped[str] = mapped_column(ID)
    talk_s: Mapped[float]
    """Cost of the turn in seconds of talk; a listener pays half."""
    share: Mapped[float]
    """1 for the speaker, 0.5 for a listener."""


class RelationshipState(Base):
    """Cache: an arrow as it stood after its last event."""

    __tablename__ = "relationship_states"
    __table_args__ = (to_world(),)

    world_id: Mapped[str] = mapped_column(ID, primary_key=True)
    from_id: Mapped[str] = mapped_column(ID, primary_key=True)
    to_id: Mapped[str] = mapped_column(ID, primary_key=True)
    arrow: Mapped[dict[str, Any]]
    as_of: Mapped[float]
    last_seq: Mapped[int]


class PersonaState(Base):
    """Cache: a persona's emotions and interaction state as they stood after its last effect."""

    __tablename__ = "persona_states"
    __table_args__ = (in_world("personas", "persona_id"),)

    world_id: Mapped[str] = mapped_column(ID, primary_key=True)
    persona_id: Mapped[str] = mapped_column(ID, primary_key=True)
    emotion: Mapped[dict[str, Any]]
    emotion_seq: Mapped[int]
    interaction: Mapped[dict[str, Any]]
    interaction_seq: Mapped[int]
