"""Batches of dialogues that run in the background.

Revision ID: 0011
Revises: 0010
Create Date: 2026-11-28
"""

import sqlalchemy as sa
from alembic import op

from persona_mcp.state.dialect import text_type

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("name", text_type(80), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("status", text_type(16), nullable=False),
        sa.Column("keep", sa.Boolean(), nullable=False),
        sa.Column("kept_at", sa.Double(), nullable=True),
        sa.Column("owner", text_type(64), nullable=True),
        sa.Column("reason", text_type(200), nullable=True),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("world_id", text_type(64), nullable=False),
        sa.Column("id", text_type(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id"], ["worlds.id"], name=op.f("fk_batches_world_id_worlds"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("world_id", "id", name=op.f("pk_batches")),
    )
    op.create_index(op.f("ix_batches_status"), "batches", ["status"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_batches_status"), table_name="batches")
    op.drop_table("batches")
