"""Tokens in SQL: what is kept of them, and who is found by what is shown."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from persona_mcp.config.settings import Settings
from persona_mcp.server.store import Store, open_store
from persona_mcp.state import tables
from persona_mcp.state.errors import Conflict, InvalidParams, NotFound
from persona_mcp.state.tokens import NOTED_S, TokenStore
from tests.calls import dump, rows

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.0


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with open_store(settings) as opened:
        yield opened


@pytest.fixture
def tokens(store: Store) -> TokenStore:
    return store.tokens


async def made(tokens: TokenStore, name: str = "guest", **more: Any) -> str:
    asked = {"scopes": ["read"], "worlds": None, "expires_at": None, "now": NOW, **more}
    return (await tokens.create(name, **asked))[0]


async def test_a_token_is_kept_as_a_sign_of_it_and_found_by_itself(store: Store) -> None:
    token = await made(store.tokens, scopes=["chat", "read"], worlds=["main", "main"])

    found = await store.tokens.find(token, NOW)

    assert found is not None
    assert (found.scopes, found.worlds, found.expires_at) == (("read", "chat"), ("main",), None)
    assert (found.identity.id, found.identity.name) == (found.id, "guest")
    assert found.identity.opens("main")
    assert not found.identity.opens("other")
    assert token not in str(await dump(store.database))
    assert token.removeprefix("pmcp_") not in str(await dump(store.database))


async def test_tokens_are_long_recognisable_and_never_the_same(tokens: TokenStore) -> None:
    found = {await made(tokens, f"n{number}") for number in range(20)}

    assert len(found) == 20
    assert {(token[:5], len(token) >= 5 + 43) for token in found} == {("pmcp_", True)}


async def test_what_is_no_token_is_nobodys(tokens: TokenStore) -> None:
    token = await made(tokens)
    known = (await tokens.named("guest")).id

    for wrong in ("", "pmcp_", token[:-1], token + "A", token.upper(), known, f" {token}"):
        assert await tokens.find(wrong, NOW) is None
    assert await tokens.find(token[:-1] + ("A" if token[-1] != "A" else "B"), NOW) is None


async def test_a_token_acts_until_it_expires(tokens: TokenStore) -> None:
    token = await made(tokens, expires_at=NOW + 10)

    assert await tokens.find(token, NOW + 9.9)
    assert await tokens.find(token, NOW + 10) is None
    assert (await tokens.named("guest")).status(NOW + 10) == "expired"


async def test_a_token_acts_until_it_is_revoked_by_its_name_or_id(tokens: TokenStore) -> None:
    one, other = await made(tokens, "one"), await made(tokens, "other")
    known = await tokens.named("other")

    ended = [await tokens.revoke("one", NOW + 1), await tokens.revoke(known.id, NOW + 2)]
    again = await tokens.revoke("one", NOW + 3)

    assert [await tokens.find(token, NOW + 1) for token in (one, other)] == [None, None]
    assert [token.status(NOW) for token in ended] == ["revoked", "revoked"]
    assert again.revoked_at == NOW + 1


async def test_who_is_not_there_is_not_revoked(tokens: TokenStore) -> None:
    await made(tokens, "reader")

    with pytest.raises(NotFound, match="token 'writer' not found"):
        await tokens.revoke("writer", NOW)


async def test_a_use_is_noted_now_and_then(store: Store) -> None:
    token = await made(store.tokens)

    noted = []
    for later in (0.0, 1.0, NOTED_S, NOTED_S + 1):
        await store.tokens.find(token, NOW + later)
        [row] = await rows(store.database, tables.Token)
        noted.append(row["used_at"] - NOW)

    assert noted == [0.0, 0.0, 0.0, NOTED_S + 1]


async def test_a_name_is_taken_while_its_token_is_in_use(tokens: TokenStore) -> None:
    first = await made(tokens, expires_at=NOW + 10)

    with pytest.raises(Conflict, match="name 'guest' is taken"):
        await made(tokens)
    second = await made(tokens, now=NOW + 11)
    await tokens.revoke("guest", NOW + 12)
    third = await made(tokens, now=NOW + 13)

    found = [await tokens.find(token, NOW + 13) for token in (first, second, third)]
    assert [token is not None for token in found] == [False, False, True]
    assert len(await tokens.all()) == 1


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"scopes": ["read", "fly"]}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"worlds": []}, "worlds"),
        ({"expires_at": NOW}, "expires"),
        ({"expires_at": NOW - 1}, "expires"),
        ({"name": ""}, "name"),
        ({"name": " guest"}, "name"),
        ({"name": "a\x1b[31m"}, "name"),
        ({"name": "n" * 81}, "name"),
    ],
    ids=str,
)
async def test_what_no_token_can_be_is_refused(
    tokens: TokenStore, asked: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidParams) as caught:
        await made(tokens, **asked)

    assert caught.value.data["field"] == field
    assert await tokens.all() == []


async def test_everything_that_is_wrong_is_told_at_once(tokens: TokenStore) -> None:
    with pytest.raises(InvalidParams) as caught:
        await made(tokens, "", scopes=["fly"], worlds=[], expires_at=NOW - 1)

    found = [fault["field"] for fault in caught.value.data["errors"]]
    assert found == ["name", "scopes", "worlds", "expires"]


async def test_a_world_that_is_not_there_is_named(tokens: TokenStore) -> None:
    with pytest.raises(NotFound, match="world 'nowhere' not found"):
        await made(tokens, worlds=["main", "nowhere"])

    assert await tokens.all() == []


async def test_nobody_can_call_until_there_is_a_token_in_use(tokens: TokenStore) -> None:
    seen = [await tokens.any_usable(NOW)]
    await made(tokens, expires_at=NOW + 10)
    seen += [await tokens.any_usable(NOW), await tokens.any_usable(NOW + 10)]
    await tokens.revoke("guest", NOW)
    seen.append(await tokens.any_usable(NOW))

    assert seen == [False, True, False, False]
