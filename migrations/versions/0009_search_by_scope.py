"""A search reads through what its reader may see alone: one word says whose a memory is.

Revision ID: 0009
Revises: 0008
Create Date: 2026-11-25
"""

from alembic import op

from persona_mcp.state.memory.words import create_words, drop_words

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    drop_words(op.get_bind())
    create_words(op.get_bind())


def downgrade() -> None:
    """Nothing: the revisions before make the index in today's shape too."""
