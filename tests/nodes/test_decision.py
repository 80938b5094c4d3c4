"""Whether the persona wants to go on, and how long its answer is."""

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
