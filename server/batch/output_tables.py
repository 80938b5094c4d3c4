"""`turns.parquet` and `relationships.parquet`: written by row groups, so memory in use stays flat.

The same rows give the same bytes: nothing of the time or the machine is in a file, only the name
and version of the library that wrote it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from persona_mcp.server.batch.output_files import shortened
from persona_mcp.state.batch.reading import DIMENSIONS, Moved, SaidTurn
from persona_mcp.state.batch.values import Outcome

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = 4096
"""Rows that are held before they are written."""
AXES = ("warmth", "reliability", "competence", "disclosure")


class Table:
    """A Parquet file that is being written; a context, and closed at its end."""

    def __init__(self, file: BinaryIO, schema: "pa.Schema", row_group: int = ROW_GROUP) -> None:
        """Begin it.

        Args:
            file: Where to.
            schema: Of its rows.
            row_group: Rows that are held before they are written, >= 1.
        """
        from pyarrow import parquet  # noqa: PLC0415 - heavy, and only needed here

        self._schema, self._row_group = schema, row_group
        self._rows: list[dict[str, Any]] = []
        self._writer = parquet.ParquetWriter(
            file,
            schema,
            version="2.6",
            compression="zstd",
            compression_level=3,
            use_dictionary=True,
            write_statistics=True,
            data_page_version="1.0",
            store_schema=True,
        )

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows, in their order; each has all columns."""
        self._rows += rows
        while len(self._rows) >= self._row_group:
            self._write(self._row_group)

    def _write(self, count: int) -> None:
        import pyarrow as pa  # noqa: PLC0415 - see above

        batch = pa.Table.from_pylist(self._rows[:count], schema=self._schema)
        self._writer.write_table(batch, row_group_size=count)
        del self._rows[:count]

    def __enter__(self) -> "Table":
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is left, and the end of the file."""
        if kind is None and self._rows:
            self._write(len(self._rows))
        self._writer.close()


def place_fields() -> "list[pa.Field[Any]]":
    """Return the columns that say which dialogue a row is of."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    whole = [pa.field(name, pa.int32(), nullable=False) for name in ("dialogue", "arm", "repeat")]
    return [*whole, pa.field("wave", pa.int32(), nullable=False)]


def turns_schema() -> "pa.Schema":
    """Return the columns of `turns.parquet`."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    text = pa.string()
    return pa.schema(
        [
            *place_fields(),
            pa.field("turn", pa.int32(), nullable=False),
            pa.field("place", pa.int32(), nullable=False),
            pa.field("speaker", text, nullable=False),
            pa.field("text", text, nullable=False),
            pa.field("heard_by", pa.list_(pa.field("item", text, nullable=False)), nullable=False),
            pa.field("kind", text, nullable=False),
            pa.field("response_type", text),
            pa.field("score", pa.float64()),
            pa.field("score_terms", pa.map_(text, pa.float64()), nullable=False),
            pa.field("tokens", pa.int32(), nullable=False),
            pa.field("tokens_estimated", pa.bool_(), nullable=False),
            pa.field("at", pa.timestamp("ms", tz="UTC"), nullable=False),
        ]
    )


def relationships_schema() -> "pa.Schema":
    """Return the columns of `relationships.parquet`."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    text, number = pa.string(), pa.float64()
    return pa.schema(
        [
            *place_fields(),
            pa.field("turn", pa.int32(), nullable=False),
            pa.field("from", text, nullable=False),
            pa.field("to", text, nullable=False),
            *(pa.field(name, number, nullable=False) for name in DIMENSIONS),
            pa.field("affinity_change", number, nullable=False),
            *(pa.field(name, number) for name in AXES),
            pa.field("direct", pa.bool_(), nullable=False),
            pa.field("why", text, nullable=False),
            pa.field("at", pa.timestamp("ms", tz="UTC"), nullable=False),
        ]
    )


def place_of(outcome: Outcome) -> dict[str, int]:
    """Say which dialogue a row is of."""
    place = outcome.job.place
    return {
        "dialogue": place.index,
        "arm": place.arm,
        "repeat": place.repeat,
        "wave": place.wave,
    }


def turn_rows(outcome: Outcome, turns: Sequence[SaidTurn]) -> list[dict[str, Any]]:
    """Return the rows of `turns.parquet` of one dialogue."""
    place = place_of(outcome)
    return [
        {
            **place,
            "turn": turn.number,
            "place": turn.place,
            "speaker": turn.speaker,
            "text": turn.text,
            "heard_by": list(turn.heard_by),
            "kind": turn.kind,
            "response_type": turn.response_type or None,
            "score": shortened(turn.score),
            "score_terms": sorted(shortened(dict(turn.score_terms)).items()),
            "tokens": turn.tokens,
            "tokens_estimated": turn.estimated,
            "at": datetime.fromtimestamp(round(turn.at, 3), UTC),
        }
        for turn in turns
    ]


def relationship_rows(outcome: Outcome, moves: Sequence[Moved]) -> list[dict[str, Any]]:
    """Return the rows of `relationships.parquet` of one dialogue."""
    place = place_of(outcome)
    return [
        {
            **place,
            "turn": one.turn,
            "from": one.of,
            "to": one.to,
            **shortened(dict(one.shown)),
            "affinity_change": shortened(one.change),
            **{name: shortened((one.appraisal or {}).get(name)) for name in AXES},
            "direct": one.direct,
            "why": one.why,
            "at": datetime.fromtimestamp(round(one.at, 3), UTC),
        }
        for one in moves
    ]
