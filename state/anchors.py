"""Directions among an embedder's vectors, from sentences that stand for how something is taken.

A text is taken as the anchors that it is near to are: ridge regression over their vectors, which
is a weighted sum of the similarities to all of them. Source: semantic axes from anchors (An et al.
2018, "SemAxis"), fitted over all axes at once; the sentences are chosen here.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import Any

import numpy as np
import yaml

from persona_mcp.state.cues import AXES, load_cues
from persona_mcp.state.embedding import Embedder, Vector

FOLDER = "words"


@dataclass(frozen=True)
class Anchors:
    """Sentences (n,) and how each is taken (n, 4)."""

    sentences: Sequence[str]
    taken: Vector

    @property
    def digest(self) -> str:
        """Name of just these sentences and values."""
        told = "\n".join(self.sentences).encode() + self.taken.tobytes()
        return hashlib.sha256(told).hexdigest()


@dataclass(frozen=True)
class Directions:
    """What reads a vector: `vector @ weights + offset`, weights (d, 4), offset (4,)."""

    weights: Vector
    offset: Vector

    def read(self, vector: Vector) -> list[float]:
        """Return where a vector stands on each axis; mostly in -1..1, and not limited to it."""
        values: list[float] = (vector @ self.weights + self.offset).tolist()
        return values


async def directions_of(embedder: Embedder, language: str) -> Directions:
    """Return an embedder's directions: those that come with the packaged one, or fitted anew.

    Raises:
        ModelError: The embedder did not answer.
        DeadlineExceeded: It took longer than its limit.
    """
    anchors = load_anchors(language)
    return kept(embedder.model_id, anchors, language) or await fitted(embedder, anchors, language)


async def fitted(embedder: Embedder, anchors: Anchors, language: str) -> Directions:
    """Embed the anchors and fit the directions to them.

    Raises:
        ModelError: The embedder did not answer.
        DeadlineExceeded: It took longer than its limit.
    """
    return fit(
        await embedder.embed_documents(anchors.sentences), anchors.taken, load_cues(language).ridge
    )


def fit(vectors: Vector, taken: Vector, ridge: float) -> Directions:
    """Fit directions by ridge regression, the means left free.

    Args:
        vectors: (n, d), rows of length 1.
        taken: (n, 4).
        ridge: What is added to the diagonal, > 0.
    """
    middle, level = vectors.mean(axis=0), taken.mean(axis=0)
    rows = vectors - middle
    similar = rows @ rows.T + ridge * np.eye(len(rows), dtype=np.float32)
    weights = rows.T @ np.linalg.solve(similar, taken - level)
    return Directions(weights.astype(np.float32), (level - middle @ weights).astype(np.float32))


def kept(model_id: str, anchors: Anchors, language: str) -> Directions | None:
    """Read the directions that come with the package: None for other embedders or anchors."""
    source = files("persona_mcp.state") / FOLDER / f"anchors.{language}.npz"
    if not source.is_file():
        return None
    with as_file(source) as path, np.load(path, allow_pickle=False) as found:
        if (str(found["model_id"]), str(found["digest"])) != (model_id, anchors.digest):
            return None
        return Directions(found["weights"], found["offset"])


@cache
def load_anchors(language: str) -> Anchors:
    """Read a language's anchors from the package, once.

    Raises:
        FileNotFoundError: There are none for this language.
    """
    source = files("persona_mcp.state") / FOLDER / f"anchors.{language}.yaml"
    groups: list[dict[str, Any]] = yaml.safe_load(source.read_text(encoding="utf-8"))
    said = [(sentence, group["taken"]) for group in groups for sentence in group["sentences"]]
    values = [[taken.get(axis, 0.0) for axis in AXES] for _, taken in said]
    return Anchors([sentence for sentence, _ in said], np.asarray(values, dtype=np.float32))
