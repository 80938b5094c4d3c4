"""How a reply is to be made, as it was decided."""

from dataclasses import dataclass

from persona_mcp.state.continuation import ExitReason, Party, Route, Score, Talk


@dataclass(frozen=True)
class Decision:
    """How the reply is to be made.

    Attributes:
        score: How much the persona wants to go on.
        route: Whether by the model, and how.
        party: What the score was taken of.
        talk: How far the talk has gone.
        words: Most of them.
        max_tokens: Likewise.
        temperature: Of the model.
        partner: Who is answered, where that is a persona; None for a human.
        ends: Why a talk between personas ends here; None if it goes on.
        host: Whether the host's own model writes it.
    """

    score: Score
    route: Route
    party: Party
    talk: Talk
    words: int
    max_tokens: int
    temperature: float
    partner: Party | None = None
    ends: ExitReason | None = None
    host: bool = False
