"""Worlds, personas and their talk: conversations, exchanges, turns and who witnessed them.

Revision ID: 0001
Revises: none
Create Date: 2026-11-22
"""

import sqlalchemy as sa
from alembic import op

from persona_mcp.state.dialect import INTEGER, text_type

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = text_type(64)
TABLES = ("worlds", "personas", "conversations", "exchanges", "turns", "turn_witnesses")


def upgrade() -> None:
    create_worlds()
    create_personas()
    create_conversations()
    create_exchanges()
    create_turns()


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)


def create_worlds() -> None:
    op.create_table(
        "worlds",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", text_type(80), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("bundled_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_worlds"),
    )


def create_personas() -> None:
    op.create_table(
        "personas",
        sa.Column("world_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("version", INTEGER, nullable=False),
        sa.Column("name", text_type(80), nullable=False),
        sa.Column("name_key", text_type(320), nullable=True),
        sa.Column("description", text_type(), nullable=False),
        sa.Column("personality_traits", sa.JSON(), nullable=False),
        sa.Column("topic_preferences", sa.JSON(), nullable=False),
        sa.Column("charisma", INTEGER, nullable=False),
        sa.Column("intelligence", INTEGER, nullable=False),
        sa.Column("social_rank", text_type(40), nullable=False),
        sa.Column("social_energy", sa.Double(), nullable=False),
        sa.Column("available_time", sa.Double(), nullable=False),
        sa.Column("current_priority", text_type(16), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("system_prompt", text_type(), nullable=False),
        sa.Column("exit_lines", sa.JSON(), nullable=False),
        sa.Column("examples", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("world_id", "id", name="pk_personas"),
        sa.UniqueConstraint("world_id", "name_key", name="uq_personas_world_id_name_key"),
        sa.ForeignKeyConstraint(
            ["world_id"], ["worlds.id"], name="fk_personas_world_id_worlds", ondelete="CASCADE"
        ),
    )


def create_conversations() -> None:
    op.create_table(
        "conversations",
        sa.Column("world_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("kind", text_type(16), nullable=False),
        sa.Column("persona_id", ID, nullable=True),
        sa.Column("user_id", ID, nullable=True),
        sa.Column("participants", sa.JSON(), nullable=False),
        sa.Column("topic", text_type(200), nullable=False),
        sa.Column("status", text_type(16), nullable=False),
        sa.Column("head_exchange_id", ID, nullable=True),
        sa.Column("turn_count", INTEGER, nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("lease_owner", text_type(128), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("world_id", "id", name="pk_conversations"),
        sa.ForeignKeyConstraint(
            ["world_id"], ["worlds.id"], name="fk_conversations_world_id_worlds", ondelete="CASCADE"
        ),
    )
    op.create_index(
        "ix_conversations_world_id_user_id_persona_id_updated_at",
        "conversations",
        ["world_id", "user_id", "persona_id", "updated_at"],
    )


def create_exchanges() -> None:
    op.create_table(
        "exchanges",
        sa.Column("world_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("conversation_id", ID, nullable=False),
        sa.Column("request_id", ID, nullable=False),
        sa.Column("request_hash", ID, nullable=False),
        sa.Column("number", INTEGER, nullable=False),
        sa.Column("follows_id", ID, nullable=True),
        sa.Column("status", text_type(16), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("persona_id", ID, nullable=False),
        sa.Column("persona_version", INTEGER, nullable=True),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("message", text_type(), nullable=False),
        sa.Column("response", text_type(), nullable=True),
        sa.Column("partial", text_type(), nullable=True),
        sa.Column("response_type", text_type(16), nullable=True),
        sa.Column("continue_score", sa.Double(), nullable=True),
        sa.Column("score_terms", sa.JSON(), nullable=True),
        sa.Column("trimmed", sa.JSON(), nullable=True),
        sa.Column("tokens_used", INTEGER, nullable=True),
        sa.Column("tokens_estimated", sa.Boolean(), nullable=True),
        sa.Column("processing_s", sa.Double(), nullable=True),
        sa.Column("model", text_type(200), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("attempts", INTEGER, nullable=False),
        sa.Column("owner", text_type(64), nullable=False),
        sa.Column("correlation_id", ID, nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("world_id", "id", name="pk_exchanges"),
        sa.UniqueConstraint("world_id", "request_id", name="uq_exchanges_world_id_request_id"),
        sa.ForeignKeyConstraint(
            ["world_id", "conversation_id"],
            ["conversations.world_id", "conversations.id"],
            name="fk_exchanges_world_id_conversations",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "ix_exchanges_world_id_conversation_id_number",
        "exchanges",
        ["world_id", "conversation_id", "number"],
    )


def create_turns() -> None:
    op.create_table(
        "turns",
        sa.Column("world_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("conversation_id", ID, nullable=False),
        sa.Column("exchange_id", ID, nullable=False),
        sa.Column("position", INTEGER, nullable=False),
        sa.Column("number", INTEGER, nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("speaker_id", ID, nullable=False),
        sa.Column("speaker_version", INTEGER, nullable=True),
        sa.Column("content", text_type(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("world_id", "id", name="pk_turns"),
        sa.UniqueConstraint(
            "world_id", "exchange_id", "position", name="uq_turns_world_id_exchange_id_position"
        ),
        sa.ForeignKeyConstraint(
            ["world_id", "exchange_id"],
            ["exchanges.world_id", "exchanges.id"],
            name="fk_turns_world_id_exchanges",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "ix_turns_world_id_conversation_id_number",
        "turns",
        ["world_id", "conversation_id", "number"],
    )
    op.create_table(
        "turn_witnesses",
        sa.Column("world_id", ID, nullable=False),
        sa.Column("turn_id", ID, nullable=False),
        sa.Column("party_id", ID, nullable=False),
        sa.PrimaryKeyConstraint("world_id", "turn_id", "party_id", name="pk_turn_witnesses"),
        sa.ForeignKeyConstraint(
            ["world_id", "turn_id"],
            ["turns.world_id", "turns.id"],
            name="fk_turn_witnesses_world_id_turns",
            ondelete="CASCADE",
        ),
    )
