"""The settings of batches of dialogues that a process holds in the background."""

from pydantic import Field

from persona_mcp.config.section import Seconds, Section


class DialogueSettings(Section):
    """Batches of dialogues that dialogue_start asks for; `persona dialogue run` has its options."""

    at_once: int = Field(
        2,
        ge=1,
        le=1024,
        description="Dialogues of a batch held at once by this process; chats share its model",
    )
    largest: int = Field(
        10_000, ge=1, le=1_000_000, description="Dialogues of one batch; a larger one is refused"
    )
    open: int = Field(
        100, ge=1, le=100_000, description="Batches that may wait or be held at once, in all worlds"
    )
    poll_s: Seconds = Field(
        5.0,
        description="Look for batches that wait, or whose process has ended, at least this often, "
        "in seconds",
    )
    note_s: float = Field(
        1.0, ge=0.05, le=60, description="How far a batch is, is written this often, in seconds"
    )
    lease_s: Seconds = Field(
        60.0,
        description="A process that shows no life for this long has lost its batch, in seconds; "
        "let it be longer than note_s by far",
    )
    stop_s: Seconds = Field(
        10.0,
        description="A process that ends waits this long for running turns, in seconds; what is "
        "cut off is said again by the next one",
    )
    kept_days: float = Field(
        0.0,
        ge=0,
        le=36_500,
        description="A batch that is over is deleted after so many days, with its files; 0: never",
    )
