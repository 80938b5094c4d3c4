"""An outcome's rows read again: what was said and who heard it, and how each turn moved whom.

Pure functions of one `Outcome`; whoever writes results or a report reads it through these.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from persona_mcp.state import relationship
from persona_mcp.state.arrow import Arrow
from persona_mcp.state.batch.values import Job, Outcome
from persona_mcp.state.relationship import RelationshipParams
from persona_mcp.state.summarising import SUMMARY

Kind = Literal["said", "whispered", "narrated", "exit_line"]
DIMENSIONS = ("affinity", "trust", "respect", "intimacy", "strength", "familiarity")
"""What is shown of an arrow, in the order of columns."""
LATENT = ("affinity", "trust", "respect", "disclosure", "contact")
NEARLY_ONE = 1 - 1e-15
TEMPLATE = "template"
Ends = tuple[str, str]
Row = Mapping[str, Any]
NOTHING: Row = {}


@dataclass(frozen=True)
class SaidTurn:
    """One turn of a dialogue, with all that is known of it.

    Attributes:
        number: 1, 2, ... of what was spoken, as a specification counts; what a narrator brings in
            has that of the turn it comes before.
        place: 1, 2, ... of everything.
        speaker: Id of the persona; for what a narrator brings in, the name that it goes by.
        text: What was said.
        heard_by: Ids of who heard it, without who said it, sorted.
        kind: said; whispered, to some of those who were there; narrated; exit_line, which no model
            was asked for.
        response_type: full_llm, constrained or template; empty for what is narrated.
        score: Continue score of the speaker, 0..100; None where there is none.
        score_terms: What that is made of.
        tokens: Of the turn; 0 for what is narrated.
        estimated: The tokens were estimated by the words, since the provider did not count.
        at: Simulated time, in seconds since the epoch, UTC.
    """

    number: int
    place: int
    speaker: str
    text: str
    heard_by: tuple[str, ...]
    kind: Kind
    response_type: str
    score: float | None
    score_terms: Mapping[str, float]
    tokens: int
    estimated: bool
    at: float

    def perceived_by(self, persona: str) -> bool:
        """Tell whether somebody said or heard it."""
        return persona == self.speaker or persona in self.heard_by


@dataclass(frozen=True)
class Moved:
    """How one saw another right after a turn that bore on it.

    Attributes:
        turn: Number of the turn.
        of: Who sees.
        to: Who is seen.
        shown: The dimensions after it, by name.
        change: What this turn alone did to affinity, as it is shown.
        appraisal: How it was taken: warmth, reliability, competence -1..1, disclosure 0..1; None
            where nobody could say.
        direct: It was said by or to the one who sees; false for who only overheard it.
        why: In words.
        at: Simulated time, in seconds since the epoch, UTC.
    """

    turn: int
    of: str
    to: str
    shown: Mapping[str, float]
    change: float
    appraisal: Mapping[str, float] | None
    direct: bool
    why: str
    at: float


@dataclass(frozen=True)
class Brought:
    """Something that a narrator brought in.

    Attributes:
        turn: Number of the turn that it comes before.
        text: What happened.
        heard_by: Who perceived it, sorted.
    """

    turn: int
    text: str
    heard_by: tuple[str, ...]


def participants_of(job: Job) -> tuple[str, ...]:
    """Return who talks in a dialogue, those who come later behind those who begin."""
    begin = tuple(job.talk.participants or ())
    return begin + tuple(one.persona for one in job.talk.joins if one.persona not in begin)


def themselves(job: Job) -> set[str]:
    """Return who speaks as itself in a dialogue; whoever else does is a narrator."""
    return {*participants_of(job), *job.talk.witnesses}


def said(outcome: Outcome) -> list[SaidTurn]:
    """Return the turns of a dialogue in their order, those of a failed one too."""
    heard: dict[str, set[str]] = defaultdict(set)
    for witness in outcome.rows.get("turn_witnesses", []):
        heard[witness["turn_id"]].add(witness["party_id"])
    exchanges: dict[str, Row] = {row["id"]: row for row in outcome.rows.get("exchanges", [])}
    own = themselves(outcome.job)
    whispers = _whispers(outcome)
    found: list[SaidTurn] = []
    number = 1
    for place, row in enumerate(_ordered(outcome), start=1):
        narrated = row["speaker_id"] not in own
        hearers = heard[row["id"]] - {row["speaker_id"]}
        exchange = NOTHING if narrated else exchanges.get(row["exchange_id"], NOTHING)
        kind = _kind(exchange, narrated, hearers, whispers.get(number))
        found.append(_turn(row, exchange, number, place, hearers, kind))
        number += not narrated
    return found


def _ordered(outcome: Outcome) -> list[Row]:
    rows = [row for row in outcome.rows.get("turns", []) if row["active"]]
    return sorted(rows, key=lambda row: (row["number"], row["position"]))


def _whispers(outcome: Outcome) -> dict[int, set[str]]:
    """Return whom the whispers are for, by turn: as the talk ended, should it have been changed."""
    told: dict[int, set[str]] = {w.turn: set(w.to) for w in outcome.job.talk.whispers}
    for talk in outcome.rows.get("conversations", []):
        told |= {w["turn"]: set(w["to"]) for w in (talk["plan"] or {}).get("whispers", [])}
    return told


def _turn(
    row: Row, exchange: Row, number: int, place: int, hearers: set[str], kind: Kind
) -> SaidTurn:
    return SaidTurn(
        number=number,
        place=place,
        speaker=row["speaker_id"],
        text=row["content"],
        heard_by=tuple(sorted(hearers)),
        kind=kind,
        response_type=exchange.get("response_type") or "",
        score=exchange.get("continue_score"),
        score_terms=exchange.get("score_terms") or {},
        tokens=exchange.get("tokens_used") or 0,
        estimated=bool(exchange.get("tokens_estimated")),
        at=row["created_at"],
    )


def _kind(exchange: Row, narrated: bool, hearers: set[str], whisper: set[str] | None) -> Kind:
    if narrated:
        return "narrated"
    if exchange.get("response_type") == TEMPLATE:
        return "exit_line"
    return "said" if whisper is None or not hearers <= whisper else "whispered"


def interventions(turns: Iterable[SaidTurn]) -> list[Brought]:
    """Return what a narrator brought in, of the turns of a dialogue."""
    return [Brought(t.number, t.text, t.heard_by) for t in turns if t.kind == "narrated"]


def summaries(outcome: Outcome) -> dict[str, str]:
    """Return what each persona keeps of a dialogue, the last summary of it that it made."""
    kept: dict[str, str] = {}
    for row in outcome.rows.get("memories", []):
        if row["memory_type"] == SUMMARY and row["active"]:
            kept[row["persona_id"]] = row["content"]
    return dict(sorted(kept.items()))


def moved(outcome: Outcome, laws: RelationshipParams) -> list[Moved]:
    """Tell how each turn moved how they see each other, in the order of turns, then of ids.

    An outcome has how they saw each other at its beginning and at its end, and what each turn added
    to the latent values. What else there is between the two is the fading in the time between,
    which is spread evenly over it: exact at both ends, and off by less than 0.001 on the way in a
    dialogue of a day at most.
    """
    spoken = [turn for turn in said(outcome) if turn.kind != "narrated"]
    rows = _ordered(outcome)
    by_exchange = {rows[turn.place - 1]["exchange_id"]: turn.number for turn in spoken}
    arrows: dict[Ends, list[Row]] = defaultdict(list)
    for row in outcome.rows.get("relationship_events", []):
        if row["active"] and row["exchange_id"] in by_exchange:
            arrows[row["from_id"], row["to_id"]].append(row)
    found = []
    for ends, events in sorted(arrows.items()):
        events.sort(key=lambda row: (row["at"], row["seq"]))
        for event, shown, change in _course(outcome, ends, events, laws):
            turn = by_exchange[event["exchange_id"]]
            appraisal, why = event["appraisal"], event["why"]
            found.append(
                Moved(turn, *ends, shown, change, appraisal, event["direct"], why, event["at"])
            )
    return sorted(found, key=lambda one: (one.turn, one.of, one.to))


def _course(
    outcome: Outcome, ends: Ends, events: list[Row], laws: RelationshipParams
) -> Iterator[tuple[Row, dict[str, float], float]]:
    """Follow one arrow: each event, what is shown after it, and what it did to affinity."""
    value = _start(outcome.before.get(ends), events[0]["priors"])
    added: Counter[str] = Counter()
    for row in events:
        added.update({name: row["deltas"].get(name, 0.0) for name in LATENT})
    faded = dict.fromkeys(LATENT, 0.0)
    if ends in outcome.after:
        end = latent_of(outcome.after[ends])
        faded = {name: end[name] - value[name] - added[name] for name in LATENT}
    begin = outcome.job.starts_at
    span = max(outcome.ended_at, events[-1]["at"]) - begin
    past = 0.0
    for row in events:
        now = (row["at"] - begin) / span if span > 0 else 1.0
        before = {name: value[name] + faded[name] * (now - past) for name in LATENT}
        value = {name: before[name] + row["deltas"].get(name, 0.0) for name in LATENT}
        past = now
        change = math.tanh(value["affinity"]) - math.tanh(before["affinity"])
        yield row, shown_of(value, row["at"], laws), change


def _start(before: Mapping[str, float] | None, priors: Row | None) -> dict[str, float]:
    start = dict.fromkeys(LATENT, 0.0)
    if priors is not None:
        return {**start, "affinity": priors["affinity"], "trust": priors["trust"]}
    return latent_of(before) if before else start


def beginnings(outcome: Outcome, laws: RelationshipParams) -> dict[Ends, Mapping[str, float]]:
    """Return how they saw each other at the beginning; who had not met, at first sight in it."""
    found: dict[Ends, Mapping[str, float]] = {}
    for row in outcome.rows.get("relationship_events", []):
        ends = row["from_id"], row["to_id"]
        if row["active"] and row["priors"] is not None:
            found[ends] = shown_of(_start(None, row["priors"]), row["at"], laws)
    return {**found, **outcome.before}


def latent_of(shown: Mapping[str, float]) -> dict[str, float]:
    """Return the latent values of what is shown of an arrow: the inverse of `relationship.shown`.

    Exact but for values that are shown as 1, whose latent value is not known; they count as the
    next smaller number.
    """
    cap = shown["familiarity"] * (1 + shown["trust"]) / 2
    opened = min(NEARLY_ONE, max(0.0, shown["intimacy"] / cap)) if cap > 0 else 0.0
    return {
        "affinity": _atanh(shown["affinity"]),
        "trust": _atanh(shown["trust"]),
        "respect": _atanh(shown["respect"]),
        "disclosure": -math.log1p(-opened),
        "contact": -math.log1p(-min(NEARLY_ONE, max(0.0, shown["familiarity"]))),
    }


def _atanh(value: float) -> float:
    return math.atanh(max(-NEARLY_ONE, min(NEARLY_ONE, value)))


def shown_of(latent: Mapping[str, float], at: float, laws: RelationshipParams) -> dict[str, float]:
    """Return what is shown of latent values."""
    arrow = Arrow(
        as_of=at,
        affinity_latent=latent["affinity"],
        trust_latent=latent["trust"],
        respect_latent=latent["respect"],
        disclosure=max(0.0, latent["disclosure"]),
        contact=max(0.0, latent["contact"]),
    )
    shown = relationship.shown(arrow, laws)
    return {name: getattr(shown, name) for name in DIMENSIONS}
