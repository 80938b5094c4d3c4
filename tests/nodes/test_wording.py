"""Feelings and relationships in words: never a number."""

from dataclasses import replace

import pytest

from persona_mcp.nodes.wording import (
    MOODS,
    TIES,
    degree,
    feeling_in_words,
    memory_in_words,
    mood_in_words,
    relationship_in_words,
)
from persona_mcp.state import emotion, relationship
from persona_mcp.state.arrow import Arrow, Priors
from persona_mcp.state.emotion import EmotionParams, baseline
from persona_mcp.state.relationship import RelationshipParams
from persona_mcp.state.traits import BigFive
from tests.scenes import NOW, feelings, hit, scene

LAWS = RelationshipParams()


def arrow(affinity: float = 0.0, trust: float = 0.0, contact: float = 0.0) -> Arrow:
    begun = relationship.begin(Priors(), NOW)
    return replace(begun, affinity_latent=affinity, trust_latent=trust, contact=contact)


def test_every_mood_that_there_is_has_words() -> None:
    rest = baseline(BigFive(), NOW, EmotionParams())
    labels = {
        emotion.label(replace(rest, mood=mood, energy_level=energy, stress_level=stress))
        for mood in (-0.9, 0.0, 0.9)
        for energy in (0.1, 0.9)
        for stress in (0.1, 0.9)
    }

    assert labels == set(MOODS)
    assert not any(c.isdigit() for words in MOODS.values() for c in words)


def test_who_has_talked_long_is_tired_of_it() -> None:
    assert mood_in_words(feelings()) == "in an even mood"
    assert mood_in_words(feelings(fatigue=80.0)) == "in an even mood and tired of talking"
    drained = replace(feelings().emotion, social_battery=0.1)
    assert mood_in_words(feelings(felt=drained)).endswith("and tired of talking")


@pytest.mark.parametrize(
    ("value", "word"), [(0.2, "somewhat"), (-0.2, "somewhat"), (-0.5, "deeply")]
)
def test_a_feeling_has_a_degree(value: float, word: str) -> None:
    assert degree(value) == word


def test_only_what_stands_out_is_said() -> None:
    shown = relationship.shown(arrow(), LAWS)

    assert feeling_in_words(replace(shown, affinity=0.1, trust=0.0, respect=-0.1)) == []
    assert feeling_in_words(replace(shown, affinity=0.6, trust=-0.3, respect=-0.7)) == [
        "deeply like them",
        "somewhat distrust them",
        "deeply think little of them",
    ]


def test_every_tie_has_words_without_numbers() -> None:
    for tie in TIES.values():
        assert "ann" in tie.format(user="ann")
        assert not any(c.isdigit() for c in tie)


def test_a_stranger_is_met_and_then_hardly_known() -> None:
    assert relationship_in_words(scene(), LAWS) == "You meet ann for the first time."
    assert relationship_in_words(scene(arrow=arrow()), LAWS).startswith("You hardly know ann")


def test_no_feeling_is_ever_shown_as_a_number() -> None:
    for value in (-3.0, -0.7, 0.0, 0.3, 2.0):
        known = arrow(affinity=value, trust=-value, contact=5.0)
        said = relationship_in_words(scene(arrow=known), LAWS)
        assert said.endswith(".")
        assert not any(c.isdigit() for c in said)


def test_a_memory_is_said_by_whom_it_is_and_hearsay_never_as_if_it_were_so() -> None:
    spoken = hit(1, "Tom has a boat.").memory
    text = "[14 November 2023] Kira told you: Tom has a boat."
    heard = replace(spoken, memory_type="hearsay", speaker_id=None, indexed_text=text)

    assert memory_in_words(spoken) == "ann said: Tom has a boat."
    assert memory_in_words(replace(spoken, speaker_id=None)) == "Tom has a boat."
    assert memory_in_words(heard) == "Kira told you: Tom has a boat."
