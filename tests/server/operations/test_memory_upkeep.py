"""Pruning and forced fading from outside: tried, done, counted, taken back."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from persona_mcp.config.settings import Settings
from persona_mcp.server.service import Service, open_service
from persona_mcp.state import tables
from persona_mcp.state.errors import InvalidParams, NoCurrentPersona, NotFound
from persona_mcp.state.memory.params import PruningParams
from tests.calls import call, rows
from tests.doubles import ScriptedModel, WordEmbedder
from tests.state.rows import fill

pytestmark = pytest.mark.anyio

DAY_S = 86_400.0
SMALL = PruningParams(target=20, start=25, hard_limit=30)


@pytest.fixture
async def kept(settings: Settings, model: ScriptedModel) -> AsyncIterator[Service]:
    small = settings.model_copy(update={"pruning": SMALL})
    async with open_service(small, model, WordEmbedder()) as service:
        yield service


def store(service: Service, count: int, persona_id: str = "aria", **more: Any) -> list[str]:
    made = time.time() - 100 * DAY_S
    return fill(service.database, count, persona_id=persona_id, created_at=made, **more)


async def archived(service: Service) -> int:
    return sum(row["archived_at"] is not None for row in await rows(service.database, M))


M = tables.Memory


async def test_what_is_recommended_and_tried_is_what_is_then_pruned_and_undone(
    kept: Service,
) -> None:
    store(kept, 40)
    whose = {"persona_id": "aria"}

    named = (await call(kept, "memory_prune_recommendations", **whose))["recommendations"]
    tried = await call(kept, "memory_prune", **whose, dry_run=True)
    assert await archived(kept) == 0
    done = await call(kept, "memory_prune", **whose)

    assert (named["needs_pruning"], named["current_count"], named["target_count"]) == (True, 40, 20)
    assert named["would_prune"] == tried["memories_pruned"] == done["memories_pruned"] == 10
    assert named["average_importance_to_prune"] == done["average_importance_pruned"]
    assert tried["average_importance_pruned"] == done["average_importance_pruned"]
    assert named["importance_range_to_prune"] == [0.2, 0.29]
    assert "10 of the 20 memories" in named["recommendation"] == done["message"]
    assert (tried["status"], tried["prune_id"], done["status"]) == (
        *("would_prune", None),
        "pruning_completed",
    )
    assert (tried["current_memory_count"], done["current_memory_count"]) == (40, 30)
    assert (done["memories_before"], done["memories_after"]) == (40, 30)
    assert await archived(kept) == 10
    again = await call(kept, "memory_prune", **whose)
    assert again["status"] == "no_pruning_needed"
    assert "less than an hour ago" in again["message"]
    undone = await call(kept, "memory_prune", undo_prune_id=done["prune_id"])
    assert (undone["status"], undone["persona_id"]) == ("undone", "aria")
    assert (undone["memories_restored"], undone["memories_after"]) == (10, 40)
    assert await archived(kept) == 0
    twice = await call(kept, "memory_prune", undo_prune_id=done["prune_id"])
    assert (twice["memories_restored"], twice["message"]) == (
        0,
        "this run was undone before; nothing is left to bring back",
    )
    with pytest.raises(NotFound, match="prune run"):
        await call(kept, "memory_prune", undo_prune_id="nothing")


async def test_few_memories_need_no_pruning_and_force_goes_down_to_the_target(
    kept: Service,
) -> None:
    store(kept, 22)

    few = await call(kept, "memory_prune", persona_id="aria")
    named = await call(kept, "memory_prune_recommendations", persona_id="aria")
    forced = await call(kept, "memory_prune", persona_id="aria", force=True)
    enough = await call(kept, "memory_prune", persona_id="aria", force=True)

    assert (few["status"], few["memories_pruned"]) == ("no_pruning_needed", 0)
    assert few["message"] == "22 memories; pruning begins with 25 or more"
    assert named["recommendations"]["importance_range_to_prune"] == []
    assert (forced["memories_pruned"], forced["message"]) == (2, "2 memories, down to 20")
    assert enough["message"] == "20 memories; pruning begins with more than 20"


async def test_an_undo_says_what_did_not_come_back(kept: Service) -> None:
    store(kept, 28)
    done = await call(kept, "memory_prune", persona_id="aria")
    with kept.database.writing() as connection:
        connection.exec_driver_sql("UPDATE memories SET archived_at = 5.0 WHERE id = 'aria-00000'")

    undone = await call(kept, "memory_prune", undo_prune_id=done["prune_id"])

    assert undone["message"].startswith("6 of 7 memories came back; the others")


@pytest.mark.sqlite
async def test_all_personas_are_pruned_one_by_one_and_faults_are_told(kept: Service) -> None:
    store(kept, 28)
    store(kept, 28, "kira")
    tried = await call(kept, "memory_prune_all", dry_run=True)
    assert (tried["status"], tried["total_memories_pruned"]) == ("would_prune", 14)
    assert await archived(kept) == 0
    with kept.database.writing() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER damaged BEFORE UPDATE ON memories WHEN old.persona_id = 'kira' "
            "BEGIN SELECT json('{'); END"
        )

    done = await call(kept, "memory_prune_all")

    assert (done["personas_processed"], done["total_memories_before"]) == (2, 28)
    assert (done["total_memories_after"], done["total_memories_pruned"]) == (21, 7)
    assert list(done["prune_ids"]) == ["aria"]
    assert (done["errors_encountered"], done["errors"][0]["persona_id"]) == (1, "kira")
    stats = (await call(kept, "memory_prune_stats"))["pruning_statistics"]
    assert (stats["total_pruning_operations"], stats["total_memories_pruned"]) == (1, 7)
    assert list(stats["personas_last_pruned"].values()) == [stats["last_global_prune"]]


async def test_nothing_was_pruned_yet(kept: Service) -> None:
    stats = (await call(kept, "memory_prune_stats"))["pruning_statistics"]

    assert stats["last_global_prune"] is None
    assert stats["personas_last_pruned"] == {}


async def test_forced_fading_is_tried_done_and_taken_back(kept: Service) -> None:
    store(kept, 4, importance=0.5)
    store(kept, 2, "kira", importance=0.5)

    async def weights() -> set[float]:
        return {row["importance"] for row in await rows(kept.database, M)}

    tried = await call(kept, "memory_decay_force", decay_factor=0.2, dry_run=True)
    assert (tried["status"], tried["memories_decayed"], tried["decay_id"]) == (
        *("would_decay", 6),
        None,
    )
    assert await weights() == {0.5}
    every = await call(kept, "memory_decay_force", decay_factor=0.2)
    assert (every["status"], every["persona_id"], every["personas_processed"]) == (
        *("decayed", None),
        len(await kept.personas.names("main")),
    )
    assert await weights() == {0.4}
    one = await call(kept, "memory_decay_force", persona_id="Kira")
    assert (one["persona_id"], one["memories_processed"], one["memories_decayed"]) == ("kira", 2, 2)
    assert await weights() == {0.4, 0.4 * 0.9}
    undone = await call(kept, "memory_decay_force", undo_decay_id=one["decay_id"])
    assert (undone["status"], undone["memories_restored"]) == ("undone", 2)
    assert await weights() == {0.4}
    await call(kept, "memory_decay_force", undo_decay_id=every["decay_id"])
    assert await weights() == {0.5}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("memory_decay_force", {"decay_factor": -5}),
        ("memory_decay_force", {"decay_factor": 0.91}),
        ("memory_decay_start", {"interval_hours": 0}),
        ("memory_decay_start", {"interval_hours": 169}),
        ("memory_decay_start", {"auto_pruning": "yes"}),
        ("memory_prune", {"force": 1}),
        ("memory_prune", {"undo_prune_id": "no such id!"}),
    ],
)
async def test_wrong_arguments_are_refused(kept: Service, name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams, match=next(iter(wrong))):
        await call(kept, name, **wrong)


async def test_pruning_names_whose_memories(kept: Service) -> None:
    for name in ("memory_prune", "memory_prune_recommendations"):
        with pytest.raises(NoCurrentPersona):
            await call(kept, name)
