"""Sessions do not mix: whatever others do meanwhile, each talks to the persona that it chose."""

from typing import Any

import pytest

from persona_mcp.config.settings import Settings
from persona_mcp.server.operations import call_operation
from persona_mcp.server.service import open_service
from persona_mcp.state import tables
from tests.calls import rows
from tests.doubles import WordEmbedder
from tests.sessions import EchoModel, check, drive

pytestmark = pytest.mark.anyio


@pytest.mark.timeout(180)
async def test_two_hundred_sessions_that_switch_and_talk_at_once_never_mix(
    settings: Settings,
) -> None:
    async with open_service(settings, EchoModel(), WordEmbedder()) as service:

        async def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
            return await call_operation(service, name, arguments)

        said = await drive(call, seed=20261125)

        await check(call, said)
        stored = await rows(service.database, tables.Exchange)
        assert {e["id"]: e["persona_id"] for e in stored} == {
            one.reply["exchange_id"]: one.persona.lower() for one in said
        }
        assert len(await rows(service.database, tables.Session)) == 200
        assert len(said) > 80
