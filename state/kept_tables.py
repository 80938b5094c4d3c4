"""The SQL tables of saved states, of answers that are given again, and of batches of dialogues."""

from typing import Any

from sqlalchemy import Index, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from persona_mcp.state.dialect import text_type
from persona_mcp.state.table_base import ID, Base, Called, WorldKey, to_world


class Snapshot(WorldKey, Base):
    """A world as it was saved; versions of a name count 1, 2, ..."""

    __tablename__ = "snapshots"
    __table_args__ = (to_world(), UniqueConstraint("world_id", "name", "version"))

    name: Mapped[str] = mapped_column(text_type(80))
    version: Mapped[int]
    note: Mapped[str] = mapped_column(text_type(500))
    automatic: Mapped[bool] = mapped_column(default=False)
    """Made before a load replaced the world."""
    created_at: Mapped[float]
    format: Mapped[str] = mapped_column(text_type(40))
    sha256: Mapped[str] = mapped_column(text_type(64))
    size: Mapped[int]
    """Bytes of the payload before it was compressed."""
    counts: Mapped[dict[str, Any]]
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    """Compressed with zlib."""


class Answer(Called, Base):
    """A call that was sent with a request_id, and what was answered: the same call gets it again.

    Calls of persona_chat are kept as exchanges instead.
    """

    __tablename__ = "answers"
    __table_args__ = (to_world(), Index(None, "created_at"))

    world_id: Mapped[str] = mapped_column(ID, primary_key=True)
    request_id: Mapped[str] = mapped_column(ID, primary_key=True)
    operation: Mapped[str] = mapped_column(text_type(40))
    request_hash: Mapped[str] = mapped_column(text_type(64))
    owner: Mapped[str] = mapped_column(text_type(64))
    """The process that carries it out."""
    answer: Mapped[dict[str, Any] | None]
    """Empty while it runs."""
    created_at: Mapped[float]


class Batch(WorldKey, Called, Base):
    """A batch of dialogues that runs in the background; its files lie in the data folder."""

    __tablename__ = "batches"
    __table_args__ = (to_world(), Index(None, "status"))

    name: Mapped[str] = mapped_column(text_type(80))
    spec: Mapped[dict[str, Any]]
    """What it was asked for with, checked and with its cast filled in."""
    status: Mapped[str] = mapped_column(text_type(16))
    """queued, running, completed, cancelled or failed."""
    keep: Mapped[bool]
    """What happens in it becomes part of this world at its end."""
    kept_at: Mapped[float | None]
    """When that was done; empty before."""
    owner: Mapped[str | None] = mapped_column(text_type(64))
    """The process that carries it out."""
    reason: Mapped[str | None] = mapped_column(text_type(200))
    """Why it was asked to stop; empty if it was not."""
    progress: Mapped[dict[str, Any]]
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
