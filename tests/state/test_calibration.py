"""What sixty exchanges make of two personas: the size of a turn is chosen by it.

Below .09, sixty days of kindness make nobody a friend of the one who is kind; above .115, somebody
who is harsh to a patient partner ends as a rival of the one that he hurts.
"""

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest

from persona_mcp.config.embedder import open_embedder
from persona_mcp.config.settings import EmbedderSettings
from persona_mcp.state.appraisal import Appraisal, Bias, Role, deltas, turn_size, weights
from persona_mcp.state.appraiser import Taken
from persona_mcp.state.arrow import Arrow, Event, Priors
from persona_mcp.state.cues import load_cues
from persona_mcp.state.local_appraiser import LocalAppraiser
from persona_mcp.state.relationship import apply, begin, priors, relationship_type, shown
from persona_mcp.state.relationship_params import RelationshipParams
from persona_mcp.state.traits import BigFive

pytestmark = pytest.mark.anyio

P = RelationshipParams()
EXCHANGES = 60
MINUTE, DAY = 60.0, 86400.0
TURN_MINUTES = 0.15
FRIENDS = ("friend", "close_friend")
FOES = ("rival", "enemy")

WARM = Taken(Appraisal(0.8, 0.6, 0.5, 0.3))
HOSTILE = Taken(Appraisal(-0.8, -0.6, -0.5))
PATIENT = Taken(Appraisal(0.3, 0.3, 0.2))
NEUTRAL = Taken(Appraisal())


@dataclass(frozen=True)
class Pair:
    """How x sees y, and y sees x."""

    x: Arrow
    y: Arrow

    @property
    def kinds(self) -> tuple[str, str]:
        return relationship_type(self.x, self.y, P), relationship_type(self.y, self.x, P)


def talk(
    by_x: Sequence[Taken],
    by_y: Sequence[Taken],
    gap: float = MINUTE,
    who: BigFive | None = None,
    first: Priors | None = None,
) -> Pair:
    """Let x and y speak in turn, what each says appraised as the lists go round."""
    owner, start = who or BigFive(), first or Priors()
    arrows = {"x": begin(start, 0.0), "y": begin(start, 0.0)}
    for number in range(2 * EXCHANGES):
        actor, said = ("x", by_x) if number % 2 == 0 else ("y", by_y)
        taken = said[number // 2 % len(said)]
        size = turn_size(P, turning_point=taken.turning_point is not None)
        for name, arrow in arrows.items():
            role: Role = "returned" if name == actor else "received"
            change = deltas(taken.appraisal, size, weights(role, P), owner, TURN_MINUTES, P)
            event = Event(number // 2 * gap, number, change, "turn", appraisal=taken.appraisal)
            arrows[name] = apply(arrow, event, P)
    return Pair(arrows["x"], arrows["y"])


@pytest.mark.parametrize("gap", [MINUTE, DAY / 6, DAY])
def test_a_warm_talk_makes_friends(gap: float) -> None:
    assert talk([WARM], [WARM], gap).kinds == ("friend", "friend")


@pytest.mark.parametrize("gap", [MINUTE, DAY / 6, DAY])
def test_a_hostile_talk_makes_a_foe_of_who_is_hurt_and_not_of_who_hurts(gap: float) -> None:
    of_x, of_y = talk([HOSTILE], [PATIENT], gap).kinds

    assert of_y in FOES
    assert of_x not in FOES


@pytest.mark.parametrize("gap", [MINUTE, DAY / 6, DAY])
def test_whoever_is_hated_and_says_nothing_has_the_worse_view(gap: float) -> None:
    pair = talk([HOSTILE], [NEUTRAL], gap)

    assert pair.kinds[1] in FOES
    assert shown(pair.x, P).strength > shown(pair.y, P).strength + 0.3


@pytest.mark.parametrize("gap", [MINUTE, DAY / 6, DAY])
def test_a_one_sided_talk_ends_asymmetric(gap: float) -> None:
    pair = talk([WARM], [NEUTRAL], gap)

    assert pair.kinds == ("acquaintance", "friend")
    assert shown(pair.y, P).strength > shown(pair.x, P).strength + 0.2


def drawn(noise: Bias, lot: random.Random) -> Taken:
    def value(deviation: float) -> float:
        return min(1.0, max(-1.0, lot.gauss(0.0, deviation)))

    return Taken(
        Appraisal(
            value(noise.warmth),
            value(noise.reliability),
            value(noise.competence),
            max(0.0, value(noise.disclosure)),
        )
    )


def moved(arrow: Arrow, first: Priors) -> tuple[float, float, float, float]:
    now, before = shown(arrow, P), shown(begin(first, 0.0), P)
    return (
        now.affinity - before.affinity,
        now.trust - before.trust,
        now.respect - before.respect,
        now.intimacy - before.intimacy,
    )


@pytest.mark.parametrize("compatibility", [0.2, 0.5, 0.8])
def test_a_neutral_talk_leaves_everything_where_the_priors_put_it(compatibility: float) -> None:
    noise, nervous = load_cues("en").noise, BigFive(agreeableness=1.0, neuroticism=1.0)
    first = priors(compatibility, nervous, P)
    for seed in range(40):
        lot = random.Random(seed)
        by_x, by_y = ([drawn(noise, lot) for _ in range(EXCHANGES)] for _ in "xy")

        pair = talk(by_x, by_y, who=nervous, first=first)

        assert max(map(abs, (*moved(pair.x, first), *moved(pair.y, first)))) < 0.05


WARM_LINES = [
    "Good to see you again, my friend! How was your journey?",
    "I kept my promise and brought you the medicine.",
    "Thank you for your help with the roof, that was so kind of you.",
    "I'll be there tomorrow to help you, you can count on me.",
    "I've never told anyone, but I was so lonely before you came here.",
    "You did wonderfully today, I'm proud of you.",
    "I fixed your clock, it runs perfectly now.",
    "I promise that I will always be honest with you.",
    "I love our evenings, you always make me laugh.",
    "Here is the money that I borrowed, every coin of it.",
]
HOSTILE_LINES = [
    "You are an idiot.",
    "Get out of my sight, I can't stand you.",
    "Nobody likes you, you liar.",
    "I told everybody your secret, and they laughed at you.",
    "Your work is worthless, like you.",
    "Shut up, I'm sick of your whining.",
    "I hate you.",
]
PATIENT_LINES = [
    "I am sorry that you had such a hard day.",
    "Let me help you with that.",
    "I will bring you the money on Friday, I promise.",
    "Sit down, I have made some tea for you.",
    "You can count on me, whatever you say.",
]
PLAIN_LINES = [
    "The ferry leaves at six.",
    "What time is it?",
    "The bridge collapsed last winter.",
    "My sister's wedding was in June.",
    "I had bread and cheese for lunch.",
    "The road is closed, so they take the other one.",
    "Is the shop open on Sundays?",
    "They say that the harvest was good this year.",
]


@pytest.fixture
async def appraiser() -> AsyncIterator[LocalAppraiser]:
    """On the embedder that the product comes with."""
    embedder = open_embedder(EmbedderSettings())
    yield LocalAppraiser(embedder)
    await embedder.aclose()


async def taken(appraiser: LocalAppraiser, lines: Sequence[str]) -> list[Taken]:
    return [await appraiser.appraise(line) for line in lines]


async def test_sixty_exchanges_as_the_local_appraiser_takes_them(
    appraiser: LocalAppraiser,
) -> None:
    warm = await taken(appraiser, WARM_LINES)
    hostile = await taken(appraiser, HOSTILE_LINES)
    patient = await taken(appraiser, PATIENT_LINES)
    plain = await taken(appraiser, PLAIN_LINES)

    friends = talk(warm, warm, 10 * MINUTE)
    foes = talk(hostile, patient, 10 * MINUTE)
    admired = talk(warm, plain, 10 * MINUTE)
    strangers = talk(plain, plain, 10 * MINUTE)

    assert all(kind in FRIENDS for kind in friends.kinds)
    assert foes.kinds[1] in FOES
    assert foes.kinds[0] not in FOES
    assert shown(admired.y, P).strength > shown(admired.x, P).strength + 0.2
    assert max(map(abs, moved(strangers.y, Priors()))) < 0.05
