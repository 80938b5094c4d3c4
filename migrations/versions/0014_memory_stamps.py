"""What was changed of memories can be told: a stamp for each owner, and one for what is open.

Revision ID: 0014
Revises: 0013
Create Date: 2026-11-30
"""

import sqlalchemy as sa
from alembic import op

from persona_mcp.state.memory.stamps import create_stamps, drop_stamps
from persona_mcp.state.table_base import ID

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "memory_stamps",
        sa.Column("world_id", ID, nullable=False),
        sa.Column("owner", ID, nullable=False),
        sa.Column("stamp", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("world_id", "owner", name="pk_memory_stamps"),
    )
    create_stamps(op.get_bind())


def downgrade() -> None:
    drop_stamps(op.get_bind())
    op.drop_table("memory_stamps")
