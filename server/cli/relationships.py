"""`persona relationships`: who sees whom how, as a table, a list, curves or a picture."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.calls import Shown, check_alone, in_options
from persona_mcp.server.cli.files import save
from persona_mcp.server.cli.run import command_module, run
from persona_mcp.server.operations.registry import call_operation, rounded
from persona_mcp.server.relationship_curves import DIMENSIONS, Curve, curve_of
from persona_mcp.server.relationship_tables import show_arrows, show_curves, show_views
from persona_mcp.server.store import Store, open_store
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.arrow import Shown as Values
from persona_mcp.state.errors import InvalidParams, NotConfigured, NotFound
from persona_mcp.state.ids import name_key
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.relationship_store import read_log
from persona_mcp.state.wishes import wishes

KINDS = (".svg", ".png")
PAGE = 200
ENDS = ("from", "to")
INSTALL = 'pip install "persona-mcp[plot]", in a clone `uv sync --extra plot`'


@dataclass(frozen=True)
class Asked:
    """What is to be shown.

    Attributes:
        whose: One persona's view, by id or name; None for all.
        pair: Two whose views of each other are followed over time, by ids or names.
        plot: The file that a picture is written to; None for text.
        world: Where; None for the default.
    """

    whose: str | None
    pair: tuple[str, str] | None
    plot: Path | None
    world: str | None


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        found: As JSON.
        show: Prints it for people.
        draw: Makes the bytes of a picture of it.
    """

    found: Shown
    show: Callable[[Terminal], None]
    draw: Callable[[Any, str], bytes]


def show(
    whose: str | None,
    pair: tuple[str, str] | None,
    plot: Path | None,
    world: str | None,
    as_json: bool,
) -> None:
    """Print or draw relationships."""
    asked = Asked(whose, pair, plot, world)

    async def work(settings: Settings, terminal: Terminal) -> None:
        check_alone("--of", asked.whose, "--over-time", asked.pair)
        plots = None if asked.plot is None else plots_for(asked.plot)
        async with open_store(settings) as store:
            try:
                answer = await answered(store, asked)
            except InvalidParams as error:
                raise in_options(error) from error
        if asked.plot is not None:
            picture = answer.draw(plots, asked.plot.suffix[1:].lower())
            save(asked.plot, picture, "--plot")
        if as_json:
            terminal.print_json({**answer.found, **({"plot": str(asked.plot)} if plots else {})})
        elif asked.plot is not None:
            terminal.out.print(f"wrote {asked.plot}", soft_wrap=True)
        else:
            answer.show(terminal)

    run(work, as_json=as_json)


def plots_for(file: Path) -> Any:
    """Import what draws, for a file of a kind that it can write.

    Raises:
        InvalidParams: It is of another kind.
        NotConfigured: The library is not installed.
    """
    if file.suffix.lower() not in KINDS:
        raise InvalidParams.one("--plot", f"a file that ends in {' or '.join(KINDS)}", str(file))
    try:
        return command_module("relationship_plots")
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise NotConfigured(f"--plot needs matplotlib, which is not installed: {INSTALL}") from None


async def answered(store: Store, asked: Asked) -> Answer:
    """Find what is asked for.

    Raises:
        PersonaError: What an operation raises.
    """
    if asked.pair is not None:
        return await over_time(store, asked, *asked.pair)
    if asked.whose is not None:
        return await views_of(store, asked, asked.whose)
    found = await graph(store, asked)
    return Answer(
        found,
        lambda terminal: show_arrows(terminal, found),
        lambda plots, kind: drawn(plots, kind, found["nodes"], found["edges"]),
    )


async def graph(store: Store, asked: Asked) -> Shown:
    """Return the graph of all relationships."""
    return await call_operation(store, "relationship_graph", {"world_id": asked.world})


def drawn(plots: Any, kind: str, nodes: list[Shown], edges: list[Shown]) -> bytes:
    """Draw those who have met somebody.

    Raises:
        InvalidParams: Nobody has.
    """
    if not edges:
        raise InvalidParams("--plot: nobody has met anybody yet; there is nothing to draw")
    ends = {id for edge in edges for id in (edge["from"], edge["to"])}
    picture: bytes = plots.draw_graph([n for n in nodes if n["id"] in ends], edges, kind)
    return picture


async def views_of(store: Store, asked: Asked, whose: str) -> Answer:
    """Return how one persona sees everybody, and how much it wants to talk to each."""
    given: Shown = {"persona_id": whose, "world_id": asked.world, "limit": PAGE}
    found = page = await call_operation(store, "relationship_list", given)
    while page["next_cursor"] is not None:
        page = await call_operation(
            store, "relationship_list", {**given, "cursor": page["next_cursor"]}
        )
        found = {**page, "relationships": found["relationships"] + page["relationships"]}
    id, laws = found["persona_id"], store.laws
    world_id = asked.world or store.settings.world
    scores = await store.database.read(
        wishes, world_id, id, time.time(), laws.effects, laws.continuation
    )
    for one in found["relationships"]:
        one["wants_to_talk"] = scores[one["other_persona_id"]].shown
    whole = await graph(store, asked) if asked.plot is not None else {"nodes": [], "edges": []}
    edges = [edge for edge in whole["edges"] if id in (edge["from"], edge["to"])]
    return Answer(
        found,
        lambda terminal: show_views(terminal, found),
        lambda plots, kind: drawn(plots, kind, whole["nodes"], edges),
    )


async def over_time(store: Store, asked: Asked, one: str, other: str) -> Answer:
    """Follow how one sees the other, and the other way about where that is a persona too.

    Raises:
        InvalidParams: It is the same one twice.
        NotFound: Nothing happened between them.
    """
    given = {"persona_ids": [one, other], "world_id": asked.world}
    nodes = (await call_operation(store, "relationship_graph", given))["nodes"]
    if len(nodes) != len(ENDS):
        raise InvalidParams.one(
            "--over-time", "two different personas, or a persona and a user", one
        )
    nodes.sort(key=lambda node: not is_called(node, one))
    world_id, laws = asked.world or store.settings.world, store.laws.effects.relationships
    curves = []
    for seeing, seen in (nodes, nodes[::-1]):
        log = await store.database.read(read_log, world_id, seeing["id"], seen["id"])
        curve = curve_of((seeing["name"], seen["name"]), log, time.time(), laws)
        if curve is not None:
            curves.append(({"from": seeing["id"], "to": seen["id"]}, curve))
    if not curves:
        names = " and ".join(node["name"] for node in nodes)
        raise NotFound(f"nothing has happened between {names} yet")
    shown = [curve for _, curve in curves]
    return Answer(
        rounded({"curves": [{**ends, **as_values(curve)} for ends, curve in curves]}),
        lambda terminal: show_curves(terminal, shown),
        lambda plots, kind: plots.draw_curves(shown, kind),
    )


def is_called(node: Shown, reference: str) -> bool:
    """Tell whether somebody is meant by an id or a name."""
    return node["id"] == reference or name_key(node["name"]) == name_key(reference)


def as_values(curve: Curve) -> Shown:
    """Write a curve as JSON."""
    return {
        "points": [{"at": rfc3339(at), **values_of(shown)} for at, shown in curve.points],
        "events": [
            {
                "event_id": event.id,
                "at": rfc3339(event.at),
                "kind": event.kind,
                "why": event.why,
                "values_after": values_of(event.after),
            }
            for event in curve.events
        ],
    }


def values_of(shown: Values) -> dict[str, float]:
    """Return the dimensions of a curve."""
    return {name: getattr(shown, name) for name in DIMENSIONS}
