"""Draw docs/relationships.svg and docs/relationship-over-time.svg from talks among six personas.

    uv run python benchmarks/relationship_pictures.py

Every line goes through the relationship graph with the local appraiser, in a data folder of its own
that is removed at the end. Needs the extra `plot` and the embedder; no model is asked.
"""

import asyncio
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path

if __name__ == "__main__":  # as a file, it would find no package of the tree
    sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.instant import InstantModel
from persona_mcp.config.settings import IndexSettings, Settings
from persona_mcp.graphs.relationship import build_relationship
from persona_mcp.nodes.relationship_state import RelationshipInput
from persona_mcp.server.operations import catalogue
from persona_mcp.server.operations.registry import call_operation
from persona_mcp.server.relationship_curves import Curve, curve_of
from persona_mcp.server.relationship_plots import draw_curves, draw_graph
from persona_mcp.server.service import Service, open_service
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.relationship_store import read_log

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, DAY, PAUSE = 1_790_000_000.0, 86_400.0, 40.0
WARM = (
    "Thank you, that was kind of you. I am so glad that you are here.",
    "You did exactly what you promised; I knew that I could rely on you.",
    "That was beautiful work. Nobody here does it better.",
    "I have never told anybody, but I was afraid of the dark until I was twenty.",
    "I missed you. Sit down and tell me everything.",
    "You can count on me, whatever happens.",
)
COLD = (
    "You are a fool, and I am tired of your whining.",
    "You lied to me again. You never keep your word.",
    "That was the worst work that I have ever seen.",
    "Get out of my sight. I despise you.",
    "You broke your promise and you do not even care.",
    "I hate the way you talk to people.",
)
PLAIN = ("The market opens at eight.", "It may rain tomorrow.", "The ship is at the pier.")
TALKS = (
    # day, who speaks, to whom, what sort of lines, how many
    (0.0, "kira", "aria", WARM, 40),
    (0.0, "aria", "kira", PLAIN + WARM[:2], 40),
    (0.1, "noor", "aria", WARM, 60),
    (0.1, "aria", "noor", WARM, 30),
    (1.0, "bao", "noor", COLD, 60),
    (1.0, "noor", "bao", COLD, 12),
    (1.5, "kira", "noor", WARM, 40),
    (1.5, "noor", "kira", COLD, 40),
    (1.6, "aria", "mara", WARM, 60),
    (2.0, "mara", "tobin", PLAIN, 20),
    (2.0, "tobin", "mara", WARM, 36),
    (3.0, "tobin", "kira", COLD, 16),
    (3.0, "kira", "tobin", PLAIN, 16),
    (4.0, "bao", "mara", WARM, 20),
    (4.0, "mara", "bao", PLAIN, 14),
    (9.0, "kira", "aria", WARM, 20),
    (9.0, "aria", "kira", WARM, 20),
    (30.0, "kira", "aria", COLD, 24),
    (30.0, "aria", "kira", PLAIN, 12),
)
ENDS = BEGIN + 36 * DAY
NEW = ("Mara", "Tobin", "Bao")


async def play(service: Service) -> None:
    """Let personas say things to each other, on several days."""
    for name in NEW:
        await service.personas.create("main", PersonaSpec(name=name), BEGIN, set())
    graph = build_relationship(service.parts).compile()
    now = BEGIN
    for number, (day, speaker, listener, lines, count) in enumerate(TALKS):
        now = max(now, BEGIN + day * DAY)
        for place, text in enumerate(islice(cycle(lines), count)):
            now += PAUSE
            said: RelationshipInput = {
                "world_id": "main",
                "event_id": f"{number}-{place}",
                "actor_id": speaker,
                "receiver_id": listener,
                "text": text,
                "at": now,
            }
            await graph.ainvoke(said)


async def curves_of(service: Service, one: str, other: str) -> list[Curve]:
    """Follow two who have met."""
    found = []
    for ends in ((one, other), (other, one)):
        log = await service.database.read(read_log, "main", *ends)
        names = ends[0].title(), ends[1].title()
        curve = curve_of(names, log, ENDS, service.laws.effects.relationships)
        found += [curve] if curve else []
    return found


async def main() -> None:
    """Play the talks and write both pictures."""
    catalogue.operations()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            _env_file=None, data_dir=Path(folder), index=IndexSettings(kind="exact")
        )
        async with open_service(settings, model=InstantModel()) as service:
            await play(service)
            found = await call_operation(service, "relationship_graph", {"at": rfc3339(ENDS)})
            graph = draw_graph(found["nodes"], found["edges"], "svg")
            curves = draw_curves(await curves_of(service, "aria", "kira"), "svg")
    for name, picture in (("relationships", graph), ("relationship-over-time", curves)):
        file = DOCS / f"{name}.svg"
        file.write_bytes(picture)
        print(f"wrote {file.name}: {len(picture)} bytes")


if __name__ == "__main__":
    asyncio.run(main())
