import asyncio
from collections.abc import AsyncIterator
from dataclasses import astuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.config.embedder import open_embedder
from persona_mcp.config.settings import EmbedderSettings
from persona_mcp.state.anchors import MOST_ASKED, load_anchors
from persona_mcp.state.appraisal import Appraisal
from persona_mcp.state.appraiser import Taken, TurningPoint
from persona_mcp.state.cues import find_cues, load_cues
from persona_mcp.state.errors import ModelError
from persona_mcp.state.local_appraiser import (
    LocalAppraiser,
    combined,
    few_symbols,
    load_sentiment,
)
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


async def test_who_is_missed_was_not_forgotten(appraiser: LocalAppraiser) -> None:
    missed = await appraised(appraiser, ["I missed you. Sit down and tell me everything."])

    assert all(taken.reliability > -0.1 and taken.warmth > 0.3 for taken in missed.values())


async def test_praise_and_blame_of_what_one_did_are_warm_and_cold(
    appraiser: LocalAppraiser,
) -> None:
    praise = ["That was beautiful work. Nobody here does it better.", "I knew I could rely on you."]
    blame = ["That was the worst work that I have ever seen."]

    assert all(taken.warmth > 0.3 for taken in (await appraised(appraiser, praise)).values())
    assert all(taken.warmth < -0.3 for taken in (await appraised(appraiser, blame)).values())


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

    asked = load_anchors("en").thinned(MOST_ASKED).sentences
    assert sorted(embedder.embedded) == sorted(asked)


async def test_an_embedder_that_does_not_answer_is_an_error_and_asked_again() -> None:
    embedder = FickleEmbedder()
    appraiser = LocalAppraiser(embedder)
    embedder.fault = ModelError("the embedder did not answer")
    with pytest.raises(ModelError):
        await appraiser.appraise("Hello")

    embedder.fault = None

    assert isinstance(await appraiser.appraise("Hello"), Taken)


async def test_what_is_about_others_is_less_warm_or_cold_than_what_is_said_to_the_hearer(
    appraiser: LocalAppraiser,
) -> None:
    others = await appraiser.appraise("The king was a wonderful man, and everybody loved him.")
    hearer = await appraiser.appraise("You are a wonderful man, and everybody loves you.")

    assert abs(others.appraisal.warmth) < hearer.appraisal.warmth


@pytest.mark.parametrize(
    ("text", "turning_point"),
    [
        ("I told everybody your secret.", "betrayal"),
        ("I broke my promise to you.", "promise_broken"),
        ("I kept my promise, here it is.", "promise_kept"),
        ("I swear on my life that I will protect you.", "vow"),
        ("I am so sorry for what I did to you.", "repair"),
        ("You saved my life.", "rescue"),
        ("The market opens at nine.", None),
        ("Sorry, what did you say?", None),
        ("I would never have betrayed you.", None),
    ],
)
async def test_a_turning_point_is_known_by_its_words(
    text: str, turning_point: TurningPoint | None
) -> None:
    taken = await LocalAppraiser(FickleEmbedder()).appraise(text)

    assert (taken.turning_point, taken.appraiser, taken.note) == (turning_point, "local", None)


@given(st.text(), st.text(alphabet="\U0001f600\U0001f622\u4f60 a!", max_size=300))
@settings(max_examples=50)
def test_any_text_at_all_is_read_within_the_ranges(text: str, symbols: str) -> None:
    cues = load_cues("en")
    for said in (text, symbols, text + symbols):
        found = find_cues(said, cues)
        felt = load_sentiment().polarity_scores(few_symbols(said))["compound"]

        read = combined([5.0, -5.0, 5.0, -5.0], found, felt, cues)

        assert isinstance(read, Appraisal)


def test_a_page_of_symbols_is_cut_after_the_first() -> None:
    assert few_symbols("a" * 50 + "\U0001f600" * 2000) == "a" * 50 + "\U0001f600" * 16
    assert few_symbols("Good day \U0001f600") == "Good day \U0001f600"
