"""The state of a conversation's graph: ids and the current turn are checkpointed, no more."""

from dataclasses import dataclass
from typing import Annotated, NotRequired

from langgraph.channels import UntrackedValue
from typing_extensions import TypedDict

from persona_mcp.nodes.decided import Decision
from persona_mcp.nodes.parts import ChatIds
from persona_mcp.state.cards.card import CardUse
from persona_mcp.state.commit import NewTurn
from persona_mcp.state.dialogue import Standing
from persona_mcp.state.effects import RelationshipChange
from persona_mcp.state.exchange import Conversation, Turn
from persona_mcp.state.feelings import FeelingChange, Feelings
from persona_mcp.state.host_prompts import HostReply
from persona_mcp.state.index.work import Vectors
from persona_mcp.state.lore import Lore
from persona_mcp.state.memory.memory import NewMemory, Recall
from persona_mcp.state.model import Message, ModelInfo
from persona_mcp.state.persona import Persona
from persona_mcp.state.relationship import Arrow
from persona_mcp.state.summarising import Summary
from persona_mcp.state.visual import Sight


@dataclass(frozen=True)
class Scene:
    """What stands before a reply is made; read in one transaction.

    Attributes:
        now: When, in seconds since the epoch, UTC.
        persona: Who answers.
        conversation: Where.
        window: Last turns that the persona witnessed, oldest first.
        arrow: How it sees the user now; None before the first meeting.
        reverse: How the user sees it now, where the user is a persona too.
        feelings: What it feels and has left now.
        answers: Replies that it has given in this conversation.
        summaries: The last ones of what was said here before the window, oldest first.
        sights: How the persona and the place of the talk look, the newest first.
        partner: Who is answered, where that is a persona; None for a human.
        standing: How the talk stands, where it is one between personas.
        answers_turn: The turn that is answered, where that is in the window already.
        card: What else of the persona's card bears on the prompt; None if it has none.
        lore: What its card knows of what was said last.

    In a talk between personas the conversation is as the speaker has it: its `persona_id` is who
    speaks, its `user_id` to whom.
    """

    now: float
    persona: Persona
    conversation: Conversation
    window: tuple[Turn, ...]
    arrow: Arrow | None
    feelings: Feelings
    answers: int
    summaries: tuple[Summary, ...] = ()
    reverse: Arrow | None = None
    sights: tuple[Sight, ...] = ()
    partner: Persona | None = None
    standing: Standing | None = None
    answers_turn: str | None = None
    card: CardUse | None = None
    lore: tuple[Lore, ...] = ()

    @property
    def partner_name(self) -> str:
        """Return what the one is called who is answered."""
        return self.partner.name if self.partner else self.conversation.user_id


@dataclass(frozen=True)
class Draft:
    """A reply as the model made it, before it is judged.

    Attributes:
        text: What was said.
        tokens: As the provider counts them, else estimated.
        estimated: Whether they were estimated.
        finish_reason: stop or length.
        seconds: Time it took.
        model: Who wrote it; None for an exit line.
        prompt: What the model was given.
        memories: Ids of the memories that were in it.
    """

    text: str
    tokens: int
    estimated: bool
    finish_reason: str
    seconds: float
    model: ModelInfo | None
    prompt: tuple[Message, ...]
    memories: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What validation says of a draft.

    Attributes:
        text: The reply, mended where a soft fault could be.
        faults: Hard faults: the reply is made again, then it is an error.
        mended: Soft faults that were mended.
    """

    text: str
    faults: tuple[str, ...]
    mended: tuple[str, ...]


@dataclass(frozen=True)
class Consequences:
    """What the exchange changes, before it is written.

    Attributes:
        turns: In order.
        relationships: Events, in order.
        feelings: What it does to personas.
        memories: What is remembered of it.
        vectors: Of those; None where they are left to the outbox worker.
        ends: Why the talk is over; None where it is not.
    """

    turns: tuple[NewTurn, ...]
    relationships: tuple[RelationshipChange, ...]
    feelings: tuple[FeelingChange, ...]
    memories: tuple[NewMemory, ...]
    vectors: Vectors | None = None
    ends: str | None = None


class ChatInput(ChatIds):
    """What a run is started with."""

    message: str
    follows: NotRequired[Annotated[str | None, UntrackedValue(str, guard=False)]]
    """The exchange that this one follows; left out, the one that the checkpoint ended with.

    It is not checkpointed, or a run that leaves it out would find that of the run before.
    """


class ChatOutput(TypedDict, total=False):
    """What a run ends with."""

    reply: str
    head: str | None


class ChatUpdate(ChatIds, ChatOutput, total=False):
    """What a node may write; only ids and the current turn are ever checkpointed."""

    attempts: int
    scene: Annotated[Scene, UntrackedValue(Scene, guard=False)]
    recall: Annotated[Recall, UntrackedValue(Recall, guard=False)]
    decision: Annotated[Decision, UntrackedValue(Decision, guard=False)]
    draft: Annotated[Draft, UntrackedValue(Draft, guard=False)]
    verdict: Annotated[Verdict, UntrackedValue(Verdict, guard=False)]
    consequences: Annotated[Consequences, UntrackedValue(Consequences, guard=False)]
    answer: Annotated[HostReply, UntrackedValue(HostReply, guard=False)]
    """The host's reply, in the run that goes on with it."""


class ChatState(ChatInput, ChatUpdate):
    """Everything that nodes read."""
