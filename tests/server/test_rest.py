"""The REST door: every operation, every kind of wrong request, and its description."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from persona_mcp.server.guard import security_of
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.rest import PREFIX, path_of
from persona_mcp.server.service import Service
from persona_mcp.server.wire import WIRES
from tests.doubles import ScriptedModel
from tests.http_server import API, CHAT, Served, served, with_limits
from tests.mcp_client import REPLY, WRONG

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}
LIST = f"{API}/persona/list"
MOST_BYTES = 1024


@pytest.fixture
async def found(service: Service) -> AsyncIterator[Served]:
    async with served(with_limits(service, max_body_bytes=MOST_BYTES)) as running:
        yield running


@pytest.fixture
async def client(found: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with found.client() as opened:
        yield opened


def error_of(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return an error, which must be of the one form that every door has."""
    assert answer.status_code == status, answer.text
    [(name, error)] = answer.json().items()
    assert (name, set(error)) == ("error", {"code", "message", "data"})
    assert (error["code"], error["data"]["code"]) == (WIRES[code].rpc, code)
    assert error["data"]["correlation_id"] == answer.headers["x-correlation-id"]
    assert error["message"]
    return dict(error)


async def test_a_conversation_over_rest(client: httpx.AsyncClient, model: ScriptedModel) -> None:
    model.add(REPLY)

    listed = (await client.post(LIST)).json()
    said = (await client.post(CHAT, json={"persona_id": "aria", "message": "Hello."})).json()
    read = await client.post(
        f"{API}/conversation/get", json={"conversation_id": said["conversation_id"]}
    )

    assert listed["total_count"] == 3
    assert said["response"] == REPLY
    assert [turn["content"] for turn in read.json()["turns"]] == ["Hello.", REPLY]


@pytest.mark.parametrize("name", [operation.name for operation in operations("all")])
async def test_every_operation_has_a_path_and_refuses_what_it_does_not_know(
    client: httpx.AsyncClient, name: str
) -> None:
    answer = await client.post(PREFIX + path_of(name), json={"colour": "red"})

    error = error_of(answer, 422, "invalid_params")
    assert "colour" in json.dumps(error["data"])


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_argument_is_named(client: httpx.AsyncClient, case: str) -> None:
    name, arguments, field, given = WRONG[case]

    answer = await client.post(PREFIX + path_of(name), json=arguments)

    error = error_of(answer, 422, "invalid_params")
    assert error["data"]["field"] == field
    assert given in error["message"]


async def test_somebody_who_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{API}/persona/get", json={"persona_id": "nobody"})

    assert "nobody" in error_of(answer, 404, "not_found")["message"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{not JSON", 400, "parse_error"),
        (b"\xff\xfe{}", 400, "parse_error"),
        (b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}", 422, "invalid_params"),
        (b"[]", 400, "invalid_request"),
        (b'"text"', 400, "invalid_request"),
        (b'{"query": "' + b"x" * MOST_BYTES + b'"}', 413, "limit_exceeded"),
    ],
    ids=["not JSON", "not UTF-8", "deep", "an array", "text", "too large"],
)
async def test_a_body_that_is_no_object_of_arguments_is_refused(
    client: httpx.AsyncClient, body: bytes, status: int, code: str
) -> None:
    error_of(await client.post(LIST, content=body, headers=JSON), status, code)


async def test_a_body_that_is_nested_too_deep_is_refused(service: Service) -> None:
    async with served(service) as found, found.client() as client:
        deep = b"[" * 200_000 + b"]" * 200_000
        error_of(await client.post(LIST, content=deep, headers=JSON), 400, "parse_error")
        assert (await client.post(LIST)).status_code == 200


async def test_a_number_of_too_many_digits_is_told_as_that(service: Service) -> None:
    async with served(service) as found, found.client() as client:
        answer = await client.post(LIST, content=b'{"limit": ' + b"9" * 5000 + b"}", headers=JSON)

    told = error_of(answer, 400, "parse_error")["message"]
    assert told.startswith("a number: allowed are 4300 digits")


async def test_a_body_that_comes_in_pieces_has_the_same_limit(client: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b" " * 500

    error_of(await client.post(LIST, content=pieces(), headers=JSON), 413, "limit_exceeded")


@pytest.mark.parametrize("type_", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_must_be_declared_as_json(client: httpx.AsyncClient, type_: str) -> None:
    answer = await client.post(LIST, content=b"{}", headers={"Content-Type": type_})

    assert "Content-Type" in error_of(answer, 400, "invalid_request")["message"]


async def test_unknown_paths_and_methods_are_told_in_our_form(client: httpx.AsyncClient) -> None:
    nowhere = error_of(await client.post(f"{API}/persona/dance"), 404, "method_not_found")
    method = await client.get(LIST)

    assert "/openapi.json" in nowhere["message"]
    error_of(method, 405, "invalid_request")
    assert method.headers["allow"] == "POST"


@pytest.mark.parametrize("path", [LIST, "/mcp", "/x/all/mcp", "/health/live", "/openapi.json"])
async def test_foreign_hosts_and_origins_are_refused_everywhere(
    client: httpx.AsyncClient, path: str
) -> None:
    host = await client.post(path, headers={"Host": "evil.example"})
    origin = await client.post(path, headers={"Origin": "https://evil.example"})

    assert "Host" in error_of(host, 421, "forbidden")["message"]
    assert "Origin" in error_of(origin, 403, "forbidden")["message"]


async def test_pages_of_this_machine_and_named_hosts_are_answered(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.post(LIST, headers={"Origin": "http://localhost:5173"})
    security = security_of(["persona.lan:*"], ["https://studio.example"], everybody=False)

    assert answer.status_code == 200
    assert "persona.lan:*" in security.allowed_hosts
    assert "https://studio.example" in security.allowed_origins


async def test_a_correlation_id_may_be_given_and_is_repeated(client: httpx.AsyncClient) -> None:
    good = await client.post(LIST, headers={"X-Correlation-Id": "mine-1"})
    bad = await client.post(LIST, json={"colour": 1}, headers={"X-Correlation-Id": "mine-2"})

    assert good.headers["x-correlation-id"] == "mine-1"
    assert error_of(bad, 422, "invalid_params")["data"]["correlation_id"] == "mine-2"


async def test_a_defect_of_ours_shows_nothing_of_its_cause(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret place")

    monkeypatch.setattr(service.personas, "check_world", broken)
    async with served(service) as found, found.client() as client:
        with capture_logs(processors=[merge_contextvars]) as logs:
            answer = await client.post(LIST)
        alive = await client.get("/health/live")

    error = error_of(answer, 500, "internal_error")
    assert "the log has the cause" in error["message"]
    assert "secret" not in answer.text
    [line] = [line for line in logs if line["log_level"] == "error"]
    assert line["correlation_id"] == error["data"]["correlation_id"]
    assert alive.status_code == 200


async def test_the_description_names_every_operation_and_all_that_it_refers_to(
    client: httpx.AsyncClient,
) -> None:
    described = (await client.get("/openapi.json")).json()

    for operation in operations("all"):
        post = described["paths"][PREFIX + path_of(operation.name)]["post"]
        given = post["requestBody"]["content"]["application/json"]["schema"]
        made = post["responses"]["200"]["content"]["application/json"]["schema"]
        assert resolved(described, given)["title"] == operation.arguments.__name__
        assert resolved(described, made)["title"] == operation.result.__name__
        assert post["description"] == operation.description
    for reference in references(described):
        assert resolved(described, {"$ref": reference})
    assert {"get", "delete"} <= set(described["paths"][f"{API}/persona/chat_stream/{{stream_id}}"])


async def test_the_description_says_how_a_stream_is_taken_up_and_what_it_answers(
    client: httpx.AsyncClient,
) -> None:
    described = (await client.get("/openapi.json")).json()

    begun = described["paths"][f"{API}/persona/chat_stream"]["post"]
    one = described["paths"][f"{API}/persona/chat_stream/{{stream_id}}"]
    for taken_up in (begun, one["get"]):
        assert "Last-Event-ID" in [given["name"] for given in taken_up["parameters"]]
        assert list(taken_up["responses"]["200"]["content"]) == ["text/event-stream"]
    assert {"204", "404", "422"} <= set(one["get"]["responses"])
    assert "cancelled" in str(one["delete"]["responses"]["200"])
    assert "HTTPValidationError" not in described["components"]["schemas"]


def resolved(described: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    found: Any = described
    for name in schema["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return dict(found)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(reference := value.get("$ref"), str):
            yield reference
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)
