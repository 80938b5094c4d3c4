"""Casts, jobs and hosts of dialogues, as tests of batches begin with them."""

from typing import Any

from persona_mcp.config.settings import Settings
from persona_mcp.server.batch.dialogue_host import DialogueHost, dialogue_host
from persona_mcp.server.batch.run_dialogue import BeforeTurn, run_dialogue
from persona_mcp.state.batch.values import Cast, CastMember, Job, Outcome, Place, TurnTold
from persona_mcp.state.dialogue_spec import START, TalkSpec, Tie
from persona_mcp.state.embedding import Embedder
from persona_mcp.state.ids import derived_id
from persona_mcp.state.model import ChatModel
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.snapshots.rows import Rows
from tests.doubles import ScriptedModel, WordEmbedder

TIRELESS: dict[str, Any] = {"available_time": 86400, "social_energy": 200, "charisma": 18}
TIES = (
    Tie(of="ada", to="ben", quality=0.7, minutes=30.0),
    Tie(of="ben", to="ada", quality=-0.9, minutes=60.0, context="conflict"),
)


def member(id: str, *memories: str, **more: Any) -> CastMember:
    spec = {"name": id.title(), "topic_preferences": {"music": 90}, **TIRELESS, **more}
    return CastMember(id, PersonaSpec.model_validate(spec), memories)


def cast(*ids: str, ties: tuple[Tie, ...] = TIES, kept: Rows | None = None) -> Cast:
    """Make a cast; of Ada, Ben and Cleo where nobody is named."""
    members = tuple(member(id, f"{id.title()} buried a silver spoon.") for id in ids or ABC)
    return Cast(members, ties, kept or {})


ABC = ("ada", "ben", "cleo")


def job(number: int = 0, *participants: str, starts_at: float = START, **more: Any) -> Job:
    """Make a job: Ada and Ben talk about music for four turns, unless it says otherwise."""
    talk = {"participants": list(participants or ABC[:2]), "max_turns": 4, **more}
    return Job(
        place=Place(number, 0, 0, 0, number),
        id=derived_id("test", number),
        seed=11 + number,
        talk=TalkSpec.model_validate(talk),
        topic="music",
        starts_at=starts_at,
    )


def host(embedder: Embedder | None = None) -> DialogueHost:
    """Make a host by the default settings."""
    return dialogue_host(Settings(_env_file=None), embedder or WordEmbedder())


def lines(count: int, about: str = "the harbour") -> tuple[str, ...]:
    """Make lines of a script that say something new each time."""
    things = ("boats", "bread", "storms", "letters", "music", "lamps", "snow", "debts")
    return tuple(
        f"Thank you, {things[n % len(things)]} number {n} of {about} made me glad."
        for n in range(count)
    )


async def hold(
    on: DialogueHost,
    one: Job,
    frozen: bytes,
    model: ChatModel | None = None,
    before_turn: BeforeTurn | None = None,
    told: list[TurnTold] | None = None,
) -> Outcome:
    """Hold a dialogue, by a script of its own where no model is given."""
    asked = model or ScriptedModel(*lines(one.talk.max_turns + 1, one.id))
    heard = told if told is not None else []
    return await run_dialogue(on, one, frozen, asked, heard.append, lambda: False, before_turn)
