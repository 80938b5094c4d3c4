"""Why a reply ended: by itself, or at its longest.

Revision ID: 0013
Revises: 0012
Create Date: 2026-11-29
"""

import sqlalchemy as sa
from alembic import op

from persona_mcp.state.dialect import text_type

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("exchanges", sa.Column("finish_reason", text_type(8), nullable=True))


def downgrade() -> None:
    op.drop_column("exchanges", "finish_reason")
