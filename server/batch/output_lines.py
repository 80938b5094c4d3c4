"""A dialogue as one line of `dialogues.jsonl`: everything of it but its single turns."""

from collections.abc import Mapping, Sequence
from typing import Any

from persona_mcp.state.batch.reading import (
    DIMENSIONS,
    SaidTurn,
    interventions,
    participants_of,
    summaries,
)
from persona_mcp.state.batch.values import Outcome
from persona_mcp.state.moments import rfc3339

Seen = Mapping[tuple[str, str], Mapping[str, float]]


def dialogue_line(
    outcome: Outcome, turns: Sequence[SaidTurn], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Describe a dialogue.

    Args:
        outcome: What came of it.
        turns: Of it.
        values: Of its arm, by path.
    """
    job, place = outcome.job, outcome.job.place
    return {
        "index": place.index,
        "place": {
            "arm": place.arm,
            "values": dict(values),
            "repeat": place.repeat,
            "wave": place.wave,
            "number": place.number,
        },
        "id": job.id,
        "seed": job.seed,
        "status": outcome.status,
        "error": dict(outcome.error) if outcome.error else None,
        "topic": job.topic,
        "scene": job.talk.scene,
        "participants": list(participants_of(job)),
        "witnesses": list(job.talk.witnesses),
        "turns": sum(turn.kind != "narrated" for turn in turns),
        "exit_reason": outcome.exit_reason or None,
        "calls": outcome.calls,
        "tokens": sum(turn.tokens for turn in turns),
        "tokens_estimated": any(turn.estimated for turn in turns),
        "started_at": rfc3339(job.starts_at),
        "ended_at": rfc3339(outcome.ended_at),
        "scores": [
            {"turn": turn.number, "speaker": turn.speaker, "score": turn.score}
            for turn in turns
            if turn.score is not None
        ],
        "before": seen(outcome.before),
        "after": seen(outcome.after),
        "summaries": summaries(outcome),
        "interventions": [
            {"turn": one.turn, "text": one.text, "heard_by": list(one.heard_by)}
            for one in interventions(turns)
        ],
    }


def seen(arrows: Seen) -> list[dict[str, Any]]:
    """Write how some see each other, sorted by who sees whom."""
    return [
        {"from": of, "to": to, **{name: shown[name] for name in DIMENSIONS}}
        for (of, to), shown in sorted(arrows.items())
    ]
