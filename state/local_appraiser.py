"""An appraiser without a language model: how near a text is to sentences typical of each axis."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from persona_mcp.state.appraisal import Appraisal
from persona_mcp.state.appraiser import Taken
from persona_mcp.state.embedding import Embedder, Vector

AXES = ("warmth", "reliability", "competence", "disclosure")
NEAREST = 2
"""The mean of the two nearest anchors counts: one alone is noisy, all of them are blunt."""


@dataclass(frozen=True)
class Axis:
    """The anchors of one axis as vectors: (n, d) each, and how their nearness is scaled."""

    high: Vector
    low: Vector
    gain: float
    zero: float


class LocalAppraiser:
    """Appraises by the embedder: `gain * (near(high) - near(low) - zero)`, limited to the range.

    `near` is the mean cosine of the two nearest anchors. Source: semantic axes from anchor words
    (An et al. 2018, "SemAxis"), with sentences; anchors and gains chosen here.
    """

    def __init__(self, embedder: Embedder, language: str = "en") -> None:
        """Use this embedder and the anchors of a language."""
        self._embedder = embedder
        self._language = language
        self._axes: dict[str, Axis] = {}
        self._loading = asyncio.Lock()

    async def appraise(self, text: str) -> Taken:
        """Appraise one utterance by its meaning.

        Raises:
            ModelError: The embedder did not answer.
        """
        axes = await self._anchors()
        vector = await self._embedder.embed_query(text)
        values = {name: read(axis, vector) for name, axis in axes.items()}
        values["disclosure"] = max(0.0, values["disclosure"])
        return Taken(Appraisal(**values))

    async def _anchors(self) -> dict[str, Axis]:
        async with self._loading:
            if not self._axes:
                self._axes = {
                    name: Axis(
                        await self._embedder.embed_documents(axis["high"]),
                        await self._embedder.embed_documents(axis["low"]),
                        axis["gain"],
                        axis["zero"],
                    )
                    for name, axis in load_anchors(self._language).items()
                }
        return self._axes


def read(axis: Axis, vector: Vector) -> float:
    """Return where a text stands on an axis, [-1, 1]."""
    raw = axis.gain * (near(axis.high, vector) - near(axis.low, vector) - axis.zero)
    return min(1.0, max(-1.0, raw))


def near(anchors: Vector, vector: Vector) -> float:
    """Return the mean cosine of the nearest anchors, [-1, 1]."""
    return float(np.sort(anchors @ vector)[-NEAREST:].mean())


@cache
def load_anchors(language: str) -> Mapping[str, Any]:
    """Read the anchors of a language: for each axis `high`, `low`, `gain` and `zero`."""
    path = files("persona_mcp.state") / "words" / f"anchors.{language}.yaml"
    found: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {axis: found[axis] for axis in AXES}
