"""How lines of dialogue are taken: by the local appraiser and, where one is given, by a model.

    uv run python benchmarks/appraisal.py [--model ollama:llama3.1:8b] [--json]

Prints for each part of `appraisal_lines.yaml` how often the sign of each axis is right, how often
with a value beyond the dead zone, what is said of neutral lines (bias, noise, how many change
nothing), and how far sixty exchanges of them move an arrow.
`--fit` embeds the anchors with the packaged embedder and writes the file that comes with it.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

if __name__ == "__main__":  # run as a file, too; its folder has a module that is named as Python's
    sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from persona_mcp.config.embedder import open_embedder
from persona_mcp.config.llm import open_model
from persona_mcp.config.loading import load_settings
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import Settings
from persona_mcp.nodes.appraising import ModelAppraiser
from persona_mcp.state.anchors import digest, fitted, load_anchors
from persona_mcp.state.appraisal import deltas, turn_size, weights
from persona_mcp.state.appraiser import Appraiser, Taken
from persona_mcp.state.cues import AXES, load_cues
from persona_mcp.state.local_appraiser import LocalAppraiser
from persona_mcp.state.relationship_params import RelationshipParams
from persona_mcp.state.traits import BigFive

ROOT = Path(__file__).parents[1]
LINES = Path(__file__).with_name("appraisal_lines.yaml")
FITTED = ROOT / "state" / "words" / "anchors.en.npz"
PARTS = ("tuning", "apart")
NEUTRAL = "neutral"
TURNS = 60
DRAWS = 200
BAR = 0.8
DIMENSIONS = ("affinity", "trust", "respect", "disclosure")
NERVOUS = BigFive(agreeableness=1.0, neuroticism=1.0)
"""Who drifts farthest."""


@dataclass(frozen=True)
class Line:
    """A line of dialogue.

    Attributes:
        part: tuning, or apart: nothing is tuned on it.
        kind: What sort of line it is.
        signs: By axis, -1 or 1; axes that it does not speak to are left out.
        text: What is said.
    """

    part: str
    kind: str
    signs: dict[str, int]
    text: str


@dataclass(frozen=True)
class Judged:
    """A line, how it was taken, and the seconds that it took."""

    line: Line
    taken: Taken
    seconds: float

    def value(self, axis: str) -> float:
        """Return what was said of an axis."""
        return float(getattr(self.taken.appraisal, axis))


def load_lines() -> list[Line]:
    """Read the lines."""
    return [Line(**row) for row in yaml.safe_load(LINES.read_text(encoding="utf-8"))]


async def judge(appraiser: Appraiser, lines: Sequence[Line]) -> list[Judged]:
    """Have every line appraised."""
    await appraiser.appraise("Good morning.")  # reads its words
    judged = []
    for line in lines:
        began = time.perf_counter()
        taken = await appraiser.appraise(line.text)
        judged.append(Judged(line, taken, time.perf_counter() - began))
    return judged


def share(hits: Sequence[bool]) -> float | None:
    """Return the share of what is true, None of nothing."""
    return round(fmean(hits), 3) if hits else None


def agreement(judged: Sequence[Judged], axis: str, width: float = 0.0) -> float | None:
    """Return in which share of the lines that speak to an axis its sign is right.

    Values up to `width` have no sign.
    """
    found = [(one.value(axis), one.line.signs[axis]) for one in judged if axis in one.line.signs]
    return share([value * sign > width for value, sign in found])


def drift(neutral: Sequence[Judged], laws: RelationshipParams) -> list[float]:
    """Return how far sixty neutral exchanges move each latent value on average: (4,).

    Both utterances of an exchange are drawn from the neutral lines; nothing fades meanwhile.
    """
    draw, size = random.Random("drift"), turn_size(laws)
    sums = []
    for _ in range(DRAWS):
        total = np.zeros(4)
        for turn in range(2 * TURNS):
            role = weights("returned" if turn % 2 else "received", laws)
            said = draw.choice(neutral).taken.appraisal
            change = deltas(said, size, role, NERVOUS, 0.0, laws)
            total += astuple(change)[:4]
        sums.append(total)
    means: list[float] = np.mean(sums, axis=0).round(4).tolist()
    return means


def figures(judged: Sequence[Judged], laws: RelationshipParams) -> dict[str, Any]:
    """Return what came of the lines of one part."""
    zone = laws.dead_zone
    neutral = [one for one in judged if one.line.kind == NEUTRAL]
    kinds = dict.fromkeys(one.line.kind for one in judged if one.line.signs)
    spread = {axis: [one.value(axis) for one in neutral] for axis in AXES} if neutral else {}
    return {
        "lines": len(judged),
        "signs": {axis: agreement(judged, axis) for axis in AXES},
        "beyond_dead_zone": {axis: agreement(judged, axis, zone) for axis in AXES},
        "kinds": {
            kind: {axis: agreement(one_kind(judged, kind), axis) for axis in AXES} for kind in kinds
        },
        "neutral": {
            axis: {
                "bias": round(fmean(values), 4),
                "noise": round(pstdev(values), 4),
                "within_dead_zone": share([abs(value) <= zone for value in values]),
            }
            for axis, values in spread.items()
        },
        "drift": dict(zip(DIMENSIONS, drift(neutral, laws), strict=True)) if neutral else {},
        "turning_points": sum(one.taken.turning_point is not None for one in judged),
        "replaced": sum(one.taken.note is not None for one in judged),
        "ms_a_line": round(1000 * fmean(one.seconds for one in judged), 2),
    }


def one_kind(judged: Sequence[Judged], kind: str) -> list[Judged]:
    """Return the lines of a kind."""
    return [one for one in judged if one.line.kind == kind]


def show(name: str, found: dict[str, dict[str, Any]]) -> None:
    """Print what came of it as tables."""
    table = Table("", *AXES, title=f"right signs, {name}")
    for part, of_part in found.items():
        table.add_row(f"{part}: all", *map(percent, of_part["signs"].values()))
        table.add_row("beyond the dead zone", *map(percent, of_part["beyond_dead_zone"].values()))
        for kind, signs in of_part["kinds"].items():
            table.add_row(f"  {kind}", *map(percent, signs.values()), style="dim")
    console = Console(width=100)
    console.print(table)
    noise = Table("", *AXES, title=f"neutral lines, {name}")
    for part, of_part in found.items():
        for what in ("bias", "noise"):
            values = (f"{axis[what]:+.3f}" for axis in of_part["neutral"].values())
            noise.add_row(f"{part}: {what}", *values)
        within = (percent(axis["within_dead_zone"]) for axis in of_part["neutral"].values())
        noise.add_row("  within the dead zone", *within)
        moved = (f"{value:+.4f}" for value in of_part["drift"].values())
        noise.add_row(f"  drift of {TURNS} exchanges", *moved)
    console.print(noise)
    for part, of_part in found.items():
        print(
            f"{part}: {of_part['lines']} lines, {of_part['turning_points']} turning points, "
            f"{of_part['replaced']} replaced by the local one, {of_part['ms_a_line']} ms a line"
        )


def percent(value: float | None) -> str:
    """Write a share."""
    return "" if value is None else f"{100 * value:.1f} %"


async def measure(
    settings: Settings, lines: Sequence[Line], *, model: bool
) -> dict[str, dict[str, dict[str, Any]]]:
    """Have the lines appraised: figures by appraiser, then by part."""
    laws = settings.relationships
    embedder = open_embedder(settings.embedder)
    appraisers: dict[str, Appraiser] = {"local": LocalAppraiser(embedder)}
    chat = open_model(settings.llm)
    if model:
        appraisers["model"] = ModelAppraiser(chat, appraisers["local"], laws.appraiser_s)
    found = {}
    for name, appraiser in appraisers.items():
        judged = await judge(appraiser, lines)
        parts = {part: [one for one in judged if one.line.part == part] for part in PARTS}
        found[name] = {part: figures(of, laws) for part, of in parts.items() if of}
    await embedder.aclose()
    await chat.aclose()
    return found


async def write_fitted(settings: Settings) -> None:
    """Fit to the packaged embedder's vectors of the anchors, and write what comes along."""
    embedder, anchors, cues = open_embedder(settings.embedder), load_anchors("en"), load_cues("en")
    found = await fitted(embedder, anchors, cues)
    np.savez(
        FITTED,
        model_id=embedder.model_id,
        digest=digest(anchors, cues),
        vectors=found.vectors.astype(np.float16),
        shares=found.shares,
        level=found.level,
        steepness=found.steepness,
    )
    await embedder.aclose()
    print(f"{len(anchors.sentences)} anchors, written to {FITTED.relative_to(ROOT)}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python benchmarks/appraisal.py", description=__doc__)
    parser.add_argument("--model", help="appraises too: embedded, or provider:model")
    parser.add_argument("--part", choices=PARTS, help="only the lines of this part")
    parser.add_argument("--fit", action="store_true", help="write the fit over the anchors")
    parser.add_argument("--json", action="store_true", help="the figures on the last line")
    given = parser.parse_args()
    named = {"embedded": "embedded:smollm2"}.get(given.model, given.model)
    with tempfile.TemporaryDirectory(prefix="persona-appraisal-") as folder:
        settings = load_settings(data_dir=Path(folder), llm={"model": named} if named else {})
        configure_logging(settings.log)
        if given.fit:
            asyncio.run(write_fitted(settings))
            return
        lines = [line for line in load_lines() if given.part in (None, line.part)]
        found = asyncio.run(measure(settings, lines, model=named is not None))
    if given.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        for name, parts in found.items():
            show(name, parts)
    apart = found["local"].get("apart")
    sys.exit(1 if apart and apart["signs"]["warmth"] < BAR else 0)


if __name__ == "__main__":
    main()
