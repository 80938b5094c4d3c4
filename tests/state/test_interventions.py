"""When a narrator brings something in, and when a condition holds."""

from dataclasses import replace
from typing import Any

import pytest

from persona_mcp.state.continuation import ContinuationParams
from persona_mcp.state.dialogue import NARRATOR, Condition, Intervention, Presence
from persona_mcp.state.emotion import EmotionalState
from persona_mcp.state.interventions import due, happenings, holds
from persona_mcp.state.relationship import Shown
from tests.scenes import NOW, feelings, turn
from tests.state.test_speaking import company

LAWS = ContinuationParams()
BELL = Intervention(text="A bell rings.", turn=2)
GLAD = EmotionalState(NOW, 0.3, 0.5, 0.5, 0.0, 1.0)
LIKED = Shown(0.5, 0.1, 0.0, 0.0, 0.2, 0.3, 0.6, 0.1)


@pytest.mark.parametrize(
    ("condition", "held"),
    [
        ({"says": "the VAULT"}, True),
        ({"says": "the vault", "by": "ann"}, True),
        ({"says": "the vault", "by": "ben"}, False),
        ({"says": "a vault"}, False),
        ({"relation": "affinity", "of": "ann", "to": "ben", "above": 0.4}, True),
        ({"relation": "affinity", "of": "ann", "to": "ben", "above": 0.5}, False),
        ({"relation": "affinity", "of": "ann", "to": "ben", "below": 0.6}, True),
        ({"relation": "affinity", "of": "ben", "to": "ann", "above": -1}, False),
        ({"mood": True, "of": "cleo", "above": 0.2}, True),
        ({"mood": True, "of": "cleo", "below": 0.2}, False),
        ({"mood": True, "of": "nobody", "above": -1}, False),
        ({"stagnant": 1}, False),
    ],
)
def test_a_condition_holds_by_what_was_said_last_and_by_how_all_feel_now(
    condition: dict[str, Any], held: bool
) -> None:
    talk = replace(company(said="Open the vault!"), views={("ann", "ben"): LIKED})
    glad = [
        replace(m, feelings=feelings(felt=GLAD)) if m.persona.id == "cleo" else m
        for m in talk.members
    ]

    assert holds(Condition(**condition), replace(talk, members=tuple(glad)), LAWS) == held


def test_nothing_holds_before_the_first_turn() -> None:
    begun = company(last=None)

    assert not holds(Condition(mood=True, of="ann", above=-1), begun, LAWS)


def test_what_a_narrator_says_fulfils_no_condition() -> None:
    talk = company(said="Good evening.")
    window = (*talk.window, turn(2, NARRATOR, "The vault is open."))

    assert not holds(Condition(says="vault"), replace(talk, window=window), LAWS)


def test_turns_in_a_circle_are_stagnant() -> None:
    said = [turn(n, "ann", "Round and round we walk.") for n in range(1, 4)]
    talk = replace(company(), past=tuple(said), said=3)

    assert [holds(Condition(stagnant=n), talk, LAWS) for n in (2, 3)] == [True, False]


def test_what_is_bound_to_a_turn_happens_before_it_each_time() -> None:
    talk = company(interventions=(BELL, BELL.model_copy(update={"turn": 4})))

    found = [
        len(due(replace(talk, said=said, narrated={BELL.text: 1} if said > 1 else {}), LAWS))
        for said in range(5)
    ]

    assert found == [0, 1, 0, 1, 0]


def test_what_waits_for_a_condition_happens_once_whatever_else_said_the_same() -> None:
    waits = Intervention(text=BELL.text, when=Condition(says="vault"))
    talk = replace(company(said="The vault!", interventions=(BELL, waits)), said=5)

    assert due(replace(talk, narrated={BELL.text: 1}), LAWS) == (waits,)
    assert due(replace(talk, narrated={BELL.text: 2}), LAWS) == ()


def test_those_named_who_are_there_perceive_it_and_what_nobody_perceives_does_not_happen() -> None:
    late = (Presence(persona="dora", turn=3),)
    some = BELL.model_copy(update={"to": ["cleo", "dora"]})

    def perceived(one: Intervention) -> list[tuple[str, ...]]:
        talk = company(interventions=(one,), joins=late)
        return [found.perceived_by for found in happenings(talk, LAWS)]

    assert perceived(BELL) == [("ann", "ben", "cleo")]
    assert perceived(some) == [("cleo",)]
    assert perceived(BELL.model_copy(update={"to": ["dora"]})) == []
