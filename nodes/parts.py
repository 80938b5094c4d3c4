"""The live parts that nodes work with, bound once by the graph's builder."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from persona_mcp.state.appraiser import Appraiser
from persona_mcp.state.continuation import ContinuationParams
from persona_mcp.state.database import Database
from persona_mcp.state.effects import EffectParams
from persona_mcp.state.memory.importance_params import ImportanceParams
from persona_mcp.state.model import ChatModel
from persona_mcp.state.prompt_params import PromptParams
from persona_mcp.state.summaries import Outgrown
from persona_mcp.state.summarising import SummaryParams

if TYPE_CHECKING:  # it takes NumPy, which who needs only the laws can do without
    from persona_mcp.state.embedding import Embedder
    from persona_mcp.state.memory.search import MemorySearch


class ChatIds(TypedDict, total=False):
    """Which exchange it is; a run that is started without (Studio) is given them by `load`."""

    world_id: str
    conversation_id: str
    exchange_id: str


@dataclass(frozen=True)
class Laws:
    """The constants that an exchange is computed with."""

    effects: EffectParams
    continuation: ContinuationParams
    importance: ImportanceParams
    prompts: PromptParams
    summaries: SummaryParams


@dataclass(frozen=True)
class Limits:
    """How much of what a node may take.

    Attributes:
        window_turns: Turns of the transcript in a prompt.
        recalled: Memories in a prompt.
        attempts: Replies made before a bad one becomes an error.
    """

    window_turns: int
    recalled: int
    attempts: int


@dataclass(frozen=True)
class Parts:
    """What nodes need beside the state.

    Attributes:
        database: Where everything is kept.
        memories: The search over them.
        model: Who writes replies.
        appraiser: How utterances are taken.
        laws: Constants.
        limits: Bounds.
        process: Under which name leases are held.
        world: Where a run happens that names no world.
        now: The clock, in seconds since the epoch, UTC.
        written: Called after a commit: there is work for the index.
        outgrown: Called after a commit: turns that left the window are to be summed up.
        accept: Accepts the message of a run that was started without an exchange, as Studio does:
            from the state and the knobs to `{world_id, conversation_id, exchange_id}`. It is asked
            again when a host's reply has come.
        embedder: Of what will be remembered; None where that is left to the outbox worker.
    """

    database: Database
    memories: "MemorySearch"
    model: ChatModel
    appraiser: Appraiser
    laws: Laws
    limits: Limits
    process: str
    world: str
    now: Callable[[], float]
    written: Callable[[], None]
    outgrown: Callable[[Outgrown], None]
    accept: "Callable[[Mapping[str, Any], ChatContext], Awaitable[ChatIds]] | None" = None
    embedder: "Embedder | None" = None


class ChatContext(BaseModel):
    """Knobs of one run: a form in Studio, never checkpointed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    routing: str = Field(
        "direct",
        pattern="^(direct|score)$",
        description="direct: a message always reaches the model; score: the persona may bow out",
    )
    token_budget: int = Field(500, ge=1, le=32768, description="Longest reply, in tokens")
    host: bool = Field(
        False, description="Stop before the reply, which whoever reads the prompt then writes"
    )
    temperature: float | None = Field(
        None, ge=0, le=2, description="Randomness; empty: by the continue score"
    )
    persona_id: str = Field(
        "aria", description="Who answers, where the run itself begins the conversation (Studio)"
    )
    seed: int | None = Field(None, ge=0, description="Makes the draw repeatable where possible")
