import asyncio

import pytest
import structlog

from persona_mcp.config.settings import LLMSettings
from persona_mcp.state.errors import ModelError, NotConfigured
from persona_mcp.state.model import Sampling
from tests.config.model_calls import HELLO, Open, free_port, read, reply, settings
from tests.model_server import Behaviour, ModelServer

pytestmark = pytest.mark.anyio


async def test_ollama_gets_the_whole_sampling(server: ModelServer, opened: Open) -> None:
    sampling = Sampling(40, 0.7, 0.9, 30, 0.1, 1.1, ("\n", "Sam:"), 7)

    await read(opened(server, "ollama:llama3.1", context_tokens=4096), sampling)

    body = server.requests[0].body
    assert body["messages"] == [
        {"role": "system", "content": "You are Aria."},
        {"role": "user", "content": "Hello."},
    ]
    assert body["model"] == "llama3.1"
    assert body["options"] == {
        "num_ctx": 4096,
        "num_predict": 40,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 30,
        "min_p": 0.1,
        "repeat_penalty": 1.1,
        "seed": 7,
        "stop": ["\n", "Sam:"],
    }


async def test_openai_gets_what_its_protocol_has(server: ModelServer, opened: Open) -> None:
    sampling = Sampling(40, 0.7, 0.9, 30, 0.1, 1.1, ("\n", "Sam:"), 7)

    await read(opened(server, "openai:gpt", openai_api_key="secret"), sampling)

    request = server.requests[0]
    assert request.headers["authorization"] == "Bearer secret"
    assert {k: v for k, v in request.body.items() if k != "messages"} == {
        "model": "gpt",
        "max_tokens": 40,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["\n", "Sam:"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


SCHEMA = {"type": "object", "properties": {"warmth": {"enum": [-1, 0, 1]}}}


async def test_a_schema_goes_along_as_each_server_has_it(server: ModelServer, opened: Open) -> None:
    sampling = Sampling(40, 0.0, schema=SCHEMA)

    await read(opened(server, "ollama:llama3.1"), sampling)
    await read(opened(server, "openai:gpt"), sampling)

    ollama, openai = (request.body for request in server.requests)
    assert ollama["format"] == SCHEMA
    assert openai["stream"] is True
    assert openai["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA},
    }


async def test_a_proxy_of_the_environment_is_not_for_this_machine(
    server: ModelServer, form: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")

    assert await reply(opened(server, form)) == HELLO


async def test_openais_own_address_gets_its_own_name_for_the_length() -> None:
    from persona_mcp.config.llm_providers import OpenAIProvider

    arguments = OpenAIProvider(LLMSettings(), "gpt").arguments(Sampling(40, 0.7))

    assert arguments == {"temperature": 0.7, "max_tokens": 40}
    shaped = OpenAIProvider(LLMSettings(), "gpt").arguments(Sampling(40, 0.7, schema=SCHEMA))
    assert shaped["max_tokens"] == 40
    assert list(shaped["extra_body"]) == ["response_format"]


async def test_the_correlation_id_goes_along(server: ModelServer, form: str, opened: Open) -> None:
    with structlog.contextvars.bound_contextvars(correlation_id="abc-1"):
        await read(opened(server, form))

    assert server.requests[0].headers["x-correlation-id"] == "abc-1"


async def test_info_tells_the_model_and_its_prompt_style(
    server: ModelServer, form: str, opened: Open
) -> None:
    plain = await opened(server, form, context_tokens=4096).info()
    small = await opened(server, form, profile="small").info()

    assert (plain.id, plain.context_tokens, plain.small) == (form, 4096, False)
    assert small.small


async def test_check_finds_the_model_without_generating(
    server: ModelServer, form: str, opened: Open
) -> None:
    assert form in await opened(server, form).check()
    assert server.requests == []


async def test_check_of_a_model_that_was_not_pulled_names_the_command(
    server: ModelServer, opened: Open
) -> None:
    with pytest.raises(NotConfigured, match="`ollama pull qwen3`"):
        await opened(server, "ollama:qwen3").check()


@pytest.mark.parametrize("fault", ["500", "hang", "hang_after_headers", "not_http", "drop"])
async def test_check_of_a_server_that_fails_is_an_error(
    server: ModelServer, form: str, opened: Open, fault: str
) -> None:
    server.listing = server.named(fault)

    with pytest.raises(ModelError, match=form):
        await opened(server, form, probe_s=0.2).check()


@pytest.mark.parametrize("fault", ["garbage", "wrong_shape"])
async def test_check_of_something_that_is_not_ollama_is_an_error(
    server: ModelServer, opened: Open, fault: str
) -> None:
    server.listing = server.named(fault)

    with pytest.raises(ModelError, match=r"ollama:llama3\.1"):
        await opened(server, "ollama:llama3.1").check()


async def test_check_with_a_wrong_key_says_so(server: ModelServer, opened: Open) -> None:
    server.listing = server.named("401")

    with pytest.raises(ModelError, match="PERSONA_LLM__OPENAI_API_KEY"):
        await opened(server, "openai:gpt").check()


async def test_a_server_without_a_list_of_models_is_reachable(
    server: ModelServer, opened: Open
) -> None:
    server.listing = server.named("404")

    assert "reachable" in await opened(server, "openai:gpt").check()


@pytest.mark.parametrize(
    ("fault", "advice"), [("401", "PERSONA_LLM__OPENAI_API_KEY"), ("404", "model's name")]
)
async def test_openai_refusals_name_what_to_set(
    server: ModelServer, opened: Open, fault: str, advice: str
) -> None:
    server.script(fault)

    with pytest.raises(ModelError, match=advice):
        await read(opened(server, "openai:gpt"))


async def test_a_model_that_ollama_lost_names_the_command(
    server: ModelServer, opened: Open
) -> None:
    server.script("404")

    with pytest.raises(ModelError, match=r"`ollama pull llama3\.1`"):
        await read(opened(server, "ollama:llama3.1"))


async def test_a_prompt_that_is_too_long_says_so(
    server: ModelServer, form: str, opened: Open
) -> None:
    server.script(Behaviour(status=400, text="the context is full"))

    with pytest.raises(ModelError, match=r"context of 8192 tokens.*PERSONA_LLM__CONTEXT_TOKENS"):
        await read(opened(server, form))


async def test_auto_takes_ollamas_newest_chat_model_once(opened: Open) -> None:
    names = ["nomic-embed-text:latest", "bge-m3:latest", "qwen3:8b", "llama3.1:latest"]
    async with ModelServer(models=names) as server:
        model = opened(server, "auto")

        with structlog.testing.capture_logs() as lines:
            found = await asyncio.gather(model.info(), model.info(), model.check())

    assert found[0].id == found[1].id == "ollama:qwen3:8b"
    assert "ollama:qwen3:8b" in found[2]
    assert [(line["log_level"], line["model"]) for line in lines] == [("info", "ollama:qwen3:8b")]


@pytest.mark.parametrize("fault", ["none", "500", "hang", "garbage", "wrong_shape", "no models"])
async def test_auto_falls_back_to_the_embedded_model(fault: str) -> None:
    from persona_mcp.config.llm import take_what_is_there

    async with ModelServer(models=["nomic-embed-text:latest"]) as server:
        if fault not in ("none", "no models"):
            server.listing = server.named(fault)
        given = settings(server, "auto", probe_s=0.2)
        if fault == "none":
            given = LLMSettings(ollama_url=f"http://127.0.0.1:{free_port()}")
        chosen = await take_what_is_there(given)

    assert chosen.info.id == "embedded:smollm2"
    assert chosen.info.small
