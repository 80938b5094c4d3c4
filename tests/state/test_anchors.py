"""The fit over anchor sentences, and what of it comes with the packaged embedder."""

import numpy as np
import pytest

from persona_mcp.config.embedder import open_embedder
from persona_mcp.config.settings import EmbedderSettings
from persona_mcp.state.anchors import (
    MOST_ASKED,
    digest,
    fit,
    kept,
    likeness,
    likeness_for,
    load_anchors,
)
from persona_mcp.state.cues import AXES, load_cues
from tests.doubles import FickleEmbedder, WordEmbedder

pytestmark = pytest.mark.anyio


def test_every_axis_has_anchors_for_both_ends_and_most_of_the_neutral_ones_are_plain() -> None:
    taken = load_anchors("en").taken

    for column, axis in enumerate(AXES):
        assert (taken[:, column] > 0.5).sum() >= 10
        assert axis == "disclosure" or (taken[:, column] < -0.5).sum() >= 10
    assert (taken == 0).all(axis=1).sum() >= 50


def test_a_fit_puts_anchors_on_their_side_and_what_is_like_none_at_the_level() -> None:
    vectors = np.eye(4, dtype=np.float32)[:2]
    taken = np.asarray([[0.9] * 4, [-0.9] * 4], dtype=np.float32)

    found = fit(vectors, taken, 0.1, 4.0)

    assert min(found.read(vectors[0])) > 0.7
    assert max(found.read(vectors[1])) < -0.7
    assert found.read(np.eye(4, dtype=np.float32)[3]) == pytest.approx([0.0] * 4, abs=1e-6)


def test_likeness_is_one_for_the_same_and_falls_with_the_angle() -> None:
    same, near, far = likeness(np.asarray([1.0, 0.5, -1.0], dtype=np.float32), 4.0)

    assert same == 1.0
    assert same > near > far > 0


async def test_what_comes_along_is_the_fit_over_the_anchors() -> None:
    embedder = open_embedder(EmbedderSettings())
    anchors, cues = load_anchors("en"), load_cues("en")
    some = anchors.thinned(24)

    along = kept(embedder.model_id, digest(anchors, cues), "en")
    vectors = await embedder.embed_documents(some.sentences)
    await embedder.aclose()

    hint = "run `uv run python benchmarks/appraisal.py --fit`"
    assert along is not None, hint
    assert len(along.vectors) == len(anchors.sentences)
    nearest = (along.vectors @ vectors.T).argmax(axis=0)
    assert [anchors.sentences[at] for at in nearest] == list(some.sentences), hint
    again = fit(along.vectors, anchors.taken, cues.ridge, cues.steepness)
    for vector in vectors:
        assert along.read(vector) == pytest.approx(again.read(vector), abs=0.02), hint


async def test_another_embedder_is_asked_for_some_of_the_anchors() -> None:
    embedder = FickleEmbedder()

    found = await likeness_for(embedder, "en")

    assert found.vectors.shape == (len(embedder.embedded), 64)
    assert MOST_ASKED / 2 < len(embedder.embedded) <= MOST_ASKED
    assert len(load_anchors("en").thinned(10_000).sentences) == len(load_anchors("en").sentences)
    assert kept(WordEmbedder.model_id, digest(load_anchors("en"), load_cues("en")), "en") is None
    assert kept("embedded:minilm", "", "xx") is None
