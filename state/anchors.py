"""Where a text lies among sentences that stand for how something is taken.

Kernel ridge regression over the vectors of the anchors: a text is taken as the anchors are that it
is like, each by its share. Source: semantic axes from anchors (An et al. 2018, "SemAxis"), with
sentences in place of words, fitted over all axes at once; the sentences are chosen here.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import Any

import numpy as np

from persona_mcp.state.cues import AXES, Cues, load_cues
from persona_mcp.state.embedding import Embedder, Vector, dots
from persona_mcp.state.language_files import FOLDER, read_language_file

MOST_ASKED = 240
"""Anchors that another embedder is asked for; it may be far, and a first reply waits for it."""


@dataclass(frozen=True)
class Anchors:
    """Sentences (n,) and how each is taken (n, 4)."""

    sentences: Sequence[str]
    taken: Vector

    def thinned(self, most: int) -> "Anchors":
        """Leave out sentences evenly until there are at most so many."""
        step = -(-len(self.sentences) // most)
        return Anchors(self.sentences[::step], self.taken[::step])


@dataclass(frozen=True)
class Likeness:
    """What reads a vector.

    Attributes:
        vectors: (n, d), of the anchors, rows of length 1.
        shares: (n, 4), what likeness to each of them adds to each axis.
        level: (4,), what is said of a text that is like none.
        steepness: How steeply likeness falls with the angle, > 0.
    """

    vectors: Vector
    shares: Vector
    level: Vector
    steepness: float

    def read(self, vector: Vector) -> list[float]:
        """Return where a vector stands on each axis; mostly in -1..1, and not limited to it."""
        alike = likeness(dots(self.vectors, vector), self.steepness)
        values: list[float] = (self.level + dots(self.shares.T, alike)).tolist()
        return values


def likeness(cosines: Vector, steepness: float) -> Vector:
    """Turn cosines into likeness, (0, 1]: exp(steepness * (cosine - 1))."""
    alike: Vector = np.exp(np.float32(steepness) * (cosines - 1))
    return alike


async def likeness_for(embedder: Embedder, language: str) -> Likeness:
    """Return what comes with the packaged embedder, or fit it anew with some of the anchors.

    Raises:
        ModelError: The embedder did not answer.
        DeadlineExceeded: It took longer than its limit.
    """
    anchors = load_anchors(language)
    cues = load_cues(language)
    along = kept(embedder.model_id, digest(anchors, cues), language)
    return along or await fitted(embedder, anchors.thinned(MOST_ASKED), cues)


async def fitted(embedder: Embedder, anchors: Anchors, cues: Cues) -> Likeness:
    """Embed anchors and fit to them.

    Raises:
        ModelError: The embedder did not answer.
        DeadlineExceeded: It took longer than its limit.
    """
    vectors = await embedder.embed_documents(anchors.sentences)
    return fit(vectors, anchors.taken, cues.ridge, cues.steepness)


def fit(vectors: Vector, taken: Vector, ridge: float, steepness: float) -> Likeness:
    """Fit by kernel ridge regression.

    Args:
        vectors: (n, d), rows of length 1.
        taken: (n, 4).
        ridge: What is added to the diagonal, > 0.
        steepness: See `likeness`.
    """
    level = taken.mean(axis=0)
    alike = likeness(vectors @ vectors.T, steepness) + ridge * np.eye(len(vectors))
    shares = np.linalg.solve(alike, taken - level)
    return Likeness(vectors, shares.astype(np.float32), level, steepness)


def digest(anchors: Anchors, cues: Cues) -> str:
    """Name just these sentences, values and weights."""
    told = "\n".join([*anchors.sentences, f"{cues.ridge:g} {cues.steepness:g}"])
    return hashlib.sha256(told.encode() + anchors.taken.tobytes()).hexdigest()


def kept(model_id: str, name: str, language: str) -> Likeness | None:
    """Read what comes with the package: None for another embedder or another digest."""
    source = files("persona_mcp.state") / FOLDER / f"anchors.{language}.npz"
    if not source.is_file():
        return None
    with as_file(source) as path, np.load(path, allow_pickle=False) as found:
        if (str(found["model_id"]), str(found["digest"])) != (model_id, name):
            return None
        return Likeness(
            found["vectors"].astype(np.float32),
            found["shares"],
            found["level"],
            float(found["steepness"]),
        )


@cache
def load_anchors(language: str) -> Anchors:
    """Read a language's anchors from the package, once.

    Raises:
        FileNotFoundError: There are none for this language.
    """
    groups: list[dict[str, Any]] = read_language_file("anchors", language)
    said = [(sentence, group["taken"]) for group in groups for sentence in group["sentences"]]
    values = [[taken.get(axis, 0.0) for axis in AXES] for _, taken in said]
    return Anchors([sentence for sentence, _ in said], np.asarray(values, dtype=np.float32))
