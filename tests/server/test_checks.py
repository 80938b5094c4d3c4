"""The doctor's checks, one by one."""

import pytest

from persona_mcp.server import checks
from persona_mcp.server.cli_personas import call
from persona_mcp.server.service import Service
from persona_mcp.state.errors import ModelError
from tests.doubles import ScriptedModel

pytestmark = pytest.mark.anyio


async def test_a_part_that_fails_says_why_and_is_not_ok() -> None:
    async def broken() -> str:
        raise ModelError("ollama does not answer; start it with `ollama serve`")

    found = await checks.tried("model", broken)

    assert (found.ok, found.detail) == (
        False,
        "ollama does not answer; start it with `ollama serve`",
    )


async def test_each_part_is_really_used(service: Service, model: ScriptedModel) -> None:
    model.add("Hello there")

    assert "sound; 0 exchanges" in await checks.database(service)
    assert "exact" in await checks.index(service)
    assert "64 dimensions" in await checks.embedder(service.embedder)
    assert "'Hello there'" in await checks.model(service.model)


async def test_the_command_line_needs_no_model_to_list_personas(service: Service) -> None:
    found = await call(service.settings, "persona_list")

    assert [p["name"] for p in found["personas"]] == ["Aria", "Kira", "Noor"]
