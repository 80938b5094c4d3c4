"""Work for the index, written in the transaction that makes it necessary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Double, String, bindparam, delete, insert, select

from persona_mcp.state import tables
from persona_mcp.state.moments import DAY_S
from persona_mcp.state.prepared import Prepared, listed

O = tables.OutboxEntry  # noqa: E741 - the table's letter, as in the other stores
V = tables.MemoryVector
WORLD, IDS = bindparam("world", type_=String), listed("ids")
Work = Literal["upsert", "delete"]

ADD_WORK = Prepared(insert(O))
TOO_OLD = Prepared(
    delete(O).where(O.operation == "delete", O.created_at < bindparam("before", type_=Double))
)
KEPT_S = 30 * DAY_S
"""How long an index may be closed and still be told; later it is compared at its first search."""
VECTORS = Prepared(
    select(V.world_id, V.memory_id, V.persona_id, V.model_id, V.version, V.vector)
    .where(V.world_id == WORLD, V.memory_id.in_(IDS))
    .order_by(V.seq)
)
VERSIONS = Prepared(
    select(tables.Memory.id, tables.Memory.version)
    .where(tables.Memory.world_id == WORLD, tables.Memory.id.in_(IDS))
    .order_by(tables.Memory.seq)
)
FORGET = Prepared(delete(V).where(V.world_id == WORLD, V.memory_id.in_(IDS)))
LEARN = Prepared(insert(V))


@dataclass(frozen=True)
class Vectors:
    """Vectors that were made before what they are of is written.

    Attributes:
        model_id: Of the embedder.
        packed: As `embedding.pack` does, by the text that was embedded.
    """

    model_id: str
    packed: Mapping[str, bytes]


def add_work(
    connection: Connection,
    world_id: str,
    work: Work,
    versions: Mapping[str, int],
    now: float,
) -> None:
    """Write work for the index, inside the transaction that makes it necessary.

    Args:
        connection: That transaction.
        world_id: Where.
        work: Whether the vectors are to be made anew, or the index is to forget them.
        versions: Of the memories, by their ids.
        now: Seconds since the epoch, UTC.
    """
    rows = [
        {
            "world_id": world_id,
            "memory_id": id,
            "operation": work,
            "version": version,
            "created_at": now,
        }
        for id, version in versions.items()
    ]
    if rows:
        ADD_WORK.run(connection, rows)


def learn(connection: Connection, rows: Sequence[Mapping[str, Any]], vectors: Vectors) -> set[str]:
    """Write the vectors of memories that are added in this transaction.

    Args:
        connection: That transaction.
        rows: The memories, as rows.
        vectors: Of what was embedded before; another text has none.

    Returns:
        The ids of those that have one.
    """
    found = [
        {
            "world_id": row["world_id"],
            "memory_id": row["id"],
            "persona_id": row["persona_id"],
            "model_id": vectors.model_id,
            "version": row["version"],
            "vector": vectors.packed[row["indexed_text"]],
        }
        for row in rows
        if row["indexed_text"] in vectors.packed
    ]
    if found:
        LEARN.run(connection, found)
    return {row["memory_id"] for row in found}


def hide(connection: Connection, world_id: str, versions: Mapping[str, int], now: float) -> None:
    """Have every index forget memories that are archived or deleted in this transaction.

    Where no process holds an index nobody takes the rows, so those of long ago go in passing.
    """
    TOO_OLD.run(connection, {"before": now - KEPT_S})
    add_work(connection, world_id, "delete", versions, now)


def reveal(connection: Connection, world_id: str, ids: Sequence[str], now: float) -> None:
    """Have every index find memories again that were hidden: only what changed is embedded.

    Their vectors get a new `seq`, by which each index sees that they are to be looked at. One that
    was written anew meanwhile, or was never embedded, is work like a new one.
    """
    found = [dict(row._mapping) for row in VECTORS.all(connection, world=world_id, ids=ids)]
    if found:
        FORGET.run(connection, {"world": world_id, "ids": ids})
        LEARN.run(connection, found)
    embedded = {(row["memory_id"], row["version"]) for row in found}
    known = VERSIONS.all(connection, world=world_id, ids=ids)
    stale = {id: version for id, version in known if (id, version) not in embedded}
    add_work(connection, world_id, "upsert", stale, now)
