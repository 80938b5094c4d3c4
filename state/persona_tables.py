"""The SQL tables of what a persona came from and looks like; `state/tables.py` has the rest."""

from typing import Any

from sqlalchemy import Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from persona_mcp.state.dialect import text_type
from persona_mcp.state.table_base import ID, Base, in_world, to_world


class PersonaVersion(Base):
    """Who a persona was: what past exchanges and events refer to by its number."""

    __tablename__ = "persona_versions"
    __table_args__ = (in_world("personas", "persona_id"),)

    world_id: Mapped[str] = mapped_column(ID, primary_key=True)
    persona_id: Mapped[str] = mapped_column(ID, primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    spec: Mapped[dict[str, Any]]
    created_at: Mapped[float]


class PersonaCard(Base):
    """The character card that a persona was made from, whole, so that nothing of it is lost."""

    __tablename__ = "persona_cards"
    __table_args__ = (in_world("personas", "persona_id"),)

    world_id: Mapped[str] = mapped_column(ID, primary_key=True)
    persona_id: Mapped[str] = mapped_column(ID, primary_key=True)
    spec: Mapped[str] = mapped_column(text_type(40))
    """v1, v2 or v3."""
    spec_version: Mapped[str] = mapped_column(text_type(40))
    carrier: Mapped[str] = mapped_column(text_type(8))
    """json, png or charx."""
    card: Mapped[str]
    """Its JSON as it was written: order of keys and spelling of numbers are kept."""
    file: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The file that carried it; empty where that was JSON."""
    imported_at: Mapped[float]


class VisualContext(Base):
    """What was last told of how a persona, or everybody in a scene, looks; data, never orders."""

    __tablename__ = "visual_contexts"
    __table_args__ = (to_world(), Index(None, "world_id", "expires_at"))

    world_id: Mapped[str] = mapped_column(ID, primary_key=True)
    target_kind: Mapped[str] = mapped_column(text_type(8), primary_key=True)
    """persona or scene."""
    target: Mapped[str] = mapped_column(text_type(80), primary_key=True)
    type: Mapped[str] = mapped_column(text_type(32), primary_key=True)
    version: Mapped[int] = mapped_column(default=1)
    data: Mapped[dict[str, Any]]
    description: Mapped[str]
    size: Mapped[int]
    """Bytes of both as JSON."""
    updated_at: Mapped[float]
    expires_at: Mapped[float | None]
