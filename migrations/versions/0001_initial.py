"""The first schema: worlds, personas, conversations, exchanges, effects, memories, outbox.

Revision ID: 0001
Revises: none
Create Date: 2026-11-22
"""

import sqlalchemy as sa
from alembic import op

from persona_mcp.state.full_text import create_words, drop_words

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "worlds",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("bundled_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_worlds"),
    )
    op.create_table(
        "conversations",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("persona_id", sa.String(length=64), nullable=True),
        sa.Column("user_id", sa.String(length=64), nullable=True),
        sa.Column("participants", sa.JSON(), nullable=False),
        sa.Column("topic", sa.String(length=200), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("head_exchange_id", sa.String(length=64), nullable=True),
        sa.Column("turn_count", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("lease_owner", sa.String(length=128), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("world_id", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id"], ["worlds.id"], name="fk_conversations_world_id_worlds", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("world_id", "id", name="pk_conversations"),
    )
    op.create_index(
        "ix_conversations_world_id_user_id_persona_id_updated_at",
        "conversations",
        ["world_id", "user_id", "persona_id", "updated_at"],
        unique=False,
    )

    op.create_table(
        "energy_spent",
        sa.Column("persona_id", sa.String(length=64), nullable=False),
        sa.Column("talk_s", sa.Double(), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("exchange_id", sa.String(length=64), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("params_version", sa.Integer(), nullable=False),
        sa.Column("world_id", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id"], ["worlds.id"], name="fk_energy_spent_world_id_worlds", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("world_id", "id", name="pk_energy_spent"),
        sa.UniqueConstraint(
            "world_id", "persona_id", "seq", name="uq_energy_spent_world_id_persona_id_seq"
        ),
    )
    op.create_index(
        "ix_energy_spent_world_id_exchange_id",
        "energy_spent",
        ["world_id", "exchange_id"],
        unique=False,
    )

    op.create_table(
        "memories",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("world_id", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("persona_id", sa.String(length=64), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("indexed_text", sa.Text(), nullable=False),
        sa.Column("memory_type", sa.String(length=32), nullable=False),
        sa.Column("speaker_id", sa.String(length=64), nullable=True),
        sa.Column("importance", sa.Double(), nullable=False),
        sa.Column("importance_terms", sa.JSON(), nullable=False),
        sa.Column("emotional_valence", sa.Double(), nullable=False),
        sa.Column("visibility", sa.String(length=8), nullable=False),
        sa.Column("related_personas", sa.JSON(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("conversation_id", sa.String(length=64), nullable=True),
        sa.Column("exchange_id", sa.String(length=64), nullable=True),
        sa.Column("turn_id", sa.String(length=64), nullable=True),
        sa.Column("source_id", sa.String(length=64), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("archived_at", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id"], ["worlds.id"], name="fk_memories_world_id_worlds", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", name="pk_memories"),
        sa.UniqueConstraint("world_id", "id", name="uq_memories_world_id_id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_memories_world_id_exchange_id", "memories", ["world_id", "exchange_id"], unique=False
    )
    op.create_index(
        "ix_memories_world_id_persona_id_created_at",
        "memories",
        ["world_id", "persona_id", "created_at"],
        unique=False,
    )
    op.create_index(
        "ix_memories_world_id_visibility", "memories", ["world_id", "visibility"], unique=False
    )

    op.create_table(
        "mood_impulses",
        sa.Column("persona_id", sa.String(length=64), nullable=False),
        sa.Column("impulse", sa.JSON(), nullable=False),
        sa.Column("absolute", sa.JSON(), nullable=True),
        sa.Column("exchange_id", sa.String(length=64), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("params_version", sa.Integer(), nullable=False),
        sa.Column("world_id", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id"], ["worlds.id"], name="fk_mood_impulses_world_id_worlds", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("world_id", "id", name="pk_mood_impulses"),
        sa.UniqueConstraint(
            "world_id", "persona_id", "seq", name="uq_mood_impulses_world_id_persona_id_seq"
        ),
    )
    op.create_index(
        "ix_mood_impulses_world_id_exchange_id",
        "mood_impulses",
        ["world_id", "exchange_id"],
        unique=False,
    )

    op.create_table(
        "outbox",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("world_id", sa.String(length=64), nullable=False),
        sa.Column("memory_id", sa.String(length=64), nullable=False),
        sa.Column("operation", sa.String(length=8), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("claimed_by", sa.String(length=128), nullable=True),
        sa.Column("claimed_until", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id"], ["worlds.id"], name="fk_outbox_world_id_worlds", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", name="pk_outbox"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_claimed_until_seq", "outbox", ["claimed_until", "seq"], unique=False)

    op.create_table(
        "personas",
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("name_key", sa.String(length=320), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("personality_traits", sa.JSON(), nullable=False),
        sa.Column("topic_preferences", sa.JSON(), nullable=False),
        sa.Column("charisma", sa.Integer(), nullable=False),
        sa.Column("intelligence", sa.Integer(), nullable=False),
        sa.Column("social_rank", sa.String(length=40), nullable=False),
        sa.Column("social_energy", sa.Double(), nullable=False),
        sa.Column("available_time", sa.Double(), nullable=False),
        sa.Column("current_priority", sa.String(length=16), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("system_prompt", sa.Text(), nullable=False),
        sa.Column("exit_lines", sa.JSON(), nullable=False),
        sa.Column("examples", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.Column("world_id", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id"], ["worlds.id"], name="fk_personas_world_id_worlds", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("world_id", "id", name="pk_personas"),
        sa.UniqueConstraint("world_id", "name_key", name="uq_personas_world_id_name_key"),
    )
    op.create_table(
        "relationship_events",
        sa.Column("from_id", sa.String(length=64), nullable=False),
        sa.Column("to_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("context", sa.String(length=60), nullable=False),
        sa.Column("appraisal", sa.JSON(), nullable=True),
        sa.Column("size", sa.Double(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("disclosure_weight", sa.Double(), nullable=False),
        sa.Column("minutes", sa.Double(), nullable=False),
        sa.Column("direct", sa.Boolean(), nullable=False),
        sa.Column("deltas", sa.JSON(), nullable=False),
        sa.Column("priors", sa.JSON(), nullable=True),
        sa.Column("bond", sa.String(length=16), nullable=True),
        sa.Column("source_id", sa.String(length=64), nullable=True),
        sa.Column("exchange_id", sa.String(length=64), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("params_version", sa.Integer(), nullable=False),
        sa.Column("world_id", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id"],
            ["worlds.id"],
            name="fk_relationship_events_world_id_worlds",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("world_id", "id", name="pk_relationship_events"),
        sa.UniqueConstraint(
            "world_id",
            "from_id",
            "to_id",
            "seq",
            name="uq_relationship_events_world_id_from_id_to_id_seq",
        ),
    )
    op.create_index(
        "ix_relationship_events_world_id_exchange_id",
        "relationship_events",
        ["world_id", "exchange_id"],
        unique=False,
    )

    op.create_table(
        "relationship_states",
        sa.Column("world_id", sa.String(length=64), nullable=False),
        sa.Column("from_id", sa.String(length=64), nullable=False),
        sa.Column("to_id", sa.String(length=64), nullable=False),
        sa.Column("arrow", sa.JSON(), nullable=False),
        sa.Column("as_of", sa.Double(), nullable=False),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id"],
            ["worlds.id"],
            name="fk_relationship_states_world_id_worlds",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("world_id", "from_id", "to_id", name="pk_relationship_states"),
    )
    op.create_table(
        "exchanges",
        sa.Column("conversation_id", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("follows_id", sa.String(length=64), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("persona_id", sa.String(length=64), nullable=False),
        sa.Column("persona_version", sa.Integer(), nullable=True),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("response", sa.Text(), nullable=True),
        sa.Column("partial", sa.Text(), nullable=True),
        sa.Column("response_type", sa.String(length=16), nullable=True),
        sa.Column("continue_score", sa.Double(), nullable=True),
        sa.Column("score_terms", sa.JSON(), nullable=True),
        sa.Column("trimmed", sa.JSON(), nullable=True),
        sa.Column("tokens_used", sa.Integer(), nullable=True),
        sa.Column("tokens_estimated", sa.Boolean(), nullable=True),
        sa.Column("processing_s", sa.Double(), nullable=True),
        sa.Column("model", sa.String(length=200), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("correlation_id", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("world_id", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id", "conversation_id"],
            ["conversations.world_id", "conversations.id"],
            name="fk_exchanges_world_id_conversations",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("world_id", "id", name="pk_exchanges"),
        sa.UniqueConstraint("world_id", "request_id", name="uq_exchanges_world_id_request_id"),
    )
    op.create_index(
        "ix_exchanges_world_id_conversation_id_number",
        "exchanges",
        ["world_id", "conversation_id", "number"],
        unique=False,
    )

    op.create_table(
        "memory_uses",
        sa.Column("world_id", sa.String(length=64), nullable=False),
        sa.Column("memory_id", sa.String(length=64), nullable=False),
        sa.Column("exchange_id", sa.String(length=64), nullable=False),
        sa.Column("conversation_id", sa.String(length=64), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id", "memory_id"],
            ["memories.world_id", "memories.id"],
            name="fk_memory_uses_world_id_memories",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("world_id", "memory_id", "exchange_id", name="pk_memory_uses"),
    )
    op.create_index(
        "ix_memory_uses_world_id_exchange_id",
        "memory_uses",
        ["world_id", "exchange_id"],
        unique=False,
    )

    op.create_table(
        "memory_vectors",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("world_id", sa.String(length=64), nullable=False),
        sa.Column("memory_id", sa.String(length=64), nullable=False),
        sa.Column("persona_id", sa.String(length=64), nullable=False),
        sa.Column("model_id", sa.String(length=200), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id", "memory_id"],
            ["memories.world_id", "memories.id"],
            name="fk_memory_vectors_world_id_memories",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("seq", name="pk_memory_vectors"),
        sa.UniqueConstraint(
            "world_id",
            "memory_id",
            "model_id",
            name="uq_memory_vectors_world_id_memory_id_model_id",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_memory_vectors_world_id_model_id_persona_id_seq",
        "memory_vectors",
        ["world_id", "model_id", "persona_id", "seq"],
        unique=False,
    )

    op.create_table(
        "memory_witnesses",
        sa.Column("world_id", sa.String(length=64), nullable=False),
        sa.Column("memory_id", sa.String(length=64), nullable=False),
        sa.Column("party_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id", "memory_id"],
            ["memories.world_id", "memories.id"],
            name="fk_memory_witnesses_world_id_memories",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("world_id", "memory_id", "party_id", name="pk_memory_witnesses"),
    )
    op.create_index(
        "ix_memory_witnesses_world_id_party_id",
        "memory_witnesses",
        ["world_id", "party_id"],
        unique=False,
    )

    op.create_table(
        "persona_states",
        sa.Column("world_id", sa.String(length=64), nullable=False),
        sa.Column("persona_id", sa.String(length=64), nullable=False),
        sa.Column("emotion", sa.JSON(), nullable=False),
        sa.Column("emotion_seq", sa.Integer(), nullable=False),
        sa.Column("interaction", sa.JSON(), nullable=False),
        sa.Column("interaction_seq", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id", "persona_id"],
            ["personas.world_id", "personas.id"],
            name="fk_persona_states_world_id_personas",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("world_id", "persona_id", name="pk_persona_states"),
    )
    op.create_table(
        "turns",
        sa.Column("conversation_id", sa.String(length=64), nullable=False),
        sa.Column("exchange_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("speaker_id", sa.String(length=64), nullable=False),
        sa.Column("speaker_version", sa.Integer(), nullable=True),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("world_id", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id", "exchange_id"],
            ["exchanges.world_id", "exchanges.id"],
            name="fk_turns_world_id_exchanges",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("world_id", "id", name="pk_turns"),
        sa.UniqueConstraint(
            "world_id", "exchange_id", "position", name="uq_turns_world_id_exchange_id_position"
        ),
    )
    op.create_index(
        "ix_turns_world_id_conversation_id_number",
        "turns",
        ["world_id", "conversation_id", "number"],
        unique=False,
    )

    op.create_table(
        "turn_witnesses",
        sa.Column("world_id", sa.String(length=64), nullable=False),
        sa.Column("turn_id", sa.String(length=64), nullable=False),
        sa.Column("party_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id", "turn_id"],
            ["turns.world_id", "turns.id"],
            name="fk_turn_witnesses_world_id_turns",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("world_id", "turn_id", "party_id", name="pk_turn_witnesses"),
    )
    create_words(op.get_bind())


def downgrade() -> None:
    drop_words(op.get_bind())
    op.drop_table("turn_witnesses")
    op.drop_index("ix_turns_world_id_conversation_id_number", "turns")

    op.drop_table("turns")
    op.drop_table("persona_states")
    op.drop_index("ix_memory_witnesses_world_id_party_id", "memory_witnesses")

    op.drop_table("memory_witnesses")
    op.drop_index("ix_memory_vectors_world_id_model_id_persona_id_seq", "memory_vectors")

    op.drop_table("memory_vectors")
    op.drop_index("ix_memory_uses_world_id_exchange_id", "memory_uses")

    op.drop_table("memory_uses")
    op.drop_index("ix_exchanges_world_id_conversation_id_number", "exchanges")

    op.drop_table("exchanges")
    op.drop_table("relationship_states")
    op.drop_index("ix_relationship_events_world_id_exchange_id", "relationship_events")

    op.drop_table("relationship_events")
    op.drop_table("personas")
    op.drop_index("ix_outbox_claimed_until_seq", "outbox")

    op.drop_table("outbox")
    op.drop_index("ix_mood_impulses_world_id_exchange_id", "mood_impulses")

    op.drop_table("mood_impulses")
    op.drop_index("ix_memories_world_id_visibility", "memories")
    op.drop_index("ix_memories_world_id_persona_id_created_at", "memories")
    op.drop_index("ix_memories_world_id_exchange_id", "memories")

    op.drop_table("memories")
    op.drop_index("ix_energy_spent_world_id_exchange_id", "energy_spent")

    op.drop_table("energy_spent")
    op.drop_index("ix_conversations_world_id_user_id_persona_id_updated_at", "conversations")

    op.drop_table("conversations")
    op.drop_table("worlds")
