"""The ids of dialogues in the world that they become part of.

In its files a dialogue has ids that come from its seed and place alone, so that holding it again
gives the same bytes. A world may get several batches of one seed; there each has ids of its own.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from persona_mcp.state.batch.values import Outcome
from persona_mcp.state.ids import derived_id


def id_in_world(batch_id: str, id: str) -> str:
    """Return what a conversation (turn, memory, ...) of a batch is called in the batch's world."""
    return derived_id("batch", batch_id, id)


def as_in_world(outcome: Outcome, batch_id: str) -> Outcome:
    """Return what came of a dialogue with its ids as they are in the batch's world.

    Only what the dialogue itself made has another id: personas, and memories that were there
    before, keep theirs.
    """
    made = {row["id"] for rows in outcome.rows.values() for row in rows if "id" in row}
    names = {id: id_in_world(batch_id, id) for id in {*made, outcome.job.id}}
    rows = {name: [renamed(row, names) for row in its] for name, its in outcome.rows.items()}
    return replace(outcome, job=replace(outcome.job, id=names[outcome.job.id]), rows=rows)


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Put new ids in the place of old ones, anywhere in a JSON value."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, dict):
        return {key: renamed(item, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [renamed(item, names) for item in value]
    return value
