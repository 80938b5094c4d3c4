import asyncio
import socket
import sys
from contextlib import aclosing

import pytest
import structlog

from persona_mcp.config.llm import open_model
from persona_mcp.config.settings import LLMSettings
from persona_mcp.state.errors import DeadlineExceeded, ModelError, PersonaError
from persona_mcp.state.model import Chunk, Sampling
from tests.config.model_calls import HELLO, Open, free_port, read, reply, stream
from tests.model_server import Behaviour, ModelServer

pytestmark = pytest.mark.anyio


async def test_a_reply_comes_in_pieces_and_only_the_last_says_that_it_ended(
    server: ModelServer, form: str, opened: Open
) -> None:
    chunks = await read(opened(server, form))

    assert "".join(chunk.text for chunk in chunks) == HELLO
    assert len(chunks) > 5
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1] == Chunk("", output_tokens=8, finish_reason="stop", input_tokens=10)


async def test_a_reply_that_used_up_its_tokens_says_length(
    server: ModelServer, form: str, opened: Open
) -> None:
    chunks = await read(opened(server, form), Sampling(max_tokens=3, temperature=0))

    last = Chunk("", output_tokens=3, finish_reason="length", input_tokens=10)
    assert chunks[-1] == last


async def test_a_server_with_another_word_for_it_says_length_too(
    server: ModelServer, opened: Open
) -> None:
    server.script(Behaviour(finish="max_tokens"))

    chunks = await read(opened(server, "openai:gpt"))

    assert chunks[-1].finish_reason == "length"


async def test_an_empty_reply_is_complete(server: ModelServer, form: str, opened: Open) -> None:
    server.script("empty")

    chunks = await read(opened(server, form))

    assert [(chunk.text, chunk.finish_reason) for chunk in chunks] == [("", "stop")]


async def test_an_older_ollama_ends_a_reply_without_a_reason(
    server: ModelServer, opened: Open
) -> None:
    server.script(Behaviour(finish=""))

    chunks = await read(opened(server, "ollama:llama3.1"))

    assert chunks[-1].finish_reason == "stop"


# The same limits hold for the good reply that follows, so they leave a busy machine time for it.
FAULTS = {
    "hang": (DeadlineExceeded, "first_token", {"first_token_s": 2}),
    "hang_after_headers": (DeadlineExceeded, "first_token", {"first_token_s": 2}),
    "silence": (DeadlineExceeded, "stream", {"idle_s": 2}),
    "slow": (DeadlineExceeded, "stream", {"total_s": 2}),
    "drop": (ModelError, "stream", {}),
    "drop_at_once": (ModelError, "first_token", {}),
    "no_finish": (ModelError, "stream", {}),
    "garbage": (ModelError, "first_token", {}),
    "garbage_later": (ModelError, "stream", {}),
    "wrong_shape": (ModelError, "first_token", {}),
    "not_http": (ModelError, "first_token", {}),
    "error_line": (ModelError, "stream", {}),
    "flood": (ModelError, "stream", {}),
    "filtered": (ModelError, "stream", {}),
    "500": (ModelError, "first_token", {}),
    "429": (ModelError, "first_token", {}),
    "401": (ModelError, "first_token", {}),
    "404": (ModelError, "first_token", {}),
    "400": (ModelError, "first_token", {}),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_names_model_and_stage_and_the_next_call_works(
    server: ModelServer, form: str, opened: Open, fault: str
) -> None:
    kind, stage, limits = FAULTS[fault]
    server.script(fault)
    model = opened(server, form, **limits)

    with pytest.raises(PersonaError) as failed:
        await read(model)

    error = failed.value
    assert type(error) is kind
    assert error.message.startswith(form)
    assert error.data["stage"] == stage
    assert (error.data["provider"], error.data["model"]) == tuple(form.split(":"))
    assert error.__cause__ is not None or fault in ("no_finish", "flood", "filtered")
    for hidden in ("/srv", "Traceback", "httpx", "langchain", "pydantic", "JSON"):
        assert hidden not in error.message
    assert await reply(model) == HELLO


@pytest.mark.parametrize(
    ("fault", "limit"),
    [("hang", "first_token_s"), ("silence", "idle_s"), ("slow", "total_s")],
)
async def test_a_deadline_names_its_limit_and_the_setting_that_moves_it(
    server: ModelServer, form: str, opened: Open, fault: str, limit: str
) -> None:
    server.script(fault)

    with pytest.raises(DeadlineExceeded) as failed:
        await read(opened(server, form, **{limit: 0.2}))

    assert failed.value.data["limit"] == limit
    assert failed.value.data["seconds"] == 0.2
    assert f"PERSONA_LLM__{limit.upper()}" in failed.value.message


@pytest.mark.parametrize("fault", ["hang", "hang_after_headers", "silence", "slow"])
async def test_a_deadline_stops_the_models_work(
    server: ModelServer, form: str, opened: Open, fault: str
) -> None:
    server.script(fault)

    with pytest.raises(DeadlineExceeded):
        await read(opened(server, form, first_token_s=0.3, idle_s=0.3, total_s=0.3))

    await server.requests[0].disconnected.wait()


async def test_closing_the_iterator_stops_the_models_work(
    server: ModelServer, form: str, opened: Open
) -> None:
    server.script("slow")
    model = opened(server, form)

    async with aclosing(stream(model)) as chunks:
        assert (await anext(chunks)).text == "again"

    await server.requests[0].disconnected.wait()
    assert await reply(model) == HELLO


@pytest.mark.parametrize("fault", ["hang", "hang_after_headers", "silence", "slow"])
async def test_cancelling_the_task_stops_the_models_work(
    server: ModelServer, form: str, opened: Open, fault: str
) -> None:
    server.script(fault)
    model = opened(server, form)

    task = asyncio.create_task(read(model))
    await server.arrived(1)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await server.requests[0].disconnected.wait()
    assert await reply(model) == HELLO


async def test_a_flood_is_stopped_at_its_limit(
    server: ModelServer, form: str, opened: Open
) -> None:
    server.script(Behaviour(text="again and " * 5000, delay_s=0.001))

    with pytest.raises(ModelError, match="more than 1000 characters"):
        await read(opened(server, form, max_reply_chars=1000), Sampling(20_000, 0.5))

    await server.requests[0].disconnected.wait()


@pytest.mark.parametrize("fault", ["429", "500"])
async def test_what_may_pass_is_tried_again_before_the_first_token(
    server: ModelServer, form: str, opened: Open, fault: str
) -> None:
    server.script(fault, fault)

    assert await reply(opened(server, form, retries=2, retry_wait_s=0.01)) == HELLO

    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", ["429", "500"])
async def test_the_last_try_brings_the_error(
    server: ModelServer, form: str, opened: Open, fault: str
) -> None:
    server.script(fault, fault)

    with pytest.raises(ModelError, match=fault) as failed:
        await read(opened(server, form, retries=1))

    assert failed.value.data["status"] == int(fault)
    assert len(server.requests) == 2


@pytest.mark.parametrize("fault", ["400", "401", "drop", "drop_at_once", "garbage", "no_finish"])
async def test_nothing_else_is_tried_again(
    server: ModelServer, form: str, opened: Open, fault: str
) -> None:
    server.script(fault)

    with pytest.raises(ModelError):
        await read(opened(server, form, retries=3))

    assert len(server.requests) == 1


async def test_tries_end_with_the_total_limit(server: ModelServer, form: str, opened: Open) -> None:
    server.script("500", "500", "500")

    with pytest.raises(ModelError, match="500"):
        await read(opened(server, form, retries=3, retry_wait_s=1, total_s=0.5))

    assert len(server.requests) == 1


async def test_a_refused_connection_says_how_to_start_the_server(form: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    given = LLMSettings(model=form, ollama_url=url, openai_url=url, retries=1, retry_wait_s=0)
    model = open_model(given)

    with pytest.raises(ModelError, match="cannot be reached") as failed:
        await read(model)

    assert failed.value.data["stage"] == "connect"
    assert ("ollama serve" if form.startswith("ollama") else "OPENAI_URL") in failed.value.message
    await model.aclose()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's rule for a full backlog")
async def test_a_connection_that_is_not_taken_is_a_deadline(form: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        port = deaf.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        url = f"http://127.0.0.1:{port}"
        model = open_model(
            LLMSettings(model=form, ollama_url=url, openai_url=url, connect_s=0.2, first_token_s=9)
        )

        with pytest.raises(DeadlineExceeded) as failed:
            await read(model)

        await model.aclose()
        for one in waiting:
            one.close()
    assert failed.value.data["stage"] == "connect"
    assert failed.value.data["limit"] == "connect_s"


async def test_no_more_replies_are_made_at_once_than_allowed(
    server: ModelServer, form: str, opened: Open
) -> None:
    server.default = Behaviour(delay_s=0.01)
    model = opened(server, form, concurrency=2)

    replies = await asyncio.gather(*(reply(model) for _ in range(6)))

    assert replies == [HELLO] * 6
    assert server.peak == 2


async def test_the_wait_for_a_place_has_a_limit(
    server: ModelServer, form: str, opened: Open
) -> None:
    server.script("slow")
    model = opened(server, form, concurrency=1, queue_s=0.2)

    async with aclosing(stream(model)) as chunks:
        await anext(chunks)
        with pytest.raises(DeadlineExceeded) as failed:
            await read(model)

    assert failed.value.data["stage"] == "queue"
    assert len(server.requests) == 1
    assert await reply(model) == HELLO


async def test_a_slow_reader_is_not_taken_for_a_silent_model(
    server: ModelServer, form: str, opened: Open
) -> None:
    model = opened(server, form, idle_s=0.2)

    async with aclosing(stream(model)) as chunks:
        first = await anext(chunks)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.4)
        rest = [chunk.text async for chunk in chunks]

    assert first.text + "".join(rest) == HELLO


async def test_thinking_aloud_is_life_but_no_token(server: ModelServer, opened: Open) -> None:
    server.script(Behaviour(thinking=60, delay_s=0.05))

    assert await reply(opened(server, "ollama:qwen3", first_token_s=2, idle_s=2)) == HELLO


async def test_each_call_writes_one_line(server: ModelServer, form: str, opened: Open) -> None:
    server.script("ok", "500")
    model = opened(server, form)

    with structlog.testing.capture_logs() as lines:
        await read(model)
        with pytest.raises(ModelError):
            await read(model)

    good, bad = lines
    assert (good["log_level"], good["tokens"], good["finish"]) == ("debug", 8, "stop")
    assert f"{good['provider']}:{good['model']}" == form
    assert good["seconds"] >= good["first_token_s"] >= 0
    assert (bad["error"], bad["first_token_s"], bad["tries"]) == ("llm_error", None, 1)


async def test_a_closed_model_opens_again(server: ModelServer, form: str, opened: Open) -> None:
    model = opened(server, form)

    await reply(model)
    await model.aclose()

    assert await reply(model) == HELLO


async def test_closing_a_model_that_was_never_used_does_nothing(form: str) -> None:
    from persona_mcp.config.llm import PROVIDERS

    kind, name = form.split(":")
    await open_model(LLMSettings(model=form)).aclose()
    await PROVIDERS[kind](LLMSettings(), name).aclose()


async def test_the_server_runs_in_a_process_of_its_own() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.model_server", "--text", "One.", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    model = open_model(LLMSettings(model="ollama:any", ollama_url=url))

    assert await reply(model) == "One."

    await model.aclose()
    process.terminate()
    await process.communicate()
