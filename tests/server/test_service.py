"""An exchange from end to end under its lease, whatever happens to it."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import delete, insert, update
from structlog.testing import capture_logs

from persona_mcp.config.checkpoints import PersonaSqliteSaver
from persona_mcp.config.database import open_sqlite
from persona_mcp.config.settings import ConversationSettings, Settings
from persona_mcp.server.graph_runs import keep_lease
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.errors import (
    Cancelled,
    Conflict,
    InternalError,
    ModelError,
    StorageUnavailable,
)
from persona_mcp.state.exchanges import ExchangeStore, Lease
from tests.calls import call, remembered, request, rows, say
from tests.doubles import Fails, FickleEmbedder, Hangs, ScriptedModel, WordEmbedder
from tests.savers import sqlite_of

pytestmark = pytest.mark.anyio

LIMIT_S = 20.0


def within(settings: Settings, **limits: Any) -> Settings:
    """Change limits of conversations."""
    conversation = ConversationSettings(**{**settings.conversation.model_dump(), **limits})
    return settings.model_copy(update={"conversation": conversation})


@asynccontextmanager
async def opened(settings: Settings, model: ScriptedModel) -> AsyncIterator[Service]:
    async with open_service(settings, model, WordEmbedder()) as service:
        yield service


async def take_lease(service: Service, conversation_id: str, owner: str, until: float) -> None:
    """Do what another process does when it takes a conversation."""
    with service.database.writing() as connection:
        connection.execute(
            update(tables.Conversation)
            .where(tables.Conversation.id == conversation_id)
            .values(lease_owner=owner, lease_until=until)
        )


async def status_of(service: Service, exchange_id: str) -> str:
    return (await service.exchanges.get("main", exchange_id)).status


async def eventually(check: Callable[[], bool]) -> None:
    """Let other tasks work until something is so."""
    async with asyncio.timeout(LIMIT_S):
        while not check():
            await asyncio.sleep(0)


async def test_a_run_that_is_cancelled_stops_the_model_and_leaves_its_partial_text(
    service: Service, model: ScriptedModel
) -> None:
    before = await remembered(service.database)
    hanging = Hangs("The harbour")
    model.add(hanging)
    run, exchange = await service.chat(request("What happened?"))
    await eventually(lambda: run.partial == "The harbour")

    await run.cancel()

    assert hanging.cancelled.is_set()
    with pytest.raises(Cancelled):
        await run.outcome()
    kept = await service.exchanges.get("main", exchange.id)
    assert (kept.status, kept.partial, kept.error) == ("cancelled", "The harbour", None)
    (conversation,) = await rows(service.database, tables.Conversation)
    assert conversation["lease_owner"] is None
    assert len(service.runs) == 0
    assert await remembered(service.database) == before


async def test_a_run_returns_what_is_stored_and_lets_the_conversation_go(
    service: Service, model: ScriptedModel
) -> None:
    model.add("The harbour froze.")
    run, accepted = await service.chat(request("What happened?"))

    found = (await run.outcome())["exchange"]

    assert found == await service.exchanges.get("main", accepted.id)
    assert (found.status, found.id) == ("done", accepted.id)
    (conversation,) = await rows(service.database, tables.Conversation)
    assert (conversation["lease_owner"], conversation["lease_until"]) == (None, None)


async def test_a_run_that_is_cancelled_before_its_first_step_ends_as_well(
    service: Service, model: ScriptedModel
) -> None:
    run, exchange = await service.chat(request("What happened?"))

    await run.cancel()

    with pytest.raises(Cancelled):
        async with asyncio.timeout(LIMIT_S):
            await run.outcome()
    assert await status_of(service, exchange.id) == "cancelled"
    assert model.history == []


async def test_a_caller_that_goes_away_stops_the_run(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs("The harbour")
    model.add(hanging)
    caller = asyncio.create_task(say(service, "What happened?"))
    await hanging.reached.wait()

    caller.cancel()
    await asyncio.wait([caller])

    assert caller.cancelled()
    assert hanging.cancelled.is_set()
    (exchange,) = await rows(service.database, tables.Exchange)
    assert exchange["status"] == "cancelled"


async def test_a_caller_that_goes_away_stops_nothing_while_another_waits(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs("The harbour")
    model.add(hanging)
    first = asyncio.create_task(say(service, "What happened?", request_id="r1"))
    await hanging.reached.wait()
    second = asyncio.create_task(say(service, "What happened?", request_id="r1"))
    while not any(run.waiting == 2 for run in service.runs):
        await asyncio.sleep(0)

    first.cancel()
    await asyncio.wait([first])
    hanging.release.set()

    assert (await second)["status"] == "done"


async def test_a_cancelled_exchange_can_be_run_again(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs("The harbour")
    model.add(hanging, "The harbour froze.")
    run, exchange = await service.chat(request("What happened?", request_id="r1"))
    await hanging.reached.wait()
    await run.cancel()

    reply = await say(service, "What happened?", request_id="r1")

    assert (reply["exchange_id"], reply["response"]) == (exchange.id, "The harbour froze.")
    assert len(await rows(service.database, tables.Turn)) == 2


async def test_closing_the_service_cancels_its_runs(
    settings: Settings, model: ScriptedModel
) -> None:
    hanging = Hangs("The harbour")
    model.add(hanging)
    async with opened(settings, model) as service:
        _, exchange = await service.chat(request("What happened?"))
        await hanging.reached.wait()

    assert hanging.cancelled.is_set()
    assert list((settings.data_dir / "processes").glob("*.lock")) == []
    async with opened(settings, model) as service:
        assert await status_of(service, exchange.id) == "cancelled"


async def test_two_messages_at_once_are_answered_one_after_the_other(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Hello.", Hangs("One."), Hangs("Two."))
    first, second = (line for line in model.script if isinstance(line, Hangs))
    begun = await say(service, "Good evening.")
    where = {"conversation_id": begun["conversation_id"]}
    one, _ = await service.chat(request("First?", **where))
    await first.reached.wait()
    two, waiting = await service.chat(request("Second?", **where))
    assert await status_of(service, waiting.id) == "pending"

    first.release.set()
    await one.outcome()
    second.release.set()
    await two.outcome()

    found = await call(service, "conversation_get", **where)
    assert [(t["turn_number"], t["content"]) for t in found["turns"][2:]] == [
        (3, "First?"),
        (4, "One."),
        (5, "Second?"),
        (6, "Two."),
    ]
    assert "First?" in model.history[2].text
    assert len(service.runs) == 0


async def test_a_message_that_has_waited_too_long_is_told_that_the_conversation_is_busy(
    settings: Settings, model: ScriptedModel
) -> None:
    hanging = Hangs("One.")
    model.add(hanging)
    async with opened(within(settings, busy_wait_s=0.0), model) as service:
        one, exchange = await service.chat(request("First?"))
        await hanging.reached.wait()

        with pytest.raises(Conflict, match="busy") as busy:
            await say(service, "Second?", conversation_id=exchange.conversation_id)

        assert busy.value.data["conversation_id"] == exchange.conversation_id
        hanging.release.set()
        assert (await one.outcome())["exchange"].response == "One."
        found = await call(service, "conversation_get", conversation_id=exchange.conversation_id)
        assert [e["status"] for e in found["exchanges"]] == ["done", "failed"]
        assert [t["turn_number"] for t in found["turns"]] == [1, 2]


async def test_a_run_whose_lease_was_taken_stores_nothing(
    service: Service, model: ScriptedModel
) -> None:
    before = await remembered(service.database)
    hanging = Hangs("The harbour", " froze.")
    model.add(hanging)
    run, exchange = await service.chat(request("What happened?"))
    await hanging.reached.wait()
    await take_lease(service, exchange.conversation_id, "elsewhere-1:other", 4e9)

    hanging.release.set()

    with pytest.raises(Conflict, match="lost its conversation"):
        await run.outcome()
    assert await remembered(service.database) == before
    (conversation,) = await rows(service.database, tables.Conversation)
    assert conversation["lease_owner"] == "elsewhere-1:other"


async def test_a_run_that_cannot_renew_its_lease_stops_the_model(
    settings: Settings, model: ScriptedModel
) -> None:
    hanging = Hangs("The harbour")
    model.add(hanging)
    async with opened(within(settings, lease_s=0.3), model) as service:
        run, exchange = await service.chat(request("What happened?"))
        await hanging.reached.wait()
        await take_lease(service, exchange.conversation_id, "elsewhere-1:other", 4e9)

        with pytest.raises(Conflict, match="another run took the conversation"):
            async with asyncio.timeout(LIMIT_S):
                await run.outcome()

        assert hanging.cancelled.is_set()
        assert await rows(service.database, tables.Turn) == []


class Forgetful(ExchangeStore):
    """A store whose database fails a few times when a lease is renewed, and then is taken."""

    def __init__(self, database: Database, failures: int) -> None:
        super().__init__(database, lambda _: False)
        self.failures = failures
        self.asked = 0

    async def renew(self, lease: Lease, lease_s: float, now: float) -> bool:
        self.asked += 1
        if self.asked <= self.failures:
            raise StorageUnavailable("locked")
        return False


@pytest.mark.parametrize(("failures", "error"), [(2, Conflict), (9, StorageUnavailable)])
async def test_a_database_that_fails_is_asked_again_while_the_lease_lasts(
    settings: Settings, model: ScriptedModel, failures: int, error: type[Exception]
) -> None:
    async with opened(within(settings, lease_s=0.03), model) as service:
        store = Forgetful(service.database, failures)

        with pytest.raises(error):
            async with asyncio.timeout(LIMIT_S):
                await keep_lease(replace(service, exchanges=store), Lease("main", "c", "x", "p"))

        assert store.asked == 3


class CutOff(Database):
    """A database whose caller is gone by the time that the first write is stored."""

    gone = False

    async def write(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = await super().write(work, *args, **kwargs)
        if not self.gone:
            self.gone = True
            raise asyncio.CancelledError
        return result


async def test_a_caller_that_goes_as_its_message_is_accepted_leaves_nothing_held(
    settings: Settings, model: ScriptedModel
) -> None:
    model.add("Hello.", "Hello again.")
    async with opened(settings, model) as service:
        first = await say(service, "Hello?")
        where = {"conversation_id": first["conversation_id"]}
        with (
            closing(CutOff(open_sqlite(settings))) as cut_off,
            pytest.raises(asyncio.CancelledError),
        ):
            await replace(service, database=cut_off).chat(request("Still there?", **where))

        exchanges = await rows(service.database, tables.Exchange)
        again = await say(service, "And now?", **where)

    assert {row["message"]: row["status"] for row in exchanges} == {
        "Hello?": "done",
        "Still there?": "cancelled",
    }
    assert again["response"] == "Hello again."


async def test_a_caller_that_goes_while_its_message_waits_for_others_is_let_go_at_once(
    service: Service,
) -> None:
    release = threading.Event()
    busy = asyncio.create_task(service.database.write(lambda _: release.wait(LIMIT_S)))
    caller = asyncio.create_task(service.chat(request("Hello?")))
    await asyncio.sleep(0)

    caller.cancel()
    await asyncio.wait([caller], timeout=LIMIT_S / 2)

    assert (caller.cancelled(), busy.done()) == (True, False)
    release.set()
    await busy
    assert await rows(service.database, tables.Exchange) == []


async def test_a_long_run_keeps_its_lease(settings: Settings, model: ScriptedModel) -> None:
    hanging = Hangs("The harbour", " froze.")
    model.add(hanging)
    async with opened(within(settings, lease_s=0.3), model) as service:
        run, exchange = await service.chat(request("What happened?"))
        await hanging.reached.wait()
        (begun,) = await rows(service.database, tables.Conversation)

        async with asyncio.timeout(LIMIT_S):
            while True:
                (now,) = await rows(service.database, tables.Conversation)
                if now["lease_until"] > begun["lease_until"] + 0.15:
                    break
                await asyncio.sleep(0.01)

        hanging.release.set()
        assert (await run.outcome())["exchange"].status == "done"
        assert await status_of(service, exchange.id) == "done"


async def test_a_request_that_another_process_carries_out_is_waited_for(
    settings: Settings, model: ScriptedModel
) -> None:
    hanging = Hangs("The harbour", " froze.")
    model.add(hanging)
    async with opened(settings, model) as one, opened(settings, ScriptedModel()) as other:
        first, exchange = await one.chat(request("What happened?", request_id="r1"))
        await hanging.reached.wait()

        second, same = await other.chat(request("What happened?", request_id="r1"))
        hanging.release.set()

        assert same.id == exchange.id
        assert (await second.outcome())["exchange"].response == "The harbour froze."
        assert (await first.outcome())["exchange"].response == "The harbour froze."
        assert len(await rows(one.database, tables.Turn)) == 2


async def test_what_a_vanished_process_left_is_interrupted_and_can_be_run_again(
    settings: Settings, model: ScriptedModel
) -> None:
    model.add(Fails(ModelError("cut off")), "The harbour froze.")
    async with opened(settings, model) as service:
        with pytest.raises(ModelError):
            await say(service, "What happened?", request_id="r1")
        gone = f"{service.process.split('-')[0]}-vanished"
        (left,) = await rows(service.database, tables.Exchange)
        with service.database.writing() as connection:
            connection.execute(
                update(tables.Exchange).values(status="running", owner=gone, error=None)
            )
        await take_lease(service, left["conversation_id"], f"{gone}:{left['id']}", 4e9)

        found = await call(service, "conversation_get", conversation_id=left["conversation_id"])
        reply = await say(service, "What happened?", request_id="r1")

        assert [e["status"] for e in found["exchanges"]] == ["interrupted"]
        assert (reply["exchange_id"], reply["response"]) == (left["id"], "The harbour froze.")
        assert len(await rows(service.database, tables.Turn)) == 2


async def test_a_defect_of_ours_is_logged_and_told_without_its_cause(
    service: Service, model: ScriptedModel
) -> None:
    model.add(Fails(ZeroDivisionError("a secret path")))

    with capture_logs() as logged, pytest.raises(InternalError) as failed:
        await say(service, "What happened?")

    assert "secret" not in failed.value.message
    (exchange,) = await rows(service.database, tables.Exchange)
    assert exchange["status"] == "failed"
    assert "secret" not in str(exchange["error"])
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    (line,) = [entry for entry in logged if entry["event"] == "exchange failed"]
    assert (line["exchange_id"], line["exc_info"]) == (exchange["id"], True)


@pytest.mark.sqlite
async def test_an_end_that_cannot_be_written_does_not_hide_the_error(
    service: Service, model: ScriptedModel
) -> None:
    hanging = Hangs("The harbour")
    model.add(hanging)
    run, _ = await service.chat(request("What happened?"))
    await hanging.reached.wait()
    with service.database.writing() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER broken BEFORE UPDATE ON exchanges BEGIN SELECT no_such(); END"
        )

    await run.cancel()

    with pytest.raises(Cancelled):
        await run.outcome()


@pytest.mark.sqlite
async def test_a_conversation_keeps_only_its_newest_checkpoints(
    settings: Settings, model: ScriptedModel
) -> None:
    few = settings.database.model_copy(update={"checkpoints_kept": 2})
    model.add("One.", "Two.", "Three.", "Four.")
    async with opened(settings.model_copy(update={"database": few}), model) as service:
        first = await say(service, "Say one.")
        where = {"conversation_id": first["conversation_id"]}
        for message in ("Say two.", "Say three.", "Say four."):
            await say(service, message, **where)

        count = sqlite_of(service).execute("SELECT count(*) FROM checkpoints").fetchall()

    assert [tuple(row) for row in count] == [(2,)]


async def test_a_data_folder_that_cannot_be_used_stops_the_start(
    settings: Settings, model: ScriptedModel
) -> None:
    settings.data_dir.write_text("not a folder")

    with pytest.raises(StorageUnavailable, match="PERSONA_DATA_DIR"):
        async with opened(settings, model):
            pass


async def test_what_an_earlier_process_left_to_index_is_indexed_at_the_start(
    settings: Settings, model: ScriptedModel
) -> None:
    model.add("A red boat!")
    async with opened(settings, model) as service:
        await say(service, "My brother Tom has a red boat.")
        with service.database.writing() as connection:
            (memory, _) = await rows(service.database, tables.Memory)
            connection.execute(delete(tables.MemoryVector))
            connection.execute(
                insert(tables.OutboxEntry).values(
                    world_id="main",
                    memory_id=memory["id"],
                    operation="upsert",
                    version=1,
                    attempts=0,
                    claimed_until=0.0,
                    created_at=0.0,
                )
            )

    async with opened(settings, model) as service:
        vectors = await rows(service.database, tables.MemoryVector)

    assert memory["id"] in {v["memory_id"] for v in vectors}


class BrokenSaver(PersonaSqliteSaver):
    """A saver on a full disk."""

    tries = 0

    async def aput(self, *_: Any, **__: Any) -> Any:
        self.tries += 1
        raise sqlite3.OperationalError("disk full")


@pytest.mark.sqlite
async def test_what_fails_after_an_exchange_was_stored_is_no_failure_of_it(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Noted.")
    saver = service.graphs.chat.checkpointer = BrokenSaver(sqlite_of(service), queue_s=1.0)

    said = await say(service, "My cat is called Biscuit.")

    assert saver.tries == 1
    assert (said["status"], said["response"]) == ("done", "Noted.")
    assert len(await rows(service.database, tables.Turn)) == 2


async def test_a_failed_embedder_costs_no_reply(settings: Settings, model: ScriptedModel) -> None:
    model.add("Noted.")
    embedder = FickleEmbedder()
    embedder.fault = ModelError("the embedder does not answer")
    async with open_service(settings, model=model, embedder=embedder) as opened:
        said = await say(opened, "My cat is called Biscuit.")
        events = await rows(opened.database, tables.RelationshipEvent)

    assert said["response"] == "Noted."
    assert all("not appraised" in event["why"] for event in events)
