"""Calls are recorded as they are made, and played again instead of being made."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest

from persona_mcp.server.batch.recorded_model import ERRORS, RecordedModel, error_of, kept_problem
from persona_mcp.server.wire import WIRES
from persona_mcp.state.batch.values import RecordedCall
from persona_mcp.state.correlation import correlation
from persona_mcp.state.errors import (
    BadSnapshot,
    DeadlineExceeded,
    InternalError,
    ModelError,
    NotConfigured,
    PersonaError,
    StorageUnavailable,
)
from persona_mcp.state.model import (
    ChatModel,
    Chunk,
    Message,
    ModelInfo,
    Sampling,
    asking_for,
)
from tests.doubles import LARGE, SMALL, Fails, Hangs, Line, Says, ScriptedModel

pytestmark = pytest.mark.anyio

HELLO = (Message("system", "You are Ada."), Message("user", "Hello!"))
SAMPLING = Sampling(100, 0.7, stop=("\nUser:",), seed=7)


async def read(
    model: ChatModel, messages: Sequence[Message] = HELLO, sampling: Sampling = SAMPLING
) -> list[Chunk]:
    async with aclosing(model.stream(messages, sampling)) as chunks:
        return [chunk async for chunk in chunks]


async def said(model: ChatModel) -> str:
    return "".join(chunk.text for chunk in await read(model))


class Kept:
    """Where calls are kept."""

    def __init__(self) -> None:
        self.calls: list[RecordedCall] = []

    async def __call__(self, call: RecordedCall) -> None:
        self.calls.append(call)


async def recording_of(*lines: Line, info: ModelInfo = LARGE) -> tuple[RecordedCall, ...]:
    model = RecordedModel(ScriptedModel(*lines, info=info), 3)
    for _ in lines:
        try:
            await read(model)
        except PersonaError:
            continue
    return model.calls


async def test_a_reply_passes_through_and_is_recorded_with_what_was_asked() -> None:
    kept = Kept()
    model = RecordedModel(ScriptedModel(Says("Good day to you.", 5)), 3, made=kept)

    chunks = await read(model)

    assert "".join(chunk.text for chunk in chunks) == "Good day to you."
    assert chunks[-1] == Chunk("", 5, "stop")
    (call,) = kept.calls
    assert model.calls == (call,)
    assert (call.index, call.number, call.purpose) == (3, 0, "reply")
    assert (call.model, call.context_tokens, call.small) == ("scripted:large", 8192, False)
    assert (call.text, call.output_tokens, call.finish_reason) == ("Good day to you.", 5, "stop")
    assert len(call.asked) == 64


async def test_what_was_recorded_is_played_in_one_piece_and_nobody_is_asked() -> None:
    recorded = await recording_of(Says("Good day.", 2), Says("It rains, ", None, "length"))
    inner = ScriptedModel()
    kept = Kept()

    model = RecordedModel(inner, 3, recorded, kept)

    assert await read(model) == [Chunk("Good day.", 2, "stop")]
    assert await read(model) == [Chunk("It rains, ", None, "length")]
    assert model.calls == recorded
    assert (inner.history, kept.calls) == ([], [])


async def test_what_is_not_recorded_is_asked_and_counted_on() -> None:
    recorded = await recording_of("One.", "Two.", "Three.")
    inner = ScriptedModel("Again two.")
    kept = Kept()

    model = RecordedModel(inner, 3, (recorded[0], recorded[2]), kept)

    assert [await said(model) for _ in range(3)] == ["One.", "Again two.", "Three."]
    assert [call.number for call in kept.calls] == [1]
    assert [call.number for call in model.calls] == [0, 1, 2]


async def test_a_call_is_kept_before_the_end_of_its_reply_is_passed_on() -> None:
    seen: list[str] = []

    async def made(call: RecordedCall) -> None:
        seen.append("kept")

    model = RecordedModel(ScriptedModel("Good day."), 0, made=made)
    async with aclosing(model.stream(HELLO, SAMPLING)) as chunks:
        seen.extend([chunk.finish_reason or chunk.text.strip() async for chunk in chunks])

    assert seen == ["kept", "Good", "day.", "stop"] or seen == ["Good", "day.", "kept", "stop"]
    assert seen.index("kept") < seen.index("stop")


async def test_a_reply_whose_call_could_not_be_kept_has_no_end() -> None:
    async def made(call: RecordedCall) -> None:
        raise StorageUnavailable("the disk is full")

    chunks: list[Chunk] = []
    model = RecordedModel(ScriptedModel("Good day."), 0, made=made)

    with pytest.raises(StorageUnavailable, match="the disk is full"):
        async with aclosing(model.stream(HELLO, SAMPLING)) as stream:
            async for chunk in stream:
                chunks.append(chunk)  # noqa: PERF401 - what came before the error

    assert [chunk.text for chunk in chunks] == ["Good", " day."]
    assert isinstance(model.fault, StorageUnavailable)


@pytest.mark.parametrize(
    "error",
    [
        ModelError("scripted:large failed (503): try again", stage="stream", status=503),
        DeadlineExceeded("it did not begin within 60 s", limit="first_token_s", seconds=60.0),
        NotConfigured("scripted:large is not there", provider="scripted"),
    ],
)
async def test_an_error_is_recorded_and_comes_again_with_what_had_been_said(
    error: PersonaError,
) -> None:
    (call,) = await recording_of(Fails(error, after="Good day"))
    model, chunks = RecordedModel(None, 3, (call,)), list[Chunk]()

    with pytest.raises(PersonaError) as again:
        async with aclosing(model.stream(HELLO, SAMPLING)) as stream:
            async for chunk in stream:
                chunks.append(chunk)

    assert chunks == [Chunk("Good day")]
    assert type(again.value) is type(error)
    assert (again.value.message, again.value.data) == (error.message, error.data)
    assert (call.text, call.finish_reason) == ("Good day", None)


async def test_a_defect_is_recorded_as_ours_and_its_words_are_not() -> None:
    inner = ScriptedModel(Fails(ValueError("at /srv/secret")))
    model = RecordedModel(inner, 3)

    with pytest.raises(InternalError, match="on our side") as failed:
        await read(model)

    assert isinstance(failed.value.__cause__, ValueError)
    with pytest.raises(InternalError, match="on our side"):
        await read(RecordedModel(None, 3, model.calls))
    assert "secret" not in repr(model.calls)


def test_a_recorded_problem_says_nothing_of_who_called() -> None:
    error = ModelError("it is down", stage="connect")

    with correlation("abc"):
        problem = kept_problem(error)

    assert problem == kept_problem(error)
    assert problem["data"] == {"code": "llm_error", "retryable": True, "stage": "connect"}
    assert vars(error_of(problem)) == vars(error)


async def test_a_cancelled_call_is_not_recorded() -> None:
    line = Hangs("Good day", ", and more")
    kept = Kept()
    model = RecordedModel(ScriptedModel(line), 0, made=kept)
    call = asyncio.create_task(read(model))
    await line.reached.wait()

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    assert line.cancelled.is_set()
    assert (kept.calls, model.calls) == ([], ())


async def test_a_reply_that_was_listened_to_in_part_is_played_as_far_as_that() -> None:
    inner = ScriptedModel("Good day. It rains. Go home.")
    model = RecordedModel(inner, 3)
    async with aclosing(model.stream(HELLO, SAMPLING)) as stream:
        async for chunk in stream:
            if "rains" in chunk.text:
                break
    (call,) = model.calls
    again = RecordedModel(None, 3, model.calls)

    async with aclosing(again.stream(HELLO, SAMPLING)) as stream:
        first = await anext(stream)
        with pytest.raises(BadSnapshot, match=r"dialogue 3, call 0.* no further"):
            await anext(stream)

    assert (call.text, call.finish_reason, call.error) == ("Good day. It rains.", None, None)
    assert first == Chunk("Good day. It rains.")


OTHERS = {
    "another message": ((*HELLO[:1], Message("user", "Bye!")), SAMPLING),
    "another role": ((HELLO[0], Message("assistant", "Hello!")), SAMPLING),
    "one message less": (HELLO[:1], SAMPLING),
    "another temperature": (HELLO, replace(SAMPLING, temperature=0.8)),
    "another seed": (HELLO, replace(SAMPLING, seed=8)),
    "a schema": (HELLO, replace(SAMPLING, schema={"type": "object"})),
}


@pytest.mark.parametrize("other", OTHERS)
async def test_another_question_than_was_recorded_is_an_error_that_names_the_call(
    other: str,
) -> None:
    recorded = await recording_of("One.", "Two.")
    model = RecordedModel(ScriptedModel(), 3, recorded)
    await read(model)

    with pytest.raises(BadSnapshot, match=r"dialogue 3, call 1 \(reply\)") as failed:
        await read(model, *OTHERS[other])

    assert model.fault is failed.value
    assert failed.value.data["expected"] == recorded[1].asked
    assert failed.value.data["found"] != recorded[1].asked


async def test_a_recording_that_runs_out_says_where() -> None:
    model = RecordedModel(None, 3, await recording_of("One."))
    await read(model)

    with pytest.raises(BadSnapshot, match="dialogue 3, call 1: the recording has no such call"):
        await read(model)


async def test_a_replay_is_of_the_recorded_model() -> None:
    recorded = await recording_of("One.", info=SMALL)

    replay = RecordedModel(None, 3, recorded)
    resumed = RecordedModel(ScriptedModel(info=LARGE), 3, recorded)

    assert await replay.info() == await resumed.info() == SMALL
    assert (await replay.offered()).chosen == SMALL
    assert await replay.check() == "scripted:small is played from a recording"


async def test_a_call_is_recorded_under_the_model_that_was_asked() -> None:
    recorded = await recording_of("One.", info=SMALL)
    resumed = RecordedModel(ScriptedModel("Two.", info=LARGE), 3, recorded)

    await read(resumed)
    await read(resumed)

    assert [call.model for call in resumed.calls] == ["scripted:small", "scripted:large"]


async def test_what_it_was_asked_for_is_recorded() -> None:
    model = RecordedModel(ScriptedModel("One.", "Two."), 0)

    with asking_for("summary"):
        await read(model)
    await read(model)

    assert [call.purpose for call in model.calls] == ["summary", "reply"]


class Missing(ScriptedModel):
    """A model that is not there."""

    async def info(self) -> ModelInfo:
        raise NotConfigured("scripted:large is not installed", provider="scripted")


async def test_a_model_that_is_not_there_is_recorded_and_is_not_there_in_the_replay() -> None:
    kept = Kept()
    with pytest.raises(NotConfigured, match="not installed"):
        await RecordedModel(Missing(), 3, made=kept).info()

    replay = RecordedModel(None, 3, kept.calls)

    with pytest.raises(NotConfigured, match="not installed"):
        await replay.info()
    assert replay.calls == tuple(kept.calls)
    with pytest.raises(BadSnapshot, match="dialogue 3, call 1"):
        await replay.info()


async def test_the_model_behind_it_is_asked_for_all_else_and_closed() -> None:
    inner = ScriptedModel()
    model = RecordedModel(inner, 0)

    assert (await model.offered()).names == ("large", "another")
    assert await model.check() == "scripted:large answers"
    await model.aclose()
    await RecordedModel(None, 0).aclose()

    assert inner.closed


def test_every_code_has_its_class() -> None:
    assert {code: ERRORS[code].code for code in WIRES} == {code: code for code in WIRES}
    assert ERRORS["internal_error"] is InternalError
    assert ERRORS["not_configured"] is NotConfigured
