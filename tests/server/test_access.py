"""Who is let in at the doors: with which token, for what, into which worlds, and for how long."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from persona_mcp.config.access_settings import AccessSettings
from persona_mcp.server.access import Access
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.rest import PREFIX, path_of
from persona_mcp.server.service import Service
from persona_mcp.state.callers import SCOPES
from persona_mcp.state.errors import Unauthenticated
from tests.http_server import API, Served, served, soon
from tests.tokens import bearer, guarded, showing, token_of

pytestmark = pytest.mark.anyio

LIST = f"{API}/persona/list"
UNKNOWN = "pmcp_" + "A" * 43


@pytest.fixture
async def found(service: Service) -> AsyncIterator[Served]:
    async with guarded(service) as running:
        yield running


def data_of(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()["error"]["data"]
    return found


async def test_a_token_lets_its_bearer_in(found: Served) -> None:
    token = await token_of(found.service)

    async with showing(found, token) as client:
        answer = await client.post(LIST)

    assert answer.json()["total_count"] == 3


@pytest.mark.parametrize("header", [None, "Basic YTpi", UNKNOWN, "", "Bearer", f"Bearer {UNKNOWN}"])
async def test_whoever_shows_none_or_a_wrong_one_is_told_how_to_get_in(
    found: Served, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header}

    async with found.client() as client:
        answer = await client.post(LIST, headers=headers)

    assert (answer.status_code, answer.json()["error"]["code"]) == (401, -32007)
    assert answer.headers["www-authenticate"].startswith('Bearer realm="persona-mcp"')
    shown = header is not None and header.startswith("Bearer")
    assert ('error="invalid_token"' in answer.headers["www-authenticate"]) == shown
    assert "persona token" in answer.json()["error"]["message"]


async def test_two_tokens_at_once_are_refused(found: Served) -> None:
    token = await token_of(found.service)
    headers = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {UNKNOWN}")]

    async with found.client() as client:
        answer = await client.post(LIST, headers=headers)

    assert answer.status_code == 401


async def test_a_token_in_the_address_is_none(found: Served) -> None:
    token = await token_of(found.service)

    async with found.client() as client:
        answer = await client.post(LIST, params={"access_token": token, "token": token})

    assert answer.status_code == 401


async def test_an_expired_token_is_refused_also_one_that_was_good_a_moment_ago(
    found: Served,
) -> None:
    token = await token_of(found.service, expires_in=0.5)

    async with showing(found, token) as client:
        first = await client.post(LIST)

        async def is_refused() -> bool:
            return (await client.post(LIST)).status_code == 401

        await soon(is_refused, "the token to expire")

    assert first.status_code == 200


async def test_a_revoked_token_stops_acting_within_the_time_that_is_set(service: Service) -> None:
    kept = service.settings.model_copy(update={"access": AccessSettings(kept_s=0.2)})
    async with guarded(replace(service, settings=kept)) as found:
        token = await token_of(service, "guest")
        async with showing(found, token) as client:
            assert (await client.post(LIST)).status_code == 200
            await service.tokens.revoke("guest", time.time())
            revoked = time.monotonic()

            async def is_refused() -> bool:
                return (await client.post(LIST)).status_code == 401

            await soon(is_refused, "the token to stop acting")

    assert time.monotonic() - revoked < 8.0, "sooner than by default"


@pytest.mark.parametrize(("kept", "acts"), [(1, False), (2, True)])
async def test_so_many_tokens_are_remembered_and_the_others_looked_at_again(
    service: Service, kept: int, acts: bool
) -> None:
    tokens = [await token_of(service, name) for name in ("one", "other")]
    access = Access(AccessSettings(kept_s=300, kept=kept), service.tokens, required=True)
    for token in tokens:
        await access.identity(token)
    await service.tokens.revoke("one", time.time())

    try:
        found = (await access.identity(tokens[0])).name == "one"
    except Unauthenticated:
        found = False

    assert found == acts


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_scope_opens_its_operations_and_no_other(found: Served, scope: str) -> None:
    token = await token_of(found.service, scopes=[scope])
    told = {}

    async with showing(found, token) as client:
        for operation in operations("all"):
            answer = await client.post(PREFIX + path_of(operation.name), json={"colour": "red"})
            told[operation.name] = (answer.status_code, data_of(answer).get("scope"))

    assert told == {
        operation.name: (422, None) if operation.scope == scope else (403, operation.scope)
        for operation in operations("all")
    }


async def test_what_is_missing_is_named(found: Served) -> None:
    token = await token_of(found.service, scopes=["read"])

    async with showing(found, token) as client:
        answer = await client.post(f"{API}/persona/create", json={"name": "Mira"})

    assert answer.json()["error"]["code"] == -32006
    assert "persona_create needs the scope 'manage'" in answer.json()["error"]["message"]
    assert 'error="insufficient_scope", scope="manage"' in answer.headers["www-authenticate"]


async def test_a_token_that_is_shown_counts_also_where_none_is_needed(service: Service) -> None:
    token = await token_of(service, scopes=["read"])
    async with served(service) as found, found.client() as client:
        without = await client.post(f"{API}/persona/create", json={"name": "Mira"})
        limited = await client.post(
            f"{API}/persona/create", json={"name": "Nora"}, headers=bearer(token)
        )
        wrong = await client.post(LIST, headers=bearer(UNKNOWN))

    assert [a.status_code for a in (without, limited, wrong)] == [200, 403, 401]
