"""The WebSocket door: requests, answers, batches, sessions and who is let in."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy import delete
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed

from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.rpc_methods import EXTRAS, STREAM
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from tests.calls import call, rows
from tests.doubles import Hangs, ScriptedModel
from tests.http_server import Served, served
from tests.mcp_client import REPLY, WRONG
from tests.rpc_client import Client, connected, with_sockets

pytestmark = pytest.mark.anyio

ARIA = {"persona_id": "aria"}


@pytest.fixture
async def found(service: Service) -> AsyncIterator[Served]:
    async with served(service) as running:
        yield running


@pytest.fixture
async def client(found: Served) -> AsyncIterator[Client]:
    async with connected(found) as opened:
        yield opened


def method(name: str, id: Any, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": name, "params": params}


@pytest.mark.parametrize("path", ["/ws", "/mcp"])
async def test_a_conversation_over_a_socket(found: Served, model: ScriptedModel, path: str) -> None:
    model.add(REPLY)

    async with connected(found, path) as client:
        switched = await client.result("persona.switch", ARIA)
        said = await client.result("persona.chat", {"message": "Hello."})
        read = await client.result("conversation.get")

    assert switched["status"] == "active"
    assert (said["response"], said["conversation_id"]) == (
        REPLY,
        switched["conversation_session_id"],
    )
    assert [turn["content"] for turn in read["turns"]] == ["Hello.", REPLY]


async def test_methods_are_the_operations_and_those_of_a_connection(client: Client) -> None:
    told = (await client.result("rpc.discover"))["methods"]

    names = [method["name"] for method in told]
    assert names == [*(o.name.replace("_", ".", 1) for o in operations("all")), STREAM, *EXTRAS]
    assert "memory.prune_all" in names
    for method in told:
        assert method["title"] and method["description"]
        assert method["params"]["type"] == "object"
        assert "type" in method["result"] or "$ref" in method["result"]


@pytest.mark.parametrize("name", [operation.name for operation in operations("all")])
async def test_every_operation_has_a_method_and_refuses_what_it_does_not_know(
    client: Client, name: str
) -> None:
    error = await client.error(name.replace("_", ".", 1), {"colour": "red"})

    assert (error["code"], error["data"]["code"]) == (-32602, "invalid_params")
    assert "colour" in json.dumps(error["data"])


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_argument_is_named(client: Client, case: str) -> None:
    name, arguments, field, given = WRONG[case]

    error = await client.error(name.replace("_", ".", 1), arguments)

    assert (error["code"], error["data"]["field"]) == (-32602, field)
    assert given in error["message"]


async def test_errors_have_the_numbers_of_the_original_documents(client: Client) -> None:
    unknown = await client.error("persona.dance")
    nobody = await client.error("persona.get", {"persona_id": "nobody"})
    none = await client.error("memory.search", {"query": "cats"})

    assert [e["code"] for e in (unknown, nobody, none)] == [-32601, -32000, -32001]
    assert unknown["data"]["suggestions"]
    assert len({e["data"]["correlation_id"] for e in (unknown, nobody, none)}) == 3


@pytest.mark.parametrize("id", [1, "1", 1.5, None, "", -7, 2**70])
async def test_an_id_is_echoed_as_it_came(client: Client, id: Any) -> None:
    await client.send("persona.list", id=id)
    told = await client.read()

    assert (type(told["id"]), told["id"]) == (type(id), id)
    assert told["result"]["total_count"] == 3


async def test_a_notification_is_carried_out_and_never_answered(client: Client) -> None:
    with capture_logs() as logs:
        await client.send("memory.store", {**ARIA, "content": "The harbour froze."})
        await client.send("memory.store", {**ARIA, "contents": "The harbour froze."})
        await client.send("persona.dance")
        while (await client.result("memory.list", ARIA))["total_count"] == 0:
            pass

    failed = [line["code"] for line in logs if line["event"] == "notification failed"]
    assert sorted(failed) == ["invalid_params", "method_not_found"]


async def test_old_clients_get_both_keys(found: Served) -> None:
    async with connected(found, "/mcp", legacy=True) as client:
        assert client.socket.subprotocol == "persona-mcp.legacy"
        good = await client.ask("persona.list", {"websocket_id": "w1"})
        bad = await client.ask("persona.get", {"persona_id": "nobody"})

    assert (good["error"], bad["result"]) == (None, None)
    assert good["result"]["total_count"] == 3
    assert bad["error"]["code"] == -32000


async def test_requests_are_done_at_once_and_answered_as_they_finish(
    client: Client, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine", " name.")
    model.add(hanging)

    await client.send("persona.chat", {**ARIA, "message": "Hello."}, id="slow")
    await hanging.reached.wait()
    assert (await client.result("persona.list"))["total_count"] == 3
    hanging.release.set()
    told = await client.read()

    assert (told["id"], told["result"]["response"]) == ("slow", "A fine name.")


async def test_an_id_that_is_under_way_is_refused_and_free_again_afterwards(
    client: Client, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine", " name.")
    model.add(hanging)

    await client.send("persona.chat", {**ARIA, "message": "Hello."}, id=7)
    await hanging.reached.wait()
    await client.send("persona.list", id=7)
    refused = await client.read()
    await client.send("persona.list", id="7")
    other = await client.read()
    hanging.release.set()
    done = await client.read()
    await client.send("persona.list", id=7)
    again = await client.read()

    assert (refused["id"], refused["error"]["code"]) == (7, -32600)
    assert "result" in other and other["id"] == "7"
    assert done["result"]["response"] == "A fine name."
    assert again["result"]["total_count"] == 3


async def test_too_many_requests_are_refused_and_a_stream_can_be_stopped_all_the_same(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine", " name.")
    model.add(hanging)

    async with (
        served(with_sockets(service, in_flight=1, queued=1)) as found,
        connected(found) as client,
    ):
        await client.send(STREAM, {**ARIA, "message": "Hello."}, id="stream")
        events = await client.events("stream_start")
        await hanging.reached.wait()
        await client.send("persona.list", id="waits")
        await client.send("persona.list", id="beyond")
        while "result" in (refused := await client.read()):
            pass
        stream_id = events[0]["result"]["stream_id"]
        await client.send("stream.cancel", {"stream_id": stream_id}, id="stop")
        rest: list[dict[str, Any]] = []
        while len({told["id"] for told in rest} | {"stream"}) < 3:
            rest.append(await client.read())

    assert (refused["id"], refused["error"]["code"]) == ("beyond", -32008)
    assert refused["error"]["data"]["retry_after_seconds"] > 0
    by_id = {told["id"]: told["result"] for told in rest}
    assert by_id["stop"] == {"cancelled": True}
    assert by_id["stream"]["event_type"] == "stream_cancelled"
    assert by_id["waits"]["total_count"] == 3


async def send_batch(client: Client, *members: Any) -> None:
    await client.socket.send(json.dumps(list(members)))


async def test_a_batch_is_answered_in_one_array_without_its_notifications(client: Client) -> None:
    quiet = {"jsonrpc": "2.0", "method": "memory.store", "params": {**ARIA, "content": "Quiet."}}
    await send_batch(
        client,
        method("persona.list", 1),
        quiet,
        5,
        method("persona.get", "two", persona_id="nobody"),
        method(STREAM, 3, persona_id="aria", message="Hello."),
        method("persona.list", 1),
        {"jsonrpc": "2.0", "method": STREAM, "params": {**ARIA, "message": "Hello."}},
    )
    told = await client.read()

    assert [one["id"] for one in told] == [1, None, "two", 3, 1]
    codes = [one.get("error", {}).get("code") for one in told]
    assert codes == [None, -32600, -32000, -32600, -32600]


async def test_a_batch_of_notifications_alone_is_not_answered(client: Client) -> None:
    quiet = {"jsonrpc": "2.0", "method": "persona.list"}
    await send_batch(client, quiet, quiet)

    assert (await client.result("persona.list"))["total_count"] == 3


async def test_an_empty_batch_gets_one_answer(client: Client) -> None:
    await send_batch(client)
    told = await client.read()

    assert (told["id"], told["error"]["code"]) == (None, -32600)


async def test_calls_of_one_persona_in_a_batch_keep_their_order(client: Client) -> None:
    stores = [
        method("memory.store", n, persona_id=("aria", "Aria")[n % 2], content=f"Fact {n}.")
        for n in range(20)
    ]
    await send_batch(
        client, *stores, method("memory.list", "list", **ARIA), method("persona.list", "all")
    )
    told = await client.read()

    listed = told[20]["result"]
    assert listed["total_count"] == 20
    ids = [one["result"]["memory_id"] for one in told[:20]]
    assert sorted(one["id"] for one in listed["memories"]) == sorted(ids)


async def test_a_switch_in_a_batch_counts_for_what_follows(
    client: Client, model: ScriptedModel
) -> None:
    model.add("I am here.", "And I am here.")
    await send_batch(
        client,
        method("persona.switch", 1, persona_id="aria"),
        method("persona.chat", 2, message="Who are you?"),
        method("persona.switch", 3, persona_id="noor"),
        method("persona.chat", 4, message="And you?"),
    )
    told = await client.read()

    spaces = [told[n]["result"]["conversation_session_id"] for n in (0, 2)]
    assert [told[n]["result"]["conversation_id"] for n in (1, 3)] == spaces
    assert len(set(spaces)) == 2


async def test_calls_of_different_personas_in_a_batch_are_done_side_by_side(
    client: Client, model: ScriptedModel
) -> None:
    first, second = Hangs("One", "."), Hangs("Two", ".")
    model.add(first, second)
    await send_batch(
        client,
        method("persona.chat", 1, persona_id="aria", message="Hello."),
        method("persona.chat", 2, persona_id="noor", message="Hello."),
    )
    await first.reached.wait()
    await second.reached.wait()
    second.release.set()
    first.release.set()
    told = await client.read()

    assert [one["id"] for one in told] == [1, 2]
    assert {one["result"]["response"] for one in told} == {"One.", "Two."}


async def test_a_connection_has_a_session_that_another_one_can_take_up(
    found: Served, model: ScriptedModel
) -> None:
    model.add("First.", "Second.", "Third.")

    async with connected(found) as client:
        before = await client.result("session.get_info")
        await client.result("persona.switch", ARIA)
        said = await client.result("persona.chat", {"message": "Hello."})
        session_id = before["session_id"]
        assert (await client.result("session.get_info"))["session_id"] == session_id
    async with connected(found) as client:
        nobody = await client.error("persona.chat", {"message": "Hello?"})
        named = await client.result(
            "persona.chat", {"message": "Back again.", "session_id": session_id}
        )
        info = await client.result("session.get_info", {"session_id": session_id})
        taken = await client.result("persona.chat", {"message": "And on."})

    assert (before["current_persona_id"], before["current_conversation_id"]) == (None, None)
    assert nobody["code"] == -32001
    assert info["current_persona_id"] == "aria"
    assert info["current_conversation_id"] == said["conversation_id"]
    assert named["conversation_id"] == taken["conversation_id"] == said["conversation_id"]
    assert [one["turn_number"] for one in (said, named, taken)] == [2, 4, 6]


async def test_clearing_a_session_forgets_what_was_current(
    client: Client, model: ScriptedModel
) -> None:
    model.add(REPLY)
    session_id = (await client.result("persona.switch", ARIA))["session_id"]
    said = await client.result("persona.chat", {"message": "Hello."})

    cleared = await client.result("session.clear")

    assert cleared == {
        "session_id": session_id,
        "world_id": "main",
        "current_persona_id": None,
        "current_conversation_id": None,
    }
    assert (await client.error("persona.chat", {"message": "Hello?"}))["code"] == -32001
    kept = {"conversation_id": said["conversation_id"]}
    assert len((await client.result("conversation.get", kept))["turns"]) == 2


async def test_a_retry_after_a_reconnect_gets_the_stored_reply(
    found: Served, model: ScriptedModel
) -> None:
    model.add(REPLY)
    message = {**ARIA, "message": "Hello.", "request_id": "r1"}

    async with connected(found) as client:
        first = await client.result("persona.chat", message)
    async with connected(found) as client:
        second = await client.result("persona.chat", message)

    assert second["exchange_id"] == first["exchange_id"]
    assert len(model.history) == 1


async def test_a_write_is_asked_for_again_after_a_reconnect(
    found: Served, service: Service
) -> None:
    write = {**ARIA, "content": "The harbour froze.", "request_id": "w1"}

    async with connected(found) as client:
        session = await client.result("session.get_info")
        first = await client.result("memory.store", write)
    async with connected(found) as client:
        await client.result("session.get_info", {"session_id": session["session_id"]})
        second = await client.result("memory.store", write)

    assert second == first
    assert len(await rows(service.database, tables.Memory)) == 1


async def test_a_session_that_has_ended_is_told_once_and_replaced(
    service: Service, client: Client
) -> None:
    first = (await client.result("session.get_info"))["session_id"]
    await service.database.write(lambda connection: connection.execute(delete(tables.Session)))

    gone = await client.error("persona.list")
    after = await client.result("session.get_info")

    assert (gone["code"], gone["data"]["kind"]) == (-32000, "session")
    assert after["session_id"] != first


async def test_connections_are_closed_when_there_are_too_many(service: Service) -> None:
    async with (
        served(with_sockets(service, connections=1)) as found,
        connected(found) as first,
        connected(found) as second,
    ):
        with pytest.raises(ConnectionClosed) as closed:
            await second.read()
        assert (await first.result("persona.list"))["total_count"] == 3

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013


@pytest.mark.parametrize("path", ["/ws", "/mcp"])
async def test_a_page_of_another_site_is_turned_away(found: Served, path: str) -> None:
    async with connected(found, path, origin="https://evil.example") as client:
        with pytest.raises(ConnectionClosed) as closed:
            await client.read()
    async with connected(found, path, origin="http://localhost:3000") as client:
        assert (await client.result("persona.list"))["total_count"] == 3

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def test_another_host_name_is_turned_away(found: Served) -> None:
    host, port = found.address
    elsewhere = replace(found, url=f"http://evil.example:{port}")
    async with connected(elsewhere, host=host, port=port) as client:
        with pytest.raises(ConnectionClosed) as closed:
            await client.read()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


@pytest.mark.parametrize("accept", ["application/json", "*/*", "text/html"])
async def test_the_root_says_what_this_is_and_where_its_doors_are(
    found: Served, accept: str
) -> None:
    async with found.client() as http:
        answer = await http.get("/", headers={"Accept": accept})

    assert answer.status_code == httpx.codes.OK
    assert answer.json()["status"] == "ok"
    assert answer.json()["doors"]["websocket"] == ["/ws", "/mcp"]


async def test_what_is_done_over_a_socket_is_what_an_operation_does(
    client: Client, service: Service
) -> None:
    over = await client.result("persona.get", ARIA)

    assert over == await call(service, "persona_get", persona_id="aria")
    assert len(await rows(service.database, tables.Session)) == 1
