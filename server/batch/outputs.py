"""All results of a batch, written from its outcomes: one pass, in order, little held in memory.

The same outcomes give the same bytes; what was measured (seconds) is in none of these files.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from persona_mcp.server.batch.output_chats import openai, sharegpt
from persona_mcp.server.batch.output_files import json_line, written_whole
from persona_mcp.server.batch.output_lines import dialogue_line
from persona_mcp.server.batch.output_network import Network
from persona_mcp.server.batch.output_tables import (
    Table,
    relationship_rows,
    relationships_schema,
    turn_rows,
    turns_schema,
)
from persona_mcp.server.report.findings import Gatherer
from persona_mcp.server.report.page import report
from persona_mcp.state.batch.plan import BatchPlan
from persona_mcp.state.batch.reading import SaidTurn, moved, said
from persona_mcp.state.batch.values import Cast, Outcome
from persona_mcp.state.dialogue_spec import Output
from persona_mcp.state.relationship import RelationshipParams

DIALOGUES = "dialogues.jsonl"
TURNS, RELATIONSHIPS = "turns.parquet", "relationships.parquet"
SHAREGPT, OPENAI = "sharegpt.jsonl", "openai.jsonl"
NETWORK, REPORT = "network.graphml", "report.html"
FILES: Mapping[Output, tuple[str, ...]] = {
    "parquet": (TURNS, RELATIONSHIPS),
    "sharegpt": (SHAREGPT,),
    "openai": (OPENAI,),
    "graphml": (NETWORK,),
    "report": (REPORT,),
}
"""Which files an output of a specification is; `dialogues.jsonl` is written always."""
Take = Callable[[Outcome, Sequence[SaidTurn]], None]


def write_outputs(
    folder: Path,
    plan: BatchPlan,
    outcomes: Callable[[], Iterator[Outcome]],
    casts: Callable[[int], Cast],
    laws: RelationshipParams | None = None,
) -> list[str]:
    """Write the results of a batch that the specification asks for.

    Args:
        folder: Where to; a file there of the same name is replaced when the new one is whole.
        plan: What was held.
        outcomes: Gives what came of each dialogue, in order of their indices, one at a time.
        casts: Gives who was cast in an arm.
        laws: Constants of relationships that it was held with; None for the ordinary ones.

    Returns:
        Names of the files that were written.

    Raises:
        OSError: The folder cannot be written to.
    """
    known = laws or RelationshipParams()
    wanted = {DIALOGUES, *(name for output in plan.spec.outputs for name in FILES[output])}
    made = {name: make for name, make in makers(plan, casts, known).items() if name in wanted}
    with ExitStack() as open_files:
        takers = [
            make(open_files, open_files.enter_context(written_whole(folder / name)))
            for name, make in made.items()
        ]
        for outcome in outcomes():
            turns = said(outcome)
            for take in takers:
                take(outcome, turns)
    return sorted(made)


def makers(
    plan: BatchPlan, casts: Callable[[int], Cast], laws: RelationshipParams
) -> dict[str, Callable[[ExitStack, BinaryIO], Take]]:
    """Return how each file is begun: given its file, what takes in one dialogue after the other."""

    def dialogues(_: ExitStack, file: BinaryIO) -> Take:
        return lambda outcome, turns: put(
            file, [dialogue_line(outcome, turns, plan.arms[outcome.job.place.arm].values)]
        )

    def turns_table(stack: ExitStack, file: BinaryIO) -> Take:
        table = stack.enter_context(Table(file, turns_schema()))
        return lambda outcome, turns: table.add(turn_rows(outcome, turns))

    def relationships_table(stack: ExitStack, file: BinaryIO) -> Take:
        table = stack.enter_context(Table(file, relationships_schema()))
        return lambda outcome, _: table.add(relationship_rows(outcome, moved(outcome, laws)))

    def chats(write: Callable[..., Iterable[Mapping[str, Any]]]) -> Callable[..., Take]:
        return lambda _, file: (
            lambda outcome, turns: put(file, write(outcome, turns, casts(outcome.job.place.arm)))
        )

    def network(stack: ExitStack, file: BinaryIO) -> Take:
        graph = Network(file, (casts(arm.number) for arm in plan.arms))
        stack.callback(graph.close)
        return lambda outcome, _: graph.add(outcome)

    def page(stack: ExitStack, file: BinaryIO) -> Take:
        gatherer = Gatherer(plan, casts, laws)
        stack.enter_context(at_the_end(lambda: report(gatherer.result(), plan, casts), file))
        return gatherer.add

    return {
        DIALOGUES: dialogues,
        TURNS: turns_table,
        RELATIONSHIPS: relationships_table,
        SHAREGPT: chats(sharegpt),
        OPENAI: chats(openai),
        NETWORK: network,
        REPORT: page,
    }


def put(file: BinaryIO, values: Iterable[Mapping[str, Any]]) -> None:
    """Write values, one a line."""
    for value in values:
        file.write(json_line(value))


@contextmanager
def at_the_end(make: Callable[[], bytes], file: BinaryIO) -> Iterator[None]:
    """Write a file when all outcomes were taken in; after an error it is not made."""
    yield
    file.write(make())
