"""Memory revisions: what a change of a memory replaced.

Revision ID: 0005
Revises: 0004
Create Date: 2026-11-25
"""

import sqlalchemy as sa
from alembic import op

from persona_mcp.state.dialect import INTEGER, text_type

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = text_type(64)


def upgrade() -> None:
    op.create_table(
        "memory_revisions",
        sa.Column("world_id", ID, nullable=False),
        sa.Column("memory_id", ID, nullable=False),
        sa.Column("version", INTEGER, autoincrement=False, nullable=False),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.Column("replaced_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("world_id", "memory_id", "version", name="pk_memory_revisions"),
        sa.ForeignKeyConstraint(
            ["world_id", "memory_id"],
            ["memories.world_id", "memories.id"],
            name="fk_memory_revisions_world_id_memories",
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    op.drop_table("memory_revisions")
