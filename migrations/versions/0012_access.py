"""Tokens, what callers spend, processes on one database; who made a handle, a call, an exchange.

Revision ID: 0012
Revises: 0011
Create Date: 2026-11-28
"""

import sqlalchemy as sa
from alembic import op

from persona_mcp.state.dialect import INTEGER, text_type

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

CALLED = ("sessions", "answers", "exchanges", "batches")
"""What is there already was made on this machine, by whoever works at it."""


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", text_type(64), nullable=False),
        sa.Column("name", text_type(80), nullable=False),
        sa.Column("digest", text_type(64), nullable=False),
        sa.Column("worlds", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    op.create_index(op.f("ix_tokens_digest"), "tokens", ["digest"], unique=True)
    op.create_index(op.f("ix_tokens_name"), "tokens", ["name"], unique=True)
    op.create_table(
        "spending",
        sa.Column("caller_id", text_type(64), nullable=False),
        sa.Column("day", text_type(10), nullable=False),
        sa.Column("tokens", INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("caller_id", "day", name=op.f("pk_spending")),
    )
    op.create_index(op.f("ix_spending_day"), "spending", ["day"], unique=False)
    op.create_table(
        "processes",
        sa.Column("id", text_type(64), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_processes")),
    )
    op.create_index(op.f("ix_processes_seen_at"), "processes", ["seen_at"], unique=False)
    for table in CALLED:
        op.add_column(
            table,
            sa.Column(
                "caller_id", text_type(64), nullable=False, server_default=sa.text("'local'")
            ),
        )


def downgrade() -> None:
    for table in reversed(CALLED):
        op.drop_column(table, "caller_id")
    op.drop_index(op.f("ix_processes_seen_at"), table_name="processes")
    op.drop_table("processes")
    op.drop_index(op.f("ix_spending_day"), table_name="spending")
    op.drop_table("spending")
    op.drop_index(op.f("ix_tokens_name"), table_name="tokens")
    op.drop_index(op.f("ix_tokens_digest"), table_name="tokens")
    op.drop_table("tokens")
