"""The SQL tables of who may call, what they have spent, and which processes serve them."""

from sqlalchemy import JSON, Index
from sqlalchemy.orm import Mapped, mapped_column

from persona_mcp.state.dialect import text_type
from persona_mcp.state.table_base import ID, Base


class Token(Base):
    """A token that a caller shows; what it is itself is never kept."""

    __tablename__ = "tokens"
    __table_args__ = (Index(None, "digest", unique=True), Index(None, "name", unique=True))

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    """What stands for the caller wherever rows and the log name one."""
    name: Mapped[str] = mapped_column(text_type(80))
    digest: Mapped[str] = mapped_column(text_type(64))
    """SHA-256 of the token, in hexadecimal."""
    worlds: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """Ids of the worlds that it opens; empty for every world."""
    scopes: Mapped[list[str]]
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    used_at: Mapped[float | None]
    """Last use that was noted."""


class Spending(Base):
    """The model's tokens that a caller has used on one day."""

    __tablename__ = "spending"
    __table_args__ = (Index(None, "day"),)

    caller_id: Mapped[str] = mapped_column(ID, primary_key=True)
    day: Mapped[str] = mapped_column(text_type(10), primary_key=True)
    """YYYY-MM-DD, UTC."""
    tokens: Mapped[int]


class Process(Base):
    """A server process that shares the database with others, on this machine or another."""

    __tablename__ = "processes"
    __table_args__ = (Index(None, "seen_at"),)

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    seen_at: Mapped[float]
    """Its last sign of life, by the database's clock."""
