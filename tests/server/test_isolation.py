"""Worlds that are closed to a caller are not there for it: in every operation, at every door."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from persona_mcp.server.service import Service
from persona_mcp.state.callers import Identity
from persona_mcp.state.memory.memory import NewMemory
from persona_mcp.state.memory.store import add_memories
from tests.isolation import (
    CLOSED,
    GUEST,
    NOWHERE,
    OPEN,
    Heard,
    Things,
    heard,
    leaks,
    listening,
    opened,
    rows_of,
    scopes_without,
    two_worlds,
)
from tests.isolation_calls import (
    FILTERS,
    MISSED,
    OPERATIONS,
    SCHEMAS,
    WORDS,
    asking,
    good,
    is_text,
    kind_of,
    nobodys_of,
    swept,
    values_of,
)

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("isolation")]

WORLD_IS_THERE = "SELECT worlds.id \nFROM worlds \nWHERE worlds.id = ?"


def test_every_argument_is_known_for_an_id_or_for_words() -> None:
    unknown = {
        argument
        for operation in OPERATIONS.values()
        for argument in operation.arguments.model_fields
        if is_text(SCHEMAS[operation.name]["properties"][argument], SCHEMAS[operation.name])
        if kind_of(operation.name, argument) is None
        if argument not in WORDS
    }

    assert unknown == set(), "say in KINDS what these name, or in WORDS that they name nothing"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Things]]:
    """A folder with two worlds, that each test takes copies of."""
    folder = tmp_path_factory.mktemp("worlds") / "data"
    return folder, await two_worlds(folder)


@asynccontextmanager
async def copied(folder: Path, to: Path) -> AsyncIterator[Service]:
    """Open a service on a copy of a folder."""
    shutil.copytree(folder, to)
    async with opened(to) as service:
        with listening(service.database):
            yield service


@pytest.fixture(scope="module")
async def untouched(
    worlds: tuple[Path, dict[str, Things]], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    """A copy that no call changes."""
    async with copied(worlds[0], tmp_path_factory.mktemp("untouched") / "data") as service:
        yield service


def work_of(told: Heard, kind: str) -> list[str]:
    """Return the statements of a call, but for one that is left out for some seconds at a time.

    It looks whether the caller's own world is there, and is part of calls that name another one.
    """
    return [one for one in told.statements if kind == "world" or one != WORLD_IS_THERE]


def no_code(told: Heard) -> str:
    """Say what came: the error's code, or that it was answered."""
    error = told.answer.get("error")
    return error["data"]["code"] if error else "answered"


@pytest.mark.parametrize("name", OPERATIONS)
async def test_what_is_of_a_closed_world_is_answered_as_what_is_not_there(
    worlds: tuple[Path, dict[str, Things]], tmp_path: Path, name: str
) -> None:
    folder, things = worlds
    mine, other = things[OPEN], things[CLOSED]
    calls = [
        (argument, kind, value)
        for operation, argument, kind in swept()
        if operation == name
        for value in values_of(kind, other)
    ]
    found: list[list[Heard]] = [[], []]
    for side in (0, 1):
        async with copied(folder, tmp_path / str(side)) as service:
            before = await rows_of(service.database, CLOSED)
            await heard(service, "persona_list", {})  # what is learned at the first call
            for argument, kind, value in calls:
                asked = nobodys_of(argument, kind, value) if side else value
                with capture_logs() as logs:
                    told = await heard(service, name, asking(name, argument, asked, mine))
                found[side].append(told)
                seen = json.dumps([told.answer, logs], default=str, ensure_ascii=False)
                assert leaks(seen, other, [value]) == [], (argument, value, told.answer)
            assert leaks(service.metrics.text(), other) == []
            assert await rows_of(service.database, CLOSED) == before
    for (argument, kind, value), theirs, nobodys in zip(calls, *found, strict=True):
        asked = nobodys_of(argument, kind, value)
        where = (argument, kind, value, no_code(theirs))
        assert theirs.shown(value) == nobodys.shown(asked), where
        assert work_of(theirs, kind) == work_of(nobodys, kind), where
        if kind in MISSED and (name, argument) not in FILTERS and argument != "cursor":
            assert no_code(theirs) != "answered" or "not_found" in theirs.shown(), where


@pytest.mark.parametrize("name", OPERATIONS)
async def test_who_lacks_the_scope_is_told_so_and_nothing_else(
    worlds: tuple[Path, dict[str, Things]], untouched: Service, name: str
) -> None:
    _, things = worlds
    operation, mine = OPERATIONS[name], things[OPEN]
    lacking = Identity("t_guest", "guest", scopes_without(operation.scope), GUEST.worlds)
    given = good(operation, mine)
    asked = [given, *({**given, "world_id": one} for one in (OPEN, CLOSED, NOWHERE))]
    asked += [
        asking(name, argument, value, mine)
        for operation_name, argument, kind in swept()
        if operation_name == name
        for there in (mine, things[CLOSED])
        for value in values_of(kind, there)
    ]
    told = [await heard(untouched, name, arguments, lacking) for arguments in asked]

    assert {no_code(one) for one in told} == {"forbidden"}
    assert len({json.dumps(one.answer) for one in told}) == 1
    assert not any(one.statements for one in told)


async def test_a_suggestion_is_never_of_a_closed_world(
    worlds: tuple[Path, dict[str, Things]], untouched: Service
) -> None:
    near = worlds[1][CLOSED].of["persona"][1][:-1]

    theirs = await heard(untouched, "persona_get", {"persona_id": near})

    assert theirs.answer["error"]["data"]["suggestions"] == sorted(
        one
        for one in theirs.answer["error"]["data"]["suggestions"]
        if one.endswith("Applewood") or one.startswith("Card apple")
    )


async def test_what_waits_in_a_closed_world_is_not_counted(
    worlds: tuple[Path, dict[str, Things]], tmp_path: Path
) -> None:
    owner = worlds[1][CLOSED].of["persona"][0]
    async with copied(worlds[0], tmp_path / "data") as service:
        with service.database.writing() as connection:
            add_memories(connection, CLOSED, [memory_of(owner)], 1_700_000_000.0)
        waiting = await service.indexer.pending()
        status = await heard(service, "system_status", {})
        health = await heard(service, "system_health", {})

    assert waiting == 1
    assert status.answer["result"]["queue_depth"] == 0
    checks = health.answer["result"]["checks"]
    assert checks["queue"]["detail"] == "0 memories wait"
    assert checks["vector_index"]["detail"] == "exact; 0 memories wait"


def memory_of(owner: str) -> NewMemory:
    """Make a memory that nobody has embedded."""
    return NewMemory(
        id="waiting",
        persona_id=owner,
        content="It waits.",
        importance=0.5,
        importance_terms={},
        witnesses=(),
        visibility="private",
        related_personas=(),
        details={},
    )


async def test_an_export_goes_on_behind_a_memory_and_counts_none_of_others(
    worlds: tuple[Path, dict[str, Things]], untouched: Service
) -> None:
    given: dict[str, Any] = {"persona_id": worlds[1][OPEN].of["persona"][0], "limit": 1}

    first = (await heard(untouched, "memory_export", given)).answer["result"]
    rest = await heard(untouched, "memory_export", {**given, "cursor": first["next_cursor"]})

    assert json.loads(first["data"])["id"] == first["next_cursor"]
    assert json.loads(rest.answer["result"]["data"])["id"] != first["next_cursor"]


async def test_a_load_goes_into_no_closed_world(
    worlds: tuple[Path, dict[str, Things]], untouched: Service
) -> None:
    saved = worlds[1][OPEN].of["snapshot"][0]
    given = {"snapshot_id": saved, "confirm": True, "dry_run": True}

    closed, nowhere, own = [
        await heard(untouched, "state_load", {**given, "into": world})
        for world in (CLOSED, NOWHERE, OPEN)
    ]

    assert no_code(closed) == no_code(nowhere) == "not_found"
    assert closed.shown(CLOSED) == nowhere.shown(NOWHERE)
    assert no_code(own) == "answered"
