import pytest

from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.persona import Persona, PersonaSpec
from persona_mcp.state.validation import validate


def test_only_a_name_is_needed() -> None:
    spec = validate(PersonaSpec, {"name": "Aria"})

    assert (spec.charisma, spec.social_rank, spec.social_energy) == (10, "commoner", 100.0)
    assert (spec.available_time, spec.current_priority) == (300.0, "none")


@pytest.mark.parametrize("scale", [1, 100, 1.0])
def test_the_scale_of_traits_is_1_or_100(scale: float) -> None:
    spec = validate(PersonaSpec, {"name": "A", "personality_traits": {"scale": scale}})

    assert spec.personality_traits == {"scale": scale}


@pytest.mark.parametrize("scale", [2, 0, 50.5, "x"])
def test_another_scale_is_refused(scale: object) -> None:
    with pytest.raises(InvalidParams, match="scale 1 or 100"):
        validate(PersonaSpec, {"name": "A", "personality_traits": {"scale": scale}})


def test_a_trait_is_a_number_or_a_text_and_stays_what_it_was() -> None:
    traits = {"openness": 80, "charm": 0.5, "motto": "5", "clumsy": "very"}

    spec = validate(PersonaSpec, {"name": "A", "personality_traits": traits})

    assert spec.personality_traits == traits
    assert isinstance(spec.personality_traits["motto"], str)


def test_a_persona_answers_for_its_name_and_traits() -> None:
    spec = validate(PersonaSpec, {"name": "A", "personality_traits": {"charm": 5}})

    persona = Persona("a", 1, spec, 0.0, 0.0)

    assert (persona.name, persona.trait("charm"), persona.trait("other")) == ("A", 5, None)
