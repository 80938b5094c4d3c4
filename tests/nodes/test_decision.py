"""Whether the persona wants to go on, and how long its answer is."""

from dataclasses import replace
from typing import Any

import pytest

from persona_mcp.nodes.decision import decide_response, excuse_self
from persona_mcp.server.service import Service
from tests.nodes.steps import Writer, state
from tests.scenes import feelings, persona, scene

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


async def test_long_talks_with_a_human_keep_their_answers_long(service: Service) -> None:
    fresh, old = scene(), replace(scene(), answers=500)

    made = [
        (await decide_response(service.parts, state(scene=s), Writer().runtime))["decision"]
        for s in (fresh, old)
    ]

    assert made[0].max_tokens == made[1].max_tokens
