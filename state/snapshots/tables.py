"""What a saved state holds: which tables and columns, in which part, and what they refer to.

A table of a world is listed here, or `state/erasing.py` names it as no part of a world: so a load
writes just what it takes away. A test fails on a table that is neither, and when the columns change
without a new `SCHEMA` and a step to it in `state/snapshots/steps.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from sqlalchemy import Column, Table, UniqueConstraint

from persona_mcp.state import tables
from persona_mcp.state.table_base import Base

FORMAT = "persona-mcp-state/1"
SCHEMA = 13
"""Which columns the rows have: the newest migration that changed a table which is kept."""
Part = Literal["personas", "relationships", "emotions", "memories", "conversations"]
PARTS: tuple[Part, ...] = get_args(Part)
PLACE = "place"
"""Stands in a row in place of a `seq`: 1, 2, ... in order of writing."""
WORLD = "world_id"


@dataclass(frozen=True)
class Kept:
    """A table that is in a saved state.

    Attributes:
        kind: Its class.
        part: What `include` calls it.
        left_out: Columns that are not part of what is known: leases, processes, open prompts.
        defaults: What those of them that need a value are loaded with.
        refers: Columns that name a row of another table, and that table.
        ordered: The order of its rows is kept, in `place`.
        pairs: Objects whose keys stand in an order that somebody chose: prompts and exports follow
            it, so they are lists of pairs.
        folds: It is a cache; groups of columns, each led by the number of the last effect in it.
        made: Its rows can be made anew from others, so that a merge keeps what is there.
    """

    kind: type[Base]
    part: Part
    left_out: frozenset[str] = frozenset()
    defaults: dict[str, Any] = field(default_factory=dict, hash=False)
    refers: dict[str, str] = field(default_factory=dict, hash=False)
    ordered: bool = False
    pairs: frozenset[str] = frozenset()
    folds: tuple[tuple[str, ...], ...] = ()
    made: bool = False

    @property
    def table(self) -> Table:
        """The table."""
        return cast("Table", self.kind.__table__)

    @property
    def name(self) -> str:
        """Its name."""
        return self.table.name

    @property
    def columns(self) -> list[Column[Any]]:
        """The columns that are kept."""
        dropped = self.left_out | {WORLD}
        return [c for c in self.table.c if c.name not in dropped and not is_counter(c)]

    @property
    def key(self) -> tuple[str, ...]:
        """What names a row within its world."""
        own = [c for c in self.table.primary_key if c.name != WORLD]
        if any(is_counter(c) for c in own):
            return self.uniques[0]
        return tuple(c.name for c in own)

    @property
    def uniques(self) -> list[tuple[str, ...]]:
        """Columns that no two rows of a world share, beside its key."""
        kept = {column.name for column in self.columns}
        wide = [
            *(c.columns for c in self.table.constraints if isinstance(c, UniqueConstraint)),
            *(index.columns for index in self.table.indexes if index.unique),
        ]
        found = (tuple(c.name for c in columns if c.name != WORLD) for columns in wide)
        return [names for names in sorted(found) if kept.issuperset(names)]


def is_counter(column: Column[Any]) -> bool:
    """Tell a table's own running number, which is another one in each database."""
    return column.primary_key and column.name == "seq"


TO_PERSONA = {"persona_id": "personas"}
TO_MEMORY = {"memory_id": "memories"}
KEPT: tuple[Kept, ...] = (
    Kept(
        tables.Persona,
        "personas",
        pairs=frozenset({"personality_traits", "topic_preferences", "exit_lines"}),
    ),
    Kept(tables.PersonaVersion, "personas", refers=TO_PERSONA),
    Kept(tables.PersonaCard, "personas", refers=TO_PERSONA),
    Kept(tables.VisualContext, "personas"),
    Kept(
        tables.Conversation,
        "conversations",
        left_out=frozenset({"lease_owner", "lease_until"}),
        refers={**TO_PERSONA, "head_exchange_id": "exchanges"},
    ),
    Kept(
        tables.Exchange,
        "conversations",
        left_out=frozenset(
            {"owner", "caller_id", "correlation_id", "prompt_id", "prompt_until", "prompt"}
        ),
        defaults={"owner": ""},
        refers={**TO_PERSONA, "conversation_id": "conversations", "follows_id": "exchanges"},
    ),
    Kept(
        tables.Turn,
        "conversations",
        refers={"conversation_id": "conversations", "exchange_id": "exchanges"},
    ),
    Kept(tables.TurnWitness, "conversations", refers={"turn_id": "turns"}),
    Kept(tables.RelationshipEvent, "relationships"),
    Kept(tables.RelationshipState, "relationships", folds=(("last_seq", "as_of", "arrow"),)),
    Kept(tables.MoodImpulse, "emotions", refers=TO_PERSONA),
    Kept(tables.EnergySpent, "emotions", refers=TO_PERSONA),
    Kept(
        tables.PersonaState,
        "emotions",
        refers=TO_PERSONA,
        folds=(("emotion_seq", "emotion"), ("interaction_seq", "interaction")),
    ),
    Kept(
        tables.Memory,
        "memories",
        refers=TO_PERSONA,
        ordered=True,
        pairs=frozenset({"details", "importance_terms"}),
    ),
    Kept(tables.MemoryWitness, "memories", refers=TO_MEMORY),
    Kept(tables.MemoryUse, "memories", refers=TO_MEMORY),
    Kept(tables.MemoryRevision, "memories", refers=TO_MEMORY),
    Kept(tables.MemoryVector, "memories", refers={**TO_PERSONA, **TO_MEMORY}, made=True),
    Kept(tables.PruneRun, "memories", refers=TO_PERSONA),
    Kept(tables.DecayRun, "memories", refers=TO_PERSONA),
)
"""In an order in which each table stands behind those that it cannot be written without."""
BY_NAME = {kept.name: kept for kept in KEPT}


def columns_kept() -> Iterator[str]:
    """Name every column that is kept, as `table.column`; SCHEMA stands for this list."""
    for kept in KEPT:
        yield from (f"{kept.name}.{column.name}" for column in kept.columns)
        if kept.ordered:
            yield f"{kept.name}.{PLACE}"
