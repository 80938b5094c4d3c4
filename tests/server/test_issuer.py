"""Tokens of an issuer: what is taken, what is refused, and how often the issuer is asked."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from persona_mcp.config.access_settings import OAuthSettings
from persona_mcp.config.loading import load_settings
from persona_mcp.server.issuer import Issuer, audiences_of
from persona_mcp.server.service import Service
from persona_mcp.state.callers import Identity
from persona_mcp.state.errors import DeadlineExceeded, InvalidSettings, Unauthenticated
from tests.http_server import API
from tests.issuer import LocalIssuer, local_issuer
from tests.tokens import guarded, showing

pytestmark = pytest.mark.anyio

RESOURCE = "http://127.0.0.1"
PATHS = ("/mcp", "/x/all/mcp")


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as running:
        yield running


def trusting(issuer: LocalIssuer, **more: Any) -> OAuthSettings:
    return OAuthSettings(**{"issuer": issuer.url, "resource": RESOURCE, **more})


def checker(issuer: LocalIssuer, **more: Any) -> Issuer:
    settings = trusting(issuer, **more)
    return Issuer(settings, audiences_of(settings, PATHS))


async def bearer_of(checking: Issuer, token: str) -> Identity:
    return (await checking.identity(token))[0]


async def is_refused(checking: Issuer, token: str) -> bool:
    try:
        await checking.identity(token)
    except Unauthenticated as error:
        assert token not in error.message
        return True
    return False


async def test_a_good_token_is_somebody_with_its_scopes(issuer: LocalIssuer) -> None:
    found = await bearer_of(
        checker(issuer), issuer.sign(scope="openid persona:read persona:chat admin persona:fly")
    )

    assert (found.name, found.worlds) == ("mira", None)
    assert set(found.scopes) == {"read", "chat"}
    assert found.id.startswith("o_")
    assert "mira" not in found.id


async def test_one_person_is_one_caller_whatever_the_token(issuer: LocalIssuer) -> None:
    checking = checker(issuer)

    first, again, other = [
        await bearer_of(checking, issuer.sign(sub=sub, jti=str(number)))
        for number, sub in enumerate(("mira", "mira", "nora"))
    ]

    assert first == again
    assert first.id != other.id


@pytest.mark.parametrize(
    ("claims", "scopes", "worlds"),
    [
        ({"roles": ["read", "chat"], "rooms": ["main"]}, {"read", "chat"}, {"main"}),
        ({"roles": "read manage", "rooms": "main other"}, {"read", "manage"}, {"main", "other"}),
        ({"roles": ["read"], "rooms": ["*"]}, {"read"}, None),
        ({"roles": ["read"]}, {"read"}, set()),
        ({"roles": 7, "rooms": {"main": True}}, set(), set()),
        ({}, set(), set()),
    ],
)
async def test_scopes_and_worlds_are_read_from_the_claims_that_are_set(
    issuer: LocalIssuer, claims: dict[str, Any], scopes: set[str], worlds: set[str] | None
) -> None:
    settings = {"scope_claim": "roles", "scope_prefix": "", "world_claim": "rooms"}

    found = await bearer_of(checker(issuer, **settings), issuer.sign(scope=None, **claims))

    assert set(found.scopes) == scopes
    assert (found.worlds if found.worlds is None else set(found.worlds)) == worlds


async def test_a_dot_leads_into_a_claim(issuer: LocalIssuer) -> None:
    found = await bearer_of(
        checker(issuer, scope_claim="realm_access.roles", scope_prefix=""),
        issuer.sign(realm_access={"roles": ["manage"]}),
    )

    assert found.scopes == {"manage"}


@pytest.mark.parametrize("audience", [RESOURCE, f"{RESOURCE}/", [f"{RESOURCE}/mcp", "other"]])
async def test_the_audience_is_this_server_or_one_of_its_endpoints(
    issuer: LocalIssuer, audience: Any
) -> None:
    assert await bearer_of(checker(issuer), issuer.sign(aud=audience))


async def test_audiences_by_setting_stand_in_place_of_the_address(issuer: LocalIssuer) -> None:
    checking = checker(issuer, audiences=["persona"])

    assert await bearer_of(checking, issuer.sign(aud="persona"))
    assert await is_refused(checking, issuer.sign(aud=RESOURCE))


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"iss": None},
        {"aud": "https://other.example"},
        {"aud": None},
        {"exp": 1},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": 4_000_000_000},
        {"sub": None},
        {"sub": 7},
    ],
    ids=str,
)
async def test_a_token_that_is_not_for_us_or_not_for_now_is_refused(
    issuer: LocalIssuer, claims: dict[str, Any]
) -> None:
    assert await is_refused(checker(issuer), issuer.sign(**claims))


async def test_a_clock_that_is_a_little_off_is_forgiven(issuer: LocalIssuer) -> None:
    now = int(time.time())
    late, early = issuer.sign(exp=now - 10), issuer.sign(nbf=now + 10)

    assert await bearer_of(checker(issuer, leeway_s=60), late)
    assert await bearer_of(checker(issuer, leeway_s=60), early)
    assert await is_refused(checker(issuer, leeway_s=0), late)
    assert await is_refused(checker(issuer, leeway_s=0), early)


def part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forged(issuer: LocalIssuer, header: dict[str, Any], secret: bytes | None) -> str:
    """Make a token that is signed with nothing, or with the public key as a shared secret."""
    payload = issuer.sign().split(".")[1]
    text = f"{part(header)}.{payload}"
    if secret is None:
        return f"{text}."
    digest = hmac.digest(secret, text.encode(), hashlib.sha256)
    return f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


async def test_what_nobody_signed_is_refused(issuer: LocalIssuer) -> None:
    checking = checker(issuer)
    head, payload, signature = issuer.sign().split(".")
    changed = part({**json.loads(base64.urlsafe_b64decode(payload + "==")), "sub": "admin"})

    assert await is_refused(checking, forged(issuer, {"alg": "none", "kid": "k1"}, None))
    assert await is_refused(checking, forged(issuer, {"alg": "None"}, None))
    assert await is_refused(
        checking, forged(issuer, {"alg": "HS256", "kid": "k1"}, issuer.public("k1"))
    )
    assert await is_refused(checking, f"{head}.{changed}.{signature}")
    assert await is_refused(checking, f"{head}.{payload}.{signature[:-4]}AAAA")
    for nonsense in ("..", "a.b.c", "e30.e30.e30", f"{part({'alg': 'RS256', 'kid': 7})}.e30.e30"):
        assert await is_refused(checking, nonsense)


async def test_signatures_are_those_that_are_set(issuer: LocalIssuer) -> None:
    issuer.add_key("curve", curve=True)
    signed = {"id": "curve", "algorithm": "ES256"}

    assert await bearer_of(checker(issuer), issuer.sign(**signed))
    assert await is_refused(checker(issuer, algorithms=["RS256"]), issuer.sign(**signed))


async def test_keys_are_fetched_once_for_many_tokens(issuer: LocalIssuer) -> None:
    checking = checker(issuer)

    for number in range(5):
        await bearer_of(checking, issuer.sign(jti=str(number)))

    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_keys_are_fetched_anew_after_the_time_that_is_set(issuer: LocalIssuer) -> None:
    checking = checker(issuer, keys_kept_s=1e-6, keys_pause_s=0)

    for number in range(3):
        await bearer_of(checking, issuer.sign(jti=str(number)))

    assert issuer.asked.count("/keys") == 3


async def test_a_new_key_is_found_without_a_restart(issuer: LocalIssuer) -> None:
    checking = checker(issuer, keys_pause_s=0)
    await bearer_of(checking, issuer.sign())
    issuer.add_key("k2")
    del issuer.keys["k1"]

    assert await bearer_of(checking, issuer.sign("k2"))


async def test_unknown_keys_do_not_have_the_issuer_asked_again_and_again(
    issuer: LocalIssuer,
) -> None:
    checking = checker(issuer, keys_pause_s=60)
    await bearer_of(checking, issuer.sign())
    for number in range(20):
        head = part({"alg": "RS256", "kid": f"made up {number}"})
        assert await is_refused(checking, f"{head}.e30.e30")

    assert issuer.asked.count("/keys") == 1


async def test_an_issuer_that_does_not_answer_is_waited_for_so_long(issuer: LocalIssuer) -> None:
    issuer.answers.clear()
    checking = checker(issuer, fetch_s=0.2)

    with pytest.raises(DeadlineExceeded, match=r"issuer's keys .* 0\.2 s"):
        await checking.identity(issuer.sign())


async def test_keys_that_are_known_serve_on_while_the_issuer_is_silent(
    issuer: LocalIssuer,
) -> None:
    checking = checker(issuer, keys_kept_s=1e-6, keys_pause_s=0, fetch_s=2)
    await bearer_of(checking, issuer.sign())
    issuer.answers.clear()

    assert await bearer_of(checking, issuer.sign())


async def test_keys_of_one_who_says_he_is_somebody_else_are_not_taken(
    issuer: LocalIssuer,
) -> None:
    issuer.claimed = "https://other.example"

    with pytest.raises(DeadlineExceeded):
        await checker(issuer).identity(issuer.sign())


def with_issuer(service: Service, issuer: LocalIssuer, **more: Any) -> Service:
    chosen = {"oauth": trusting(issuer, **more)}
    return replace(service, settings=service.settings.model_copy(update=chosen))


async def test_a_token_of_the_issuer_opens_the_doors(service: Service, issuer: LocalIssuer) -> None:
    async with (
        guarded(with_issuer(service, issuer)) as found,
        showing(found, issuer.sign()) as client,
        showing(found, issuer.sign(exp=1)) as late,
    ):
        answers = [
            await client.post(f"{API}/persona/list"),
            await client.post(f"{API}/persona/create", json={"name": "Mira"}),
            await late.post(f"{API}/persona/list"),
        ]

    assert [answer.status_code for answer in answers] == [200, 403, 401]


@pytest.mark.parametrize("path", ["", *PATHS])
async def test_clients_are_led_to_the_issuer(
    service: Service, issuer: LocalIssuer, path: str
) -> None:
    async with guarded(with_issuer(service, issuer)) as found, found.client() as client:
        refused = await client.post(path or f"{API}/persona/list")
        where = httpx.URL(refused.headers["www-authenticate"].split('resource_metadata="')[1][:-1])
        told = (await client.get(where.path)).json()
        nowhere = await client.get("/.well-known/oauth-protected-resource/other")

    assert refused.status_code == 401
    assert where.path == f"/.well-known/oauth-protected-resource{path}"
    assert told["resource"] == f"{RESOURCE}{path}"
    assert told["authorization_servers"] == [issuer.url]
    assert told["scopes_supported"] == [
        "persona:read",
        "persona:chat",
        "persona:manage",
        "persona:admin",
    ]
    assert nowhere.status_code == 404


async def test_without_an_issuer_nobody_is_led_anywhere(service: Service) -> None:
    async with guarded(service) as found, found.client() as client:
        refused = await client.post("/mcp")
        told = await client.get("/.well-known/oauth-protected-resource")

    assert "resource_metadata" not in refused.headers["www-authenticate"]
    assert told.status_code == 404


@pytest.mark.parametrize(
    ("oauth", "wrong"),
    [
        ({"issuer": "https://id.example"}, "PERSONA_OAUTH__RESOURCE"),
        ({"issuer": "http://id.example", "resource": "https://p.example"}, "https"),
        ({"issuer": "id.example", "resource": "https://p.example"}, "PERSONA_OAUTH__ISSUER"),
        ({"algorithms": ["HS256"]}, "PERSONA_OAUTH__ALGORITHMS"),
        ({"algorithms": ["none"]}, "PERSONA_OAUTH__ALGORITHMS"),
        ({"algorithms": []}, "PERSONA_OAUTH__ALGORITHMS"),
    ],
)
async def test_settings_that_would_trust_the_wrong_one_are_refused(
    oauth: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(InvalidSettings) as caught:
        load_settings(oauth=oauth)

    assert wrong in caught.value.message
