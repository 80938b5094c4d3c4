"""What a caller made for itself is its own: to others its names are names of nothing."""

import asyncio
import time
from typing import Any

import pytest

from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.callers import SCOPES, Identity, called_by
from persona_mcp.state.errors import Conflict, NotFound, PersonaError
from tests.calls import call, rows, say
from tests.doubles import Hangs, ScriptedModel
from tests.http_server import STREAM, soon
from tests.rpc_client import connected
from tests.tokens import bearer, guarded, showing, token_of

pytestmark = pytest.mark.anyio

ONE, OTHER = (
    Identity(id, id, frozenset(SCOPES), frozenset({"main"})) for id in ("t_one", "t_other")
)
REPLY = "Biscuit is a fine name for a cat."
NEVER = "A" * 43


def alike(error: PersonaError, id: str) -> dict[str, Any]:
    """Return what an error tells, without the id that was asked for."""
    told = {"message": error.message, **error.data}
    return {key: str(value).replace(id, "ID") for key, value in told.items()}


async def test_a_session_is_its_makers(service: Service) -> None:
    with called_by(ONE):
        its = (await call(service, "persona_switch", persona_id="aria"))["session_id"]
        mine = await call(service, "persona_status", session_id=its)
    errors = []
    for id in (its, NEVER):
        with called_by(OTHER), pytest.raises(NotFound) as caught:
            await call(service, "persona_status", session_id=id)
        errors.append(alike(caught.value, id))

    assert mine["persona"]["id"] == "aria"
    assert errors[0] == errors[1]


async def test_nobody_else_switches_or_clears_a_session(service: Service) -> None:
    with called_by(ONE):
        its = (await call(service, "persona_switch", persona_id="aria"))["session_id"]
    with called_by(OTHER), pytest.raises(NotFound):
        await call(service, "persona_switch", persona_id="kira", session_id=its)
    with called_by(OTHER), pytest.raises(NotFound):
        await service.sessions.clear(its, time.time())
    with called_by(ONE):
        found = await service.sessions.use(its, time.time())

    assert found.persona_id == "aria"


async def test_another_caller_is_not_given_the_answer_to_a_request_id(service: Service) -> None:
    made = {"name": "Mira", "request_id": "r1"}
    with called_by(ONE):
        first = await call(service, "persona_create", **made)
    with called_by(OTHER), pytest.raises(Conflict) as same:
        await call(service, "persona_create", **made)
    with called_by(ONE), pytest.raises(Conflict) as different:
        await call(service, "persona_create", name="Nora", request_id="r1")
    with called_by(ONE):
        again = await call(service, "persona_create", **made)

    assert again == first
    assert alike(same.value, "") == alike(different.value, "")
    [row] = await rows(service.database, tables.Answer)
    assert row["caller_id"] == "t_one"


async def test_a_reply_is_given_again_to_whom_it_was_given_only(
    service: Service, model: ScriptedModel
) -> None:
    model.add(REPLY)
    with called_by(ONE):
        first = await say(service, "My cat is called Biscuit.", request_id="r1")
    with called_by(OTHER), pytest.raises(Conflict) as caught:
        await say(service, "My cat is called Biscuit.", request_id="r1")
    with called_by(ONE):
        again = await say(service, "My cat is called Biscuit.", request_id="r1")

    assert "r1" in caught.value.message
    assert again["response"] == first["response"] == REPLY
    [row] = await rows(service.database, tables.Exchange)
    assert row["caller_id"] == "t_one"


async def test_dialogues_that_two_callers_start_under_one_request_id_are_two_calls(
    service: Service,
) -> None:
    asked = {"participants": ["aria", "kira"], "max_turns": 2, "request_id": "r1"}
    with called_by(ONE):
        await call(service, "dialogue_start", **asked)
    with called_by(OTHER), pytest.raises(Conflict):
        await call(service, "dialogue_start", **asked)

    [row] = await rows(service.database, tables.Batch)
    assert row["caller_id"] == "t_one"


async def test_a_hosts_prompt_is_answered_by_whom_it_was_made_for(service: Service) -> None:
    with called_by(ONE):
        prompt = await call(service, "persona_prompt", persona_id="aria", message="Hello.")
    errors = []
    for id in (prompt["prompt_id"], "f" * 32):
        with called_by(OTHER), pytest.raises(NotFound) as caught:
            await call(service, "persona_record_turn", prompt_id=id, response=REPLY)
        errors.append(alike(caught.value, id))
    with called_by(ONE):
        done = await call(
            service, "persona_record_turn", prompt_id=prompt["prompt_id"], response=REPLY
        )

    assert done["response"] == REPLY
    assert errors[0] == errors[1]


async def test_a_stream_is_read_and_stopped_by_whom_it_is_for(
    service: Service, model: ScriptedModel
) -> None:
    model.add(Hangs("So "))
    one, other = await token_of(service, "one"), await token_of(service, "other")
    asked = {"persona_id": "aria", "message": "Hello.", "request_id": "r1"}
    async with guarded(service) as found, showing(found, one) as mine:

        async def read() -> bytes:
            async with mine.stream("POST", STREAM, json=asked) as answer:
                return b"".join([piece async for piece in answer.aiter_bytes()])

        reader = asyncio.create_task(read())

        async def begun() -> str:
            return next((run.stream_id for run in service.runs), "")

        stream_id = await soon(begun, "the stream to begin")
        async with showing(found, other) as theirs:
            told = [
                await theirs.get(f"{STREAM}/{stream_id}"),
                await theirs.delete(f"{STREAM}/{stream_id}"),
                await theirs.get(f"{STREAM}/{'f' * 32}"),
            ]
            again = await theirs.post(STREAM, json=asked, headers={"Last-Event-ID": "0"})
        async with connected(found, additional_headers=bearer(other)) as socket:
            stopped = await socket.error("stream.cancel", {"stream_id": stream_id})
        mine_stopped = await mine.delete(f"{STREAM}/{stream_id}")
        events = await reader

    assert [answer.status_code for answer in told] == [404] * 3
    one_told, nothing = (answer.json()["error"]["message"] for answer in (told[0], told[2]))
    assert one_told.replace(stream_id, "f" * 32) == nothing
    assert again.status_code == 409
    assert stopped["code"] == -32000
    assert mine_stopped.json()["cancelled"] is True
    assert b"stream_cancelled" in events
