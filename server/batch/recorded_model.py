"""The model of one dialogue: each call is recorded, and one that is recorded is not made again."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import structlog

from persona_mcp.server.wire import problem_of
from persona_mcp.state.batch.values import RecordedCall
from persona_mcp.state.errors import BadSnapshot, InternalError, PersonaError
from persona_mcp.state.model import (
    ChatModel,
    Chunk,
    Message,
    ModelInfo,
    Offer,
    Sampling,
    current_purpose,
)
from persona_mcp.state.snapshots.file import canonical

log = structlog.get_logger(__name__)

INFO = "info"
"""In place of a purpose: no model was there to be asked."""
EMBEDDING = "embedding"
"""In place of a purpose: the embedder was asked, and failed."""
WHOEVER_CALLS = ("correlation_id",)
"""What a problem says of the call that met it, and not of the model."""


class RecordedModel:
    """A `ChatModel` that plays what is recorded of a dialogue, and records what it asks beyond.

    A call that is cancelled leaves no trace. One that is not listened to until its end is recorded
    as far as it was heard, since what was made of it depends on that alone.

    Attributes:
        fault: The recording does not fit, or a call could not be kept: whatever the dialogue made
            of that error, it is no outcome.
    """

    def __init__(
        self,
        inner: ChatModel | None,
        index: int,
        played: Iterable[RecordedCall] = (),
        made: Callable[[RecordedCall], Awaitable[None]] | None = None,
    ) -> None:
        """Stand before a model for one dialogue.

        Args:
            inner: Is asked what is not recorded; None to play only.
            index: Of the dialogue.
            played: Its recorded calls.
            made: Keeps a call that was made; awaited before the end of the reply is passed on, so
                that nothing is built on a call that could get lost.
        """
        self._inner = inner
        self._index = index
        self._played = {call.number: call for call in played}
        self._made = made
        self._calls: dict[int, RecordedCall] = {}
        self.fault: PersonaError | None = None
        self._next = 0
        self._info = known_of(self._played.values())

    @property
    def calls(self) -> tuple[RecordedCall, ...]:
        """Return the calls so far, those that were played too, in order."""
        return tuple(self._calls[number] for number in sorted(self._calls))

    async def info(self) -> ModelInfo:
        """Say which model answers, or answered when it was recorded; see `ChatModel`.

        Raises:
            BadSnapshot: No call is recorded, and no model is there.
        """
        if self._info is None:
            found = self._played.get(self._next)
            if found is not None and found.purpose == INFO and found.error is not None:
                self._take(found)
                raise error_of(found.error)
            inner = self._asked(self._next, INFO)
            try:
                self._info = await inner.info()
            except Exception as error:
                problem = kept_problem(error)
                await self._keep(
                    RecordedCall(self._index, self._next, INFO, "", "", "", None, None, problem)
                )
                self._next += 1
                raise raised_for(error) from error
        return self._info

    def failure(self, said: object) -> PersonaError | None:
        """Return the failure of the embedder that is recorded next, if it is of these texts."""
        found = self._played.get(self._next)
        if found is None or found.purpose != EMBEDDING or found.asked != question_to_embedder(said):
            return None
        self._take(found)
        return None if found.error is None else error_of(found.error)

    async def keep_failure(self, said: object, error: Exception) -> PersonaError:
        """Record a failure of the embedder, and return it as it is raised.

        Where it did not fail when this was recorded, what comes of it is no outcome.
        """
        failed = raised_for(error)
        if self._inner is None or self._next in self._played:
            self.fault = self.fault or failed
            return failed
        problem, asked = kept_problem(failed), question_to_embedder(said)
        await self._keep(
            RecordedCall(self._index, self._next, EMBEDDING, asked, "", "", None, None, problem)
        )
        self._next += 1
        return failed

    async def offered(self) -> Offer:
        """Say which models there are; see `ChatModel`."""
        if self._inner is None:
            return Offer(await self.info(), ())
        return await self._inner.offered()

    async def check(self) -> str:
        """Say whether it is there; see `ChatModel`."""
        if self._inner is None:
            return f"{(await self.info()).id} is played from a recording"
        return await self._inner.check()

    async def aclose(self) -> None:
        """Close the model; see `ChatModel`."""
        if self._inner is not None:
            await self._inner.aclose()

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk]:
        """Yield the reply; see `ChatModel`. One that is played comes in one piece.

        Raises:
            BadSnapshot: Something else was asked than is recorded, or nothing is recorded.
        """
        asked = question_of(messages, sampling)
        number, self._next = self._next, self._next + 1
        found = self._played.get(number)
        if found is not None:
            async with aclosing(self._play(found, asked)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        inner, heard = self._asked(number, current_purpose()), Heard()
        try:
            async with aclosing(heard.out(inner.stream(messages, sampling))) as chunks:
                async for chunk in chunks:
                    yield chunk
        except GeneratorExit:
            if not being_cancelled():
                await self._record(number, asked, heard)
            raise
        except Exception as error:
            heard.error = error
        await self._record(number, asked, heard)
        if heard.error is not None:
            raise raised_for(heard.error) from heard.error
        if heard.last is not None:
            yield heard.last

    async def _play(self, call: RecordedCall, asked: str) -> AsyncGenerator[Chunk]:
        """Yield what is recorded, after a look whether the same was asked."""
        if call.asked != asked:
            raise self._faulty(
                f"dialogue {self._index}, call {call.number} ({call.purpose}): the recording is of "
                "another prompt or another way to draw the reply; it was made by another version, "
                "or by other settings",
                call.number,
                expected=call.asked,
                found=asked,
            )
        self._take(call)
        if call.text or call.finish_reason is not None:
            yield Chunk(call.text, call.output_tokens, call.finish_reason)
        if call.error is not None:
            raise error_of(call.error)
        if call.finish_reason is None:
            raise self._ends(call.number, "goes on no further than its listener then listened")

    async def _record(self, number: int, asked: str, heard: "Heard") -> None:
        info, last = await self._answering(), heard.last
        await self._keep(
            RecordedCall(
                index=self._index,
                number=number,
                purpose=current_purpose(),
                asked=asked,
                model="" if info is None else info.id,
                text=heard.text,
                output_tokens=None if last is None else last.output_tokens,
                finish_reason=None if last is None else last.finish_reason,
                error=None if heard.error is None else kept_problem(heard.error),
                context_tokens=0 if info is None else info.context_tokens,
                small=info is not None and info.small,
            )
        )

    async def _answering(self) -> ModelInfo | None:
        """Return which model was asked now, whatever the recorded calls are of."""
        try:
            return None if self._inner is None else await self._inner.info()
        except PersonaError:
            return None

    async def _keep(self, call: RecordedCall) -> None:
        self._calls[call.number] = call
        if self._made is None:
            return
        try:
            await self._made(call)
        except PersonaError as error:
            self.fault = error
            raise

    def _take(self, call: RecordedCall) -> None:
        self._calls[call.number] = call
        self._next = call.number + 1

    def _asked(self, number: int, purpose: str) -> ChatModel:
        """Return the model to ask."""
        if self._inner is None:
            raise self._ends(number, f"has no such call ({purpose})")
        return self._inner

    def _ends(self, number: int, what: str) -> BadSnapshot:
        return self._faulty(
            f"dialogue {self._index}, call {number}: the recording {what}; it is incomplete, or "
            "was made by another version",
            number,
        )

    def _faulty(self, message: str, number: int, **data: str) -> BadSnapshot:
        error = BadSnapshot(message, index=self._index, number=number, **data)
        self.fault = self.fault or error
        return error


@dataclass
class Heard:
    """A reply as far as it was passed on.

    Attributes:
        text: What was said.
        last: The last chunk, held back until the call is recorded; None before.
        error: What ended it.
    """

    text: str = ""
    last: Chunk | None = None
    error: Exception | None = None

    async def out(self, stream: AsyncGenerator[Chunk]) -> AsyncGenerator[Chunk]:
        """Pass on everything but the last chunk."""
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                self.text += chunk.text
                if chunk.finish_reason is not None:
                    self.last = chunk
                    return
                yield chunk


def question_of(messages: Sequence[Message], sampling: Sampling) -> str:
    """Return the SHA-256 of what is asked: the canonical messages and sampling, in hexadecimal."""
    asked = {"messages": [vars(message) for message in messages], "sampling": vars(sampling)}
    return hashlib.sha256(canonical(asked)).hexdigest()


def question_to_embedder(said: object) -> str:
    """Return the hash of a text, or of texts, that are to be embedded."""
    return hashlib.sha256(canonical({"embed": said})).hexdigest()


def known_of(calls: Iterable[RecordedCall]) -> ModelInfo | None:
    """Return the model that recorded calls are of; None where none of them reached one."""
    call = next((call for call in calls if call.model), None)
    if call is None:
        return None
    provider, name = call.model.split(":", 1)
    return ModelInfo(provider, name, call.context_tokens, call.small)


def kept_problem(error: Exception) -> dict[str, Any]:
    """Write an error as it is recorded: what it says of the model alone."""
    problem = problem_of(raised_for(error))
    data = {name: value for name, value in problem["data"].items() if name not in WHOEVER_CALLS}
    return {**problem, "data": data}


def raised_for(error: Exception) -> PersonaError:
    """Return an error of ours as it is, and a defect as one."""
    if isinstance(error, PersonaError):
        return error
    log.error("model call failed", exc_info=error)
    return InternalError()


def error_of(problem: Mapping[str, Any]) -> PersonaError:
    """Make the error again that a problem was written from."""
    told = dict(problem["data"])
    kind = ERRORS[told.pop("code")]
    told.pop("retryable", None)
    return kind(problem["message"], **told)


def kinds_below(kind: type[PersonaError]) -> Iterable[type[PersonaError]]:
    """Return all classes of errors below one, each after those below it."""
    for lower in kind.__subclasses__():
        yield from kinds_below(lower)
        yield lower


ERRORS = {kind.code: kind for kind in kinds_below(PersonaError)}
"""The class of each code; of several, the highest."""


def being_cancelled() -> bool:
    """Tell whether the running task is being cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
