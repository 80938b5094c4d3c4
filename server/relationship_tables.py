"""Relationships as text: a matrix, lists, and curves of little bars."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from persona_mcp.server.relationship_curves import (
    DIMENSIONS,
    Axis,
    Curve,
    axis_of,
    in_words,
    marked,
    sampled,
)
from persona_mcp.server.terminal import Terminal, encodable
from persona_mcp.state.arrow import RelationshipType

Shown = Mapping[str, Any]

SHORT: dict[RelationshipType, str] = {
    "stranger": "st",
    "acquaintance": "ac",
    "friend": "fr",
    "close_friend": "cf",
    "rival": "ri",
    "enemy": "en",
    "mentor": "me",
    "student": "su",
    "romantic": "ro",
    "family": "fa",
}
CELL, HEAD, GAP = 7, 12, 1
"""Widths of a matrix: of a cell (`+.42 fr`), of the names on the left, and between cells."""
NAME = 20
BARS, PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.:-=+*#"
NOTHING_YET = " "
COLUMNS = 48
LEAST_RANGE = 0.2
"""Bars of a value that moved less than this use no more of their height than it did."""
LAST_EVENTS = 5
DIM = "dim"


def show_arrows(terminal: Terminal, found: Shown) -> None:
    """Print a graph: a matrix if it fits, else a list of arrows."""
    out, edges = terminal.out, found["edges"]
    if not edges:
        out.print("nobody has met anybody yet; talk to one: persona chat Aria", style=DIM)
        return
    names = {node["id"]: node["name"] for node in found["nodes"]}
    seen = [id for id in names if any(edge["to"] == id for edge in edges)]
    if HEAD + len(seen) * (GAP + CELL) <= out.width:
        out.print(matrix(names, seen, edges))
        known = [kind for kind in SHORT if any(edge["type"] == kind for edge in edges)]
        meaning = ", ".join(f"{SHORT[kind]} {in_type(kind)}" for kind in known)
        out.print(f"Rows see, columns are seen: affinity from -1 to 1, and {meaning}.", style=DIM)
    else:
        out.print(listed(names, edges))


def matrix(names: Mapping[str, str], seen: Sequence[str], edges: Sequence[Shown]) -> Table:
    """Lay out who sees whom how: a row for who sees, a column for who is seen."""
    cells = {(edge["from"], edge["to"]): cell(edge) for edge in edges}
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("", max_width=HEAD, overflow="fold", style="bold")
    for id in seen:
        table.add_column(names[id], width=CELL, overflow="fold")
    for row in (id for id in names if any(edge["from"] == id for edge in edges)):
        table.add_row(names[row], *("" if row == id else cells.get((row, id), "-") for id in seen))
    return table


def cell(edge: Shown) -> str:
    """Write an arrow in seven characters: `+.42 fr`."""
    return f"{hundredths(edge['affinity'])} {SHORT[edge['type']]}"


def hundredths(value: float) -> str:
    """Write a number of [-1, 1] in four characters; nothing is -.00."""
    rounded = round(value, 2) + 0.0
    return f"{rounded:+.1f}" if abs(rounded) == 1 else f"{rounded:+.2f}".replace("0.", ".")


def in_type(kind: str) -> str:
    """Write the name of a type."""
    return kind.replace("_", " ")


def listed(names: Mapping[str, str], edges: Sequence[Shown]) -> Table:
    """Lay arrows out one below the other."""
    table = Table()
    table.add_column("who sees", max_width=NAME, overflow="fold")
    table.add_column("whom", max_width=NAME, overflow="fold")
    table.add_column("type")
    for name in ("affinity", "trust", "respect"):
        table.add_column(name, justify="right")
    for edge in edges:
        numbers = (hundredths(edge[name]) for name in ("affinity", "trust", "respect"))
        table.add_row(names[edge["from"]], names[edge["to"]], in_type(edge["type"]), *numbers)
    return table


def show_views(terminal: Terminal, found: Shown) -> None:
    """Print how one persona sees everybody whom it knows, the strongest bond first."""
    out = terminal.out
    if not found["relationships"]:
        out.print(f"{found['persona_id']} has not met anybody yet", style=DIM)
        return
    table = Table()
    table.add_column("whom", max_width=NAME, overflow="fold")
    table.add_column("type")
    for head in ("affinity", "trust", "respect", "intim.", "famil.", "wants to talk"):
        table.add_column(head, justify="right")
    for one in found["relationships"]:
        signed = (hundredths(one[name]) for name in ("affinity", "trust", "respect"))
        table.add_row(
            one["other_name"],
            in_type(one["relationship_type"]),
            *signed,
            *(f"{one[name]:.2f}" for name in ("intimacy", "familiarity")),
            str(one["wants_to_talk"]),
        )
    out.print(table)


def show_curves(terminal: Terminal, curves: Sequence[Curve]) -> None:
    """Print how views went, as rows of bars on one scale of time, with the last events."""
    out, axis = terminal.out, axis_of(curves)
    fits = encodable(BARS, out.encoding) == BARS
    bars = BARS if fits else PLAIN_BARS
    for curve in curves:
        out.print(f"How {curve.from_name} sees {curve.to_name}", style="bold", soft_wrap=True)
        for name in DIMENSIONS:
            first, last = (getattr(p.shown, name) for p in (curve.points[0], curve.points[-1]))
            drawn = in_bars(sampled(curve, axis, name, COLUMNS), bars)
            out.print(f"  {name:9}{drawn}  {first:+.2f} to {last:+.2f}")
        out.print(f"  {'events':9}{in_marks(curve, axis)}  {len(curve.events)}")
        out.print(f"  {'':9}{ends_of(axis)}", style=DIM)
        for event in curve.events[-LAST_EVENTS:]:
            out.print(f"  {moment(event.at)}  {event.why}", style=DIM, soft_wrap=True)
        out.print()
    for start, end in axis.rests:
        gap = in_words(end - start)
        out.print(f"After {moment(start)} nothing happened for {gap}; drawn shorter.", style=DIM)


def in_bars(values: Sequence[float | None], bars: str) -> str:
    """Draw values as bars between the lowest and the highest of them."""
    known = [value for value in values if value is not None]
    low = min(known)
    span = max(LEAST_RANGE, max(known) - low)
    top = len(bars) - 1
    return "".join(
        NOTHING_YET if value is None else bars[round(top * (value - low) / span)]
        for value in values
    )


def in_marks(curve: Curve, axis: Axis) -> str:
    """Mark where something happened: `|` for one event in a column, `#` for several."""
    counts = marked(curve.events, axis, COLUMNS)
    return "".join(" " if not count else "|" if count == 1 else "#" for count in counts)


def ends_of(axis: Axis) -> str:
    """Write both ends of a scale below it."""
    first, last = moment(axis.times[0]), moment(axis.times[-1])
    return f"{first}{last:>{COLUMNS - len(first)}}"


def moment(at: float) -> str:
    """Write a time in UTC, to the minute."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"
