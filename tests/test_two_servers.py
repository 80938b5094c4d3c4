"""Two servers on one PostgreSQL: each serves any conversation, nothing is lost or done twice."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.bookkeeping import faults
from persona_mcp.config.settings import Settings
from tests.http_server import API, CHAT, LIMIT_S, LOOK_S
from tests.model_server import Behaviour, ModelServer
from tests.postgres import on_postgres, stored
from tests.processes import end, model_server, serving, stop, variables

pytestmark = pytest.mark.anyio

PERSONAS = ("aria", "kira")
TALKS, MESSAGES = 8, 4
REPEATED = 3
"""Each third message is sent to both servers at once, under one request id."""
CROWD = 4


@asynccontextmanager
async def servers(
    url: str, model: ModelServer, *folders: Path, **more: str
) -> AsyncIterator[list[tuple[subprocess.Popen[str], httpx.AsyncClient]]]:
    """Start a server for each data folder, all at once, on an empty database; open clients."""
    async with AsyncExitStack() as stack:

        async def enter(folder: Path) -> tuple[subprocess.Popen[str], httpx.AsyncClient]:
            given = variables(folder, model.openai_url, PERSONA_DATABASE__URL=url, **more)
            started = serving(folder, model.openai_url, **given)
            process, address = await asyncio.to_thread(started.__enter__)
            stack.push_async_callback(asyncio.to_thread, started.__exit__, None, None, None)
            stack.push_async_callback(ended_well, process)
            client = httpx.AsyncClient(base_url=address, timeout=4 * LIMIT_S, trust_env=False)
            return process, await stack.enter_async_context(client)

        yield list(await asyncio.gather(*(enter(folder) for folder in folders)))


async def ended_well(process: subprocess.Popen[str]) -> None:
    """Stop a server as an operator does, unless the test has killed it."""
    if process.poll() is not None:
        end(process)
        return
    code, told = await asyncio.to_thread(stop, process)
    assert code == 0, told


async def say(client: httpx.AsyncClient, request_id: str, **more: Any) -> dict[str, Any]:
    """Send a message until it is answered; its reply acknowledges it."""
    body = {"message": f"This is {request_id}, and I thank you.", "request_id": request_id}
    answer = await client.post(CHAT, json={**body, **more})
    assert answer.status_code == httpx.codes.OK, answer.text
    said: dict[str, Any] = answer.json()
    assert said["status"] == "done", said
    return said


async def talk(clients: list[httpx.AsyncClient], number: int) -> list[str]:
    """Say one thing after the other in a conversation, now here and now there."""
    about: dict[str, Any] = {"persona_id": PERSONAS[number % 2], "user_id": f"user{number}"}
    told = []
    for count in range(MESSAGES):
        request_id = f"t{number}-{count}"
        here, there = clients if (number + count) % 2 else clients[::-1]
        if count % REPEATED == REPEATED - 1:
            one, same = await asyncio.gather(
                say(here, request_id, **about), say(there, request_id, **about)
            )
            assert one["exchange_id"] == same["exchange_id"]
            assert one["response"] == same["response"]
        else:
            one = await say(here, request_id, **about)
        assert one["turn_number"] == 2 * (count + 1)
        about["conversation_id"] = one["conversation_id"]
        told.append(request_id)
    return told


async def crowd(clients: list[httpx.AsyncClient]) -> list[str]:
    """Say several things in one conversation at once, here and there."""
    first = await say(clients[0], "c-first", persona_id="aria", user_id="crowd")
    about = {"persona_id": "aria", "user_id": "crowd", "conversation_id": first["conversation_id"]}
    ids = [f"c-{number}" for number in range(CROWD)]
    said = await asyncio.gather(
        *(say(clients[number % 2], id, **about) for number, id in enumerate(ids))
    )
    assert sorted(one["turn_number"] for one in said) == [4, 6, 8, 10]
    return ["c-first", *ids]


@pytest.mark.parametrize(
    "folders", [("one", "two"), ("one", "one")], ids=["data folders apart", "one data folder"]
)
async def test_under_load_no_update_is_lost_and_no_exchange_is_doubled(
    folders: tuple[str, str], settings: Settings, postgres_url: str, tmp_path: Path
) -> None:
    with model_server(Behaviour(delay_s=0.002)) as model:
        places = [tmp_path / name for name in folders]
        async with servers(postgres_url, model, *places) as running:
            clients = [client for _, client in running]
            done = await asyncio.gather(
                *(talk(clients, number) for number in range(TALKS)), crowd(clients)
            )
            acknowledged = {request_id for told in done for request_id in told}

            [(conversation,)] = stored(
                postgres_url, "SELECT conversation_id FROM exchanges WHERE request_id = 't0-0'"
            )
            where = {"conversation_id": conversation}
            seen = [await client.post(f"{API}/conversation/get", json=where) for client in clients]

    assert [one.status_code for one in seen] == [httpx.codes.OK] * 2
    assert seen[0].json()["turns"] == seen[1].json()["turns"]
    assert len(seen[0].json()["turns"]) == 2 * MESSAGES

    assert await faults(on_postgres(settings, postgres_url), acknowledged) == []
    exchanges = stored(postgres_url, "SELECT request_id, status, owner FROM exchanges")
    assert len(exchanges) == len(acknowledged) == TALKS * MESSAGES + CROWD + 1
    assert {status for _, status, _ in exchanges} == {"done"}
    assert len({owner for _, _, owner in exchanges}) == 2
    assert stored(postgres_url, "SELECT count(*) FROM conversations") == [(TALKS + 1,)]
    assert stored(postgres_url, "SELECT count(*) FROM conversations WHERE lease_owner > ''") == [
        (0,)
    ]
    wrong = "SELECT id FROM conversations c WHERE turn_count <> (SELECT count(*) FROM turns t "
    assert stored(postgres_url, wrong + "WHERE t.conversation_id = c.id)") == []
    doubled = (
        "SELECT thread_id FROM checkpoints GROUP BY thread_id HAVING count(*) <> "
        "count(DISTINCT metadata ->> 'step')"
    )
    assert stored(postgres_url, doubled) == []


async def test_what_a_killed_server_was_at_is_done_once_by_the_other(
    settings: Settings, postgres_url: str, tmp_path: Path
) -> None:
    about: dict[str, Any] = {"persona_id": "aria", "user_id": "user"}
    lease = {"PERSONA_CONVERSATION__LEASE_S": "2"}
    places = (tmp_path / "one", tmp_path / "two")
    with model_server() as model:
        async with servers(postgres_url, model, *places, **lease) as running:
            (killed, here), (_, there) = running
            first = await say(here, "r0", **about)
            about["conversation_id"] = first["conversation_id"]
            model.script(Behaviour(text="Never " * 1000, delay_s=0.05))
            lost = asyncio.create_task(say(here, "r1", **about))
            while len(model.requests) < 2:
                await asyncio.sleep(LOOK_S)
            killed.kill()
            with pytest.raises(httpx.HTTPError):
                await lost

            again = await say(there, "r1", **about)
            same = await say(there, "r1", **about)
            third = await say(there, "r2", **about)

    assert (again["turn_number"], third["turn_number"]) == (4, 6)
    assert same["exchange_id"] == again["exchange_id"]
    assert await faults(on_postgres(settings, postgres_url), {"r0", "r1", "r2"}) == []
