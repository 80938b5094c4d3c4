"""Outcomes of dialogues made by hand: rows as the product writes them, by its own laws."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from persona_mcp.state import relationship
from persona_mcp.state.appraisal import Appraisal, deltas, weights
from persona_mcp.state.arrow import Arrow, Event, Priors
from persona_mcp.state.batch.values import Cast, CastMember, Job, Outcome, Place
from persona_mcp.state.dialogue_spec import START, TalkSpec
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.relationship import RelationshipParams
from persona_mcp.state.traits import BigFive

LAWS = RelationshipParams()
NARRATOR = "narrator"
TURN_S = 20.0
SHOWN = ("affinity", "trust", "respect", "intimacy", "strength", "familiarity")
Arrows = dict[tuple[str, str], Arrow]


@dataclass(frozen=True)
class Line:
    """A turn that is to be said."""

    speaker: str
    text: str
    warmth: float = 0.0
    heard_by: Sequence[str] | None = None
    template: bool = False


def cast_of(**names: str) -> Cast:
    """Cast personas by id and name."""
    members = tuple(
        CastMember(id, PersonaSpec(name=name, description=f"You are {name}, of the harbour."))
        for id, name in names.items()
    )
    return Cast(members, (), {})


def job_of(
    index: int = 0,
    people: Sequence[str] = ("ada", "ben"),
    *,
    arm: int = 0,
    repeat: int = 0,
    wave: int = 0,
    number: int = 0,
    starts_at: float = START,
    topic: str = "general",
    **talk: Any,
) -> Job:
    """Make a job."""
    spec = TalkSpec.model_validate({"participants": list(people), **talk})
    place = Place(index, arm, repeat, wave, number)
    return Job(place, f"d{index}", 100 + index, spec, topic, starts_at)


def shown_of(arrows: Arrows, at: float) -> dict[tuple[str, str], dict[str, float]]:
    """Show some arrows at a time."""
    found = {}
    for ends, arrow in sorted(arrows.items()):
        shown = relationship.shown(relationship.decay(arrow, at, LAWS), LAWS)
        found[ends] = {name: getattr(shown, name) for name in SHOWN}
    return found


def outcome_of(
    job: Job,
    lines: Sequence[Line],
    arrows: Arrows | None = None,
    *,
    error: Mapping[str, Any] | None = None,
    exit_reason: str = "time_limit",
    summaries: Mapping[str, str] | None = None,
) -> Outcome:
    """Hold a dialogue by hand; the arrows are moved on by the real laws, in place."""
    known: Arrows = {} if arrows is None else arrows
    people = [*(job.talk.participants or ()), *(join.persona for join in job.talk.joins)]
    before = shown_of({k: a for k, a in known.items() if set(k) <= set(people)}, job.starts_at)
    rows: dict[str, list[dict[str, Any]]] = {
        name: []
        for name in ("exchanges", "turns", "turn_witnesses", "relationship_events", "memories")
    }
    at = job.starts_at
    exchange = 1
    for number, line in enumerate(lines, start=1):
        at += TURN_S
        heard = line.heard_by if line.heard_by is not None else people
        rows["turns"].append(turn_row(job, number, exchange, line, at))
        for one in sorted({line.speaker, *heard} - {NARRATOR}):
            rows["turn_witnesses"].append({"turn_id": f"{job.id}t{number}", "party_id": one})
        if line.speaker != NARRATOR:  # what a narrator brings in is of the next turn's exchange
            rows["exchanges"].append(exchange_row(job, exchange, line))
            for one in sorted(set(heard) - {line.speaker}):
                change = event_row(job, number, exchange, one, line, at, known)
                rows["relationship_events"].append(change)
            exchange += 1
    for persona, text in (summaries or {}).items():
        rows["memories"].append(
            {"persona_id": persona, "memory_type": "summary", "active": True, "content": text}
        )
    return Outcome(
        job=job,
        status="failed" if error else "done",
        exit_reason="" if error else exit_reason,
        error=error,
        rows=rows,
        before=before,
        after=shown_of({k: a for k, a in known.items() if set(k) <= set(people)}, at),
        ended_at=at,
        calls=sum(not line.template and line.speaker != NARRATOR for line in lines),
        measured={"wall_s": 1.25 + job.place.index, "model_s": 1.0},
    )


def exchange_row(job: Job, number: int, line: Line) -> dict[str, Any]:
    return {
        "id": f"{job.id}x{number}",
        "response_type": "template" if line.template else "full_llm",
        "continue_score": 70.123456789 - number,
        "score_terms": {"topic": 12.5, "time": 29.9999999},
        "tokens_used": len(line.text.split()) + 4,
        "tokens_estimated": True,
    }


def turn_row(job: Job, number: int, exchange: int, line: Line, at: float) -> dict[str, Any]:
    return {
        "id": f"{job.id}t{number}",
        "exchange_id": f"{job.id}x{exchange}",
        "position": number,
        "number": number,
        "active": True,
        "speaker_id": line.speaker,
        "content": line.text,
        "created_at": at,
    }


def event_row(
    job: Job, number: int, exchange: int, owner: str, line: Line, at: float, arrows: Arrows
) -> dict[str, Any]:
    ends = owner, line.speaker
    took = Appraisal(warmth=line.warmth, reliability=line.warmth * 0.6, disclosure=0.2)
    weighed = weights("received", LAWS)
    change = deltas(took, LAWS.turn_size, weighed, BigFive(), TURN_S / 60, LAWS)
    first = Priors(0.05, 0.02) if ends not in arrows else None
    event = Event(at=at, seq=number, deltas=change, appraisal=took, priors=first)
    arrow = arrows.get(ends) or relationship.begin(first or Priors(), at)
    arrows[ends] = relationship.apply(arrow, event, LAWS)
    return {
        "exchange_id": f"{job.id}x{exchange}",
        "turn_id": f"{job.id}t{number}",
        "active": True,
        "from_id": owner,
        "to_id": line.speaker,
        "at": at,
        "seq": number,
        "appraisal": asdict(took),
        "deltas": asdict(change),
        "priors": asdict(first) if first else None,
        "direct": True,
        "why": f"warmth {line.warmth:+.1f}: {line.text[:30]}",
    }
