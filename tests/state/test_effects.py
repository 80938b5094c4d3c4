import random
from dataclasses import asdict, replace

import pytest
from sqlalchemy import Connection, delete, update

from persona_mcp.state import relationship, tables
from persona_mcp.state.commit import commit_exchange
from persona_mcp.state.database import Database
from persona_mcp.state.effects import (
    RelationshipChange,
    add_relationship_change,
    read_arrow,
    refold_arrow,
)
from persona_mcp.state.emotion import Impulses
from persona_mcp.state.feelings import (
    add_feeling_change,
    at_rest,
    fold_feelings,
    read_feelings,
    to_feelings,
)
from persona_mcp.state.persona import Persona
from persona_mcp.state.personas import PersonaStore
from persona_mcp.state.relationship import Arrow, Deltas, Priors
from persona_mcp.state.relationship_store import read_log
from tests.state.rows import (
    NOW,
    PARAMS,
    begin,
    commit_of,
    feeling_change,
    lease_of,
    relationship_change,
    rows_of,
)

pytestmark = pytest.mark.anyio

ARROW = ("main", "mara", "ann")
EXCHANGES = 25
HOUR_S = 3600.0


@pytest.fixture
async def mara(database: Database, world: str) -> Persona:
    return await PersonaStore(database).resolve(world, "mara")


async def talk_at_random(database: Database, persona: Persona, rng: random.Random) -> None:
    """Commit exchanges with random effects, at random times that sometimes go backwards."""
    now = NOW
    for number in range(1, EXCHANGES + 1):
        now += rng.choice([0.0, rng.uniform(-30, 30), rng.expovariate(1 / 9000)])
        lease = await begin(database, number, now)
        changes = tuple(
            relationship_change(
                lease,
                now + rng.uniform(-1, 1),
                n,
                Deltas(
                    affinity=rng.uniform(-0.4, 0.4),
                    trust=rng.uniform(-0.4, 0.2),
                    respect=rng.uniform(-0.3, 0.3),
                    disclosure=rng.uniform(0, 0.2),
                    contact=rng.uniform(0, 0.2),
                ),
                warmth=rng.uniform(-1, 1),
            )
            for n in range(rng.randint(0, 3))
        )
        push = Impulses(*(rng.uniform(-1, 1) for _ in range(5)))
        talk = tuple(
            (rng.uniform(5, 120), rng.choice([1.0, 0.5])) for _ in range(rng.randint(0, 3))
        )
        feelings = (feeling_change(persona, push, talk),)
        await commit_exchange(
            database,
            commit_of(lease, persona, now, relationships=changes, feelings=feelings),
            PARAMS,
        )


@pytest.mark.parametrize("seed", range(4))
async def test_the_caches_equal_a_fold_of_the_log_to_the_last_bit(
    database: Database, mara: Persona, seed: int
) -> None:
    await talk_at_random(database, mara, random.Random(seed))

    (arrow_row,) = await rows_of(database, tables.RelationshipState)
    (felt_row,) = await rows_of(database, tables.PersonaState)
    with database.writing() as connection:
        folded = refold_arrow(connection, *ARROW, PARAMS.relationships)
        events = read_log(connection, *ARROW).events
        feelings = fold_feelings(connection, "main", mara, PARAMS)
    assert folded == Arrow(**arrow_row.arrow) == relationship.fold(events, PARAMS.relationships)
    assert await rows_of(database, tables.RelationshipState) == [arrow_row]
    assert feelings == to_feelings(felt_row)


@pytest.mark.parametrize("seed", range(2))
async def test_exchanges_that_are_switched_off_are_as_if_they_had_never_been(
    database: Database, mara: Persona, seed: int
) -> None:
    rng = random.Random(seed)
    await talk_at_random(database, mara, rng)
    events = await rows_of(database, tables.RelationshipEvent, tables.RelationshipEvent.seq)
    off = {row.exchange_id for row in rng.sample(events[1:], len(events) // 3)}
    with database.writing() as connection:
        table = tables.RelationshipEvent
        connection.execute(update(table).where(table.exchange_id.in_(off)).values(active=False))

        folded = refold_arrow(connection, *ARROW, PARAMS.relationships)

        left = read_log(connection, *ARROW).events
        assert folded == relationship.fold(left, PARAMS.relationships, Priors(0.1, 0.02))
        assert read_arrow(connection, *ARROW) == folded


def switch(connection: Connection, *ids: str, active: bool) -> None:
    table = tables.RelationshipEvent
    connection.execute(update(table).where(table.id.in_(ids)).values(active=active))


def add(connection: Connection, change: RelationshipChange) -> Arrow:
    return add_relationship_change(connection, "main", None, change, PARAMS.relationships)


async def test_an_arrow_without_an_active_event_has_no_cache_and_can_begin_again(
    database: Database, world: str
) -> None:
    first, second = (relationship_change(lease_of(x), NOW) for x in ("x1", "x2"))
    with database.writing() as connection:
        add(connection, first)
        switch(connection, first.id, active=False)

        assert refold_arrow(connection, *ARROW, PARAMS.relationships) is None
        assert read_arrow(connection, *ARROW) is None
        begun = add(connection, second)

        entries = read_log(connection, *ARROW).entries
        assert [(one.id, one.event.seq) for one in entries] == [(second.id, 2)]
        assert refold_arrow(connection, *ARROW, PARAMS.relationships) == begun


async def test_an_arrow_keeps_its_first_impression_when_its_first_event_is_switched_off(
    database: Database, world: str
) -> None:
    first, second = (relationship_change(lease_of(x), NOW) for x in ("x1", "x2"))
    with database.writing() as connection:
        add(connection, first)
        add(connection, second)
        switch(connection, first.id, active=False)

        folded = refold_arrow(connection, *ARROW, PARAMS.relationships)

    assert folded is not None
    assert (folded.affinity_prior, folded.trust_prior) == (0.1, 0.02)


async def test_a_cache_that_was_dropped_is_made_again(database: Database, world: str) -> None:
    with database.writing() as connection:
        arrow = add(connection, relationship_change(lease_of("x1"), NOW))
        connection.execute(delete(tables.RelationshipState))

        assert refold_arrow(connection, *ARROW, PARAMS.relationships) == arrow
        assert read_arrow(connection, *ARROW) == arrow
        add(connection, relationship_change(lease_of("x2"), NOW))

    (row,) = await rows_of(database, tables.RelationshipState)
    assert row.last_seq == 2


async def test_an_event_that_comes_twice_changes_nothing(database: Database, world: str) -> None:
    change = relationship_change(lease_of("x1"), NOW)
    with database.writing() as connection:
        first = add(connection, change)

        assert add(connection, change) == first
        assert len(read_log(connection, *ARROW).entries) == 1


async def test_an_event_is_never_dated_before_the_arrow(database: Database, world: str) -> None:
    with database.writing() as connection:
        add(connection, relationship_change(lease_of("x1"), NOW))
        add(connection, relationship_change(lease_of("x2"), NOW - 100))

        entries = read_log(connection, *ARROW).entries

    assert [(one.event.at, one.event.seq, one.why) for one in entries] == [
        (NOW, 1, "kind words"),
        (NOW, 2, "kind words"),
    ]


async def test_an_arrow_has_a_direction(database: Database, world: str) -> None:
    with database.writing() as connection:
        add(connection, relationship_change(lease_of("x1"), NOW))

        assert read_arrow(connection, "main", "ann", "mara") is None
        assert read_arrow(connection, "main", "mara", "tobin") is None


async def test_an_event_is_read_as_it_was_written(database: Database, world: str) -> None:
    plain = relationship_change(lease_of("x1"), NOW)
    told = replace(
        relationship_change(lease_of("x2"), NOW + 1),
        event=replace(
            plain.event, at=NOW + 1, appraisal=None, kind="bond", bond="vow", direct=False
        ),
    )
    with database.writing() as connection:
        add(connection, plain)
        add(connection, told)
        events = read_log(connection, *ARROW).events

    assert events == [
        replace(plain.event, seq=1, priors=plain.priors),
        replace(told.event, seq=2),
    ]


async def test_a_feeling_that_comes_twice_changes_nothing(
    database: Database, mara: Persona
) -> None:
    change, ids = feeling_change(mara), ("i1", "t1", "t2")
    with database.writing() as connection:
        first = add_feeling_change(connection, "main", "x1", change, ids, NOW, PARAMS)
        again = add_feeling_change(connection, "main", "x1", change, ids, NOW, PARAMS)

    assert again == first
    assert len(await rows_of(database, tables.MoodImpulse)) == 1


async def test_a_feeling_without_talk_costs_nothing(database: Database, mara: Persona) -> None:
    with database.writing() as connection:
        change = feeling_change(mara, talk=())
        felt = add_feeling_change(connection, "main", "x1", change, ("i1",), NOW, PARAMS)

    assert felt.interaction == at_rest(mara, NOW, PARAMS).interaction
    assert await rows_of(database, tables.EnergySpent) == []


async def test_feelings_fade_with_time(database: Database, mara: Persona) -> None:
    rest = at_rest(mara, NOW, PARAMS)
    with database.writing() as connection:
        assert read_feelings(connection, "main", mara, NOW, PARAMS) == rest
        change = feeling_change(mara, Impulses(mood=0.8))
        ids = ("i1", "t1", "t2")
        felt = add_feeling_change(connection, "main", "x1", change, ids, NOW, PARAMS)

        soon = read_feelings(connection, "main", mara, NOW, PARAMS)
        later = read_feelings(connection, "main", mara, NOW + 6 * HOUR_S, PARAMS)

    assert soon == felt
    assert felt.emotion.mood > later.emotion.mood > rest.emotion.mood
    assert later.emotion.mood - rest.emotion.mood == pytest.approx(
        (felt.emotion.mood - rest.emotion.mood) / 2
    )
    assert later.interaction.fatigue == 0.0
    assert asdict(felt.interaction)["fatigue"] > 0
