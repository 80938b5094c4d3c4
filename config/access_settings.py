"""The settings of who may call the server's doors: tokens of its own, and those of an issuer."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from persona_mcp.config.section import Seconds, Section

LOOPBACK = ("127.0.0.1", "localhost", "::1")


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


Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
"""Signatures that a public key proves; none, and HS256 and its like, can be no setting."""
ADDRESS = r"^(https?://(\[[0-9a-fA-F:.]+\]|[^\s/:@?#\[\]]+)(:\d{1,5})?(/[^\s?#]*)?)?$"
Address = Annotated[
    str,
    Field(
        pattern=ADDRESS,
        json_schema_extra={"allowed": "address that starts with https://, or empty"},
    ),
]
Claim = Annotated[str, Field(max_length=200)]


class OAuthSettings(Section):
    """Tokens of an issuer (OAuth 2, OpenID Connect), beside those that are made here."""

    issuer: Address = Field(
        "", description="Address of the issuer whose tokens are taken; empty for none"
    )
    resource: Address = Field(
        "", description="Address at which clients reach this server; needed with an issuer"
    )
    audiences: list[str] = Field(
        [],
        description="Audiences (aud) of tokens that are taken; none: the address at which clients "
        "reach this server, and those of its MCP endpoints",
    )
    algorithms: list[Algorithm] = Field(
        ["RS256", "PS256", "ES256", "EdDSA"],
        min_length=1,
        description="Signatures that are taken",
    )
    scope_claim: Claim = Field(
        "scope",
        min_length=1,
        description="Claim with the scopes, as text or list; a dot leads into an object",
    )
    scope_prefix: Claim = Field(
        "persona:", description="What stands before read, chat, manage and admin there"
    )
    world_claim: Claim = Field(
        "",
        description="Claim with the ids of the worlds that are open, * for every one; empty: every "
        "token opens every world",
    )
    leeway_s: float = Field(
        30.0, ge=0, le=300, description="How far the issuer's clock may be off, in seconds"
    )
    fetch_s: Seconds = Field(5.0, description="Limit of a fetch of the issuer's keys, in seconds")
    keys_kept_s: Seconds = Field(
        3600.0, description="The issuer's keys are fetched anew after this long, in seconds"
    )
    keys_pause_s: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="Shortest time between two fetches, also for a key that is not known, in "
        "seconds",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.issuer and not self.resource:
            raise ValueError("an issuer needs PERSONA_OAUTH__RESOURCE, this server's address")
        for address in (self.issuer, self.resource):
            url = urlsplit(address)
            if url.scheme == "http" and url.hostname not in LOOPBACK:
                raise ValueError(f"{address}: http is only for this machine; use https")
        return self
