"""Secrets stay where they are: no door answers one, and no log, error or number has one."""

import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import redirect_stderr
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import LogSettings, Settings
from persona_mcp.config.variables import variables_of
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.rest import PREFIX, path_of
from persona_mcp.server.service import Service, open_service
from tests.doubles import ScriptedModel, WordEmbedder
from tests.http_server import API, STREAM
from tests.rpc_client import connected
from tests.tokens import bearer, guarded, showing, token_of

pytestmark = pytest.mark.anyio

PLANTED = "zqplantedsecret"
PAGES = ("/", "/health/live", "/health/ready", "/metrics", "/openapi.json", "/nothing")
EVERY = [PREFIX + path_of(operation.name) for operation in operations("all")]
SECRETS = [variable.path for variable in variables_of(Settings) if variable.secret]


def planting(settings: Settings) -> Settings:
    """Give every setting that is a secret one that is easily found again."""
    changed: dict[str, Any] = {}
    for number, (section, field) in enumerate(SECRETS):
        if section == "database":  # its address is one that must be there
            continue
        its = changed.get(section, getattr(settings, section))
        planted = f"{PLANTED}{number}"
        if field == "storage_url":  # of a Redis that does not answer
            planted = f"redis://:{planted}@127.0.0.1:1"
        changed[section] = its.model_copy(update={field: SecretStr(planted)})
    return settings.model_copy(update=changed)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that is logged, of the least severe level too."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with redirect_stderr(io.StringIO()) as written:
        configure_logging(LogSettings(level="DEBUG", format="json"))
        yield written
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
async def planted(settings: Settings, log: io.StringIO) -> AsyncIterator[Service]:
    async with open_service(planting(settings), ScriptedModel("Hello."), WordEmbedder()) as opened:
        yield opened


def test_there_are_settings_that_are_secrets() -> None:
    assert ("llm", "openai_api_key") in SECRETS


async def test_no_door_tells_a_secret(planted: Service, log: io.StringIO) -> None:
    token = await token_of(planted)
    ended = await token_of(planted, "ended")
    await planted.tokens.revoke("ended", 1.0)
    forged = f"eyJhbGciOiJub25lIn0.{PLANTED}."
    told = []
    async with guarded(planted) as found:
        for shown in (token, ended, forged):
            async with showing(found, shown) as client:
                told += [await client.get(path) for path in PAGES]
                told += [await client.post(path) for path in EVERY]
                told.append(await client.post("/mcp", json={"jsonrpc": "2.0", "method": "x"}))
                told.append(await client.get(f"{STREAM}/{'f' * 32}"))
        async with showing(found, token) as client:
            listed = await client.post(f"{API}/persona/list")
            asked = {"persona_id": "aria", "message": "Hello."}
            told.append(await client.post(STREAM, json=asked))
        async with connected(found, additional_headers=bearer(token)) as socket:
            frames = [await socket.ask(name) for name in ("rpc.discover", "system.metrics", "x.y")]

    assert listed.status_code == 200
    everything = "\n".join(
        [answer.text + str(answer.headers) for answer in told] + [json.dumps(frames)]
    )
    for secret in (token, ended, PLANTED):
        assert secret not in everything
        assert secret not in log.getvalue()
    assert "persona_operation_seconds" in everything
    assert log.getvalue()
