"""Who speaks next in a talk between personas, and to whom."""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import cycle, islice

from persona_mcp.state import continuation, drawing
from persona_mcp.state.continuation_params import ContinuationParams
from persona_mcp.state.dialogue import NARRATOR, WHOLE_TALK, Member, Standing, initiative_of, sides


def next_speaker(standing: Standing, params: ContinuationParams) -> str:
    """Say whose turn it is, among those who are there.

    A whisper may name who says it; the plan names who begins. Then by the plan's `speakers`:
    round_robin in the conversation's order; random by lot among those who did not speak last;
    initiative by lot, weighed with initiative + 4 for who was named - 6 for who spoke last
    (`drawing.next_speaker`); addressed: who was named first in the last turn, else in turn; wants:
    whose continue score toward the last speaker is highest, ties by id. Each draw is a function of
    the seed and the turn alone.
    """
    turn, there = standing.said + 1, standing.present or standing.members
    ids, last = [member.persona.id for member in there], standing.last_speaker
    whisper = standing.plan.whisper(turn)
    if whisper is not None and whisper.by in ids:
        return str(whisper.by)
    if last is None:
        first = standing.plan.first_speaker
        return first if first in ids else ids[0]
    others = [member for member in there if member.persona.id != last] or list(there)
    match standing.plan.speakers:
        case "random":
            lot = drawing.draw(standing.plan.seed, "speaker", WHOLE_TALK, turn)
            return others[int(lot * len(others))].persona.id
        case "initiative":
            return by_initiative(standing, there, turn, params)
        case "wants":
            keen = min(others, key=lambda one: (-wish(standing, one, params), one.persona.id))
            return keen.persona.id
        case "addressed":
            named = [id for id in named_in(last_said(standing), others) if id != last]
            if named:
                return named[0]
    order = [member.persona.id for member in standing.members]
    return next(id for id in after(order, last) if id in ids)


def by_initiative(
    standing: Standing, there: Sequence[Member], turn: int, params: ContinuationParams
) -> str:
    """Draw who speaks next by initiative; each rolls its own die."""
    seed = standing.plan.seed
    return drawing.next_speaker(
        {one.persona.id: initiative_of(one, seed, turn, params) for one in there},
        named_in(last_said(standing), there),
        standing.last_speaker,
        drawing.draw(seed, "speaker", WHOLE_TALK, turn),
        params,
    )


def wish(standing: Standing, member: Member, params: ContinuationParams) -> float:
    """Score how much one wants to speak now to who spoke last, [0, 100]: the continue score."""
    id = member.persona.id
    party, partner = sides(standing, id)
    strength = standing.strength(id)
    return continuation.score(party, partner, standing.talk, strength, params).total


def last_said(standing: Standing) -> str:
    """Return what was spoken last; empty at the beginning."""
    spoken = (t.content for t in reversed(standing.window) if t.speaker_id != NARRATOR)
    return next(spoken, "")


def after(order: Sequence[str], last: str) -> Sequence[str]:
    """Return everybody in turn, beginning behind one of them, who comes last."""
    return list(islice(cycle(order), order.index(last) + 1, order.index(last) + 1 + len(order)))


def named_in(text: str, members: Sequence[Member]) -> list[str]:
    """Return whom a text names, whole words in any case, in order of the first naming."""
    found = []
    for member in members:
        match = pattern_of(member.persona.name, member.persona.id).search(text)
        if match:
            found.append((match.start(), member.persona.id))
    return [id for _, id in sorted(found)]


@lru_cache(maxsize=4096)
def pattern_of(name: str, id: str) -> re.Pattern[str]:
    """Return what finds somebody by the name, its first word, or the id."""
    ways = dict.fromkeys([name, name.split()[0] if name.split() else name, id])
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, ways))})(?!\w)", re.IGNORECASE)


def addressee(standing: Standing, speaker_id: str, text: str, hearers: Sequence[str]) -> str:
    """Return to whom a turn is said: who is named first and hears it, else the partner.

    Where the partner does not hear it, the first one who does.
    """
    there = [m for m in standing.present if m.persona.id in hearers and m.persona.id != speaker_id]
    named = named_in(text, there) if standing.is_group else []
    partner = standing.partner(speaker_id).persona.id
    if named:
        return named[0]
    return partner if partner in hearers or not there else there[0].persona.id
