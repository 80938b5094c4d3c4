"""What a speaker answers."""

import pytest

from persona_mcp.nodes.casting import cue
from tests.scenes import scene, turn


@pytest.mark.parametrize(
    ("spoken", "heard", "direction", "message"),
    [
        (False, "", "", "(ann is with you. You begin to talk.)"),
        (True, "Which key?", "", "Which key?"),
        (True, "Which key?", "It rains.", "Which key?\n(It rains.)"),
        (True, "", "It rains.", "(ann says nothing. You go on.)\n(It rains.)"),
    ],
)
def test_a_speaker_answers_what_it_heard_and_what_happens(
    spoken: bool, heard: str, direction: str, message: str
) -> None:
    stage = scene(turn(1, "mara", "Good evening.")) if spoken else scene()

    assert cue(stage, heard, [direction] if direction else []) == message
