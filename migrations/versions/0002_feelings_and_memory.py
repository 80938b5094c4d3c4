"""What talk leaves behind: relationships, feelings, memories, their vectors, and the outbox.

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-22
"""

import sqlalchemy as sa
from alembic import op

from persona_mcp.state.dialect import INTEGER, text_type
from persona_mcp.state.memory.words import create_words, drop_words

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = text_type(64)
TABLES = (
    "relationship_events",
    "relationship_states",
    "mood_impulses",
    "energy_spent",
    "persona_states",
    "memories",
    "memory_witnesses",
    "memory_uses",
    "memory_vectors",
    "outbox",
)


def upgrade() -> None:
    create_relationships()
    create_feelings()
    create_memories()
    create_uses()
    create_vectors()
    create_words(op.get_bind())


def downgrade() -> None:
    drop_words(op.get_bind())
    for table in reversed(TABLES):
        op.drop_table(table)


def effect_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("world_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("exchange_id", ID, nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("seq", INTEGER, nullable=False),
        sa.Column("why", text_type(), nullable=False),
        sa.Column("params_version", INTEGER, nullable=False),
    ]


def to_world(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["world_id"], ["worlds.id"], name=f"fk_{table}_world_id_worlds", ondelete="CASCADE"
    )


def to_memory(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["world_id", "memory_id"],
        ["memories.world_id", "memories.id"],
        name=f"fk_{table}_world_id_memories",
        ondelete="CASCADE",
    )


def create_relationships() -> None:
    op.create_table(
        "relationship_events",
        *effect_columns(),
        sa.Column("from_id", ID, nullable=False),
        sa.Column("to_id", ID, nullable=False),
        sa.Column("kind", text_type(16), nullable=False),
        sa.Column("context", text_type(60), nullable=False),
        sa.Column("appraisal", sa.JSON(), nullable=True),
        sa.Column("size", sa.Double(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("disclosure_weight", sa.Double(), nullable=False),
        sa.Column("minutes", sa.Double(), nullable=False),
        sa.Column("direct", sa.Boolean(), nullable=False),
        sa.Column("deltas", sa.JSON(), nullable=False),
        sa.Column("priors", sa.JSON(), nullable=True),
        sa.Column("bond", text_type(16), nullable=True),
        sa.Column("source_id", ID, nullable=True),
        sa.PrimaryKeyConstraint("world_id", "id", name="pk_relationship_events"),
        sa.UniqueConstraint(
            *("world_id", "from_id", "to_id", "seq"),
            name="uq_relationship_events_world_id_from_id_to_id_seq",
        ),
        to_world("relationship_events"),
    )
    op.create_index(
        "ix_relationship_events_world_id_exchange_id",
        "relationship_events",
        ["world_id", "exchange_id"],
    )
    op.create_table(
        "relationship_states",
        sa.Column("world_id", ID, nullable=False),
        sa.Column("from_id", ID, nullable=False),
        sa.Column("to_id", ID, nullable=False),
        sa.Column("arrow", sa.JSON(), nullable=False),
        sa.Column("as_of", sa.Double(), nullable=False),
        sa.Column("last_seq", INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("world_id", "from_id", "to_id", name="pk_relationship_states"),
        to_world("relationship_states"),
    )


def create_feelings() -> None:
    create_effects_of_a_persona(
        "mood_impulses",
        sa.Column("impulse", sa.JSON(), nullable=False),
        sa.Column("absolute", sa.JSON(), nullable=True),
    )
    create_effects_of_a_persona(
        "energy_spent",
        sa.Column("talk_s", sa.Double(), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
    )
    op.create_table(
        "persona_states",
        sa.Column("world_id", ID, nullable=False),
        sa.Column("persona_id", ID, nullable=False),
        sa.Column("emotion", sa.JSON(), nullable=False),
        sa.Column("emotion_seq", INTEGER, nullable=False),
        sa.Column("interaction", sa.JSON(), nullable=False),
        sa.Column("interaction_seq", INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("world_id", "persona_id", name="pk_persona_states"),
        sa.ForeignKeyConstraint(
            ["world_id", "persona_id"],
            ["personas.world_id", "personas.id"],
            name="fk_persona_states_world_id_personas",
            ondelete="CASCADE",
        ),
    )


def create_effects_of_a_persona(table: str, *columns: sa.Column[object]) -> None:
    op.create_table(
        table,
        *effect_columns(),
        sa.Column("persona_id", ID, nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("world_id", "id", name=f"pk_{table}"),
        sa.UniqueConstraint(
            "world_id", "persona_id", "seq", name=f"uq_{table}_world_id_persona_id_seq"
        ),
        to_world(table),
    )
    op.create_index(f"ix_{table}_world_id_exchange_id", table, ["world_id", "exchange_id"])


def create_memories() -> None:
    op.create_table(
        "memories",
        sa.Column("seq", INTEGER, autoincrement=True, nullable=False),
        sa.Column("world_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("version", INTEGER, nullable=False),
        sa.Column("persona_id", ID, nullable=False),
        sa.Column("content", text_type(), nullable=False),
        sa.Column("indexed_text", text_type(), nullable=False),
        sa.Column("memory_type", text_type(32), nullable=False),
        sa.Column("speaker_id", ID, nullable=True),
        sa.Column("importance", sa.Double(), nullable=False),
        sa.Column("importance_terms", sa.JSON(), nullable=False),
        sa.Column("emotional_valence", sa.Double(), nullable=False),
        sa.Column("visibility", text_type(8), nullable=False),
        sa.Column("related_personas", sa.JSON(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("conversation_id", ID, nullable=True),
        sa.Column("exchange_id", ID, nullable=True),
        sa.Column("turn_id", ID, nullable=True),
        sa.Column("source_id", ID, nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("archived_at", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_memories"),
        sa.UniqueConstraint("world_id", "id", name="uq_memories_world_id_id"),
        to_world("memories"),
        sqlite_autoincrement=True,
    )
    for columns in (["persona_id", "created_at"], ["visibility"], ["exchange_id"]):
        name = "_".join(["ix_memories_world_id", *columns])
        op.create_index(name, "memories", ["world_id", *columns])
    op.create_table(
        "memory_witnesses",
        sa.Column("world_id", ID, nullable=False),
        sa.Column("memory_id", ID, nullable=False),
        sa.Column("party_id", ID, nullable=False),
        sa.PrimaryKeyConstraint("world_id", "memory_id", "party_id", name="pk_memory_witnesses"),
        to_memory("memory_witnesses"),
    )
    op.create_index(
        "ix_memory_witnesses_world_id_party_id", "memory_witnesses", ["world_id", "party_id"]
    )


def create_uses() -> None:
    op.create_table(
        "memory_uses",
        sa.Column("world_id", ID, nullable=False),
        sa.Column("memory_id", ID, nullable=False),
        sa.Column("exchange_id", ID, nullable=False),
        sa.Column("conversation_id", ID, nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("world_id", "memory_id", "exchange_id", name="pk_memory_uses"),
        to_memory("memory_uses"),
    )
    op.create_index(
        "ix_memory_uses_world_id_exchange_id", "memory_uses", ["world_id", "exchange_id"]
    )


def create_vectors() -> None:
    op.create_table(
        "memory_vectors",
        sa.Column("seq", INTEGER, autoincrement=True, nullable=False),
        sa.Column("world_id", ID, nullable=False),
        sa.Column("memory_id", ID, nullable=False),
        sa.Column("persona_id", ID, nullable=False),
        sa.Column("model_id", text_type(200), nullable=False),
        sa.Column("version", INTEGER, nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_memory_vectors"),
        sa.UniqueConstraint(
            *("world_id", "memory_id", "model_id"),
            name="uq_memory_vectors_world_id_memory_id_model_id",
        ),
        to_memory("memory_vectors"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_memory_vectors_world_id_model_id_persona_id_seq",
        "memory_vectors",
        ["world_id", "model_id", "persona_id", "seq"],
    )
    op.create_table(
        "outbox",
        sa.Column("seq", INTEGER, autoincrement=True, nullable=False),
        sa.Column("world_id", ID, nullable=False),
        sa.Column("memory_id", ID, nullable=False),
        sa.Column("operation", text_type(8), nullable=False),
        sa.Column("version", INTEGER, nullable=False),
        sa.Column("attempts", INTEGER, nullable=False),
        sa.Column("last_error", text_type(), nullable=True),
        sa.Column("claimed_by", text_type(128), nullable=True),
        sa.Column("claimed_until", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_outbox"),
        to_world("outbox"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_claimed_until_seq", "outbox", ["claimed_until", "seq"])
