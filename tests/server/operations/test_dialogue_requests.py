"""What is asked of dialogue_start, as a specification."""

from typing import Any

import pytest

from persona_mcp.server.batch.folder import batch_path
from persona_mcp.server.batch.holding import written
from persona_mcp.server.operations.dialogue_requests import cannot_be_kept, first_ids, plan_of
from persona_mcp.state.batch.naming import id_in_world
from persona_mcp.state.errors import InvalidParams, LimitExceeded

TWO: dict[str, Any] = {"personas": {"aria": None, "kira": None}, "repeats": 3}


def test_a_plan_may_be_as_large_as_is_allowed_and_no_larger() -> None:
    assert plan_of(TWO, largest=3).total == 3

    with pytest.raises(LimitExceeded, match="PERSONA_DIALOGUES__LARGEST"):
        plan_of(TWO, largest=2)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": {"name": "openai:other"}}, "spec.model.name"),
        ({"personas": {"aria": None, "kira": {"card": "/etc/passwd"}}}, "spec.personas.kira.card"),
        ({"dialogue": {"max_turns": 0}}, "spec.dialogue.max_turns"),
    ],
)
def test_a_fault_has_the_path_of_its_argument(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams) as told:
        plan_of({**TWO, **changes}, largest=3)

    assert [fault["field"] for fault in told.value.data["errors"]] == [field]


def test_the_conversations_are_named_by_their_batch() -> None:
    plan = plan_of(TWO, largest=3)
    jobs = [plan.jobs(0, repeat, 0, 0.0)[0].id for repeat in range(3)]

    assert first_ids(plan, "b1", most=2) == [id_in_world("b1", id) for id in jobs[:2]]
    assert not {*first_ids(plan, "b1")} & {*first_ids(plan, "b2")}


def test_what_makes_another_world_of_it_cannot_be_kept() -> None:
    strange = {**TWO, "relationships": [{"of": "aria", "to": "kira", "quality": 1}]}
    spec = plan_of({**strange, "waves": [{}, {"gap_hours": 5}]}, largest=9).spec

    fields = [fault["field"] for fault in cannot_be_kept(spec)]

    assert fields == ["spec.relationships", "spec.waves.1.gap_hours"]


def test_a_batch_has_a_folder_of_its_own_and_one_way_to_be_written(settings: Any) -> None:
    paths = {batch_path(settings.data_dir, world, id) for world in "ab" for id in "cd"}

    assert len(paths) == 4
    assert written({"b": 1, "a": [1.5]}) == written({"a": [1.5], "b": 1}) == b'{"a":[1.5],"b":1}\n'
