"""Tokens of an issuer (OAuth 2, OpenID Connect): signed, so that its public keys are all we need.

This server is the resource server of RFC 9728: it says which issuer it trusts, and checks what that
one signed. PyJWT does the cryptography; here is which keys, which claims, and what they mean.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import structlog

from persona_mcp.config.access_settings import OAuthSettings
from persona_mcp.server.access import refused
from persona_mcp.state.callers import SCOPES, Identity
from persona_mcp.state.errors import DeadlineExceeded

log = structlog.get_logger(__name__)

DISCOVERY = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")
MOST_BYTES = 1 << 20
"""Of a document of the issuer."""
DOTS = 2
"""Between the three parts of a signed token; our own have none."""
EVERY = "*"
REQUIRED = ("exp", "iss", "aud", "sub")
NAME_LENGTH = 80


class Unfit(Exception):
    """What the issuer sent is of no use."""


class Issuer:
    """Checks tokens of one issuer."""

    def __init__(self, settings: OAuthSettings, audiences: Sequence[str]) -> None:
        """Trust an issuer.

        Args:
            settings: Which, how it is asked, and what its claims mean.
            audiences: Of its tokens, those that are for this server.
        """
        self._settings = settings
        self._audiences = list(audiences)
        self._keys = Keys(settings)

    def is_one(self, token: str) -> bool:
        """Tell whether a token looks like one that somebody signed."""
        return token.count(".") == DOTS

    async def identity(self, token: str) -> tuple[Identity, float]:
        """Check a token; returns its bearer, and when it expires, in seconds since the epoch.

        Raises:
            Unauthenticated: It is not good.
            DeadlineExceeded: The issuer's keys could not be had.
        """
        settings = self._settings
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if algorithm not in settings.algorithms:
                raise refused()
            key = await self._keys.find(header.get("kid"), algorithm)
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audiences,
                issuer=settings.issuer,
                leeway=settings.leeway_s,
                options={"require": list(REQUIRED)},
            )
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            log.info("token refused", reason=type(error).__name__)
            raise refused() from error
        return self.bearer_of(claims), float(claims["exp"]) + settings.leeway_s

    def bearer_of(self, claims: Mapping[str, Any]) -> Identity:
        """Return who bears a token with these claims."""
        settings, subject = self._settings, str(claims["sub"])
        given = listed(claim(claims, settings.scope_claim))
        scopes = frozenset(one for one in SCOPES if settings.scope_prefix + one in given)
        worlds: frozenset[str] | None = None
        if settings.world_claim:
            opened = listed(claim(claims, settings.world_claim))
            worlds = None if EVERY in opened else frozenset(opened)
        digest = hashlib.sha256(f"{settings.issuer}\x1f{subject}".encode()).hexdigest()
        return Identity(f"o_{digest[:32]}", subject[:NAME_LENGTH], scopes, worlds)


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim; where there is none of this name, a dot leads into an object."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def listed(value: Any) -> set[str]:
    """Read a claim that is a list, or text with blanks between; anything else is nothing."""
    if isinstance(value, str):
        return set(value.split())
    return {one for one in value if isinstance(one, str)} if isinstance(value, list) else set()


class Keys:
    """The issuer's public keys, fetched when they are needed, and kept for a while.

    An issuer that changes its keys signs with one that is not known yet: then they are fetched
    again, but never more often than the settings say, whatever callers send.
    """

    def __init__(self, settings: OAuthSettings) -> None:
        """Fetch from this issuer."""
        self._settings = settings
        self._found: dict[str | None, Mapping[str, Any]] = {}
        self._fetched = self._tried = -float("inf")
        self._fetching = asyncio.Lock()

    async def find(self, id: Any, algorithm: str) -> Any:
        """Return the key of an id, to check a signature with.

        Raises:
            Unauthenticated: There is none that fits.
            DeadlineExceeded: The keys could not be had.
        """
        settings = self._settings
        if id is not None and not isinstance(id, str):
            raise refused()
        if time.monotonic() - self._fetched > settings.keys_kept_s or self._of(id) is None:
            async with self._fetching:
                old = time.monotonic() - self._fetched > settings.keys_kept_s
                if old or self._of(id) is None:
                    await self._fetch_again()
        found = self._of(id)
        if found is None or found.get("use", "sig") != "sig":
            raise refused()
        if found.get("alg", algorithm) != algorithm:
            raise refused()
        return jwt.PyJWK(dict(found), algorithm).key

    def _of(self, id: str | None) -> Mapping[str, Any] | None:
        """Return a key; one that is alone needs no id."""
        if id is None and len(self._found) == 1:
            return next(iter(self._found.values()))
        return self._found.get(id)

    async def _fetch_again(self) -> None:
        now, settings = time.monotonic(), self._settings
        if now - self._tried < settings.keys_pause_s:
            if not self._found:
                raise self._not_had()
            return
        self._tried = now
        try:
            async with asyncio.timeout(settings.fetch_s):
                self._found = await fetched_keys(settings.issuer)
            self._fetched = time.monotonic()
        except (httpx.HTTPError, TimeoutError, ValueError, Unfit) as error:
            log.warning("issuer's keys not fetched", reason=type(error).__name__)
            if not self._found:
                raise self._not_had() from error

    def _not_had(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            "the issuer's keys could not be fetched within "
            f"{self._settings.fetch_s:g} s (PERSONA_OAUTH__FETCH_S), so the token could not be "
            "checked; try again",
            retry_after_seconds=self._settings.keys_pause_s,
        )


async def fetched_keys(issuer: str) -> dict[str | None, Mapping[str, Any]]:
    """Ask the issuer for its keys; the caller limits the time.

    Raises:
        Unfit: It describes another issuer, or no keys.
    """
    base = issuer.rstrip("/")
    async with httpx.AsyncClient(
        follow_redirects=False,
        timeout=None,  # noqa: S113 - the caller has one limit for all of it
    ) as client:
        described = None
        for path in DISCOVERY:
            described = await document(client, base + path)
            if described is not None:
                break
        if described is None or described.get("issuer") != issuer:
            raise Unfit
        address = str(described.get("jwks_uri", ""))
        if urlsplit(address).scheme not in ("https", urlsplit(base).scheme):
            raise Unfit
        found = await document(client, address)
    keys = found.get("keys") if found else None
    if not isinstance(keys, list):
        raise Unfit
    return {key.get("kid"): key for key in keys if isinstance(key, dict)}


async def document(client: httpx.AsyncClient, url: str) -> dict[str, Any] | None:
    """Fetch a JSON object; None where there is none.

    Raises:
        Unfit: It is too long, or no object.
    """
    body = bytearray()
    async with client.stream("GET", url, headers={"Accept": "application/json"}) as answer:
        if answer.status_code != httpx.codes.OK:
            return None
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > MOST_BYTES:
                raise Unfit
    found = json.loads(body)
    if not isinstance(found, dict):
        raise Unfit
    return found


def audiences_of(settings: OAuthSettings, paths: Sequence[str]) -> list[str]:
    """Return the audiences of tokens for this server, which serves MCP at these paths."""
    base = settings.resource.rstrip("/")
    return settings.audiences or [base, f"{base}/", *(base + path for path in paths)]


def metadata_of(settings: OAuthSettings, path: str) -> dict[str, Any]:
    """Say whose tokens are taken at a path (RFC 9728)."""
    return {
        "resource": settings.resource.rstrip("/") + path,
        "authorization_servers": [settings.issuer],
        "scopes_supported": [settings.scope_prefix + scope for scope in SCOPES],
        "bearer_methods_supported": ["header"],
        "resource_name": "Persona MCP",
    }
