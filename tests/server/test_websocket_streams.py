"""Replies that are streamed over a socket: their events, and how they end."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from persona_mcp.server.rpc_methods import STREAM
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.errors import ModelError
from tests.calls import rows
from tests.doubles import Fails, Hangs, ScriptedModel
from tests.http_server import Served, resumed, runs_ended, served, streamed, text_of, with_limits
from tests.mcp_client import REPLY
from tests.rpc_client import Client, connected

pytestmark = pytest.mark.anyio

MESSAGE = {"persona_id": "aria", "message": "My cat is called Biscuit.", "request_id": "r1"}
OUT_OF_CHARACTER = "As an AI language model, I have no cats."


@pytest.fixture
async def found(service: Service) -> AsyncIterator[Served]:
    async with served(service) as running:
        yield running


@pytest.fixture
async def client(found: Served) -> AsyncIterator[Client]:
    async with connected(found) as opened:
        yield opened


async def stream(client: Client, **more: Any) -> list[dict[str, Any]]:
    """Send the message and read its events to the end."""
    await client.send(STREAM, {**MESSAGE, **more}, id="s")
    return await client.events()


def kinds(frames: list[dict[str, Any]]) -> list[str]:
    found = [frame["result"]["event_type"] for frame in frames]
    return [kind for kind in found if kind != "stream_chunk"]


def said(frames: list[dict[str, Any]]) -> str:
    """Put the chunks together that count, from where the original server had them."""
    text = ""
    for frame in frames:
        if frame["result"]["event_type"] == "stream_restart":
            text = ""
        text += frame["result"].get("chunk", "")
    return text


async def test_events_are_answers_with_the_id_of_the_request_and_those_of_the_other_doors(
    found: Served, client: Client, model: ScriptedModel
) -> None:
    model.add(REPLY)

    frames = await stream(client)
    async with found.client() as http:
        other = await resumed(http, frames[0]["result"]["stream_id"], None)

    assert all(set(frame) == {"jsonrpc", "id", "result"} for frame in frames)
    assert {frame["id"] for frame in frames} == {"s"}
    told = [(frame["result"], event.data) for frame, event in zip(frames, other, strict=True)]
    assert all(mine == theirs for mine, theirs in told[1:-1])
    assert all(set(mine["data"]) == set(theirs["data"]) for mine, theirs in told)
    assert [frame["result"]["seq"] for frame in frames] == list(range(len(frames)))
    assert kinds(frames) == ["stream_start", "stream_complete"]
    assert said(frames) == text_of(other) == frames[-1]["result"]["full_response"] == REPLY


async def test_old_clients_get_both_keys_in_every_event(
    found: Served, model: ScriptedModel
) -> None:
    model.add(Fails(ModelError("scripted died"), after="A fine name"))

    async with connected(found, legacy=True) as client:
        frames = await stream(client)

    assert all(set(frame) == {"jsonrpc", "id", "result", "error"} for frame in frames)
    assert [frame["error"] for frame in frames[:-1]] == [None] * (len(frames) - 1)
    assert frames[-1]["error"]["code"] == -32003


async def test_a_fault_of_the_model_ends_the_stream_with_an_error_beside_the_event(
    client: Client, service: Service, model: ScriptedModel
) -> None:
    model.add(Fails(ModelError("scripted died"), after="A fine name"), REPLY)

    frames = await stream(client)
    stored = await rows(service.database, tables.Turn)
    again = await stream(client)

    assert kinds(frames) == ["stream_start", "stream_error"]
    error = frames[-1]["error"]
    assert (error["code"], error["message"]) == (-32003, "scripted died")
    assert error["data"]["partial_length"] == len(said(frames)) == len("A fine name")
    assert "error" not in frames[-1]["result"]
    assert stored == []
    assert said(again) == REPLY


async def test_what_is_said_out_of_character_is_taken_back(
    client: Client, model: ScriptedModel
) -> None:
    model.add(OUT_OF_CHARACTER, REPLY)

    frames = await stream(client)

    assert kinds(frames) == ["stream_start", "stream_restart", "stream_complete"]
    assert said(frames) == REPLY


async def test_what_is_wrong_before_the_start_is_a_plain_error(
    client: Client, service: Service
) -> None:
    wrong = await client.error(STREAM, {"persona_id": "aria"})
    nobody = await client.error(STREAM, {**MESSAGE, "persona_id": "nobody"})
    none = await client.error(STREAM, {"message": "Hello."})

    assert [error["code"] for error in (wrong, nobody, none)] == [-32602, -32000, -32001]
    assert await rows(service.database, tables.Exchange) == []


async def test_a_stream_goes_to_whoever_is_current(client: Client, model: ScriptedModel) -> None:
    model.add(REPLY)
    switched = await client.result("persona.switch", {"persona_id": "noor"})

    frames = await stream(client, persona_id=None)

    start = frames[0]["result"]["data"]
    assert start["persona_name"] == "Noor"
    assert start["conversation_id"] == switched["conversation_session_id"]


async def test_stopping_a_stream_stops_the_model_and_ends_it_once(
    client: Client, service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine name")
    model.add(hanging)

    await client.send(STREAM, MESSAGE, id="s")
    first = await client.events("stream_chunk")
    await hanging.reached.wait()
    stop = {"stream_id": first[0]["result"]["stream_id"]}
    await client.send("stream.cancel", stop, id="stop")
    rest: dict[str, list[Any]] = {"s": [], "stop": []}
    while not (rest["stop"] and rest["s"] and kinds(rest["s"])):
        told = await client.read()
        rest[told["id"]].append(told)
    again = await client.result("stream.cancel", stop)
    unknown = await client.error("stream.cancel", {"stream_id": "nothing"})

    assert rest["stop"][0]["result"] == {"cancelled": True}
    assert kinds(rest["s"]) == ["stream_cancelled"]
    assert rest["s"][-1]["result"]["data"]["reason"] == "client"
    assert hanging.cancelled.is_set()
    assert again == {"cancelled": False}
    assert (unknown["code"], unknown["data"]["kind"]) == (-32000, "stream")
    assert [row["status"] for row in await rows(service.database, tables.Exchange)] == ["cancelled"]


async def test_other_calls_are_served_while_a_reply_is_streamed(
    client: Client, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine", " name.")
    model.add(hanging)

    await client.send(STREAM, MESSAGE, id="s")
    await client.events("stream_chunk")
    await hanging.reached.wait()
    await client.send("persona.list", id="list")
    while (told := await client.read())["id"] == "s":
        pass
    hanging.release.set()
    rest = await client.events()

    assert told["result"]["total_count"] == 3
    assert kinds(rest) == ["stream_complete"]


async def test_a_client_that_comes_back_in_time_finds_its_reply_being_made(
    found: Served, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine", " name.")
    model.add(hanging)

    async with connected(found) as client:
        await client.send(STREAM, MESSAGE, id="s")
        first = await client.events("stream_chunk")
        await hanging.reached.wait()
    async with connected(found) as client:
        await client.send(STREAM, MESSAGE, id="again")
        second = await client.events("stream_chunk")
        hanging.release.set()
        rest = await client.events()

    assert first[0]["result"]["stream_id"] == second[0]["result"]["stream_id"]
    assert said([*second, *rest]) == "A fine name."
    assert len(model.history) == 1


async def test_a_reply_whose_client_does_not_come_back_is_stopped(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine")
    model.add(hanging)

    async with served(with_limits(service, grace_s=0.05)) as found:
        async with connected(found) as client:
            await client.send(STREAM, MESSAGE, id="s")
            await client.events("stream_chunk")
        await hanging.cancelled.wait()
        await runs_ended(service)
        async with found.client() as http:
            model.add(REPLY)
            frames = await streamed(http, MESSAGE)

    assert frames[-1].event == "stream_complete"
