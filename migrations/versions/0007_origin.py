"""Origin of memories: who told whom, which memories were merged, which turns are summed up.

Revision ID: 0007
Revises: 0006
Create Date: 2026-11-25
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("memories", sa.Column("origin", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("memories", "origin")
