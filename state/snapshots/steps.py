"""How a state that was saved by an older version is read: one step for each change of its rows."""

from collections.abc import Callable, Mapping
from typing import Any

from persona_mcp.state.errors import BadSnapshot
from persona_mcp.state.snapshots.tables import SCHEMA

Tables = dict[str, Any]
Step = Callable[[Tables], Tables]


def with_cards_and_scenes(tables: Tables) -> Tables:
    """Add what migration 0010 brought: versions, cards, visual contexts, scenes and plans."""
    new = {"scene": None, "plan": None, "exit_reason": None}
    return {
        "persona_versions": [],
        "persona_cards": [],
        "visual_contexts": [],
        **tables,
        "conversations": [{**new, **row} for row in rows_of(tables, "conversations")],
    }


def with_finish_reasons(tables: Tables) -> Tables:
    """Add what migration 0013 brought: why replies ended, which nobody knows of these."""
    new = {"finish_reason": None}
    return {**tables, "exchanges": [{**new, **row} for row in rows_of(tables, "exchanges")]}


STEPS: Mapping[int, Step] = {9: with_cards_and_scenes, 10: with_finish_reasons}
"""By the newest schema that lacks what a step brings; in order."""
OLDEST = min(STEPS)


def brought_up(tables: Any, schema: Any) -> Tables:
    """Give rows of an older schema the form of today's; they are checked afterwards.

    Raises:
        BadSnapshot: They are of a newer version, or too old, or no rows at all.
    """
    if type(schema) is not int or not OLDEST <= schema <= SCHEMA:
        raise BadSnapshot(
            f"schema: this version reads saved states of schema {OLDEST} to {SCHEMA}, this one "
            f"has {schema!r:.40}; load it with the version that saved it, or a newer one",
            field="schema",
        )
    if not isinstance(tables, dict):
        raise BadSnapshot("tables: an object of lists of rows is expected", field="tables")
    found: Tables = tables
    for number, step in STEPS.items():
        if schema <= number:
            found = step(found)
    return found


def rows_of(tables: Tables, name: str) -> list[dict[str, Any]]:
    """Return the rows of a table that a step changes.

    Raises:
        BadSnapshot: They are none.
    """
    rows = tables.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadSnapshot(f"{name}: a list of rows is expected", field=name)
    return rows
