"""Directions from anchor sentences, and those that come with the packaged embedder."""

import numpy as np
import pytest

from persona_mcp.config.embedder import open_embedder
from persona_mcp.config.settings import EmbedderSettings
from persona_mcp.state.anchors import directions_of, fit, fitted, kept, load_anchors
from persona_mcp.state.cues import AXES
from tests.doubles import FickleEmbedder, WordEmbedder

pytestmark = pytest.mark.anyio


def test_every_axis_has_anchors_for_both_ends_and_most_of_the_neutral_ones_are_plain() -> None:
    taken = load_anchors("en").taken

    for column, axis in enumerate(AXES):
        assert (taken[:, column] > 0.5).sum() >= 10
        assert axis == "disclosure" or (taken[:, column] < -0.5).sum() >= 10
    assert (taken == 0).all(axis=1).sum() >= 50


def test_a_fit_puts_anchors_on_their_side_and_what_lies_across_between() -> None:
    vectors = np.asarray([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], dtype=np.float32)
    taken = np.asarray([[0.9] * 4, [-0.9] * 4, [0] * 4, [0] * 4], dtype=np.float32)

    found = fit(vectors, taken, 0.1)

    assert min(found.read(vectors[0])) > 0.7
    assert max(found.read(vectors[1])) < -0.7
    assert found.read(np.asarray([0, 0, 1], dtype=np.float32)) == pytest.approx([0] * 4, abs=1e-6)


async def test_the_directions_that_come_along_are_those_of_the_anchors() -> None:
    embedder = open_embedder(EmbedderSettings())
    anchors = load_anchors("en")

    along = kept(embedder.model_id, anchors, "en")
    now = await fitted(embedder, anchors, "en")
    await embedder.aclose()

    hint = "run `uv run python benchmarks/appraisal.py --fit`"
    assert along is not None, hint
    vectors = now.weights.T / np.linalg.norm(now.weights, axis=0)[:, None]
    for vector in vectors:
        assert along.read(vector) == pytest.approx(now.read(vector), abs=0.05), hint


async def test_another_embedder_has_directions_of_its_own() -> None:
    embedder = FickleEmbedder()

    found = await directions_of(embedder, "en")

    assert found.weights.shape == (64, 4)
    assert len(embedder.embedded) == len(load_anchors("en").sentences)
    assert kept(WordEmbedder.model_id, load_anchors("en"), "en") is None
    assert kept("embedded:minilm", load_anchors("en"), "xx") is None
