"""What cards, snapshots, answers, talks between personas and hosts' own replies need.

Revision ID: 0010
Revises: 0009
Create Date: 2026-11-28
"""

import sqlalchemy as sa
from alembic import op

from persona_mcp.state.dialect import INTEGER, text_type

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "answers",
        sa.Column("world_id", text_type(64), nullable=False),
        sa.Column("request_id", text_type(64), nullable=False),
        sa.Column("operation", text_type(40), nullable=False),
        sa.Column("request_hash", text_type(64), nullable=False),
        sa.Column("owner", text_type(64), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id"], ["worlds.id"], name=op.f("fk_answers_world_id_worlds"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("world_id", "request_id", name=op.f("pk_answers")),
    )
    op.create_index(op.f("ix_answers_created_at"), "answers", ["created_at"], unique=False)

    op.create_table(
        "snapshots",
        sa.Column("name", text_type(80), nullable=False),
        sa.Column("version", INTEGER, nullable=False),
        sa.Column("note", text_type(500), nullable=False),
        sa.Column("automatic", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("format", text_type(40), nullable=False),
        sa.Column("sha256", text_type(64), nullable=False),
        sa.Column("size", INTEGER, nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("world_id", text_type(64), nullable=False),
        sa.Column("id", text_type(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id"],
            ["worlds.id"],
            name=op.f("fk_snapshots_world_id_worlds"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("world_id", "id", name=op.f("pk_snapshots")),
        sa.UniqueConstraint(
            "world_id", "name", "version", name=op.f("uq_snapshots_world_id_name_version")
        ),
    )
    op.create_table(
        "visual_contexts",
        sa.Column("world_id", text_type(64), nullable=False),
        sa.Column("target_kind", text_type(8), nullable=False),
        sa.Column("target", text_type(80), nullable=False),
        sa.Column("type", text_type(32), nullable=False),
        sa.Column("version", INTEGER, nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("description", text_type(), nullable=False),
        sa.Column("size", INTEGER, nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["world_id"],
            ["worlds.id"],
            name=op.f("fk_visual_contexts_world_id_worlds"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "world_id", "target_kind", "target", "type", name=op.f("pk_visual_contexts")
        ),
    )
    op.create_index(
        op.f("ix_visual_contexts_world_id_expires_at"),
        "visual_contexts",
        ["world_id", "expires_at"],
        unique=False,
    )

    op.create_table(
        "persona_cards",
        sa.Column("world_id", text_type(64), nullable=False),
        sa.Column("persona_id", text_type(64), nullable=False),
        sa.Column("spec", text_type(40), nullable=False),
        sa.Column("spec_version", text_type(40), nullable=False),
        sa.Column("carrier", text_type(8), nullable=False),
        sa.Column("card", text_type(), nullable=False),
        sa.Column("file", sa.LargeBinary(), nullable=True),
        sa.Column("imported_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id", "persona_id"],
            ["personas.world_id", "personas.id"],
            name=op.f("fk_persona_cards_world_id_personas"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("world_id", "persona_id", name=op.f("pk_persona_cards")),
    )
    op.create_table(
        "persona_versions",
        sa.Column("world_id", text_type(64), nullable=False),
        sa.Column("persona_id", text_type(64), nullable=False),
        sa.Column("version", INTEGER, autoincrement=False, nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["world_id", "persona_id"],
            ["personas.world_id", "personas.id"],
            name=op.f("fk_persona_versions_world_id_personas"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "world_id", "persona_id", "version", name=op.f("pk_persona_versions")
        ),
    )
    op.add_column("conversations", sa.Column("scene", text_type(80), nullable=True))
    op.add_column("conversations", sa.Column("plan", sa.JSON(), nullable=True))
    op.add_column("conversations", sa.Column("exit_reason", text_type(200), nullable=True))

    op.add_column("exchanges", sa.Column("prompt_id", text_type(64), nullable=True))
    op.add_column("exchanges", sa.Column("prompt_until", sa.Double(), nullable=True))
    op.add_column("exchanges", sa.Column("prompt", sa.JSON(), nullable=True))
    op.create_index(
        op.f("ix_exchanges_world_id_prompt_id"),
        "exchanges",
        ["world_id", "prompt_id"],
        unique=True,
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_exchanges_world_id_prompt_id"), table_name="exchanges")
    op.drop_column("exchanges", "prompt")
    op.drop_column("exchanges", "prompt_until")
    op.drop_column("exchanges", "prompt_id")

    op.drop_column("conversations", "exit_reason")
    op.drop_column("conversations", "plan")
    op.drop_column("conversations", "scene")

    op.drop_table("persona_versions")
    op.drop_table("persona_cards")
    op.drop_index(op.f("ix_visual_contexts_world_id_expires_at"), table_name="visual_contexts")

    op.drop_table("visual_contexts")
    op.drop_table("snapshots")
    op.drop_index(op.f("ix_answers_created_at"), table_name="answers")

    op.drop_table("answers")
