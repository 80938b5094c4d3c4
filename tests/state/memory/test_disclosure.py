"""What a persona keeps to itself: what is personal is told to those whom it is close to."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite

from persona_mcp.state import personas, relationship
from persona_mcp.state.commit import commit_exchange
from persona_mcp.state.database import Database
from persona_mcp.state.memory.changes import purge_memories
from persona_mcp.state.memory.disclosure import confides, held_back, held_back_query
from persona_mcp.state.prompt_params import PromptParams
from persona_mcp.state.relationship import Arrow, RelationshipParams
from tests.state.rows import NOW, PARAMS, begin, commit_of, remember

LAWS, P = RelationshipParams(), PromptParams()
PERSONAL: dict[str, Any] = {
    "memory_type": "secret",
    "speaker_id": None,
    "witnesses": ("mara",),
    "turn_id": None,
}
MADE = ["m-x1", "m-x2", "sum", "else", "merged"]
latents = st.floats(-5, 5)


def arrows() -> st.SearchStrategy[Arrow]:
    sizes = st.floats(0, 5)
    return st.builds(
        Arrow,
        as_of=st.just(NOW),
        affinity_latent=latents,
        trust_latent=latents,
        disclosure=sizes,
        contact=sizes,
    )


@given(arrows(), st.floats(0, 2), st.floats(0, 2), st.floats(0, 2))
def test_law_more_trust_contact_and_disclosure_never_make_a_persona_more_reserved(
    arrow: Arrow, trust: float, contact: float, disclosure: float
) -> None:
    closer = replace(
        arrow,
        trust_latent=arrow.trust_latent + trust,
        contact=arrow.contact + contact,
        disclosure=arrow.disclosure + disclosure,
    )

    before, after = (confides(relationship.shown(one, LAWS), P) for one in (arrow, closer))

    assert after or not before


def test_nobody_confides_in_whom_it_has_never_met() -> None:
    assert not confides(None, P)


@pytest.mark.parametrize(
    ("trust", "intimacy", "tells"),
    [(0.4, 0.2, True), (0.39, 0.9, False), (0.9, 0.19, False), (-0.9, 0.0, False)],
)
def test_a_persona_confides_in_whom_it_trusts_and_is_intimate_with(
    trust: float, intimacy: float, tells: bool
) -> None:
    shown = relationship.shown(Arrow(NOW), LAWS)

    assert confides(replace(shown, trust=trust, intimacy=intimacy), P) is tells


async def held(
    database: Database, ids: Sequence[str], partner: str = "bob", params: PromptParams = P
) -> frozenset[str]:
    return await database.read(held_back, "main", partner, ids, params)


@pytest.mark.anyio
async def test_what_is_personal_is_held_back_from_who_may_not_know_it(
    database: Database, world: str
) -> None:
    await remember(database, "secret", "I stole the ship.", **PERSONAL)
    await remember(database, "trauma", "It sank.", **{**PERSONAL, "memory_type": "trauma"})
    await remember(database, "fact", "It is cold.", **{**PERSONAL, "memory_type": "fact"})

    assert await held(database, ["secret", "trauma", "fact"]) == {"secret", "trauma"}
    assert await held(database, ["fact"]) == set()
    assert await held(database, []) == set()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "more",
    [
        {"witnesses": ("mara", "bob")},
        {"values": {"visibility": "public"}},
        {"values": {"visibility": "shared"}, "related": ["bob"]},
        {"source_id": "bob"},
        {"persona_id": "bob"},
    ],
)
async def test_what_the_partner_may_know_anyway_is_not_held_back(
    database: Database, world: str, more: dict[str, Any]
) -> None:
    await remember(database, "secret", "I stole the ship.", **{**PERSONAL, **more})

    assert await held(database, ["secret"]) == set()
    if "persona_id" not in more:
        assert await held(database, ["secret"], "eve") == (
            set() if more.get("values") == {"visibility": "public"} else {"secret"}
        )


@pytest.mark.anyio
async def test_which_types_are_personal_is_a_setting(database: Database, world: str) -> None:
    await remember(database, "secret", "I stole the ship.", **PERSONAL)
    await remember(database, "fact", "It is cold.", **{**PERSONAL, "memory_type": "fact"})

    assert await held(database, ["secret", "fact"], params=PromptParams(personal_types=())) == set()
    only_facts = PromptParams(personal_types=("fact",))
    assert await held(database, ["secret", "fact"], params=only_facts) == {"fact"}


@pytest.mark.anyio
async def test_what_was_said_with_a_secret_at_hand_is_as_personal_as_the_secret(
    database: Database, world: str
) -> None:
    """Else what a friend was told would be told to everybody, as a memory of the talk."""
    await remember(database, "secret", "I stole the ship.", **PERSONAL)
    mara = await database.read(personas.find, "main", "mara")
    for number, used in ((1, ()), (2, ("secret",))):
        at = NOW + number * 60  # the lease of the one before is over
        lease = await begin(database, number, at)
        commit = commit_of(lease, mara, at, used_memories=used)
        await commit_exchange(database, commit, PARAMS)
    summed: dict[str, Any] = {"memory_type": "summary", "witnesses": ("ann", "mara")}
    await remember(database, "sum", "They spoke of a ship.", **summed)
    await remember(database, "else", "Fog.", **summed, values={"conversation_id": "c2"})
    of_two: dict[str, Any] = {"origin": {"sources": ["m-x2"]}, "values": {"exchange_id": None}}
    await remember(database, "merged", "The harbour froze.", **of_two)

    found = await held(database, MADE)

    assert found == {"m-x2", "sum", "merged"}
    assert await held(database, MADE, "ann") == set()


@pytest.mark.anyio
async def test_what_was_said_with_a_secret_at_hand_stays_so_when_the_secret_is_gone(
    database: Database, world: str
) -> None:
    await remember(database, "secret", "I stole the ship.", **PERSONAL)
    await remember(database, "fact", "It is cold.", **{**PERSONAL, "memory_type": "fact"})
    mara = await database.read(personas.find, "main", "mara")
    for number, used in ((1, ("fact",)), (2, ("secret", "fact"))):
        at = NOW + number * 60
        lease = await begin(database, number, at)
        await commit_exchange(database, commit_of(lease, mara, at, used_memories=used), PARAMS)
    summed: dict[str, Any] = {"memory_type": "summary", "witnesses": ("ann", "mara")}
    await remember(database, "sum", "They spoke of a ship.", **summed)
    for id, source in (("merged", "m-x2"), ("again", "merged"), ("else", "m-x1")):
        made: dict[str, Any] = {"origin": {"sources": [source]}, "values": {"exchange_id": None}}
        await remember(database, id, "The harbour froze.", **made)
    ids = ["m-x1", "m-x2", "sum", "merged", "again", "else"]
    hidden = {"m-x2", "sum", "merged", "again"}

    for gone in (["secret"], ["m-x2"], ["merged", "fact"]):
        with database.writing() as connection:
            purge_memories(connection, "main", gone, NOW)
        hidden -= set(gone)
        assert await held(database, ids) == hidden
        assert await held(database, ids, "ann") == set()

    only_facts = PromptParams(personal_types=("fact",))
    assert await held(database, ids, params=only_facts) == {"m-x1", "else", *hidden}


@pytest.mark.anyio
@pytest.mark.sqlite
async def test_no_reply_goes_through_all_that_was_ever_used(database: Database, world: str) -> None:
    """Else the thousandth exchange of a world would cost more than the tenth."""
    statement = held_back_query().compile(dialect=sqlite.dialect(paramstyle="named"))
    given = {"ids": "[]", "types": "[]", "world": "main", "reader": "bob", "named": "bob"}
    with database.reading() as connection:
        plan = connection.exec_driver_sql(
            f"EXPLAIN QUERY PLAN {statement}", {**statement.params, **given}
        )
        steps = [row.detail for row in plan]

    looked_up = [step for step in steps if "memory_uses" in step or "exchanges" in step]
    assert len(looked_up) == 4
    assert all(step.count("=?") == 2 for step in looked_up)
