"""Talks of more than two, held in one run: the loop, the narrator, the clock and the end."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from persona_mcp.graphs.dialogue import build_dialogue
from persona_mcp.nodes.parts import ChatContext
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.dialogue import NARRATOR, Condition, Intervention, Presence, Whisper
from persona_mcp.state.interaction import talk_cost
from persona_mcp.state.summarising import SUMMARY
from persona_mcp.state.table_base import Base
from tests.calls import WHAT_IS_REMEMBERED, dump, rows
from tests.companies import STARTS, Event, begin, hold, looped, plan
from tests.doubles import ScriptedModel

pytestmark = pytest.mark.anyio

THREE = ("anna", "boris", "cecil")
FRESH = (
    "The harbour froze early this winter.",
    "My grandmother repaired violins for sailors.",
    "Somebody painted every lighthouse green.",
    "Seventeen geese crossed our orchard yesterday.",
    "Bakers rise before bells ring anywhere.",
    "Copper roofs turn blue within decades.",
    "Nobody reads maps upside down anymore.",
    "Thunder woke half that village twice.",
)


def told(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event["event"] == kind]


async def talk_row(service: Service) -> dict[str, Any]:
    return (await rows(service.database, tables.Conversation))[0]


async def test_a_run_has_as_many_turns_as_it_is_asked_for_and_goes_on_later(
    service: Service, model: ScriptedModel
) -> None:
    model.add(*FRESH[:5])
    talk, parts = await begin(service, THREE, plan("anna")), looped(service)

    first, second = await hold(parts, talk, 3), await hold(parts, talk, 2)

    assert [(e["turn"], e["persona_id"], e["text"]) for e in told(first + second, "turn")] == [
        (n + 1, THREE[n % 3], text) for n, text in enumerate(FRESH[:5])
    ]


async def test_without_ids_for_a_second_turn_a_run_has_one(
    service: Service, model: ScriptedModel
) -> None:
    model.add(*FRESH[:2])
    talk, parts = await begin(service, THREE, plan("anna")), looped(service)
    assert parts.accept is not None
    asked: Any = {"direction": "", "turns": 3, "conversation_id": talk}
    asked |= await parts.accept(asked, ChatContext())
    graph = build_dialogue(replace(parts, accept=None)).compile()

    await graph.ainvoke(asked, context=ChatContext(routing="score"))

    assert len(await rows(service.database, tables.Turn)) == 1
    assert len(model.history) == 1


async def test_what_is_narrated_is_a_turn_that_those_who_perceive_it_see_and_remember(
    service: Service, model: ScriptedModel
) -> None:
    model.add(*FRESH[:5])
    happens = (
        Intervention(text="A bell rings.", turn=2),
        Intervention(text="A cat whispers.", turn=3, to=["cecil"]),
    )
    talk = await begin(service, THREE, plan("anna", interventions=happens))

    events = await hold(looped(service), talk, 5)

    assert [(e["text"], e["perceived_by"]) for e in told(events, "narrates")] == [
        ("A bell rings.", ["anna", "boris", "cecil"]),
        ("A cat whispers.", ["cecil"]),
    ]
    turns = sorted(await rows(service.database, tables.Turn), key=lambda t: t["number"])
    assert [(t["speaker_id"], t["position"]) for t in turns] == [
        ("anna", 0),
        (NARRATOR, 0),
        ("boris", 1),
        (NARRATOR, 0),
        ("cecil", 1),
        ("anna", 0),
        ("boris", 0),
    ]
    assert ["(A bell rings.)" in a.text for a in model.history] == [False, True, True, True, True]
    assert ["A cat whispers" in a.text for a in model.history] == [False, False, True, False, False]
    kept = await rows(service.database, tables.Memory)
    assert sorted(m["persona_id"] for m in kept if m["content"] == "A bell rings.") == list(THREE)
    assert [m["persona_id"] for m in kept if m["content"] == "A cat whispers."] == ["cecil"]


async def test_the_same_may_happen_at_two_turns(service: Service, model: ScriptedModel) -> None:
    model.add(*FRESH[:4])
    happens = tuple(Intervention(text="A bell rings.", turn=turn) for turn in (2, 4))
    talk = await begin(service, THREE, plan("anna", interventions=happens))

    events = await hold(looped(service), talk, 4)

    assert len(told(events, "narrates")) == 2


async def test_what_waits_for_a_condition_happens_once_before_the_turn_after_it_held(
    service: Service, model: ScriptedModel
) -> None:
    lines = ["The vault is open.", "What vault?", "My vault, of course.", "Show me that vault."]
    model.add(*lines)
    when = Condition(says="VAULT is", by="anna")
    talk = await begin(
        service, THREE, plan("anna", interventions=(Intervention(text="Sirens.", when=when),))
    )

    events = await hold(looped(service), talk, 4)

    order = [e["event"] for e in events if e["event"] in ("narrates", "turn")]
    assert order == ["turn", "narrates", "turn", "turn", "turn"]


async def test_what_is_rewound_is_narrated_again_once(
    service: Service, model: ScriptedModel
) -> None:
    model.add("The vault is open.", FRESH[0], FRESH[1], FRESH[2])
    when = Condition(says="vault is")
    asked = plan("anna", interventions=(Intervention(text="Sirens.", when=when),))
    talk, parts = await begin(service, THREE, asked), looped(service)
    before = await hold(parts, talk, 2)
    await rewind(service, talk, exchanges=1)

    after = await hold(parts, talk, 2)

    assert [len(told(events, "narrates")) for events in (before, after)] == [1, 1]


async def rewind(service: Service, talk: str, exchanges: int) -> None:
    """Switch off everything behind the first exchanges of a talk."""

    def write(connection: Connection) -> None:
        of_talk = tables.Exchange.conversation_id == talk
        query = select(tables.Exchange.id).where(of_talk).order_by(tables.Exchange.number)
        ids = [row.id for row in connection.execute(query)]
        for table, key in ((tables.Exchange, "id"), (tables.Turn, "exchange_id")):
            off = getattr(table, key).in_(ids[exchanges:])
            connection.execute(update(table).where(off).values(active=False))
        head = {"head_exchange_id": ids[exchanges - 1]}
        connection.execute(update(tables.Conversation).values(**head))

    await service.database.write(write)


async def test_a_condition_ends_the_talk_right_after_the_turn_at_which_it_holds(
    service: Service, model: ScriptedModel
) -> None:
    model.add(FRESH[0], "So we agree.", FRESH[1])
    asked = plan("anna", ends_when=Condition(says="we agree"))
    talk = await begin(service, THREE, asked)

    events = await hold(looped(service), talk, 2)

    assert len(told(events, "turn")) == 2
    row = await talk_row(service)
    assert (row["status"], row["exit_reason"]) == ("ended", "condition")
    assert {x["status"] for x in await rows(service.database, tables.Exchange)} == {"done"}


@pytest.mark.parametrize("stagnation", [2, 22])
async def test_a_talk_that_goes_in_circles_ends_with_a_line(
    service: Service, model: ScriptedModel, stagnation: int
) -> None:
    model.add(*FRESH[:2], *(FRESH[n % 2] for n in range(stagnation + 2)))
    asked = plan("anna", stagnation=stagnation)
    talk = await begin(service, THREE, asked)

    events = await hold(looped(service), talk, stagnation + 4)

    assert len(told(events, "turn")) == 2 + stagnation + 1
    assert (await talk_row(service))["exit_reason"] == "stagnation"


async def test_simulated_time_is_that_of_talking_alone(
    service: Service, model: ScriptedModel
) -> None:
    model.add(*FRESH[:3])
    talk = await begin(service, THREE, plan("anna", max_turns=3))

    def nobody_asks() -> float:
        raise AssertionError("the wall clock was read")

    await hold(looped(service, now=nobody_asks), talk, 3)

    laws, at = service.parts.laws.effects.interaction, STARTS
    turns = sorted(await rows(service.database, tables.Turn), key=lambda t: t["number"])
    for turn in turns:
        at += talk_cost(len(turn["content"].split()), laws)
        assert turn["created_at"] == pytest.approx(at)
    row = await talk_row(service)
    assert (row["status"], row["ended_at"]) == ("ended", pytest.approx(at))


async def test_two_talks_of_the_same_plan_and_replies_leave_the_same_rows(
    service: Service, model: ScriptedModel
) -> None:
    asked = plan("anna", speakers="initiative", max_turns=4)
    kept = []
    for _ in range(2):
        await empty(service)
        model.add(*FRESH[:4])
        await hold(looped(service), await begin(service, THREE, asked), 4)
        found = await dump(service.database)
        kept.append({name: [without_seq(row) for row in found[name]] for name in LEFT_BEHIND})

    assert len(kept[0]["turns"]) == 4
    assert kept[0] == kept[1]


LEFT_BEHIND = (*WHAT_IS_REMEMBERED, "conversations", "exchanges")


def without_seq(row: dict[str, Any]) -> dict[str, Any]:
    """Leave out the number that a database gives its memories, and which process it was."""
    return {name: row[name] for name in row if name not in ("seq", "owner")}


async def empty(service: Service) -> None:
    def write(connection: Connection) -> None:
        for table in reversed(Base.metadata.sorted_tables):
            if table.name != "worlds":
                connection.execute(table.delete())

    await service.database.write(write)


async def test_each_keeps_a_summary_of_what_it_heard_itself(
    service: Service, model: ScriptedModel
) -> None:
    model.add(*FRESH[:6])
    asked = plan(
        "anna",
        max_turns=6,
        joins=(Presence(persona="cecil", turn=3),),
        leaves=(Presence(persona="boris", turn=5),),
        whispers=(Whisper(turn=4, to=["boris"], by="anna"),),
    )
    talk = await begin(service, THREE, asked)

    await hold(looped(service), talk, 8)

    kept = await rows(service.database, tables.Memory)
    found = {m["persona_id"]: m for m in kept if m["memory_type"] == SUMMARY}
    spans = {id: (m["origin"]["from_turn"], m["origin"]["to_turn"]) for id, m in found.items()}
    assert spans == {"anna": (1, 6), "boris": (1, 4), "cecil": (3, 6)}
    told = {
        id: {n + 1 for n, t in enumerate(FRESH) if t in m["content"]} for id, m in found.items()
    }
    assert told["boris"] and told["boris"] <= {1, 2, 3, 4}
    assert told["cecil"] and told["cecil"] <= {3, 5, 6}


async def test_who_comes_late_is_told_so_until_it_has_spoken(
    service: Service, model: ScriptedModel
) -> None:
    model.add(*FRESH[:7])
    asked = plan("anna", joins=(Presence(persona="cecil", turn=2),))
    talk = await begin(service, THREE, asked)

    await hold(looped(service), talk, 7)

    assert ["You have just come" in a.text for a in model.history] == [n == 2 for n in range(7)]
    with_it = ["Cecil is there, too." in a.text or "Answer Cecil" in a.text for a in model.history]
    assert with_it == [False, True, False, True, True, False, True]


async def test_twelve_talk(service: Service, model: ScriptedModel) -> None:
    who = tuple(f"p{n:02}x" for n in range(12))
    model.add(*(f"{FRESH[n % 8]} Number {n}." for n in range(24)))
    talk = await begin(service, who, plan(who[0]))

    events = await hold(looped(service), talk, 24)

    assert [e["persona_id"] for e in told(events, "turn")] == [who[n % 12] for n in range(24)]
