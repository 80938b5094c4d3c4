"""Upkeep: the audit of pruning and of forced fading, and the switch of the background job.

Revision ID: 0006
Revises: 0005
Create Date: 2026-11-25
"""

import sqlalchemy as sa
from alembic import op

from persona_mcp.state.dialect import INTEGER, text_type

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

RUNS = "ix_prune_runs_world_id_persona_id_at"


def upgrade() -> None:
    op.add_column("memories", sa.Column("prune_id", text_type(64), nullable=True))
    op.create_table(
        "prune_runs",
        sa.Column("world_id", text_type(64), nullable=False),
        sa.Column("id", text_type(64), nullable=False),
        sa.Column("persona_id", text_type(64), nullable=False),
        sa.Column("origin", text_type(16), nullable=False),
        sa.Column("strategy", text_type(32), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("memory_ids", sa.JSON(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("before", INTEGER, nullable=False),
        sa.Column("archived", INTEGER, nullable=False),
        sa.Column("faded", INTEGER, nullable=False),
        sa.Column("importance_archived", sa.Double(), nullable=False),
        sa.Column("importance_kept", sa.Double(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("took_s", sa.Double(), nullable=False),
        sa.Column("undone_at", sa.Double(), nullable=True),
        sa.Column("restored", INTEGER, nullable=True),
        sa.ForeignKeyConstraint(
            ["world_id"], ["worlds.id"], "fk_prune_runs_world_id_worlds", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("world_id", "id", name="pk_prune_runs"),
    )
    op.create_index(RUNS, "prune_runs", ["world_id", "persona_id", "at"])
    op.create_table(
        "decay_runs",
        sa.Column("world_id", text_type(64), nullable=False),
        sa.Column("id", text_type(64), nullable=False),
        sa.Column("persona_id", text_type(64), nullable=False),
        sa.Column("factor", sa.Double(), nullable=False),
        sa.Column("processed", INTEGER, nullable=False),
        sa.Column("decayed", INTEGER, nullable=False),
        sa.Column("memory_ids", sa.JSON(), nullable=False),
        sa.Column("importance_before", sa.JSON(), nullable=False),
        sa.Column("importance_after", sa.JSON(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("undone_at", sa.Double(), nullable=True),
        sa.Column("restored", INTEGER, nullable=True),
        sa.ForeignKeyConstraint(
            ["world_id"], ["worlds.id"], "fk_decay_runs_world_id_worlds", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("world_id", "id", "persona_id", name="pk_decay_runs"),
    )
    op.create_table(
        "upkeep",
        sa.Column("world_id", text_type(64), nullable=False),
        sa.Column("switched_on", sa.Boolean(), nullable=False),
        sa.Column("interval_hours", INTEGER, nullable=False),
        sa.Column("auto_pruning", sa.Boolean(), nullable=False),
        sa.Column("last_run", sa.Double(), nullable=True),
        sa.Column("lease_owner", text_type(128), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("cycles", INTEGER, nullable=False),
        sa.Column("errors", INTEGER, nullable=False),
        sa.Column("recent", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id"], ["worlds.id"], "fk_upkeep_world_id_worlds", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("world_id", name="pk_upkeep"),
    )


def downgrade() -> None:
    op.drop_table("upkeep")
    op.drop_table("decay_runs")
    op.drop_index(RUNS, "prune_runs")
    op.drop_table("prune_runs")
    op.drop_column("memories", "prune_id")
