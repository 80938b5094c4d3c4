"""What a batch hears of a dialogue that a worker holds elsewhere, and what it keeps of it."""

from persona_mcp.server.batch.dialogue_worker import Event, Faulty, Stopped
from persona_mcp.server.batch.local_engine import Made, Told
from persona_mcp.server.batch.model_pool import is_down
from persona_mcp.server.batch.recorded_model import EMBEDDING, error_of
from persona_mcp.state.batch.values import Finished, RecordedCall, TurnTold, Work
from persona_mcp.state.errors import Cancelled


class Hearing:
    """What is heard of one dialogue, over all workers that hold it.

    Attributes:
        work: Which one.
        calls: Recorded so far, in order.
        down: Servers that did not answer its next call.
    """

    def __init__(self, work: Work, told: Told, made: Made | None) -> None:
        """Begin with what is recorded already."""
        self.work = work
        self.down: frozenset[str] = frozenset()
        self._told = told
        self._made = made
        self._calls = {call.number: call for call in work.played}
        self._turns = 0

    @property
    def turns_left(self) -> int:
        """Return how many turns it has still to go, at most."""
        return max(0, self.work.job.talk.max_turns - self._turns)

    @property
    def calls(self) -> tuple[RecordedCall, ...]:
        """Return the calls that the next worker need not make."""
        return tuple(self._calls[number] for number in sorted(self._calls))

    async def take(self, event: Event) -> Finished | None:
        """Keep a call, tell of a turn the first time, and return what ends the dialogue.

        Raises:
            Cancelled: It was asked to stop.
            PersonaError: It came to no outcome, or a call could not be kept.
        """
        match event:
            case RecordedCall():
                if self._made is not None:
                    await self._made(event)
                self._calls[event.number] = event
                self.down = frozenset()
            case TurnTold():
                if event.turn > self._turns:
                    self._turns = event.turn
                    self._told(event)
            case Finished():
                return event
            case Stopped():
                raise Cancelled(event.message)
            case Faulty():
                raise error_of(event.problem)
        return None


def is_unanswered(event: Event) -> bool:
    """Tell whether an event is a call that no server answered."""
    if not isinstance(event, RecordedCall) or event.error is None:
        return False
    return event.purpose != EMBEDDING and not event.text and is_down(error_of(event.error))
