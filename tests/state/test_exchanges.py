import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from persona_mcp.config.database import open_database
from persona_mcp.config.settings import Settings
from persona_mcp.state.commit import commit_exchange
from persona_mcp.state.conversations import ConversationStore
from persona_mcp.state.database import Database
from persona_mcp.state.errors import Conflict, InvalidParams, NotFound
from persona_mcp.state.exchange import UNFINISHED, ExchangeStatus
from persona_mcp.state.exchanges import ExchangeStore, Lease
from persona_mcp.state.liveness import Liveness
from persona_mcp.state.personas import PersonaStore
from persona_mcp.state.tables import Conversation, Exchange
from tests.state.rows import (
    LEASE_S,
    NOW,
    PARAMS,
    PROCESS,
    begin,
    commit_of,
    lease_of,
    nobody_is_gone,
    request,
    rows_of,
)

pytestmark = [pytest.mark.anyio, pytest.mark.databases]

OTHER = "host-2"

HOLDER = """
import asyncio, sys
from pathlib import Path
from persona_mcp.config.database import open_database
from persona_mcp.config.settings import Settings
from persona_mcp.state.exchanges import ExchangeStore, Lease
from persona_mcp.state.liveness import Liveness

async def main():
    settings = Settings(data_dir=Path(sys.argv[1]), _env_file=None)
    liveness = Liveness(settings.data_dir / "processes")
    database = open_database(settings)
    store = ExchangeStore(database, liveness.is_gone)
    taken = await store.claim(Lease("main", "c1", "x1", liveness.owner), 3600.0, float(sys.argv[2]))
    print(taken is not None, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def store(database: Database, world: str) -> ExchangeStore:
    return ExchangeStore(database, nobody_is_gone)


async def status_of(store: ExchangeStore, exchange_id: str = "x1") -> str:
    return (await store.get("main", exchange_id)).status


async def finish(database: Database, lease: Lease, *, releases: bool = True) -> None:
    persona = await PersonaStore(database).resolve("main", "mara")
    await commit_exchange(database, replace(commit_of(lease, persona), releases=releases), PARAMS)


async def test_a_message_is_accepted_together_with_its_conversation(
    database: Database, store: ExchangeStore
) -> None:
    exchange = await store.accept(request(), "x1", PROCESS, "corr", NOW)

    assert (exchange.id, exchange.status, exchange.number) == ("x1", "pending", 1)
    assert (exchange.message, exchange.owner, exchange.correlation_id) == (
        "What happened that winter?",
        PROCESS,
        "corr",
    )
    conversation = await ConversationStore(database).get("main", "c1")
    assert conversation.participants == ("ann", "mara")
    assert (conversation.topic, conversation.head_exchange_id) == ("general", None)


async def test_a_request_id_that_comes_again_finds_its_exchange(
    database: Database, store: ExchangeStore
) -> None:
    first = await store.accept(request(), "x1", PROCESS, None, NOW)

    again = await store.accept(
        request(conversation_id="c2", message=first.message), "x2", OTHER, None, NOW + 1
    )

    assert again == first
    assert await store.find("main", "r1") == first
    assert await store.find("main", "r2") is None
    assert len(await rows_of(database, Exchange)) == 1
    assert len(await rows_of(database, Conversation)) == 1


@pytest.mark.parametrize(
    "change",
    [{"message": "x"}, {"persona_id": "tobin"}, {"user_id": "bob"}, {"parameters": {"a": 1}}],
)
async def test_a_request_id_that_was_used_for_something_else_is_a_clash(
    database: Database, store: ExchangeStore, change: dict[str, Any]
) -> None:
    await store.accept(request(), "x1", PROCESS, None, NOW)

    with pytest.raises(Conflict, match="'r1' was used for another call") as caught:
        await store.accept(request(**{**change, "conversation_id": "c2"}), "x2", PROCESS, None, NOW)

    assert caught.value.data == {"field": "request_id", "given": "r1"}
    assert len(await rows_of(database, Conversation)) == 1


async def test_messages_that_begin_one_conversation_at_once_land_in_it_together(
    database: Database, store: ExchangeStore
) -> None:
    accepted = await asyncio.gather(
        *(store.accept(request(f"r{n}"), f"x{n}", PROCESS, None, NOW) for n in range(8))
    )

    assert {exchange.conversation_id for exchange in accepted} == {"c1"}
    assert sorted(exchange.number for exchange in accepted) == list(range(1, 9))
    assert len(await rows_of(database, Conversation)) == 1


@pytest.mark.parametrize("starts", [True, False])
@pytest.mark.parametrize(
    ("change", "field"), [({"persona_id": "tobin"}, "persona_id"), ({"user_id": "bob"}, "user_id")]
)
async def test_nobody_gets_into_the_conversation_of_others(
    database: Database, store: ExchangeStore, starts: bool, change: dict[str, Any], field: str
) -> None:
    await store.accept(request(), "x1", PROCESS, None, NOW)

    with pytest.raises(InvalidParams) as refused:
        await store.accept(request("r2", starts=starts, **change), "x2", PROCESS, None, NOW)

    assert refused.value.data["field"] == field
    assert len(await rows_of(database, Exchange)) == 1


async def test_the_same_request_id_accepted_at_once_makes_one_exchange(
    database: Database, store: ExchangeStore
) -> None:
    found = await asyncio.gather(
        *(
            store.accept(request(conversation_id=f"c{n}"), f"x{n}", PROCESS, None, NOW)
            for n in range(8)
        )
    )

    assert len({exchange.id for exchange in found}) == 1
    assert len(await rows_of(database, Conversation)) == 1


async def test_a_message_to_a_conversation_that_is_not_there_is_not_found(
    database: Database, store: ExchangeStore
) -> None:
    with pytest.raises(NotFound, match="conversation 'c9'"):
        await store.accept(request(conversation_id="c9", starts=False), "x1", PROCESS, None, NOW)

    assert await rows_of(database, Exchange) == []


async def test_exchanges_are_numbered_in_order_of_acceptance(store: ExchangeStore) -> None:
    await store.accept(request("r1"), "x1", PROCESS, None, NOW)
    await store.accept(request("r2", starts=False), "x2", PROCESS, None, NOW)

    assert (await store.get("main", "x2")).number == 2


async def test_an_unknown_exchange_or_conversation_is_not_found(store: ExchangeStore) -> None:
    with pytest.raises(NotFound, match="exchange 'x9'"):
        await store.get("main", "x9")
    with pytest.raises(NotFound, match="conversation 'c1'"):
        await store.claim(lease_of("x9"), LEASE_S, NOW)
    await store.accept(request(), "x1", PROCESS, None, NOW)
    with pytest.raises(NotFound, match="exchange 'x9'"):
        await store.claim(lease_of("x9"), LEASE_S, NOW)


async def test_of_two_claims_at_once_one_wins(store: ExchangeStore) -> None:
    await store.accept(request("r1"), "x1", PROCESS, None, NOW)
    await store.accept(request("r2", starts=False), "x2", OTHER, None, NOW)

    won = await asyncio.gather(
        store.claim(lease_of("x1", PROCESS), LEASE_S, NOW),
        store.claim(lease_of("x2", OTHER), LEASE_S, NOW),
    )

    assert [one is None for one in won].count(True) == 1
    statuses = [await status_of(store, x) for x in ("x1", "x2")]
    assert sorted(statuses) == ["pending", "running"]


async def test_of_two_processes_that_claim_at_once_one_wins(
    settings: Settings, database: Database, store: ExchangeStore
) -> None:
    """Each with an engine of its own, as two processes have."""
    second = open_database(settings)
    other = ExchangeStore(second, nobody_is_gone)
    for number in range(10):
        key = str(number)
        asked = request(f"r{key}", conversation_id=f"c{key}")
        await store.accept(asked, f"x{key}", PROCESS, None, NOW)

        won = await asyncio.gather(
            store.claim(lease_of(f"x{key}", PROCESS, f"c{key}"), LEASE_S, NOW),
            other.claim(lease_of(f"x{key}", OTHER, f"c{key}"), LEASE_S, NOW),
        )

        assert [one is None for one in won].count(True) == 1
        exchange = await store.get("main", f"x{key}")
        assert exchange.owner == (PROCESS if won[0] else OTHER)
        assert exchange.attempts == 1
    await second.aclose()


async def test_a_lease_that_ran_out_can_be_taken_and_its_run_is_interrupted(
    store: ExchangeStore,
) -> None:
    await store.accept(request("r1"), "x1", PROCESS, None, NOW)
    await store.accept(request("r2", starts=False), "x2", OTHER, None, NOW)
    assert await store.claim(lease_of("x1", PROCESS), LEASE_S, NOW)

    before = await store.claim(lease_of("x2", OTHER), LEASE_S, NOW + LEASE_S)
    after = await store.claim(lease_of("x2", OTHER), LEASE_S, NOW + LEASE_S + 0.1)

    assert before is None
    assert after is not None
    assert await status_of(store, "x1") == "interrupted"
    assert await status_of(store, "x2") == "running"


async def test_a_lease_is_renewed_until_somebody_else_took_it(store: ExchangeStore) -> None:
    await store.accept(request("r1"), "x1", PROCESS, None, NOW)
    await store.accept(request("r2", starts=False), "x2", OTHER, None, NOW)
    mine = lease_of("x1", PROCESS)
    await store.claim(mine, LEASE_S, NOW)

    kept = await store.renew(mine, LEASE_S, NOW + 10)
    early = await store.claim(lease_of("x2", OTHER), LEASE_S, NOW + 20)
    await store.claim(lease_of("x2", OTHER), LEASE_S, NOW + 30)

    assert (kept, early) == (True, None)
    assert not await store.renew(mine, LEASE_S, NOW + 31)


async def test_a_claim_for_an_exchange_that_is_done_is_refused(
    database: Database, store: ExchangeStore
) -> None:
    """Two processes with the same request id: the second finds the lease free after the first."""
    lease = await begin(database)
    await finish(database, lease)

    taken = await store.claim(lease_of("x1", OTHER), LEASE_S, NOW + 1)

    assert taken is not None
    assert (taken.status, taken.owner) == ("done", PROCESS)


async def test_the_lease_is_free_again_with_the_commit(
    database: Database, store: ExchangeStore
) -> None:
    lease = await begin(database)
    await finish(database, lease)

    assert await store.renew(lease, LEASE_S, NOW)  # who renews it still is told of no trouble
    await store.accept(request("r2", starts=False), "x2", OTHER, None, NOW)

    assert await store.claim(lease_of("x2", OTHER), LEASE_S, NOW + 1)
    assert (await rows_of(database, Exchange, Exchange.number))[1].follows_id == "x1"


async def test_a_run_that_goes_on_behind_its_commit_keeps_the_lease_until_it_lets_go(
    database: Database, store: ExchangeStore
) -> None:
    lease = await begin(database)
    await finish(database, lease, releases=False)
    await store.accept(request("r2", starts=False), "x2", OTHER, None, NOW)

    early = await store.claim(lease_of("x2", OTHER), LEASE_S, NOW + 1)
    done = await store.let_go(lease)

    assert (early, done.status) == (None, "done")
    assert await store.claim(lease_of("x2", OTHER), LEASE_S, NOW + 1)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_a_run_that_did_not_become_done_keeps_what_it_said_and_can_run_again(
    database: Database, store: ExchangeStore, status: ExchangeStatus
) -> None:
    lease = await begin(database)

    await store.end(lease, status, NOW + 1, {"code": "llm_error"}, "The harb")

    ended = await store.get("main", "x1")
    assert (ended.status, ended.partial, ended.error) == (status, "The harb", {"code": "llm_error"})
    assert await store.claim(lease_of("x1", OTHER), LEASE_S, NOW + 2)
    again = await store.get("main", "x1")
    assert (again.status, again.partial, again.error) == ("running", None, None)
    assert (again.attempts, again.owner, again.finished_at) == (2, OTHER, None)


async def test_who_lost_the_conversation_ends_nothing_of_the_one_who_took_it(
    database: Database, store: ExchangeStore
) -> None:
    lease = await begin(database)
    await store.claim(lease_of("x1", OTHER), LEASE_S, NOW + 60)

    await store.end(lease, "failed", NOW + 61)
    await store.let_go(lease)

    assert await status_of(store) == "running"
    assert await store.renew(lease_of("x1", OTHER), LEASE_S, NOW + 62)


async def test_done_stays_done(database: Database, store: ExchangeStore) -> None:
    lease = await begin(database)
    await finish(database, lease)

    await store.end(lease, "cancelled", NOW + 1)

    assert await status_of(store) == "done"


async def test_a_sweep_marks_only_what_was_left_behind(database: Database, world: str) -> None:
    gone = "host-dead"
    store = ExchangeStore(database, lambda owner: owner == gone)
    for number, (owner, claimed_at) in enumerate(
        [(gone, NOW), (gone, None), (PROCESS, NOW), (PROCESS, None), (PROCESS, NOW - 60)]
    ):
        asked = request(f"r{number}", conversation_id=f"c{number}")
        await store.accept(asked, f"x{number}", owner, None, NOW)
        if claimed_at is not None:
            await store.claim(lease_of(f"x{number}", owner, f"c{number}"), LEASE_S, claimed_at)

    marked = await store.sweep("main", NOW)

    assert marked == 3
    assert [await status_of(store, f"x{n}") for n in range(5)] == [
        "interrupted",  # it was running in a process that ended
        "interrupted",  # it was waiting in a process that ended
        "running",
        "pending",
        "interrupted",  # its lease ran out
    ]
    assert await store.sweep("main", NOW) == 0


async def test_a_sweep_can_look_at_one_conversation(database: Database, world: str) -> None:
    store = ExchangeStore(database, lambda _: True)
    for number in range(2):
        asked = request(f"r{number}", conversation_id=f"c{number}")
        await store.accept(asked, f"x{number}", "host-dead", None, NOW)

    assert await store.sweep("main", NOW, "c1") == 1
    assert [await status_of(store, x) for x in ("x0", "x1")] == ["pending", "interrupted"]
    assert await store.sweep("elsewhere", NOW) == 0


async def test_a_run_whose_lease_another_exchange_has_is_left_behind(
    database: Database, store: ExchangeStore
) -> None:
    await begin(database)
    with database.writing() as connection:
        taken = {"lease_owner": "host-2:x2", "lease_until": NOW + 99}
        connection.execute(Conversation.__table__.update().values(taken))  # type: ignore[attr-defined]

    assert await store.sweep("main", NOW) == 1
    assert await status_of(store) == "interrupted"


async def test_what_a_killed_process_was_running_can_be_taken_at_once(
    settings: Settings, database: Database, world: str
) -> None:
    liveness = Liveness(settings.data_dir / "processes")
    store = ExchangeStore(database, liveness.is_gone)
    await store.accept(request(), "x1", liveness.owner, None, NOW)
    pipe = asyncio.subprocess.PIPE
    arguments = (sys.executable, "-c", HOLDER, str(settings.data_dir), str(NOW))
    where = {"PERSONA_DATABASE__URL": settings.database.url.get_secret_value()}
    holder = await asyncio.create_subprocess_exec(
        *arguments, stdout=pipe, env={**os.environ, **where}
    )
    assert holder.stdout is not None
    assert (await holder.stdout.readline()).split() == [b"True"]

    while_alive = await store.claim(lease_of("x1", liveness.owner), LEASE_S, NOW + 1)
    nothing_left = await store.sweep("main", NOW + 1)
    holder.kill()
    await holder.communicate()
    swept = await store.sweep("main", NOW + 1)
    taken = await store.claim(lease_of("x1", liveness.owner), LEASE_S, NOW + 1)

    assert (while_alive, nothing_left, swept) == (None, 0, 1)
    assert taken is not None
    liveness.close()


def test_what_is_waiting_for_somebody_is_not_unfinished_work(tmp_path: Path) -> None:
    assert UNFINISHED == ("pending", "running")
