"""What an utterance is taken as, and who says so."""

from dataclasses import dataclass
from typing import Literal, Protocol

from persona_mcp.state.appraisal import Appraisal
from persona_mcp.state.arrow import AppraisedBy

TurningPoint = Literal["betrayal", "promise_kept", "promise_broken", "repair", "vow", "rescue"]
"""What weighs more than other turns; a repair is an apology for a real hurt."""


@dataclass(frozen=True)
class Taken:
    """What an utterance is taken as by the one who hears it.

    Attributes:
        appraisal: On the four axes, the appraiser's bias taken off.
        turning_point: Which one it is, if it is one.
        appraiser: Who appraised it; None if nobody could, and it is taken as neutral.
        note: Why the appraiser that was asked did not answer.
    """

    appraisal: Appraisal
    turning_point: TurningPoint | None = None
    appraiser: AppraisedBy | None = "local"
    note: str | None = None


class Appraiser(Protocol):
    """Says how an utterance is taken by the one who hears it."""

    async def appraise(self, text: str) -> Taken:
        """Appraise one utterance.

        Raises:
            ModelError: The embedder behind it did not answer.
            DeadlineExceeded: It took longer than its limit.
        """
        ...
