"""Whom a persona wants to talk to now."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.state.arrow import Arrow
from persona_mcp.state.continuation import ContinuationParams
from persona_mcp.state.database import Database
from persona_mcp.state.effects import begin_cache
from persona_mcp.state.feelings import Feelings
from persona_mcp.state.wishes import best_topic, wish, wishes
from tests.scenes import feelings, persona
from tests.state.rows import NOW, PARAMS

P = ContinuationParams()
OWN = persona(), feelings()
strengths = st.floats(-1, 1)


@given(strengths, strengths)
@settings(max_examples=50)
def test_law_a_persona_never_prefers_whom_it_likes_less(one: float, other: float) -> None:
    less, more = sorted((one, other))

    assert wish(OWN, None, less, P).total <= wish(OWN, None, more, P).total


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 100), st.floats(0, 100))
@settings(max_examples=50)
def test_law_who_is_happier_and_fresher_wants_to_talk_no_less(
    mood: float, other_mood: float, fatigue: float, other_fatigue: float
) -> None:
    moods, tired = sorted((mood, other_mood)), sorted((fatigue, other_fatigue))
    low, high = (
        wish((persona(), feelings_of(m, f)), None, 0.0, P).total
        for m, f in zip(moods, reversed(tired), strict=True)
    )

    assert low <= high


def feelings_of(mood: float, fatigue: float) -> Feelings:
    return feelings(fatigue, replace(feelings().emotion, mood=mood))


@pytest.mark.parametrize(
    ("own", "others", "topic"),
    [
        ({"sea": 90, "war": 95}, {"sea": 80, "war": 10}, "sea"),
        ({"sea": 90}, {}, "sea"),
        ({}, {"war": 60}, "war"),
        ({"sea": 10}, {"sea": 20}, ""),
        ({}, {}, ""),
        ({"b": 90, "a": 90}, {}, "a"),
    ],
)
def test_the_talk_is_of_what_both_like_best(
    own: dict[str, float], others: dict[str, float], topic: str
) -> None:
    assert best_topic(own, others) == topic


def test_a_persona_of_like_tastes_is_sought_more_than_one_of_none() -> None:
    sailor = persona(topic_preferences={"sea_charts": 100}), feelings()
    gossip = persona(topic_preferences={"gossip": 100, "sea_charts": 0}), feelings()

    assert wish(OWN, sailor, None, P).total > wish(OWN, gossip, None, P).total


def test_a_wish_tells_its_terms_and_stays_in_range() -> None:
    found = wish(OWN, None, None, P)

    assert set(found.terms) == {
        *("time", "topic", "social", "fatigue", "history", "resource", "emotion")
    }
    assert (found.terms["history"], found.terms["time"]) == (0.0, 30.0)
    assert 0 <= found.shown <= 100


@pytest.mark.anyio
async def test_friends_are_sought_before_strangers_and_those_before_enemies(
    database: Database, world: str
) -> None:
    with database.writing() as connection:
        for whom, latent in (("friend", 2.0), ("enemy", -2.0), ("known", 0.0), ("tobin", 1.0)):
            arrow = Arrow(NOW, affinity_latent=latent, trust_latent=latent, interactions=9)
            begin_cache(connection, "main", "mara", whom, arrow, 1)

    found = await database.read(wishes, "main", "mara", NOW, PARAMS, P)

    assert set(found) == {"friend", "enemy", "known", "tobin"}
    assert found["friend"].total > found["known"].total > found["enemy"].total
    assert found["tobin"].terms["history"] > 0
