"""Session handles: what is current for one client.

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-25
"""

import sqlalchemy as sa
from alembic import op

from persona_mcp.state.dialect import text_type

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = text_type(64)


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", ID, nullable=False),
        sa.Column("world_id", ID, nullable=False),
        sa.Column("persona_id", ID, nullable=True),
        sa.Column("conversation_id", ID, nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.ForeignKeyConstraint(
            ["world_id"], ["worlds.id"], name="fk_sessions_world_id_worlds", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_sessions_used_at", "sessions", ["used_at"])


def downgrade() -> None:
    op.drop_table("sessions")
