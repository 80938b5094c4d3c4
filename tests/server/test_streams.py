"""Token streams over SSE: their events, and how they end, are resumed, cancelled and forgotten."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from persona_mcp.config.settings import Settings
from persona_mcp.server.chat_stream import ENDS, REPEATED
from persona_mcp.server.operations.chat import PersonaChat
from persona_mcp.server.runs import Runs
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import tables
from persona_mcp.state.errors import ModelError
from tests.calls import rows
from tests.doubles import Fails, Hangs, ScriptedModel, WordEmbedder
from tests.http_server import (
    API,
    CHAT,
    HEARTBEAT,
    STREAM,
    Frame,
    Served,
    resumed,
    served,
    soon,
    streamed,
    streaming,
    text_of,
    until,
    with_limits,
)
from tests.mcp_client import REPLY

pytestmark = pytest.mark.anyio

MESSAGE = {"persona_id": "aria", "message": "My cat is called Biscuit.", "request_id": "r1"}
OUT_OF_CHARACTER = "As an AI language model, I have no cats."


@pytest.fixture
async def found(service: Service) -> AsyncIterator[Served]:
    async with served(service) as running:
        yield running


def kinds(frames: list[Frame]) -> list[str]:
    return [frame.event for frame in frames if frame.event != "stream_chunk"]


async def statuses(service: Service) -> list[Any]:
    return [row["status"] for row in await rows(service.database, tables.Exchange)]


async def test_a_stream_begins_goes_on_in_chunks_and_ends_with_the_stored_reply(
    found: Served, model: ScriptedModel
) -> None:
    model.add(REPLY)

    async with found.client() as client:
        frames = await streamed(client, {**MESSAGE, "token_budget": 200})
        plain = (await client.post(CHAT, json={**MESSAGE, "token_budget": 200})).json()

    assert kinds(frames) == ["stream_start", "stream_complete"]
    assert [frame.id for frame in frames] == [str(number) for number in range(len(frames))]
    for number, frame in enumerate(frames):
        assert (frame.data["event_type"], frame.data["seq"]) == (frame.event, number)
        assert frame.data["stream_id"] == frames[0].data["stream_id"]
        assert frame.data["persona_id"] == "aria"
        assert frame.data["timestamp"].endswith("Z")
        inner = frame.data["data"]
        assert {k: frame.data[k] for k in REPEATED if k in inner} == {
            k: inner[k] for k in REPEATED if k in inner
        }
    start, end = frames[0].data["data"], frames[-1].data["data"]
    assert (start["persona_name"], start["message"]) == ("Aria", MESSAGE["message"])
    assert (start["token_budget"], start["request_id"]) == (200, "r1")
    assert (start["turn_number"], end["finish_reason"]) == (2, "stop")
    chunks = [frame.data["data"] for frame in frames[1:-1]]
    assert [chunk["chunk_number"] for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert chunks[-1]["total_length"] == len(REPLY)
    assert text_of(frames) == end["full_response"] == plain["response"] == REPLY
    assert (end["chunk_count"], end["response_length"]) == (len(chunks), len(REPLY))
    assert set(end) >= set(PersonaChat.model_fields) - {"status", "response"}
    for name in ("exchange_id", "tokens_used", "turn_number", "response_type", "memory_ids"):
        assert end[name] == plain[name]


async def test_chunks_begin_again_when_the_reply_is_made_again(
    found: Served, model: ScriptedModel
) -> None:
    model.add(OUT_OF_CHARACTER, REPLY)

    async with found.client() as client:
        frames = await streamed(client, MESSAGE)

    assert kinds(frames) == ["stream_start", "stream_restart", "stream_complete"]
    again = [frame.event for frame in frames].index("stream_restart")
    assert "character" in frames[again].data["data"]["reason"]
    assert frames[again + 1].data["data"]["chunk_number"] == 1
    assert text_of(frames) == frames[-1].data["full_response"] == REPLY


async def test_a_failure_in_the_middle_ends_the_stream_and_is_kept_with_what_was_said(
    found: Served, model: ScriptedModel
) -> None:
    model.add(Fails(ModelError("scripted died"), after="A fine name"), REPLY)

    async with found.client() as client:
        frames = await streamed(client, MESSAGE)
        [kept] = await rows(found.service.database, tables.Exchange)
        again = await streamed(client, MESSAGE)

    assert kinds(frames) == ["stream_start", "stream_error"]
    error = frames[-1].data["error"]
    assert (error["code"], error["message"]) == (-32003, "scripted died")
    assert error["data"]["partial"] == text_of(frames) == "A fine name"
    assert error["data"]["partial_length"] == len("A fine name")
    assert (kept["status"], kept["partial"]) == ("failed", "A fine name")
    assert (text_of(again), again[-1].event) == (REPLY, "stream_complete")
    assert again[0].data["stream_id"] != frames[0].data["stream_id"]


async def test_what_is_wrong_before_the_start_is_a_plain_error(found: Served) -> None:
    async with found.client() as client:
        wrong = await client.post(STREAM, json={"persona_id": "aria"})
        nobody = await client.post(STREAM, json={**MESSAGE, "persona_id": "nobody"})
        number = await client.post(STREAM, json=MESSAGE, headers={"Last-Event-ID": "two"})

    assert [answer.status_code for answer in (wrong, nobody, number)] == [422, 404, 422]
    assert wrong.json()["error"]["data"]["field"] == "message"
    assert number.json()["error"]["data"]["field"] == "Last-Event-ID"
    assert await statuses(found.service) == []


async def test_a_stored_reply_streams_whole_for_its_request_id(
    found: Served, model: ScriptedModel
) -> None:
    model.add(REPLY)

    async with found.client() as client:
        stored = (await client.post(CHAT, json=MESSAGE)).json()
        frames = await streamed(client, MESSAGE)

    assert [frame.event for frame in frames] == ["stream_start", "stream_chunk", "stream_complete"]
    assert text_of(frames) == stored["response"] == REPLY
    assert frames[-1].data["data"]["exchange_id"] == stored["exchange_id"]


@pytest.mark.parametrize("position", [None, 0, 3])
async def test_an_ended_stream_gives_what_comes_behind_an_event(
    found: Served, model: ScriptedModel, position: int | None
) -> None:
    model.add(REPLY)
    after = None if position is None else str(position)

    async with found.client() as client:
        whole = await streamed(client, MESSAGE)
        rest = await resumed(client, whole[0].data["stream_id"], after)

    behind = -1 if position is None else position
    expected = [(frame.id, frame.event) for frame in whole if int(frame.id or 0) > behind]
    assert [(frame.id, frame.event) for frame in rest] == expected
    assert len(model.history) == 1


async def test_whoever_has_seen_the_end_is_told_to_ask_no_more(
    found: Served, model: ScriptedModel
) -> None:
    model.add(REPLY)

    async with found.client() as client:
        whole = await streamed(client, MESSAGE)
        seen = {"Last-Event-ID": whole[-1].id or ""}
        answer = await client.get(f"{STREAM}/{whole[0].data['stream_id']}", headers=seen)

    assert (answer.status_code, answer.content) == (204, b"")


async def test_cancelling_stops_the_model_and_tells_the_reader(
    found: Served, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine name")
    model.add(hanging)

    async with found.client() as client, streaming(client, MESSAGE) as frames:
        first = await until(frames, "stream_chunk")
        await hanging.reached.wait()
        address = f"{STREAM}/{first[0].data['stream_id']}"
        async with found.client() as another:
            answers = [(await another.delete(address)).json() for _ in range(2)]
        rest = [frame async for frame in frames]

    assert [answer["cancelled"] for answer in answers] == [True, False]
    assert hanging.cancelled.is_set()
    assert rest[-1].event == "stream_cancelled"
    assert rest[-1].data["data"]["reason"] == "client"
    assert rest[-1].data["data"]["partial"] == text_of([*first, *rest]) == "A fine name"
    assert [frame.event for frame in rest if frame.event in ENDS] == ["stream_cancelled"]
    assert await statuses(found.service) == ["cancelled"]
    assert await rows(found.service.database, tables.Turn) == []


async def test_a_model_that_hangs_for_one_holds_up_nobody_else(
    found: Served, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine name", ".")
    model.add(hanging, REPLY)

    async with found.client() as client, streaming(client, MESSAGE) as frames:
        await hanging.reached.wait()
        async with found.client() as another:
            other = {"persona_id": "noor", "message": "Good evening."}
            answer = await another.post(CHAT, json=other)
        hanging.release.set()
        told = [frame async for frame in frames]

    assert answer.json()["response"] == REPLY
    assert text_of(told) == "A fine name."


async def test_a_stream_in_silence_shows_life(service: Service, model: ScriptedModel) -> None:
    hanging = Hangs("A fine name", ".")
    model.add(hanging)

    async with (
        served(with_limits(service, heartbeat_s=0.05)) as found,
        found.client() as client,
        streaming(client, MESSAGE) as frames,
    ):
        await hanging.reached.wait()
        for _ in range(3):
            await until(frames, HEARTBEAT)
        hanging.release.set()
        rest = [frame async for frame in frames]

    assert rest[-1].event == "stream_complete"


async def test_an_ended_stream_is_forgotten_and_the_reply_is_not(
    service: Service, model: ScriptedModel
) -> None:
    model.add(REPLY)
    short = replace(with_limits(service, streams_kept_s=0.05), runs=Runs(0.05, 10))

    async with served(short) as found, found.client() as client:
        frames = await streamed(client, MESSAGE)
        address = f"{STREAM}/{frames[0].data['stream_id']}"

        async def forgotten() -> bool:
            return (await client.get(address)).status_code == 404

        await soon(forgotten, "the stream to be forgotten")
        told = (await client.get(address)).json()["error"]
        again = await streamed(client, MESSAGE, after="3")

    assert (told["data"]["code"], told["data"]["kind"]) == ("not_found", "stream")
    assert "request_id" in told["message"]
    assert again[-1].data["full_response"] == REPLY


async def test_of_ended_streams_no_more_are_kept_than_may_be(
    settings: Settings, model: ScriptedModel
) -> None:
    model.add(REPLY, REPLY)
    another = {**MESSAGE, "request_id": "r2"}
    few = settings.server.model_copy(update={"streams_kept": 1})
    chosen = settings.model_copy(update={"server": few})

    async with (
        open_service(chosen, model, WordEmbedder()) as opened,
        served(opened) as found,
        found.client() as client,
    ):
        ended = [await streamed(client, body) for body in (MESSAGE, another)]
        read = [await client.get(f"{STREAM}/{frames[0].data['stream_id']}") for frames in ended]

    assert [answer.status_code for answer in read] == [404, 200]


async def test_whoever_waits_a_while_is_told_that_it_runs_and_gets_the_reply_later(
    found: Served, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine name", " for a cat.")
    model.add(hanging)

    async with found.client() as client:
        first = (await client.post(CHAT, json={**MESSAGE, "wait_s": 1})).json()
        waiting = asyncio.create_task(client.post(CHAT, json=MESSAGE))
        hanging.release.set()
        second = (await waiting).json()

    assert (first["status"], first["request_id"]) == ("running", "r1")
    assert (second["status"], second["response"]) == ("done", "A fine name for a cat.")
    assert second["exchange_id"] == first["exchange_id"]
    assert len(model.history) == 1


async def test_an_event_that_was_seen_takes_up_the_reply_of_the_same_call_alone(
    found: Served, model: ScriptedModel
) -> None:
    model.add(REPLY)
    other = {**MESSAGE, "persona_id": "kira", "message": "Good evening.", "user_id": "ann"}

    async with found.client() as client:
        whole = await streamed(client, MESSAGE)
        refused = await client.post(STREAM, json=other, headers={"Last-Event-ID": "0"})
        again = await streamed(client, MESSAGE)
        rest = await streamed(client, MESSAGE, after="2")

    assert refused.status_code == 409
    assert refused.json()["error"]["data"]["field"] == "request_id"
    assert kinds(again) == ["stream_start", "stream_complete"]
    assert [frame.id for frame in rest] == [frame.id for frame in whole[3:]]


@pytest.mark.parametrize("ending", ["failed", "cancelled"])
async def test_a_reply_that_is_made_again_is_told_whole_to_who_has_read_of_another_run(
    found: Served, model: ScriptedModel, ending: str
) -> None:
    hanging = Hangs("A fine ")
    model.add(hanging if ending == "cancelled" else Fails(ModelError("gone"), "A fine "), REPLY)

    async with found.client() as client:
        async with streaming(client, MESSAGE) as frames:
            first = await until(frames, "stream_chunk")
            if ending == "cancelled":
                await client.delete(f"{STREAM}/{first[0].data['stream_id']}")
            first += [frame async for frame in frames]
        again = await streamed(client, MESSAGE, after=first[-1].id)
        third = await streamed(client, MESSAGE, after="1")

    assert await statuses(found.service) == ["done"]
    for told in (again, third):
        assert kinds(told) == ["stream_start", "stream_complete"]
        assert [frame.id for frame in told] == [str(number) for number in range(len(told))]
        assert text_of(told) == REPLY


async def test_two_messages_at_once_are_told_each_its_own_turn(
    found: Served, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine name", ".")
    model.add("Good evening.", hanging, REPLY)

    async with found.client() as client:
        begun = (await client.post(CHAT, json={**MESSAGE, "request_id": "r0"})).json()
        where = {**MESSAGE, "conversation_id": begun["conversation_id"]}
        first = asyncio.create_task(streamed(client, where))
        await hanging.reached.wait()
        second = asyncio.create_task(streamed(client, {**where, "request_id": "r2"}))

        async def both() -> bool:
            return len(await statuses(found.service)) == 3

        await soon(both, "the second message to be accepted")
        hanging.release.set()
        told = [await first, await second]
        again = await resumed(client, told[1][0].data["stream_id"], None)

    numbers = [(f[0].data["data"]["turn_number"], f[-1].data["data"]["turn_number"]) for f in told]
    assert numbers == [(4, 4), (6, 6)]
    assert again[0].data == told[1][0].data


async def test_an_event_is_one_line_whatever_the_reply_has(
    found: Served, model: ScriptedModel
) -> None:
    said = "One.\u2028Two.\u2029Three.\x85Four."
    model.add(said)

    async with found.client() as client:
        frames = await streamed(client, MESSAGE)
        raw = (await client.get(f"{STREAM}/{frames[0].data['stream_id']}")).content.decode()

    assert text_of(frames) == frames[-1].data["full_response"]
    assert not set("\u2028\u2029\x85") & set(raw)


async def test_a_persona_that_is_deleted_while_it_answers_stops(
    found: Served, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine name")
    model.add(hanging)
    gone = {"persona_id": "aria", "confirm": True}

    async with found.client() as client, streaming(client, MESSAGE) as frames:
        first = await until(frames, "stream_chunk")
        await hanging.reached.wait()
        async with found.client() as another:
            told = (await another.post(f"{API}/persona/delete", json=gone)).json()
        rest = [frame async for frame in frames]
        read = await resumed(client, first[0].data["stream_id"], None)

    assert told["counts"]["replies_stopped"] == 1
    assert hanging.cancelled.is_set()
    assert (rest[-1].event, rest[-1].data["data"]["reason"]) == ("stream_cancelled", "deleted")
    assert [frame.data for frame in read] == [frame.data for frame in [*first, *rest]]
    assert await statuses(found.service) == ["cancelled"]
