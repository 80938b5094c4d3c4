"""Clients that go away, come back, do not read, or come all at once: nothing leaks."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from persona_mcp.server.runs import Run
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from tests.calls import rows
from tests.doubles import Hangs, ScriptedModel
from tests.http_server import (
    CHAT,
    LIMIT_S,
    STREAM,
    Served,
    leaving_nothing,
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

SHORT_S, LONG_S = 0.1, 60.0
MESSAGE = {"persona_id": "aria", "message": "My cat is called Biscuit.", "request_id": "r1"}


async def exchanges(service: Service) -> list[tuple[str, str]]:
    found = await rows(service.database, tables.Exchange)
    return [(row["request_id"], row["status"]) for row in found]


@pytest.fixture
async def patient(service: Service) -> AsyncIterator[Served]:
    """Waits for a client that is gone for longer than any test takes."""
    async with served(with_limits(service, grace_s=LONG_S)) as found:
        yield found


@pytest.fixture
async def impatient(service: Service) -> AsyncIterator[Served]:
    async with served(with_limits(service, grace_s=SHORT_S)) as found:
        yield found


@pytest.mark.parametrize("before", ["", "A fine name"], ids=["first token", "middle"])
async def test_a_client_that_is_gone_for_good_stops_the_model_and_may_ask_anew(
    impatient: Served, model: ScriptedModel, before: str
) -> None:
    hanging = Hangs(before)
    model.add(hanging, REPLY)

    async with leaving_nothing(impatient.service):
        async with impatient.client() as client, streaming(client, MESSAGE) as frames:
            await until(frames, "stream_chunk" if before else "stream_start")
            await hanging.reached.wait()
        await hanging.cancelled.wait()

    assert await exchanges(impatient.service) == [("r1", "cancelled")]
    async with impatient.client() as client:
        told = await streamed(client, MESSAGE)
    assert text_of(told) == REPLY
    assert await exchanges(impatient.service) == [("r1", "done")]


async def test_a_client_of_rest_that_is_gone_for_good_stops_the_model(
    impatient: Served, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine name")
    model.add(hanging)

    async with leaving_nothing(impatient.service):
        async with impatient.client() as client:
            call = asyncio.create_task(client.post(CHAT, json=MESSAGE))
            await hanging.reached.wait()
            call.cancel()
            await asyncio.wait([call])
        await hanging.cancelled.wait()

    assert await exchanges(impatient.service) == [("r1", "cancelled")]


async def test_a_stream_taken_up_by_its_last_event_gives_the_rest_once(
    patient: Served, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine name", " for a cat.")
    model.add(hanging)
    async with leaving_nothing(patient.service):
        async with patient.client() as client, streaming(client, MESSAGE) as frames:
            first = await until(frames, "stream_chunk")
        hanging.release.set()

        async with patient.client() as client:
            stream_id = first[0].data["stream_id"]
            rest = await resumed(client, stream_id, first[-1].id)
            once_more = await streamed(client, MESSAGE, after=first[-1].id)

    told = [*first, *rest]
    assert [frame.id for frame in told] == [str(number) for number in range(len(told))]
    assert text_of(told) == "A fine name for a cat."
    assert told[-1].event == "stream_complete"
    assert [(f.id, f.event) for f in once_more] == [(f.id, f.event) for f in rest]
    assert text_of([*first, *once_more]) == "A fine name for a cat."
    assert len(model.history) == 1


async def test_a_client_that_comes_back_while_the_reply_is_made_follows_it(
    patient: Served, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine name", " for a cat.")
    model.add(hanging)
    async with leaving_nothing(patient.service), patient.client() as client:
        async with patient.client() as lost, streaming(lost, MESSAGE) as frames:
            first = await until(frames, "stream_chunk")
            await hanging.reached.wait()

        async with streaming(client, MESSAGE, after=first[-1].id) as frames:
            more = await until(frames, "stream_chunk")
            hanging.release.set()
            rest = [frame async for frame in frames]
        answer = await client.post(CHAT, json=MESSAGE)

    assert text_of([*first, *more, *rest]) == "A fine name for a cat."
    assert answer.json()["response"] == "A fine name for a cat."
    assert len(model.history) == 1


async def test_the_reply_is_there_for_whoever_asks_for_it_again_over_rest(
    patient: Served, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine name", " for a cat.")
    model.add(hanging)
    async with leaving_nothing(patient.service):
        async with patient.client() as client:
            call = asyncio.create_task(client.post(CHAT, json=MESSAGE))
            await hanging.reached.wait()
            call.cancel()
            await asyncio.wait([call])
        hanging.release.set()

        async with patient.client() as client:
            answer = await client.post(CHAT, json=MESSAGE)

    assert answer.json()["response"] == "A fine name for a cat."
    assert (await exchanges(patient.service), len(model.history)) == ([("r1", "done")], 1)


async def test_one_who_leaves_does_not_stop_the_reply_for_another(
    impatient: Served, model: ScriptedModel
) -> None:
    hanging = Hangs("A fine name", " for a cat.")
    model.add(hanging)
    async with (
        leaving_nothing(impatient.service),
        impatient.client() as client,
        streaming(client, MESSAGE) as frames,
    ):
        await until(frames, "stream_chunk")
        async with impatient.client() as lost, streaming(lost, MESSAGE) as others:
            await until(others, "stream_chunk")
        [run] = impatient.service.runs
        await soon(lambda: only_one_waits(run), "the other to leave")
        hanging.release.set()
        rest = [frame async for frame in frames]

    assert rest[-1].event == "stream_complete"
    assert not hanging.cancelled.is_set()


async def only_one_waits(run: Run) -> bool:
    return run.waiting == 1


async def test_a_reader_who_does_not_read_is_taken_for_gone(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs(f"{'o' * 2000} " * 300)
    model.add(hanging)
    chosen = with_limits(service, grace_s=SHORT_S, send_s=0.2, heartbeat_s=0.1)
    async with served(chosen, send_buffer=4096) as found, leaving_nothing(service):
        with capture_logs() as logs, socket.socket() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(lazy, found.address)
            await loop.sock_sendall(lazy, request_of(found))
            await hanging.cancelled.wait()
            async with asyncio.timeout(LIMIT_S):  # what was under way arrives, then the end
                while await loop.sock_recv(lazy, 1 << 16):
                    pass

        async with found.client() as client:
            assert (await client.get("/health/live")).status_code == 200

    assert await exchanges(service) == [("r1", "cancelled")]
    assert [line for line in logs if line["log_level"] == "error"] == []


def request_of(found: Served, **more: Any) -> bytes:
    """Write a request for a stream as it stands on the wire."""
    body = json.dumps({**MESSAGE, **more}).encode()
    host, port = found.address
    head = (
        f"POST {STREAM} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def test_two_hundred_who_come_and_go_at_once_leave_nothing(
    impatient: Served, model: ScriptedModel
) -> None:
    count = 200
    model.add(*(REPLY for _ in range(count + 1)))

    async def come_and_go(number: int) -> None:
        reader, writer = await asyncio.open_connection(*impatient.address)
        persona = ("aria", "kira", "noor")[number % 3]
        writer.write(request_of(impatient, request_id=f"r{number}", persona_id=persona))
        await writer.drain()
        if number % 2:
            await reader.read(1)
        writer.transport.abort()

    async with leaving_nothing(impatient.service):
        await asyncio.gather(*(come_and_go(number) for number in range(count)))

    statuses = {status for _, status in await exchanges(impatient.service)}
    assert statuses <= {"done", "failed", "cancelled"}
    async with impatient.client() as client:
        answer = await client.post(CHAT, json={**MESSAGE, "request_id": "after"})
    assert (answer.status_code, answer.json()["response"]) == (200, REPLY)
