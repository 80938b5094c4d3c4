"""Relationships read from SQL: whose, up to when, and by which index."""

import math
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, insert, select

from persona_mcp.state import relationship, tables
from persona_mcp.state.arrow import Arrow, Bond, Origin
from persona_mcp.state.database import Database
from persona_mcp.state.effects import read_arrow
from persona_mcp.state.relationship import relationship_type
from persona_mcp.state.relationship_store import (
    AMONG,
    ARROWS,
    INCOMING,
    LOG,
    OUTGOING,
    PERSONAS,
    Party,
    arrows_at,
    outgoing,
    personas_of,
    read_log,
    telling,
)
from tests.arrows import CRUEL, DAY, KIND, LAWS, NOW, delete_persona, happen, keep_arrow, switch_off

pytestmark = pytest.mark.anyio


async def test_a_persona_has_arrows_to_personas_and_users(database: Database, world: str) -> None:
    there = happen(database, "e1", "mara", "tobin")
    happen(database, "e2", "tobin", "mara", CRUEL)
    user = happen(database, "e3", "mara", "ann")

    with database.reading() as connection:
        found = outgoing(connection, "main", "mara")

    assert found == [
        (Party("ann", "ann", "user"), user),
        (Party("tobin", "Tobin", "persona"), there),
    ]


def respected(arrow: Arrow, respect: float, bond: Bond = "none") -> Arrow:
    """Change an arrow to one of many contacts, and of so much respect."""
    return replace(arrow, interactions=20, respect_latent=math.atanh(respect), bond=bond)


@pytest.mark.parametrize(
    ("own", "back", "comes"),
    [
        ((0.1, "none"), (0.1, "none"), False),
        ((0.1, "none"), (0.69, "none"), False),
        ((0.1, "none"), (0.8, "none"), True),
        ((0.8, "none"), (0.1, "none"), True),
        ((0.1, "none"), (0.1, "mentor"), True),
        ((0.1, "romantic"), (0.1, "romantic"), True),
    ],
)
async def test_an_arrow_comes_back_where_it_bears_on_a_name(
    database: Database, world: str, own: Any, back: Any, comes: bool
) -> None:
    there = respected(happen(database, "e1", "mara", "tobin"), *own)
    returned = respected(happen(database, "e2", "tobin", "mara"), *back)
    keep_arrow(database, "tobin", "mara", returned)

    with database.reading() as connection:
        found = telling(connection, "main", "mara", {"tobin": there}, LAWS)

    assert found == ({"tobin": returned} if comes else {})
    named = relationship_type(there, returned, LAWS)
    assert relationship_type(there, found.get("tobin"), LAWS) == named


async def test_a_deleted_persona_is_nobody(database: Database, world: str) -> None:
    happen(database, "e1", "mara", "tobin")
    happen(database, "e2", "tobin", "mara")
    happen(database, "e3", "mara", "ann")
    delete_persona(database, "tobin")

    with database.reading() as connection:
        assert [one.other.id for one in outgoing(connection, "main", "mara")] == ["ann"]
        assert [one[:2] for one in arrows_at(connection, "main", NOW, LAWS)] == [("mara", "ann")]
        assert [one.id for one, _ in personas_of(connection, "main")] == ["mara"]


async def test_arrows_of_another_world_are_not_there(database: Database, world: str) -> None:
    happen(database, "e1", "mara", "tobin")

    with database.reading() as connection:
        assert outgoing(connection, "elsewhere", "mara") == []
        assert arrows_at(connection, "elsewhere", NOW, LAWS) == []


async def test_arrows_are_shown_as_they_stood_at_any_time(database: Database, world: str) -> None:
    first = happen(database, "e1", "mara", "tobin", at=NOW)
    second = happen(database, "e2", "mara", "tobin", CRUEL, at=NOW + 2 * DAY)

    def at(time: float) -> Any:
        with database.reading() as connection:
            found = arrows_at(connection, "main", time, LAWS)
        return found[0].arrow if found else None

    assert at(NOW - 1) is None
    assert at(NOW) == first
    assert at(NOW + DAY) == relationship.decay(first, NOW + DAY, LAWS)
    assert at(NOW + 2 * DAY) == second
    assert at(NOW + 9 * DAY) == relationship.decay(second, NOW + 9 * DAY, LAWS)


async def test_arrows_among_some_parties_have_both_ends_there(
    database: Database, world: str
) -> None:
    for number, ends in enumerate([("mara", "tobin"), ("tobin", "mara"), ("mara", "ann")]):
        happen(database, f"e{number}", *ends)

    def among(*ids: str) -> list[tuple[str, str]]:
        with database.reading() as connection:
            return [(f, t) for f, t, _ in arrows_at(connection, "main", NOW, LAWS, ids)]

    assert among("mara", "tobin") == [("mara", "tobin"), ("tobin", "mara")]
    assert among("mara", "ann") == [("mara", "ann")]
    assert among("mara") == []


async def test_a_log_has_what_was_stored_of_each_event(database: Database, world: str) -> None:
    origin = Origin("turn-1", "ann", "model", "asked twice")
    happen(database, "e1", "mara", "tobin", why="a promise", origin=origin, kind="hearsay")

    with database.reading() as connection:
        log = read_log(connection, "main", "mara", "tobin")

    (found,) = log.entries
    assert (found.id, found.exchange_id, found.why) == ("e1", None, "a promise")
    assert (found.origin, found.event.kind, found.event.deltas) == (origin, "hearsay", KIND)
    assert log.first == found.event.priors


async def test_a_log_ends_where_it_is_asked_to(database: Database, world: str) -> None:
    for day in range(3):
        happen(database, f"e{day}", "mara", "tobin", at=NOW + day * DAY)

    with database.reading() as connection:
        before = read_log(connection, "main", "mara", "tobin", NOW - 1)
        early = read_log(connection, "main", "mara", "tobin", NOW + DAY)

    assert before.entries == () and before.fold(LAWS) is None
    assert [entry.id for entry in early.entries] == ["e0", "e1"]


async def test_a_past_time_keeps_the_first_impression_though_its_event_is_switched_off(
    database: Database, world: str
) -> None:
    for day in range(3):
        happen(database, f"e{day}", "mara", "tobin", at=NOW + day * DAY)
    switch_off(database, "mara", "tobin", "e0")

    with database.reading() as connection:
        log = read_log(connection, "main", "mara", "tobin")
        ((_, _, early),) = arrows_at(connection, "main", NOW + DAY, LAWS)
        now = read_arrow(connection, "main", "mara", "tobin")

    assert [entry.id for entry in log.entries] == ["e1", "e2"]
    assert log.fold(LAWS) == now
    assert (early.affinity_prior, early.interactions) == (0.1, 1)


async def test_a_log_without_an_event_folds_as_if_that_had_never_been(
    database: Database, world: str
) -> None:
    happen(database, "e1", "mara", "tobin", CRUEL, at=NOW)
    happen(database, "e2", "mara", "tobin", KIND, at=NOW + DAY)

    with database.reading() as connection:
        log = read_log(connection, "main", "mara", "tobin")
    without = log.without(["e1"]).fold(LAWS)

    assert without is not None
    kept = [replace(entry.event) for entry in log.entries[1:]]
    assert without == relationship.fold(kept, LAWS, log.first)
    assert log.without(["e1", "e2"]).fold(LAWS) is None


QUERIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "the arrows of a persona": (OUTGOING, {"who": "p1"}),
    "the arrows from some to one": (
        INCOMING,
        {"ids": ["p1", "p2"], "wanted": ["p1"], "respect": 0.8, "whom": "p3"},
    ),
    "all arrows": (ARROWS, {}),
    "the arrows among some": (AMONG, {"ids": ["p1", "p2"]}),
    "the log of an arrow": (LOG, {"who": "p1", "whom": "p2", "until": NOW}),
    "the personas": (PERSONAS, {}),
}


@pytest.mark.sqlite
@pytest.mark.parametrize("name", QUERIES)
async def test_no_read_goes_through_more_than_its_world_and_sorts_nothing(
    database: Database, world: str, name: str
) -> None:
    statement, values = QUERIES[name]
    plan = plan_of(database, statement, world="main", **values)

    assert not any(step.startswith("SCAN") and "VIRTUAL TABLE" not in step for step in plan), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan


@pytest.mark.sqlite
async def test_the_arrows_of_a_persona_are_found_by_its_key(database: Database, world: str) -> None:
    plan = plan_of(database, OUTGOING, world="main", who="p1")

    arrows, people = plan
    assert "(world_id=? AND from_id=?)" in arrows
    assert "(world_id=? AND id=?)" in people


def plan_of(database: Database, query: Any, **values: Any) -> list[str]:
    """Ask SQLite how it would find the rows, in a world of some size."""
    states, people = tables.RelationshipState, tables.Persona
    with database.writing() as connection:
        row = dict(connection.execute(select(people).limit(1)).one()._mapping)
        made = [{**row, "id": f"p{n}", "name": f"P{n}", "name_key": f"p{n}"} for n in range(40)]
        connection.execute(insert(people), made)
        arrow: dict[str, Any] = {"arrow": {"as_of": NOW}, "as_of": NOW, "last_seq": 1}
        ends = [
            {"world_id": "main", "from_id": f"p{one}", "to_id": f"p{other}", **arrow}
            for one in range(40)
            for other in range(40)
            if one != other
        ]
        connection.execute(insert(states), ends)
        connection.exec_driver_sql("ANALYZE")
    asked: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *rest: Any) -> None:
        asked.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    with database.reading() as connection:
        query.all(connection, **values)
        statement, parameters = asked[-1]
        explained = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return [row[3] for row in explained]
