"""What a turn between personas does to all who are there: computed, not written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from persona_mcp.nodes.chat_state import Consequences, Scene
from persona_mcp.nodes.decision import leaving
from persona_mcp.nodes.dialogue_state import DialogueState, DialogueUpdate
from persona_mcp.nodes.feeling import feeling_of
from persona_mcp.nodes.parts import Parts
from persona_mcp.nodes.relating import taken
from persona_mcp.nodes.relationship import (
    SECONDS,
    Act,
    Participant,
    change_of,
    reason_of,
    turn_of,
)
from persona_mcp.nodes.remembering import memory_of, moment_of, vectors_of
from persona_mcp.state.appraisal import Appraisal, Role
from persona_mcp.state.commit import NewTurn
from persona_mcp.state.continuation import Score
from persona_mcp.state.dialogue import NARRATOR, Member, Standing
from persona_mcp.state.effects import RelationshipChange
from persona_mcp.state.emotion import EmotionParams, Impulses, of_contagion
from persona_mcp.state.feelings import FeelingChange
from persona_mcp.state.ids import derived_id, id_within
from persona_mcp.state.interaction import talk_cost
from persona_mcp.state.memory.memory import NewMemory
from persona_mcp.state.persona import Persona
from persona_mcp.state.speaking import addressee
from persona_mcp.state.traits import big_five

TURNS_ENDED = "time_limit"
"""Why a talk is over whose last turn was said; no line is said beyond it."""


async def relate_turn(parts: Parts, state: DialogueState) -> DialogueUpdate:
    """Appraise what was said and compute what it changes in all who heard it.

    The one it was said to is moved in full, who said it by a smaller share, who else heard it by
    another one and without being any closer. All of them remember it. What a narrator brings in
    stands before it, and those remember it who perceive it.

    Reads: world_id, exchange_id, scene, standing, happens, decision, verdict.
    Writes: consequences.
    """
    scene, standing, text = state["scene"], state["standing"], state["verdict"].text
    key = (state["world_id"], state["exchange_id"])
    hearers = heard_by(standing, scene.persona)
    ids = tuple(one.id for one in hearers)
    happened = [
        NewTurn(id_within(*key, "narrated", n), NARRATOR, None, one.text, one.perceived_by)
        for n, one in enumerate(state["happens"])
    ]
    speaker = scene.persona
    turn = NewTurn(id_within(*key, "turn", 0), speaker.id, speaker.version, text, ids)
    to = addressee(standing, speaker.id, text, ids)
    act = await taken(parts, text, "received")
    said = Said(scene, standing, act, turn, to, state["decision"].score)
    memories = tuple(
        memory for one in (*happened, turn) for memory in memories_of(parts, key, said, one)
    )
    return DialogueUpdate(
        consequences=Consequences(
            turns=(*happened, turn),
            relationships=relationships_of(parts, key, said, hearers),
            feelings=feelings_of(parts, said, hearers),
            memories=memories,
            vectors=await vectors_of(parts, memories, moment_of(parts, state)),
            ends=ending(parts, state),
        )
    )


@dataclass(frozen=True)
class Said:
    """A turn as it was said.

    Attributes:
        scene: As the speaker had it.
        standing: What stood before it.
        act: How it is taken.
        turn: What was said, and who heard it.
        to: To whom.
        score: How much the speaker thought of the talk.
    """

    scene: Scene
    standing: Standing
    act: Act
    turn: NewTurn
    to: str
    score: Score


def heard_by(standing: Standing, speaker: Persona) -> tuple[Persona, ...]:
    """Return who hears a turn, who says it too: all who are there, unless it is a whisper.

    Who was deleted meanwhile is not among them.
    """
    whisper = standing.plan.whisper(standing.said + 1)
    there = standing.audience
    if speaker.id not in {one.id for one in there}:
        there = (speaker, *there)
    if whisper is None:
        return there
    return tuple(one for one in there if one.id == speaker.id or one.id in whisper.to)


def memories_of(
    parts: Parts, key: tuple[str, str], said: Said, turn: NewTurn
) -> Iterator[NewMemory]:
    """Make the memories of a turn, one for each who heard or perceived it."""
    names = {**said.standing.names, NARRATOR: NARRATOR.capitalize()}
    own = turn is said.turn
    for one in said.standing.audience_of(turn.witnesses):
        id = id_within(*key, "memory", one.id) if own else derived_id(turn.id, "memory", one.id)
        yield memory_of(id, one, turn, names, said.scene, said.score, parts)


def ending(parts: Parts, state: DialogueState) -> str | None:
    """Say why the talk is over with this turn; None if it goes on."""
    decision = state["decision"]
    return leaving(parts, decision) if not decision.route.model else last_turn(state["standing"])


def last_turn(standing: Standing) -> str | None:
    """Tell whether a talk is over because it has no turn left after this one."""
    return TURNS_ENDED if standing.said + 1 >= standing.plan.max_turns else None


def relationships_of(
    parts: Parts, key: tuple[str, str], said: Said, hearers: Sequence[Persona]
) -> tuple[RelationshipChange, ...]:
    """Compute the events on the arrows: listener to speaker, speaker to listener, and asides."""
    changes, people = [], {one.id: one for one in hearers}
    for one in hearers:
        mine = replace(said.act, role=role_of(said, one))
        seen = people.get(said.to) if mine.role == "returned" else said.scene.persona
        if seen is None or seen.id == one.id:
            continue
        changes.append(
            change_of(
                parts,
                one,
                Participant(seen.id, seen),
                mine,
                turn_of(parts, mine, said.turn.id),
                said.scene.now,
                id_within(*key, "relationship", one.id),
            )
        )
    return tuple(changes)


def role_of(said: Said, one: Persona) -> Role:
    """Say how one who heard a turn stands to what was said."""
    if one.id == said.scene.persona.id:
        return "returned"
    return "received" if one.id == said.to else "aside"


def feelings_of(parts: Parts, said: Said, hearers: Sequence[Persona]) -> tuple[FeelingChange, ...]:
    """Compute what a turn does to the moods of those who talk, and what it costs each of them.

    Who only overhears it is moved and tired by nothing.
    """
    laws, act, heard = parts.laws.effects, said.act, {one.id for one in hearers}
    cost = talk_cost(len(act.text.split()), laws.interaction)
    made = []
    for member in said.standing.members:
        id = member.persona.id
        if id not in heard:
            continue
        speaks = id == said.scene.persona.id
        made.append(
            feeling_of(
                parts,
                member.persona,
                act.appraisal if id == said.to else Appraisal(),
                laws.emotions.turn_size,
                cost / SECONDS,
                reason_of(act),
                ((cost, 1.0 if speaks else laws.interaction.listener_share),),
                said.standing.conversation.topic,
                None if speaks else caught_by(member, said, laws.emotions),
            )
        )
    return tuple(made)


def caught_by(member: Member, said: Said, params: EmotionParams) -> Impulses | None:
    """Compute what a member who hears a turn catches of the speaker's mood; None if that is off."""
    if not params.contagion:
        return None
    speaker = said.scene.feelings.emotion
    owner = big_five(member.persona.spec.personality_traits)
    return of_contagion(member.feelings.emotion.mood, speaker.mood, owner, params)
