from dataclasses import asdict
from typing import Any

import pytest
from sqlalchemy import Connection, select

from persona_mcp.config.database import empty_database
from persona_mcp.config.settings import Settings
from persona_mcp.server.service import open_service
from persona_mcp.server.store import laws_of
from persona_mcp.state import relationship, tables
from persona_mcp.state.arrow import Arrow
from persona_mcp.state.batch.values import Cast
from persona_mcp.state.dialogue_spec import START, Tie
from persona_mcp.state.effects import read_arrow
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.feelings import read_feelings
from persona_mcp.state.folding import fold
from persona_mcp.state.inline_database import InlineDatabase
from persona_mcp.state.persona import Persona
from persona_mcp.state.personas import those
from persona_mcp.state.small_world import begin_world, latest
from persona_mcp.state.snapshots.rows import Rows, Selection, choose, read_rows
from tests.calls import call
from tests.doubles import ScriptedModel, WordEmbedder
from tests.small_worlds import ABC, cast, hold, host, job, member

pytestmark = pytest.mark.anyio

LAWS = laws_of(Settings(_env_file=None))
LAWS_OF_TIES = LAWS.effects.relationships


def begun(of: Cast, at: float = START) -> bytes:
    return begin_world(empty_database(), of, at, LAWS.effects, LAWS.importance)


async def rows_of(frozen: bytes) -> Rows:
    with InlineDatabase(frozen) as world:
        return await world.read(read_rows, "main")


async def arrow_in(frozen: bytes, who: str, whom: str) -> Arrow | None:
    with InlineDatabase(frozen) as world:
        return await world.read(read_arrow, "main", who, whom)


async def test_it_has_the_cast_and_what_each_of_them_alone_knows() -> None:
    frozen = await host().begin_world(cast(), START)

    with InlineDatabase(frozen) as world:
        found = await world.read(those, "main", ABC)
    assert [(one.id, one.name, one.created_at) for one in found] == [
        ("ada", "Ada", START),
        ("ben", "Ben", START),
        ("cleo", "Cleo", START),
    ]
    rows = await rows_of(frozen)
    assert {(row["persona_id"], row["content"]) for row in rows["memories"]} == {
        (id, f"{id.title()} buried a silver spoon.") for id in ABC
    }
    assert {row["visibility"] for row in rows["memories"]} == {"private"}
    assert sorted(row["party_id"] for row in rows["memory_witnesses"]) == list(ABC)
    assert {row["memory_id"] for row in rows["memory_vectors"]} == {
        row["id"] for row in rows["memories"]
    }


async def test_the_same_cast_gives_the_same_bytes() -> None:
    assert await host().begin_world(cast(), START) == await host().begin_world(cast(), START)


async def test_a_tie_is_what_relationship_update_makes_of_such_a_meeting(
    settings: Settings,
) -> None:
    tie = Tie(of="ada", to="ben", quality=0.8, minutes=45.0, context="deep_conversation")
    arrow = await arrow_in(begun(cast(ties=(tie,))), "ada", "ben")
    assert arrow is not None

    async with open_service(settings, ScriptedModel(), WordEmbedder()) as service:
        for id in ("ada", "ben"):
            spec = member(id).spec.model_dump(mode="json")
            await call(service, "persona_create", **spec)
        meeting = {"interaction_quality": 0.8, "duration_minutes": 45.0}
        told = await call(
            service,
            "relationship_update",
            persona1_id="ada",
            persona2_id="ben",
            context="deep_conversation",
            direction="forward",
            **meeting,
        )
    values = asdict(relationship.shown(arrow, LAWS_OF_TIES))
    for name in ("affinity", "trust", "respect", "intimacy"):
        assert values[name] == pytest.approx(told["updated_relationship"][name], abs=1e-3)
    assert arrow.as_of == START


async def test_ties_are_directed_and_moods_stay_at_rest() -> None:
    frozen = begun(cast(ties=(Tie(of="ada", to="ben", quality=0.8),)))
    assert await arrow_in(frozen, "ben", "ada") is None

    def mood(connection: Connection, one: Persona) -> Any:
        return read_feelings(connection, "main", one, START, LAWS.effects).emotion

    with InlineDatabase(frozen) as world:
        ada, ben, _ = await world.read(those, "main", ABC)
        assert (await world.read(mood, ada)).mood == (await world.read(mood, ben)).mood
    assert (await rows_of(begun(cast())))["mood_impulses"] == []


async def lived() -> Rows:
    """What Ada and Ben bring with them from an earlier dialogue, as a data folder keeps it."""
    ours = host()
    frozen = await ours.begin_world(cast(), START)
    outcome = await hold(ours, job(), frozen)
    rows = await rows_of(fold(frozen, [outcome], ours.laws.effects))
    parts = Selection(parts=("personas", "relationships", "emotions", "memories"))
    return choose(rows, parts)


async def test_what_they_bring_with_them_is_there_with_its_vectors() -> None:
    brought = await lived()

    rows = await rows_of(begun(cast(ties=(), kept=brought)))

    for name in ("relationship_events", "relationship_states", "persona_states", "mood_impulses"):
        assert rows[name] == brought[name] != []
    ids = {row["id"] for row in brought["memories"]}
    assert ids <= {row["id"] for row in rows["memories"]}
    assert [v for v in rows["memory_vectors"] if v["memory_id"] in ids] == brought["memory_vectors"]


async def test_it_never_begins_before_the_last_of_what_they_bring() -> None:
    brought = await lived()
    last = max(row["updated_at"] for row in brought["memories"])
    assert last > START

    frozen = begun(cast(ties=(Tie(of="cleo", to="ada", quality=0.5),), kept=brought))

    assert latest(frozen) == last
    arrow = await arrow_in(frozen, "cleo", "ada")
    assert arrow is not None and arrow.as_of == last
    assert latest(begun(cast(kept=brought), last + 60.0)) == last + 60.0


async def test_a_card_comes_with_its_persona() -> None:
    text = '{"spec":"chara_card_v2","spec_version":"2.0","data":{"name":"Ada","tags":[]}}'
    ada = member("ada")
    of = Cast((type(ada)(ada.id, ada.spec, (), text), member("ben")), (), {})

    rows = await rows_of(begun(of))

    assert [(row["persona_id"], row["card"]) for row in rows["persona_cards"]] == [("ada", text)]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (Cast((member("ada"), member("ben", name="ADA")), (), {}), "personas.ben"),
        (cast(ties=(Tie(of="ada", to="zoe", quality=0.5),)), "relationships.0.to"),
        (cast(ties=(Tie(of="ada", to="ada", quality=0.5),)), "relationships.0.to"),
    ],
)
def test_a_cast_that_does_not_fit_into_one_world_is_refused(wrong: Cast, field: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        begun(wrong)
    assert refused.value.data["field"] == field


async def test_no_work_for_an_index_is_left_in_it() -> None:
    with InlineDatabase(await host().begin_world(cast(), START)) as world:
        left = await world.read(lambda c: c.execute(select(tables.OutboxEntry)).all())
    assert left == []
