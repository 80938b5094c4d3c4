"""The faulty model server, both forms of it, and models on it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from persona_mcp.config.llm import open_model
from persona_mcp.state.model import ChatModel
from tests.config.model_calls import Open, settings
from tests.model_server import ModelServer


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer() as running:
        yield running


@pytest.fixture(params=["ollama:llama3.1", "openai:llama3.1"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    models: list[ChatModel] = []

    def make(server: ModelServer, model: str, **more: Any) -> ChatModel:
        models.append(open_model(settings(server, model, **more)))
        return models[-1]

    yield make
    for model in models:
        await model.aclose()
