"""The background upkeep: when it is due, by one process, persona by persona, until stopped."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import update

from persona_mcp.config.database import ready_database
from persona_mcp.config.settings import Settings
from persona_mcp.server.service import Service, open_service
from persona_mcp.server.upkeep import Upkeep
from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.errors import Conflict, InvalidParams, StorageUnavailable
from persona_mcp.state.memory.merging import Merging
from persona_mcp.state.memory.params import (
    ConsolidationParams,
    PruningParams,
    RetentionParams,
    UpkeepParams,
)
from persona_mcp.state.memory.prune_store import Laws, undo
from persona_mcp.state.memory.upkeep_store import Switch, UpkeepStore, UpkeepSwitch
from persona_mcp.state.personas import PersonaStore
from tests.calls import call, rows
from tests.doubles import FixedClock, ScriptedModel, WordEmbedder
from tests.state.rows import NOW, fill, spec

pytestmark = pytest.mark.anyio

HOUR_S, DAY_S = 3600.0, 86_400.0
LAWS = Laws(RetentionParams(), PruningParams(target=20, start=25, hard_limit=30))
MERGING = Merging("double-64", ConsolidationParams())
SETTINGS = UpkeepParams(poll_s=3600.0, lease_s=60.0)
FADED: dict[str, Any] = {"importance": 0.1, "created_at": NOW - 400 * DAY_S}


class Ended:
    """Which processes have ended."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __call__(self, process: str) -> bool:
        return process in self.names


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    opened = await ready_database(settings)
    await PersonaStore(opened).ensure_world("main", "main", [spec("Mara"), spec("Tobin")], NOW)
    yield opened
    await opened.aclose()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def ended() -> Ended:
    return Ended()


@pytest.fixture
async def switch(database: Database) -> UpkeepSwitch:
    return UpkeepSwitch(database)


def upkeep(database: Database, clock: FixedClock, ended: Ended, process: str = "one") -> Upkeep:
    store = UpkeepStore(database, LAWS, MERGING, process, ended)
    return Upkeep(store, PersonaStore(database), SETTINGS, clock)


async def state(switch: UpkeepSwitch) -> Switch:
    found = await switch.read("main")
    assert found is not None
    return found


async def archived(database: Database) -> int:
    return sum(row["archived_at"] is not None for row in await rows(database, tables.Memory))


async def test_a_round_is_due_at_once_and_then_an_interval_after_the_last(
    database: Database,
    switch: UpkeepSwitch,
    clock: FixedClock,
    ended: Ended,
) -> None:
    keeper = upkeep(database, clock, ended)
    assert await keeper.do_due() == 0
    assert await switch.turn_on("main", 6, True) == (
        Switch(True, 6, True, None, 0, 0, {}),
        False,
    )

    done = []
    for hours in (0.0, 5.9, 0.1, 7.0):
        clock.advance(hours * HOUR_S)
        done.append(await keeper.do_due())
    restarted = upkeep(database, clock, ended, "after a restart")
    done.append(await restarted.do_due())
    clock.advance(6 * HOUR_S)
    done.append(await restarted.do_due())

    assert done == [1, 0, 1, 1, 0, 1]
    found = await state(switch)
    assert (found.cycles, found.last_run, found.errors) == (4, clock.now, 0)
    assert await switch.turn_off("main")
    assert not await switch.turn_off("main")
    clock.advance(7 * HOUR_S)
    assert await restarted.do_due() == 0
    assert (await switch.turn_on("main", 1, False))[1] is False
    assert (await switch.turn_on("main", 2, False))[1] is True


async def test_a_round_of_a_time_to_come_does_not_put_off_the_next(
    database: Database,
    switch: UpkeepSwitch,
    clock: FixedClock,
    ended: Ended,
) -> None:
    keeper = upkeep(database, clock, ended)
    await switch.turn_on("main", 6, True)

    clock.advance(30 * DAY_S)
    ahead = await keeper.do_due()
    clock.advance(-30 * DAY_S)
    set_right = await keeper.do_due(), await keeper.do_due()
    clock.advance(6 * HOUR_S)

    assert (ahead, set_right, await keeper.do_due()) == (1, (1, 0), 1)


async def test_a_round_in_which_the_clock_is_set_back_took_no_time_rather_than_less(
    database: Database, switch: UpkeepSwitch, ended: Ended
) -> None:
    took: list[float] = []
    times = iter([NOW, NOW])
    store = UpkeepStore(database, LAWS, MERGING, "one", ended)
    keeper = Upkeep(
        store,
        PersonaStore(database),
        SETTINGS,
        lambda: next(times, NOW - DAY_S),
        lambda _, seconds: took.append(seconds),
    )
    await switch.turn_on("main", 6, True)

    await keeper.do_due()

    assert (took, (await state(switch)).recent["took_s"]) == ([0.0], 0.0)


async def test_it_archives_what_has_faded_and_prunes_what_is_too_much(
    database: Database,
    switch: UpkeepSwitch,
    clock: FixedClock,
    ended: Ended,
) -> None:
    fill(database, 28)
    fill(database, 3, first=28, **FADED)
    fill(database, 20, persona_id="tobin", **FADED)
    await switch.turn_on("main", 1, True)

    assert await upkeep(database, clock, ended).do_due() == 1

    found = await state(switch)
    assert found.recent == {
        "began": NOW,
        "personas": 2,
        "archived": 12,
        "faded": 8,
        "prunes": 1,
        "merged": 0,
        "removed": 0,
        "errors": 0,
        "took_s": 0.0,
    }
    runs = {row["persona_id"]: row for row in await rows(database, tables.PruneRun)}
    assert {id: (r["archived"], r["faded"], r["origin"]) for id, r in runs.items()} == {
        "mara": (7, 3, "upkeep"),
        "tobin": (5, 5, "upkeep"),
    }
    clock.advance(HOUR_S)
    await upkeep(database, clock, ended).do_due()
    assert (await state(switch)).recent["archived"] == 3


async def test_switched_on_it_deletes_what_a_run_archived_long_ago_and_nothing_else(
    database: Database,
    switch: UpkeepSwitch,
    clock: FixedClock,
    ended: Ended,
) -> None:
    laws = Laws(RetentionParams(), PruningParams(removal=True, removal_days=30))
    store = UpkeepStore(database, laws, MERGING, "one", ended)
    keeper = Upkeep(store, PersonaStore(database), SETTINGS, clock)
    fill(database, 20)
    fill(database, 5, first=20, **FADED)
    with database.writing() as connection:
        by_hand = update(tables.Memory).where(tables.Memory.id == "mara-00000")
        connection.execute(by_hand.values(archived_at=NOW))
    await switch.turn_on("main", 1, True)
    left = []

    for days in (0, 29, 1):
        clock.advance(days * DAY_S)
        await keeper.do_due()
        left.append((len(await rows(database, tables.Memory)), await archived(database)))

    run, *_ = await rows(database, tables.PruneRun)
    gone = len(run["memory_ids"])
    assert gone
    assert left == [(25, gone + 1), (25, gone + 1), (25 - gone, 1)]
    assert (await state(switch)).recent["removed"] == gone
    undone = await database.write(undo, "main", run["id"], clock.now)
    assert (undone.archived, undone.restored) == (gone, 0)


async def test_without_auto_pruning_only_what_has_faded_goes(
    database: Database,
    switch: UpkeepSwitch,
    clock: FixedClock,
    ended: Ended,
) -> None:
    fill(database, 40)
    fill(database, 2, first=40, **FADED)
    await switch.turn_on("main", 1, False)

    await upkeep(database, clock, ended).do_due()

    assert await archived(database) == 2


async def test_one_process_at_a_time_does_a_world_and_a_dead_ones_lease_is_taken(
    database: Database,
    switch: UpkeepSwitch,
    clock: FixedClock,
    ended: Ended,
) -> None:
    fill(database, 40)
    await switch.turn_on("main", 1, True)
    holder = UpkeepStore(database, LAWS, MERGING, "holder", ended)
    assert await holder.claim("main", clock.now, 60.0) is not None
    other = upkeep(database, clock, ended, "other")

    assert await other.do_due() == 0
    assert (
        await UpkeepStore(database, LAWS, MERGING, "third", ended).claim("main", clock.now, 60.0)
        is None
    )
    ended.names.add("holder")
    assert await other.do_due() == 1
    clock.advance(HOUR_S)
    assert await UpkeepStore(database, LAWS, MERGING, "slow", ended).claim("main", clock.now, 60.0)
    assert await other.do_due() == 0
    clock.advance(61.0)
    assert await other.do_due() == 1


async def test_two_processes_at_once_do_a_world_once(
    database: Database,
    switch: UpkeepSwitch,
    clock: FixedClock,
    ended: Ended,
) -> None:
    fill(database, 40)
    await switch.turn_on("main", 1, True)
    keepers = [upkeep(database, clock, ended, f"process {n}") for n in range(4)]

    done = await asyncio.gather(*(keeper.do_due() for keeper in keepers))

    assert sorted(done) == [0, 0, 0, 1]
    assert await archived(database) == 10


class Interrupting(PersonaStore):
    """Gives the names of two personas, and does something after the first."""

    def __init__(self, database: Database, between: Any) -> None:
        super().__init__(database)
        self.between = between

    async def names(self, world_id: str) -> Any:
        def one_by_one() -> Any:
            yield "mara"
            self.between()
            yield "tobin"

        return one_by_one()


async def test_it_stops_after_the_persona_that_it_is_at_and_goes_on_after_a_restart(
    database: Database,
    switch: UpkeepSwitch,
    clock: FixedClock,
    ended: Ended,
) -> None:
    fill(database, 40)
    fill(database, 40, persona_id="tobin")
    await switch.turn_on("main", 6, True)
    store = UpkeepStore(database, LAWS, MERGING, "one", ended)
    personas = Interrupting(database, lambda: keeper.stop())
    keeper: Upkeep = Upkeep(store, personas, SETTINGS, clock)

    await keeper.run()

    assert [run["persona_id"] for run in await rows(database, tables.PruneRun)] == ["mara"]
    found = await state(switch)
    assert (found.cycles, found.last_run) == (0, None)
    assert await upkeep(database, clock, ended, "next").do_due() == 1
    runs = await rows(database, tables.PruneRun)
    assert sorted(run["persona_id"] for run in runs) == ["mara", "tobin"]


async def test_a_round_ends_where_it_is_switched_off_or_another_process_took_it(
    database: Database,
    switch: UpkeepSwitch,
    clock: FixedClock,
    ended: Ended,
) -> None:
    fill(database, 40)
    fill(database, 40, persona_id="tobin")
    await switch.turn_on("main", 6, True)

    def taken() -> None:
        with database.writing() as connection:
            connection.execute(update(tables.Upkeep).values(lease_owner="other"))

    store = UpkeepStore(database, LAWS, MERGING, "one", ended)
    keeper = Upkeep(store, Interrupting(database, taken), SETTINGS, clock)

    assert await keeper.do_due() == 0

    assert [run["persona_id"] for run in await rows(database, tables.PruneRun)] == ["mara"]
    (row,) = await rows(database, tables.Upkeep)
    assert (row["lease_owner"], row["cycles"]) == ("other", 0)


@pytest.mark.sqlite
async def test_a_persona_that_fails_is_counted_and_does_not_stop_the_others(
    database: Database,
    switch: UpkeepSwitch,
    clock: FixedClock,
    ended: Ended,
) -> None:
    fill(database, 40)
    fill(database, 40, persona_id="tobin")
    await switch.turn_on("main", 6, True)
    with database.writing() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER bad BEFORE UPDATE ON memories WHEN old.persona_id = 'mara' "
            "BEGIN SELECT RAISE(FAIL, 'bad page'); END"
        )

    assert await upkeep(database, clock, ended).do_due() == 1

    found = await state(switch)
    assert (found.errors, found.recent["errors"], found.recent["personas"]) == (1, 1, 1)
    assert [run["persona_id"] for run in await rows(database, tables.PruneRun)] == ["tobin"]


class Broken(PersonaStore):
    """Fails, with each of these in turn, then has the upkeep stopped."""

    def __init__(self, database: Database, *faults: Exception) -> None:
        super().__init__(database)
        self.faults = list(faults)
        self.keeper: Upkeep | None = None

    async def names(self, world_id: str) -> dict[str, str]:
        assert self.keeper is not None
        fault = self.faults.pop(0)
        self.keeper.wake() if self.faults else self.keeper.stop()
        raise fault


async def test_it_outlives_a_database_that_fails_and_a_defect(
    database: Database,
    switch: UpkeepSwitch,
    clock: FixedClock,
    ended: Ended,
) -> None:
    await switch.turn_on("main", 6, True)
    personas = Broken(database, StorageUnavailable("locked"), KeyError("defect"))
    store = UpkeepStore(database, LAWS, MERGING, "one", ended)
    personas.keeper = Upkeep(store, personas, SETTINGS, clock)

    await personas.keeper.run()

    assert personas.faults == []
    (row,) = await rows(database, tables.Upkeep)
    assert (row["lease_owner"], row["cycles"]) == (None, 0)


async def test_near_duplicates_become_one_and_can_be_parted_again(kept: Service) -> None:
    said = {"persona_id": "aria", "content": "The harbour froze."}
    sources = {(await call(kept, "memory_store", **said))["memory_id"] for _ in range(2)}
    while await kept.indexer.work_off():
        continue
    await UpkeepSwitch(kept.database).turn_on("main", 1, True)

    assert await kept.upkeep.do_due() == 1

    stats = (await call(kept, "memory_decay_stats"))["decay_statistics"]
    assert stats["recent_cycle"]["merged"] == 2
    (made,) = await living(kept.database)
    while await kept.indexer.work_off():
        continue
    vectors = {row["memory_id"] for row in await rows(kept.database, tables.MemoryVector)}
    assert made in vectors
    found = await call(kept, "memory_search", persona_id="aria", query="harbour")
    assert [memory["id"] for memory in found["memories"]] == [made]

    apart = {"ids": [made, "nowhere"], "unmerge": True}
    would = await call(kept, "memory_delete", **apart, dry_run=True)
    assert (would["deleted"], would["purged"]) == (1, False)
    assert await living(kept.database) == {made}
    done = await call(kept, "memory_delete", **apart)

    assert (done["memory_ids"], done["not_found"], done["purged"]) == ([made], ["nowhere"], True)
    assert set(done["restored"]) == set(would["restored"]) == sources
    assert await living(kept.database) == sources
    with pytest.raises(Conflict, match="was not merged from others"):
        await call(kept, "memory_delete", ids=sorted(sources), unmerge=True)
    with pytest.raises(InvalidParams, match="purge: allowed is false"):
        await call(kept, "memory_delete", memory_id=made, unmerge=True, purge=True, confirm=True)
    while await kept.indexer.work_off():
        continue
    found = await call(kept, "memory_search", persona_id="aria", query="harbour")
    assert {memory["id"] for memory in found["memories"]} == sources


async def living(database: Database) -> set[str]:
    return {r["id"] for r in await rows(database, tables.Memory) if r["archived_at"] is None}


@pytest.fixture
async def kept(settings: Settings, model: ScriptedModel) -> AsyncIterator[Service]:
    quick = settings.model_copy(update={"pruning": LAWS.params})
    async with open_service(quick, model, WordEmbedder()) as service:
        yield service


async def test_the_running_server_does_it_as_soon_as_it_is_switched_on(kept: Service) -> None:
    fill(kept.database, 40, persona_id="aria", created_at=time.time() - 40 * DAY_S)
    before = (await call(kept, "memory_decay_stats"))["decay_statistics"]
    assert (before["background_running"], before["last_run"], before["recent_cycle"]) == (
        *(False, None),
        {},
    )

    started = await call(kept, "memory_decay_start", interval_hours=12)

    assert started == {
        "status": "started",
        "interval_hours": 12,
        "mode": "half_life",
        "auto_pruning": True,
        "next_run": None,
    }
    async with asyncio.timeout(20):
        while not (await call(kept, "memory_decay_stats"))["decay_statistics"]["last_run"]:
            await asyncio.sleep(0.01)
    stats = (await call(kept, "memory_decay_stats"))["decay_statistics"]
    assert stats["background_running"]
    assert stats["next_run"] > stats["last_run"]
    assert (stats["total_decay_cycles"], stats["total_auto_prunes_triggered"]) == (1, 1)
    assert stats["recent_cycle"]["archived"] == 10
    assert stats["recent_cycle"]["began"] == stats["last_run"]
    assert stats["config"]["interval_hours"] == 12
    again = await call(kept, "memory_decay_start", interval_hours=1, auto_pruning=False)
    assert (again["status"], again["auto_pruning"]) == ("already_running", False)
    assert again["next_run"] is not None
    assert (await call(kept, "memory_decay_stop"))["status"] == "stopped"
    assert (await call(kept, "memory_decay_stop"))["status"] == "not_running"
    after = (await call(kept, "memory_decay_stats"))["decay_statistics"]
    assert (after["background_running"], after["next_run"]) == (False, None)
