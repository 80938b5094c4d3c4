"""Whether the persona wants to go on, and how long its answer is."""

from dataclasses import replace
from typing import Any

import pytest

from persona_mcp.nodes.decision import decide_response, excuse_self
from persona_mcp.server.service import Service
from persona_mcp.state.arrow import Arrow
from tests.nodes.steps import Writer, state
from tests.scenes import NOW, feelings, persona, scene

pytestmark = pytest.mark.anyio

SPENT = scene(who=persona(charisma=1), felt=feelings(fatigue=90, energy=11))


@pytest.mark.parametrize(("routing", "asks_the_model"), [("direct", True), ("score", False)])
async def test_a_spent_persona_bows_out_only_if_the_score_decides(
    service: Service, routing: str, asks_the_model: bool
) -> None:
    writer = Writer(routing=routing)

    made = await decide_response(service.parts, state(scene=SPENT), writer.runtime)

    assert made["decision"].score.total < 40
    assert made["decision"].route.model is asks_the_model


@pytest.mark.parametrize(("knobs", "wanted"), [({"temperature": 1.5}, 1.5), ({}, 0.6)])
async def test_the_temperature_is_the_callers_else_by_the_score(
    service: Service, knobs: dict[str, Any], wanted: float
) -> None:
    made = await decide_response(service.parts, state(scene=scene()), Writer(**knobs).runtime)

    assert made["decision"].temperature == wanted


async def test_the_budget_caps_the_answer(service: Service) -> None:
    writer = Writer(token_budget=7)

    made = await decide_response(service.parts, state(scene=scene()), writer.runtime)

    assert made["decision"].max_tokens == 7


async def test_an_excuse_is_a_line_of_the_personas_own_and_no_models(service: Service) -> None:
    lines = {"tired": ["I must lie down."]}
    tired = scene(who=persona(exit_lines=lines), felt=feelings(fatigue=90))
    decided = await decide_response(service.parts, state(scene=tired), Writer().runtime)

    made = await excuse_self(service.parts, state(scene=tired, **decided))

    assert made["verdict"].text == "I must lie down."
    assert (made["draft"].model, made["draft"].tokens) == (None, 0)


async def test_a_talk_that_has_run_its_course_ends_for_that_reason(service: Service) -> None:
    dull = scene(who=persona(charisma=1, exit_lines={"natural_conclusion": ["So be it."]}))
    decided = await decide_response(
        service.parts, state(scene=dull), Writer(routing="score").runtime
    )

    made = await excuse_self(service.parts, state(scene=dull, **decided))

    assert made["verdict"].text == "So be it."


@pytest.mark.parametrize("changed", [{"mood": 0.9}, {"mood": -0.9}])
async def test_mood_moves_the_wish_to_go_on(service: Service, changed: dict[str, float]) -> None:
    moved = scene(felt=feelings(felt=replace(feelings().emotion, **changed)))

    scores = [
        (await decide_response(service.parts, state(scene=s), Writer().runtime))["decision"].score
        for s in (scene(), moved)
    ]

    assert scores[1].terms["emotion"] - scores[0].terms["emotion"] == pytest.approx(
        5 * (changed["mood"] - feelings().emotion.mood)
    )


async def test_a_friend_is_talked_to_longer_than_a_stranger_and_an_enemy_less(
    service: Service,
) -> None:
    arrows = [Arrow(NOW, affinity_latent=z, trust_latent=z, contact=1) for z in (-2.0, 2.0)]
    scenes = [scene(arrow=arrows[0]), scene(), scene(arrow=arrows[1])]

    enemy, stranger, friend = [
        (await decide_response(service.parts, state(scene=s), Writer().runtime))["decision"]
        for s in scenes
    ]

    assert enemy.score.terms["history"] < 0 == stranger.score.terms["history"]
    assert enemy.score.total < stranger.score.total < friend.score.total
    assert enemy.words <= stranger.words <= friend.words
    assert enemy.words < friend.words


async def test_long_talks_with_a_human_keep_their_answers_long(service: Service) -> None:
    fresh, old = scene(), replace(scene(), answers=500)

    made = [
        (await decide_response(service.parts, state(scene=s), Writer().runtime))["decision"]
        for s in (fresh, old)
    ]

    assert made[0].max_tokens == made[1].max_tokens
