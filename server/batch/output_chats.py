"""Dialogues as chats for training sets: ShareGPT and OpenAI, each from one persona's viewpoint.

Whose viewpoint it is answers; the others are who it is spoken to by. Only what that persona said
or heard is in its chat. A persona that said nothing has none, and a failed dialogue has none.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from persona_mcp.state.batch.reading import SaidTurn, participants_of
from persona_mcp.state.batch.values import Cast, Job, Outcome
from persona_mcp.state.request import GENERAL

BEGINNING = "[The dialogue begins.]"
Names = Mapping[str, str]


def names_of(cast: Cast) -> dict[str, str]:
    """Return what the personas of a cast are called, by id."""
    return {member.id: member.spec.name for member in cast.members}


def viewpoints(outcome: Outcome, turns: Sequence[SaidTurn]) -> Iterator[tuple[str, list[SaidTurn]]]:
    """Return each persona that said something, and the turns that it said or heard."""
    if outcome.status != "done":
        return
    for persona in participants_of(outcome.job):
        known = [turn for turn in turns if turn.perceived_by(persona)]
        if any(turn.speaker == persona for turn in known):
            yield persona, known


def who_it_is(persona: str, cast: Cast, job: Job, known: Sequence[SaidTurn]) -> str:
    """Return the system's words: who a persona is, where it is, and whom it comes to hear."""
    spec = next(member.spec for member in cast.members if member.id == persona)
    names, heard = names_of(cast), {turn.speaker for turn in known}
    others = [names.get(id, id) for id in participants_of(job) if id in heard - {persona}]
    parts = [spec.system_prompt, f"You are {spec.name}.", spec.description, situation(job)]
    parts.append(f"You talk with {', '.join(others)}." if others else "")
    return "\n\n".join(part for part in parts if part)


def situation(job: Job) -> str:
    """Say where a dialogue takes place and what it is about; empty where nobody said."""
    topic = "" if job.topic == GENERAL else f"Topic: {job.topic}"
    return "\n".join(part for part in (job.talk.scene, topic) if part)


def as_heard(turn: SaidTurn, names: Names) -> str:
    """Write a turn of somebody else."""
    if turn.kind == "narrated":
        return f"[{turn.text}]"
    whispered = " (whispering)" if turn.kind == "whispered" else ""
    return f"{names.get(turn.speaker, turn.speaker)}{whispered}: {turn.text}"


def sharegpt(outcome: Outcome, turns: Sequence[SaidTurn], cast: Cast) -> Iterator[dict[str, Any]]:
    """Write a dialogue as ShareGPT has it, one conversation a viewpoint.

    Trainers want system, then human and gpt in turn, gpt last: what several others said in a row is
    one human value, who begins is told that the dialogue begins, and what was heard after one's own
    last turn is left out.
    """
    names = names_of(cast)
    for persona, known in viewpoints(outcome, turns):
        spoken = [("system", who_it_is(persona, cast, outcome.job, known))]
        for own, group in groupby(known, key=lambda turn: turn.speaker == persona):
            if own and len(spoken) == 1:
                spoken.append(("human", BEGINNING))
            texts = [turn.text if own else as_heard(turn, names) for turn in group]
            spoken.append(("gpt" if own else "human", "\n".join(texts)))
        if spoken[-1][0] == "human":
            spoken.pop()
        yield {
            "id": f"{outcome.job.id}:{persona}",
            "dialogue": outcome.job.place.index,
            "persona": persona,
            "conversations": [{"from": who, "value": text} for who, text in spoken],
        }


def openai(outcome: Outcome, turns: Sequence[SaidTurn], cast: Cast) -> Iterator[dict[str, Any]]:
    """Write a dialogue as OpenAI's chat format has it, one list of messages a viewpoint.

    Every turn is a message of its own; who spoke stands in `name`, by id.
    """
    names = names_of(cast)
    for persona, known in viewpoints(outcome, turns):
        system = who_it_is(persona, cast, outcome.job, known)
        messages = [{"role": "system", "content": system}]
        for turn in known:
            own = turn.speaker == persona
            text = turn.text if own else as_heard(turn, names)
            message = {"role": "assistant" if own else "user", "content": text}
            if turn.kind != "narrated":
                message["name"] = turn.speaker
            messages.append(message)
        yield {
            "dialogue": outcome.job.place.index,
            "persona": persona,
            "messages": messages,
        }
