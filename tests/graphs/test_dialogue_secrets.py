"""Who did not hear something never has it in a prompt: planted words over random companies."""

import random
from dataclasses import dataclass, replace

import pytest

from persona_mcp.nodes.parts import Limits
from persona_mcp.nodes.summarising import sum_up
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.dialogue import Intervention, Plan, Presence, Speakers, Whisper
from persona_mcp.state.summaries import Outgrown
from tests.calls import rows
from tests.companies import begin, hold, looped, plan
from tests.doubles import SMALL, ScriptedModel

pytestmark = pytest.mark.anyio

TURNS = 16
SPEAKERS: tuple[Speakers, ...] = ("round_robin", "random", "initiative", "addressed", "wants")
NAMES = ("anna", "boris", "cecil", "dora", "emil", "freya")
PHRASES = (
    "I saw {} at the pier before dawn.",
    "Have you ever heard of {}, my friend?",
    "They keep {} under the old bridge.",
    "My aunt swore by {} all her life.",
    "Nobody in town would sell me {} again.",
)


@dataclass(frozen=True)
class Company:
    """Who talks, who comes and goes, and what is whispered, drawn from a seed."""

    who: tuple[str, ...]
    plan: Plan

    @staticmethod
    def drawn(seed: int) -> "Company":
        chance = random.Random(seed)
        who = NAMES[: chance.randint(2, 6)]
        aside = who[-1:] if len(who) > 3 and chance.random() < 0.5 else ()
        steady, moving = who[:2], [one for one in who[2:] if one not in aside]
        whispers = tuple(
            Whisper(turn=turn, to=chance.sample(who, chance.randint(1, min(2, len(who)))))
            for turn in sorted(chance.sample(range(1, TURNS + 1), 5))
        )
        narrated = tuple(
            Intervention(text=f"A courier brings event{n}.", turn=turn, to=to)
            for n, (turn, to) in enumerate(
                [(chance.randint(1, TURNS), None), (chance.randint(1, TURNS), [chance.choice(who)])]
            )
        )
        asked = plan(
            steady[0],
            seed=seed,
            speakers=SPEAKERS[seed % len(SPEAKERS)],
            witnesses=aside,
            joins=tuple(
                Presence(persona=one, turn=chance.randint(2, 6))
                for one in (*moving, *aside)
                if chance.random() < 0.7
            ),
            leaves=tuple(
                Presence(persona=one, turn=chance.randint(7, TURNS))
                for one in (*moving, *aside)
                if chance.random() < 0.7
            ),
            whispers=whispers,
            interventions=narrated,
        )
        return Company(who, asked)

    def hears(self, one: str, turn: int, speaker: str) -> bool:
        """Tell whether one hears what is said at a turn, by the rules of the plan alone."""
        asked = self.plan
        if one == speaker:
            return True
        if any(p.persona == one and turn < p.turn for p in asked.joins):
            return False
        if any(p.persona == one and turn >= p.turn for p in asked.leaves):
            return False
        whispered = [w for w in asked.whispers if w.turn == turn]
        return all(one in w.to for w in whispered)

    def perceives(self, one: str, event: Intervention) -> bool:
        there = self.plan.is_there(one, event.turn or 0)
        return there and (event.to is None or one in event.to)


@pytest.mark.parametrize("seed", range(15))
async def test_nobody_is_shown_or_remembers_what_it_did_not_hear(
    service: Service, model: ScriptedModel, seed: int
) -> None:
    company = Company.drawn(seed)
    secrets = {turn: f"zyzz{turn}q" for turn in range(1, TURNS + 1)}
    model.add(*(PHRASES[n % len(PHRASES)].format(word) for n, word in secrets.items()))

    speakers = await talked(service, company)

    heard = {
        (one, turn)
        for one in company.who
        for turn in secrets
        if company.hears(one, turn, speakers[turn - 1])
    }
    assert len(speakers) == len(model.history) == TURNS
    for turn, (speaker, asked) in enumerate(zip(speakers, model.history, strict=True), start=1):
        assert company.plan.is_there(speaker, turn)
        shown = {before for before in secrets if secrets[before] in asked.text}
        assert {(speaker, before) for before in shown} <= heard
        assert turn == 1 or (turn - 1 in shown) == ((speaker, turn - 1) in heard)
        for number, event in enumerate(company.plan.interventions):
            if f"event{number}" in asked.text:
                assert company.perceives(speaker, event) and (event.turn or 0) <= turn
    memories = await rows(service.database, tables.Memory)
    kept = {(m["persona_id"], n) for m in memories for n in secrets if secrets[n] in m["content"]}
    assert kept == heard


async def talked(service: Service, company: Company) -> list[str]:
    """Hold the talk in runs of four turns, sum up and embed between them; return who spoke."""
    left_windows: list[Outgrown] = []
    parts = looped(service, limits=Limits(4, 6, 1), outgrown=left_windows.append)
    often = parts.laws.summaries.model_copy(update={"every": 2, "shown": 5})
    parts = replace(parts, laws=replace(parts.laws, summaries=often))
    talk = await begin(service, company.who, company.plan)
    told = []
    for _ in range(TURNS // 4):
        told += await hold(parts, talk, 4)
        for outgrown in left_windows:
            await sum_up(replace(parts, model=ScriptedModel(info=SMALL)), outgrown)
        left_windows.clear()
        while await service.indexer.pending():
            await service.indexer.work_off()
    return [event["persona_id"] for event in told if event["event"] == "turn"]
