"""What the SQL tables share: naming, keys within a world, the columns of every effect."""

from typing import Any, ClassVar

from sqlalchemy import JSON, Double, ForeignKeyConstraint, MetaData, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from persona_mcp.state.dialect import INTEGER, text_type

ID = text_type(64)
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Names constraints alike everywhere, so that a migration can find them."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        dict[str, Any]: JSON,
        list[str]: JSON,
        list[dict[str, Any]]: JSON,
        str: text_type(),
        int: INTEGER,
        float: Double(),
    }


class WorldKey:
    """The two columns that every keyed row has."""

    world_id: Mapped[str] = mapped_column(ID, primary_key=True)
    id: Mapped[str] = mapped_column(ID, primary_key=True)


def in_world(table: str, *columns: str) -> ForeignKeyConstraint:
    """Refer to the row of the same world, which takes this one with it when it is deleted."""
    return ForeignKeyConstraint(
        ["world_id", *columns], [f"{table}.world_id", f"{table}.id"], ondelete="CASCADE"
    )


def to_world() -> ForeignKeyConstraint:
    """Refer to the world, which takes this row with it when it is deleted."""
    return ForeignKeyConstraint(["world_id"], ["worlds.id"], ondelete="CASCADE")


class Called:
    """The column of rows that callers make and that are theirs."""

    caller_id: Mapped[str] = mapped_column(ID, server_default=text("'local'"))
    """Who made it (`state/callers.py`)."""


class Effect(WorldKey):
    """The columns that every effect has; rows are never changed but for `active`."""

    exchange_id: Mapped[str | None] = mapped_column(ID)
    active: Mapped[bool] = mapped_column(default=True)
    at: Mapped[float]
    seq: Mapped[int]
    """1, 2, ... within its arrow or persona, given inside the transaction: order of the fold."""
    why: Mapped[str]
    params_version: Mapped[int]
