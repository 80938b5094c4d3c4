"""Who a persona is, in words."""

from persona_mcp.nodes.portrait import topics_in_words, traits_in_words
from tests.scenes import persona


def test_traits_are_named_without_their_numbers() -> None:
    assert traits_in_words(persona().spec) == "patient, humour: dry"
    many = persona(personality_traits={f"quick_{c}": 90 for c in "abcdefgh"}).spec
    assert traits_in_words(many) == ", ".join(f"quick {c}" for c in "abcdef")


def test_topics_are_liked_or_shunned_the_best_first() -> None:
    assert topics_in_words(persona().spec) == ("sea charts, weather", "gossip")
    assert topics_in_words(persona(topic_preferences={}).spec) == ("", "")
