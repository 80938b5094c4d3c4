"""The relationship graph's steps, one by one."""

from typing import Any

import pytest

from persona_mcp.nodes.relationship_state import RelationshipRun, given_of
from persona_mcp.nodes.relationship_steps import apply_act, appraise_act, persist_act, validate_act
from persona_mcp.server.service import Service
from tests.calls import dump

pytestmark = pytest.mark.anyio


def given(**more: Any) -> RelationshipRun:
    values = {"world_id": "main", "event_id": "e1", "actor_id": "kira", "receiver_id": "aria"}
    return RelationshipRun(**{**values, **more})  # type: ignore[typeddict-item]


async def test_nothing_is_written_before_the_last_step(service: Service) -> None:
    state = given(quality=0.5)
    before = await dump(service.database)

    for step in (appraise_act, validate_act, apply_act):
        state.update(await step(service.parts, state))  # type: ignore[typeddict-item]
        assert await dump(service.database) == before

    await persist_act(service.parts, state)
    assert await dump(service.database) != before


def test_what_a_form_leaves_empty_counts_as_left_out() -> None:
    assert given_of(given(text=None, quality=0.5, witnesses=[])) == {
        **given(),
        "quality": 0.5,
        "witnesses": [],
    }
