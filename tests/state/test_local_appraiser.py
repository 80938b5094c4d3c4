import asyncio
from collections.abc import AsyncIterator
from dataclasses import astuple

import numpy as np
import pytest

from persona_mcp.config.embedder import open_embedder
from persona_mcp.config.settings import EmbedderSettings
from persona_mcp.state.appraisal import Appraisal
from persona_mcp.state.appraiser import Taken
from persona_mcp.state.errors import ModelError
from persona_mcp.state.local_appraiser import AXES, Axis, LocalAppraiser, load_anchors, near, read
from tests.doubles import FickleEmbedder

pytestmark = pytest.mark.anyio

NEUTRAL_WITHIN = 0.35

WARM = [
    "Thank you, you are so kind to me.",
    "I love talking with you, my dear friend.",
    "You did wonderfully, I am so proud of you!",
    "I am really happy to see you again.",
]
HOSTILE = [
    "I hate you. Go away and never come back.",
    "You are stupid and worthless.",
    "Shut up, you disgust me.",
    "I am furious with you, you idiot.",
]
BROKEN = [
    "I broke my promise to you.",
    "I lied to you about the money.",
    "I told everybody the secret that you had trusted me with.",
]
NEUTRAL = [
    "The market opens at nine on Saturdays.",
    "How many strings does a lute have?",
    "It rained yesterday and the road was wet.",
    "What did people eat in this town a hundred years ago?",
    "The library is next to the town hall.",
]

SECRET = "I have never told anyone that I was afraid as a child."


@pytest.fixture
async def appraiser() -> AsyncIterator[LocalAppraiser]:
    """On the embedder that the product comes with."""
    embedder = open_embedder(EmbedderSettings())
    yield LocalAppraiser(embedder)
    await embedder.aclose()


async def appraised(appraiser: LocalAppraiser, texts: list[str]) -> dict[str, Appraisal]:
    return {text: (await appraiser.appraise(text)).appraisal for text in texts}


async def test_warm_words_are_warm(appraiser: LocalAppraiser) -> None:
    found = await appraised(appraiser, WARM)

    assert {text: a.warmth for text, a in found.items() if a.warmth <= 0.2} == {}


async def test_hostile_words_are_cold(appraiser: LocalAppraiser) -> None:
    found = await appraised(appraiser, HOSTILE)

    assert {text: a.warmth for text, a in found.items() if a.warmth >= -0.2} == {}


async def test_a_broken_promise_is_unreliable(appraiser: LocalAppraiser) -> None:
    found = await appraised(appraiser, BROKEN)

    assert {text: a.reliability for text, a in found.items() if a.reliability >= -0.1} == {}


async def test_neutral_words_move_little(appraiser: LocalAppraiser) -> None:
    found = await appraised(appraiser, NEUTRAL)

    moved = {t: a for t, a in found.items() if any(abs(v) > NEUTRAL_WITHIN for v in astuple(a))}
    assert moved == {}


async def test_a_secret_discloses_more_than_small_talk(appraiser: LocalAppraiser) -> None:
    (secret,) = (await appraised(appraiser, [SECRET])).values()

    found = await appraised(appraiser, NEUTRAL)
    assert all(neutral.disclosure < secret.disclosure for neutral in found.values())


@pytest.mark.parametrize("text", ["", "   ", "?", "x" * 20_000, "你好", "\U0001f642"])
async def test_any_text_has_an_appraisal_within_the_ranges(text: str) -> None:
    found = await LocalAppraiser(FickleEmbedder()).appraise(text)

    assert isinstance(found.appraisal, Appraisal)


async def test_words_of_an_anchor_point_its_way() -> None:
    appraiser = LocalAppraiser(FickleEmbedder())

    kind = await appraiser.appraise("Thank you so much, that was kind of you.")
    hostile = await appraiser.appraise("I hate you, go away.")

    assert kind.appraisal.warmth > 0 > hostile.appraisal.warmth


async def test_the_anchors_are_embedded_once() -> None:
    embedder = FickleEmbedder()
    appraiser = LocalAppraiser(embedder)

    await asyncio.gather(*(appraiser.appraise("Hello") for _ in range(5)))

    anchors = [text for axis in load_anchors("en").values() for text in axis["high"] + axis["low"]]
    assert sorted(embedder.embedded) == sorted(anchors)


async def test_an_embedder_that_does_not_answer_is_an_error_and_asked_again() -> None:
    embedder = FickleEmbedder()
    appraiser = LocalAppraiser(embedder)
    embedder.fault = ModelError("the embedder did not answer")
    with pytest.raises(ModelError):
        await appraiser.appraise("Hello")

    embedder.fault = None

    assert isinstance(await appraiser.appraise("Hello"), Taken)


def test_nearness_is_the_mean_of_the_two_nearest_anchors() -> None:
    anchors = np.asarray([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]], dtype=np.float32)

    assert near(anchors, np.asarray([1.0, 0.0], dtype=np.float32)) == pytest.approx(0.8)


def test_an_axis_ends_at_one() -> None:
    high = np.asarray([[1.0, 0.0]], dtype=np.float32)
    axis = Axis(high, -high, gain=5.0, zero=0.1)

    assert read(axis, high[0]) == 1.0
    assert read(axis, -high[0]) == -1.0
    assert read(axis, np.asarray([0.0, 1.0], dtype=np.float32)) == pytest.approx(-0.5)


def test_every_axis_has_anchors_for_both_ends() -> None:
    anchors = load_anchors("en")

    assert tuple(anchors) == AXES
    for axis in anchors.values():
        assert len(axis["high"]) >= 4
        assert len(axis["low"]) >= 4
        assert axis["gain"] > 0
