"""Feelings and relationships in words: never a number."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.nodes.wording import (
    ADDRESS,
    MOODS,
    OPENNESS,
    TIES,
    WARMTH,
    degree,
    feeling_in_words,
    from_table,
    manner_in_short,
    manner_in_words,
    memory_in_words,
    mood_in_words,
    relationship_in_words,
    standing_out,
)
from persona_mcp.state import emotion, relationship
from persona_mcp.state.arrow import Arrow, Bond, Priors
from persona_mcp.state.emotion import EmotionalState, EmotionParams, baseline
from persona_mcp.state.prompt_params import PromptParams
from persona_mcp.state.relationship import RelationshipParams
from persona_mcp.state.traits import BigFive
from tests.scenes import NOW, feelings, hit, scene

LAWS, PROMPTS = RelationshipParams(), PromptParams()


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


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"mood": 0.6}, "cheerful"),
        ({"mood": -0.6}, "grumpy"),
        ({"energy_level": 0.2}, "in an even mood and worn out"),
        ({"energy_level": 0.8}, "in an even mood and full of energy"),
        ({"stress_level": 0.9}, "excited and close to breaking point"),
        ({"curiosity": 0.1}, "in an even mood and hard to interest in anything"),
        ({"curiosity": 0.9}, "in an even mood and curious about everything"),
        ({"social_battery": 0.1}, "in an even mood and tired of talking"),
        ({"social_battery": 1.0}, "in an even mood and glad of company"),
        (
            {"energy_level": 0.1, "curiosity": 0.9, "social_battery": 0.1},
            "in an even mood, tired of talking, worn out and curious about everything",
        ),
    ],
)
def test_each_of_the_five_feelings_has_words(changed: dict[str, float], words: str) -> None:
    rest = replace(feelings().emotion, energy_level=0.5, stress_level=0.2)

    assert mood_in_words(feelings(felt=replace(rest, **changed))) == words


def test_nobody_stands_out_at_rest_but_by_a_trait() -> None:
    """Else a bundled persona would be told all its life that it is glad of company."""
    for extraversion in (0.0, 0.5, 1.0):
        rest = baseline(BigFive(extraversion=extraversion), NOW, EmotionParams())
        assert standing_out(rest, 0.0) == []


def test_of_all_that_stands_out_as_much_is_said_as_there_is_room_for() -> None:
    spent = replace(feelings().emotion, energy_level=0.1, social_battery=0.1)

    assert mood_in_words(feelings(felt=spent), 1) == "in an even mood and tired of talking"
    assert mood_in_words(feelings(felt=spent), 0) == "in an even mood"


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


latents, sizes = st.floats(-20, 20), st.floats(0, 20)
bonds: st.SearchStrategy[Bond] = st.sampled_from(["none", "family", "vow", "romantic", "mentor"])
arrows = st.builds(
    Arrow,
    as_of=st.just(NOW),
    affinity_latent=latents,
    trust_latent=latents,
    respect_latent=latents,
    disclosure=sizes,
    contact=sizes,
    interactions=st.integers(0, 10_000),
    bond=bonds,
)
shares = st.floats(0, 1)
felt = st.builds(
    EmotionalState,
    as_of=st.just(NOW),
    mood=st.floats(-1, 1),
    energy_level=shares,
    stress_level=shares,
    curiosity=shares,
    social_battery=shares,
)


@given(st.none() | arrows, st.none() | arrows, felt, st.floats(0, 100))
@settings(max_examples=300)
def test_law_no_digit_of_a_relationship_or_a_feeling_enters_a_prompt(
    there: Arrow | None, back: Arrow | None, emotions: EmotionalState, fatigue: float
) -> None:
    before = replace(scene(arrow=there, felt=feelings(fatigue, emotions)), reverse=back)

    said = [
        mood_in_words(before.feelings),
        relationship_in_words(before, LAWS),
        manner_in_words(before, LAWS, PROMPTS),
        manner_in_short(before, LAWS),
    ]

    assert not any(c.isdigit() for words in said for c in words)
    assert all(said[:3])


@given(arrows, st.floats(-20, 0), st.floats(0.01, 20))
@settings(max_examples=200)
def test_law_more_affinity_is_never_colder_and_more_trust_never_more_closed(
    arrow: Arrow, colder: float, more: float
) -> None:
    less = relationship.shown(replace(arrow, affinity_latent=colder, trust_latent=colder), LAWS)
    higher = relationship.shown(
        replace(arrow, affinity_latent=colder + more, trust_latent=colder + more), LAWS
    )

    for table, of in ((WARMTH, "affinity"), (OPENNESS, "trust")):
        order = [words for _, words in table]
        ranks = [order.index(from_table(getattr(one, of), table)) for one in (less, higher)]
        assert ranks[1] <= ranks[0]


def test_every_type_has_its_address() -> None:
    assert set(ADDRESS) == set(TIES)


def test_a_memory_is_said_by_whom_it_is_and_hearsay_never_as_if_it_were_so() -> None:
    spoken = hit(1, "Tom has a boat.").memory
    text = "[14 November 2023] Kira told you: Tom has a boat."
    heard = replace(spoken, memory_type="hearsay", speaker_id=None, indexed_text=text)

    assert memory_in_words(spoken) == "ann said: Tom has a boat."
    assert memory_in_words(replace(spoken, speaker_id=None)) == "Tom has a boat."
    assert memory_in_words(heard) == "Kira told you: Tom has a boat."
