"""Tokens for tests: made in a service's database, shown by clients."""

import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from persona_mcp.server.app import create_app
from persona_mcp.server.service import Service
from persona_mcp.state.callers import SCOPES
from tests.http_server import LIMIT_S, Served, serving


async def token_of(
    service: Service,
    name: str = "guest",
    scopes: Collection[str] = SCOPES,
    worlds: Collection[str] | None = None,
    expires_in: float | None = None,
) -> str:
    """Make a token."""
    now = time.time()
    until = None if expires_in is None else now + expires_in
    return (await service.tokens.create(name, scopes, worlds, until, now))[0]


def bearer(token: str) -> dict[str, str]:
    """Return the header that shows a token."""
    return {"Authorization": f"Bearer {token}"}


def guarded_app(service: Service) -> FastAPI:
    """Make an app over an opened service, in which every caller needs a token."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Service]:
        yield service

    return create_app(service.settings, opening=opened, guarded=True)


@asynccontextmanager
async def guarded(service: Service) -> AsyncIterator[Served]:
    """Serve a service that the test has opened; every caller needs a token."""
    async with serving(guarded_app(service), service.settings) as found:
        yield found


def showing(found: Served, token: str | None) -> httpx.AsyncClient:
    """Open an HTTP client that shows a token."""
    headers = {} if token is None else bearer(token)
    return httpx.AsyncClient(base_url=found.url, timeout=LIMIT_S, trust_env=False, headers=headers)
