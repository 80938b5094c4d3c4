"""Hearsay from outside: told with its source and chain, weighed by trust, never first-hand."""

import time
from typing import Any

import pytest

from persona_mcp.server.service import Service
from persona_mcp.server.telling import Told
from persona_mcp.state import tables
from persona_mcp.state.errors import InvalidParams, NotFound
from persona_mcp.state.hearsay import Hearsay, Hop
from persona_mcp.state.memory.importance import Importance
from persona_mcp.state.relationship_params import RelationshipParams
from persona_mcp.state.telling import trust_in
from tests.calls import call, rows, say
from tests.doubles import ScriptedModel

pytestmark = pytest.mark.anyio

GATE = "The gate opens at midnight."


async def told(service: Service, to: str, **more: Any) -> dict[str, Any]:
    return await call(service, "memory_store", **{"persona_id": to, "content": GATE, **more})


async def got(service: Service, memory_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await call(service, "memory_get", memory_id=memory_id))["memory"]
    return found


async def test_what_is_told_is_hearsay_with_its_source_and_less_weight(service: Service) -> None:
    first = await told(service, "kira", importance=0.8)
    second = await told(
        service, "aria", told_by="Kira", source_memory_id=first["memory_id"], importance=0.8
    )

    memory = await got(service, second["memory_id"])

    assert (memory["memory_type"], memory["told_by"]) == ("hearsay", "kira")
    assert memory["speaker_id"] is None
    assert memory["witnesses"] == ["aria", "kira"]
    assert memory["indexed_text"].endswith(f"] Kira told you: {GATE}")
    assert memory["origin"] == {
        "source_memory_id": first["memory_id"],
        "chain": [{"teller": "kira", "listener": "aria", "trust": 0.5}],
        "length": 1,
        "weight": pytest.approx(0.15),
    }
    assert second["importance_terms"] == {"told": pytest.approx(0.15)}
    assert second["importance"] == pytest.approx(0.12)


async def test_a_chain_goes_on_from_hearsay_and_comes_back_as_one_more_telling(
    service: Service,
) -> None:
    last = (await told(service, "kira"))["memory_id"]
    for teller, listener in (("kira", "aria"), ("aria", "noor"), ("noor", "kira")):
        passed = await told(service, listener, told_by=teller, source_memory_id=last)
        last = passed["memory_id"]

    origin = (await got(service, last))["origin"]

    assert [(hop["teller"], hop["listener"]) for hop in origin["chain"]] == [
        ("kira", "aria"),
        ("aria", "noor"),
        ("noor", "kira"),
    ]
    assert origin["length"] == 3


async def test_nobody_passes_on_what_it_does_not_know(service: Service) -> None:
    secret = await told(service, "kira")
    for teller, source in (("noor", secret["memory_id"]), ("kira", "nowhere")):
        with pytest.raises(NotFound, match=rf"memory '{source}' not found"):
            await told(service, "aria", told_by=teller, source_memory_id=source)

    assert len(await rows(service.database, tables.Memory)) == 1


async def test_who_was_there_may_pass_on_what_is_anothers(service: Service) -> None:
    there = await told(service, "kira", witnesses=["noor"])

    heard = await told(service, "aria", told_by="noor", source_memory_id=there["memory_id"])

    assert (await got(service, heard["memory_id"]))["told_by"] == "noor"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"source_memory_id": "m1"}, "told_by"),
        ({"told_by": "Aria"}, "told_by"),
        ({"told_by": "kira", "memory_type": "fact"}, "memory_type"),
    ],
)
async def test_arguments_that_do_not_go_together_are_refused(
    service: Service, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidParams, match=field):
        await told(service, "aria", **arguments)

    assert await rows(service.database, tables.Memory) == []


async def test_it_weighs_as_much_as_the_listener_trusts_the_teller(
    service: Service, model: ScriptedModel
) -> None:
    model.add("How kind of you, thank you.")
    await say(service, "You are wonderful, I trust you with all my heart. Thank you so much!")
    laws = service.laws.effects.relationships

    heard = await told(service, "aria", told_by="user", memory_type="hearsay", importance=1.0)

    (hop,) = (await got(service, heard["memory_id"]))["origin"]["chain"]
    assert 0.5 < hop["trust"] < 1
    assert heard["importance"] == pytest.approx(0.6 * hop["trust"] ** 2, abs=1e-5)
    with service.database.reading() as connection:
        trust = trust_in(connection, "main", "aria", "user", time.time(), laws)
    assert hop["trust"] == pytest.approx(trust, abs=1e-5)


def test_what_is_taken_off_an_importance_stands_with_its_terms() -> None:
    heard = Hearsay((Hop("kira", "aria", 1.0),))
    told = Told("kira", "Kira", heard, RelationshipParams())

    weighed = told.weigh(Importance(0.5, {"base": 0.35}))

    assert weighed.value == pytest.approx(0.3)
    assert weighed.terms == {"base": 0.35, "told": pytest.approx(0.6)}


async def test_a_prompt_says_who_told_it(service: Service, model: ScriptedModel) -> None:
    await told(service, "aria", told_by="kira")
    await told(service, "aria", memory_type="hearsay", content="The gate is old.")
    model.add("So they say.")

    await say(service, "When does the gate open?")

    assert f"] Kira told you: {GATE}</memory>" in model.history[0].system
    assert "] You were told: The gate is old.</memory>" in model.history[0].system
