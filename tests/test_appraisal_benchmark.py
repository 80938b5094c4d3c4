"""How lines of dialogue are taken: the lines, and a short run of the benchmark."""

from collections import Counter

import pytest

from benchmarks.appraisal import NEUTRAL, PARTS, figures, judge, load_lines
from persona_mcp.config.embedder import open_embedder
from persona_mcp.config.settings import EmbedderSettings
from persona_mcp.state.appraisal import Appraisal
from persona_mcp.state.appraiser import Taken
from persona_mcp.state.cues import AXES, load_cues
from persona_mcp.state.local_appraiser import LocalAppraiser
from persona_mcp.state.relationship_params import RelationshipParams
from tests.doubles import FixedAppraiser

pytestmark = pytest.mark.anyio

KINDS = ("neutral", "warm", "hostile", "disclosing", "promising", "breaking")
LAWS = RelationshipParams()


def test_there_are_enough_lines_of_every_kind_and_half_of_each_are_held_apart() -> None:
    lines = load_lines()

    counts = Counter((line.kind, line.part) for line in lines)
    assert len(lines) == len({line.text for line in lines}) >= 330
    for kind in KINDS:
        tuning, apart = (counts[kind, part] for part in PARTS)
        assert tuning + apart >= 55
        assert apart >= 30
    for line in lines:
        assert set(line.signs) <= set(AXES)
        assert (line.signs == {}) == (line.kind == NEUTRAL)


async def test_an_appraiser_that_is_always_kind_is_right_of_the_kind_lines_alone() -> None:
    lines = [line for line in load_lines() if line.part == "apart"]
    judged = await judge(FixedAppraiser(Taken(Appraisal(warmth=0.5, disclosure=0.05))), lines)

    found = figures(judged, LAWS)

    assert found["kinds"]["warm"]["warmth"] == 1.0
    assert found["kinds"]["hostile"]["warmth"] == 0.0
    assert found["signs"]["disclosure"] == 1.0
    assert found["beyond_dead_zone"]["disclosure"] == 0.0
    neutral = found["neutral"]["warmth"]
    assert (neutral["bias"], neutral["noise"], neutral["within_dead_zone"]) == (0.5, 0.0, 0.0)
    assert found["drift"]["affinity"] > 0.5
    assert found["drift"]["trust"] == found["drift"]["disclosure"] == 0.0


async def test_the_local_appraiser_is_right_of_most_lines_and_its_bias_is_gone() -> None:
    embedder = open_embedder(EmbedderSettings())
    lines = load_lines()[::3]

    found = figures(await judge(LocalAppraiser(embedder), lines), LAWS)
    await embedder.aclose()

    assert found["signs"]["warmth"] >= 0.8
    noise = load_cues("en").noise
    for axis, measured in found["neutral"].items():
        assert abs(measured["bias"]) < 0.04
        assert measured["noise"] < 2 * getattr(noise, axis) + 0.02
    assert found["replaced"] == 0
