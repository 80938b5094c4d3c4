import pytest

from persona_mcp.state.availability import check_available
from persona_mcp.state.errors import PersonaUnavailable
from persona_mcp.state.interaction import InteractionParams, InteractionState, waits
from tests.scenes import persona

P = InteractionParams()


def test_a_rested_persona_is_not_refused() -> None:
    check_available(persona(), InteractionState(0.0), P)


@pytest.mark.parametrize(
    ("state", "reason", "seconds", "also"),
    [
        (InteractionState(5.0, cooldown_until=305.5), "cooldown", 301, []),
        (InteractionState(5.0, time=0), "no_time", 361, []),
        (InteractionState(5.0, energy=4), "no_energy", 361, []),
        (
            InteractionState(5.0, energy=9, time=0, cooldown_until=25.0),
            "no_time",
            361,
            ["no_energy", "cooldown"],
        ),
    ],
)
def test_a_persona_that_cannot_talk_is_refused_with_what_clears_last(
    state: InteractionState, reason: str, seconds: int, also: list[str]
) -> None:
    with pytest.raises(
        PersonaUnavailable, match=f"'mara' cannot talk now.* {seconds} s"
    ) as refused:
        check_available(persona(), state, P)

    assert refused.value.data == {
        "persona_id": "mara",
        "reason": reason,
        "available_in_seconds": seconds,
        "retry_after_seconds": seconds,
        "also": also,
    }


def test_a_persona_in_too_many_talks_is_refused_with_the_oldest_and_without_a_time() -> None:
    resting = InteractionState(5.0, cooldown_until=305.5)
    check_available(persona(), InteractionState(5.0), P, ["c1", "c2"])

    with pytest.raises(PersonaUnavailable, match="in other conversations; end one") as refused:
        check_available(persona(), resting, P, ["c1", "c2", "c3"])

    assert refused.value.data == {
        "persona_id": "mara",
        "reason": "in_conversation",
        "conversation_id": "c1",
        "also": ["cooldown"],
    }


def test_the_wait_of_each_reason_is_known() -> None:
    state = InteractionState(5.0, energy=9, time=0, cooldown_until=25.0)

    assert waits(state, 300, P) == {"cooling_down": 20, "no_time": 361, "no_energy": 61}
