"""Where a relationship event comes from: who appraised it, and which turn it is of.

Revision ID: 0008
Revises: 0007
Create Date: 2026-11-25
"""

import sqlalchemy as sa
from alembic import op

from persona_mcp.state.dialect import text_type

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("relationship_events", sa.Column("appraiser", text_type(16), nullable=True))
    op.add_column("relationship_events", sa.Column("note", text_type(), nullable=True))
    op.add_column("relationship_events", sa.Column("turn_id", text_type(64), nullable=True))


def downgrade() -> None:
    op.drop_column("relationship_events", "turn_id")
    op.drop_column("relationship_events", "note")
    op.drop_column("relationship_events", "appraiser")
