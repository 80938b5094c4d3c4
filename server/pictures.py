"""Pictures of the graphs, made from the graphs themselves: Mermaid, and SVG for the README."""

from collections.abc import Callable
from html import escape
from typing import Any, cast

from langgraph.graph import END, START

from persona_mcp.graphs.conversation import build_conversation
from persona_mcp.graphs.dialogue import build_dialogue
from persona_mcp.graphs.relationship import build_relationship
from persona_mcp.nodes.parts import Parts
from persona_mcp.state.errors import NotFound

BUILDERS: dict[str, Callable[[Parts], Any]] = {
    "conversation": build_conversation,
    "dialogue": build_dialogue,
    "relationship": build_relationship,
}
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 104, 40, 40, 40, 24
NAMES = {START: "start", END: "end"}
STYLE = (
    "text{font:14px ui-sans-serif,system-ui,sans-serif;text-anchor:middle;"
    "dominant-baseline:central;fill:#1f2937}"
    "rect{fill:#eef2ff;stroke:#6366f1;stroke-width:1.5}"
    "rect.end{fill:#f3f4f6;stroke:#9ca3af}"
    "path{fill:none;stroke:#6b7280;stroke-width:1.5}"
    "path.choice{stroke-dasharray:5 4}"
    "@media(prefers-color-scheme:dark){text{fill:#e5e7eb}rect{fill:#312e81}"
    "rect.end{fill:#374151}path{stroke:#9ca3af}}"
)
Edge = tuple[str, str, bool]
Places = dict[str, tuple[int, int]]


def structure(name: str) -> tuple[list[str], list[Edge]]:
    """Return a graph's nodes in order, and its edges as (from, to, is a choice).

    Raises:
        NotFound: There is no graph of this name.
    """
    if name not in BUILDERS:
        raise NotFound.of("graph", name, list(BUILDERS))
    drawn = compiled(name).get_graph()
    edges = [(edge.source, edge.target, edge.conditional) for edge in drawn.edges]
    return list(drawn.nodes), edges


def compiled(name: str) -> Any:
    """Compile a graph for drawing: its parts are never used."""
    return BUILDERS[name](cast("Parts", None)).compile(name=name)


def mermaid(name: str) -> str:
    """Draw a graph as Mermaid.

    Raises:
        NotFound: There is no graph of this name.
    """
    structure(name)
    text: str = compiled(name).get_graph().draw_mermaid()
    return text


def svg(name: str) -> str:
    """Draw a graph as SVG: the longest way to the end in one row, each that leaves it below.

    Raises:
        NotFound: There is no graph of this name.
    """
    nodes, edges = structure(name)
    places = layout(nodes, edges)
    columns = 1 + max(column for column, _ in places.values())
    rows = 1 + max(row for _, row in places.values())
    width = 2 * MARGIN + columns * WIDTH + (columns - 1) * GAP_X
    height = 2 * MARGIN + rows * HEIGHT + (rows - 1) * GAP_Y
    parts = [arrow(places, edge) for edge in edges] + [box(places, node) for node in nodes]
    marker = (
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" style="fill:#6b7280;stroke:none"/>'
        "</marker>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="The {escape(name)} graph">\n'
        f"<style>{STYLE}</style>\n<defs>{marker}</defs>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def layout(nodes: list[str], edges: list[Edge]) -> Places:
    """Give each node a column and a row."""
    main = longest(START, edges, (START,))
    places = {node: (column, 0) for column, node in enumerate(main)}
    for row, node in enumerate((n for n in nodes if n not in places), start=1):
        before = [places[a][0] for a, b, _ in edges if b == node and a in places]
        places[node] = (max(before, default=0) + 1, row)
    return places


def longest(node: str, edges: list[Edge], seen: tuple[str, ...]) -> tuple[str, ...]:
    """Return the longest way from a node to the end that visits no node twice."""
    if node == END:
        return seen
    ways = [
        longest(target, edges, (*seen, target))
        for source, target, _ in edges
        if source == node and target not in seen
    ]
    return max((way for way in ways if way), key=len, default=())


def box(places: Places, node: str) -> str:
    """Draw a node."""
    x, y = corner(places[node])
    kind = ' class="end"' if node in NAMES else ""
    label = escape(NAMES.get(node, node))
    return (
        f'<rect{kind} x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
        f'<text x="{x + WIDTH // 2}" y="{y + HEIGHT // 2}">{label}</text>'
    )


def arrow(places: Places, edge: Edge) -> str:
    """Draw an edge: straight to the next column, curved below to anywhere else."""
    source, target, choice = edge
    (column, row), (to_column, to_row) = places[source], places[target]
    x, y = corner((column, row))
    to_x, to_y = corner((to_column, to_row))
    if row == to_row and to_column == column + 1:
        way = f"M{x + WIDTH} {y + HEIGHT // 2}H{to_x - 1}"
    elif row == to_row:
        middle, to_middle, low = x + WIDTH // 2, to_x + WIDTH // 2, y + HEIGHT + GAP_Y // 2
        way = (
            f"M{middle} {y + HEIGHT}C{middle} {low} {to_middle} {low} {to_middle} {y + HEIGHT + 1}"
        )
    else:
        way = bend((x, y), (to_x, to_y), down=to_row > row)
    kind = ' class="choice"' if choice else ""
    return f'<path{kind} d="{way}" marker-end="url(#tip)"/>'


def bend(start: tuple[int, int], end: tuple[int, int], down: bool) -> str:
    """Draw a way between rows: down into a box's side, or up into its bottom."""
    (x, y), (to_x, to_y) = start, end
    half = HEIGHT // 2
    if down:
        middle = x + WIDTH // 2
        return f"M{middle} {y + HEIGHT}Q{middle} {to_y + half} {to_x - 1} {to_y + half}"
    middle = to_x + WIDTH // 2
    return f"M{x + WIDTH} {y + half}Q{middle} {y + half} {middle} {to_y + HEIGHT + 1}"


def corner(place: tuple[int, int]) -> tuple[int, int]:
    """Return the upper left corner of a place, in pixels."""
    column, row = place
    return MARGIN + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y)
