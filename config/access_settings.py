"""The settings of who may call the server's doors: tokens of its own, and those of an issuer."""

from typing import Literal

from pydantic import Field

from persona_mcp.config.section import Section


class AccessSettings(Section):
    """Tokens: `persona token create` makes them, `Authorization: Bearer` shows them."""

    tokens: Literal["auto", "required"] = Field(
        "auto",
        description="auto: a token is needed where others reach the server; required: on this "
        "machine alone, too, as behind a proxy",
    )
    kept_s: float = Field(
        10.0,
        ge=0.1,
        le=300,
        description="A token that is revoked stops acting within this long, in seconds",
    )
    kept: int = Field(
        10_000, ge=1, le=1_000_000, description="Tokens that are remembered meanwhile, at most"
    )
