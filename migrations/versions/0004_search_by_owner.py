"""Search by owner: the full-text index knows whose a memory is, and a memory its turn's number.

Revision ID: 0004
Revises: 0003
Create Date: 2026-11-25
"""

import sqlalchemy as sa
from alembic import op

from persona_mcp.state.dialect import INTEGER
from persona_mcp.state.memory.words import create_words, drop_words

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INDEX = "ix_memories_world_id_persona_id_conversation_id_turn_number"
PLACE = ["world_id", "persona_id", "conversation_id", "turn_number"]


def upgrade() -> None:
    op.add_column("memories", sa.Column("turn_number", INTEGER, nullable=True))
    op.execute(
        "UPDATE memories SET turn_number = (SELECT number FROM turns"
        " WHERE turns.world_id = memories.world_id AND turns.id = memories.turn_id)"
    )
    op.create_index(INDEX, "memories", PLACE)
    drop_words(op.get_bind())
    create_words(op.get_bind())


def downgrade() -> None:
    op.drop_index(INDEX, "memories")
    op.drop_column("memories", "turn_number")
