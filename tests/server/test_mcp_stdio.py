"""The MCP door over stdio: the command as hosts start it."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from mcp import StdioServerParameters
from mcp.client import Client

from persona_mcp.server.cli.run import INTERRUPTED
from persona_mcp.server.operations.registry import operation_named
from tests.mcp_client import (
    CORE,
    LIMIT_S,
    WRONG,
    Era,
    Heard,
    connected,
    data_of,
    good,
    text_of,
)
from tests.model_server import Behaviour, ModelServer
from tests.processes import PERSONA, environment, variables

pytestmark = pytest.mark.anyio


def over_stdio(tmp_path: Path, url: str, **more: str) -> StdioServerParameters:
    given = environment(**variables(tmp_path / "data", url, **more))
    return StdioServerParameters(command=PERSONA, args=["mcp"], env=given)


async def the_whole_way(client: Client, server: ModelServer) -> None:
    """List, talk, search, be refused, fail, give up, and talk again."""
    assert len((await client.list_tools()).tools) == len(CORE)
    heard = Heard()
    message = {"persona_id": "aria", "message": "My cat is called Biscuit."}
    result = await client.call_tool("persona_chat", message, progress_callback=heard)
    jsonschema.validate(data_of(result), operation_named("persona_chat").output_schema)
    assert "".join(heard.texts) == text_of(result) == Behaviour().text
    assert heard.values == sorted(set(heard.values))
    found = await good(client, "memory_search", persona_id="aria", query="Biscuit")
    assert "My cat is called Biscuit." in [memory["content"] for memory in found["memories"]]

    assert "n_results" in text_of(await client.call_tool(*WRONG["text for an integer"][:2]))

    server.script("500")
    assert "openai:test" in text_of(await client.call_tool("persona_chat", message))

    server.script("hang")
    asked = len(server.requests)
    call = asyncio.create_task(client.call_tool("persona_chat", message))
    await server.arrived(asked + 1)
    call.cancel()
    await asyncio.wait([call])
    await server.requests[-1].disconnected.wait()
    assert (await good(client, "persona_chat", **message))["status"] == "done"


async def test_the_whole_way_over_stdio(tmp_path: Path, era: Era) -> None:
    async with ModelServer() as server:
        parameters = over_stdio(tmp_path, server.openai_url)
        async with connected(parameters, era) as client:
            await the_whole_way(client, server)


async def test_nothing_but_json_rpc_is_on_stdout_even_when_it_cannot_open(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    process = await asyncio.create_subprocess_exec(
        PERSONA,
        "mcp",
        env=environment(
            **variables(tmp_path / "data", "http://127.0.0.1:9", PERSONA_LOG__LEVEL="DEBUG")
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT_S):
        ask = talk(process.stdin, process.stdout)
        begun = await ask("initialize", HELLO)
        listed = await ask("tools/list", {})
        called = await ask("tools/call", {"name": "persona_list", "arguments": {}})
        process.stdin.close()
        rest = await process.stdout.read()
        await process.wait()

    assert begun["result"]["serverInfo"]["name"] == "persona"
    assert len(listed["result"]["tools"]) == len(CORE)
    assert called["result"]["isError"] is True
    assert "folder" in called["result"]["content"][0]["text"]
    assert (rest, process.returncode) == (b"", 0)


@pytest.mark.parametrize("asked", [False, True], ids=["nothing asked", "a reply under way"])
async def test_ctrl_c_ends_it_though_its_client_keeps_the_pipe_open(
    tmp_path: Path, asked: bool
) -> None:
    async with ModelServer("hang") as server:
        process = await asyncio.create_subprocess_exec(
            PERSONA,
            "mcp",
            env=environment(**variables(tmp_path / "data", server.openai_url)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async with asyncio.timeout(LIMIT_S):
                ask = talk(process.stdin, process.stdout)
                await ask("initialize", HELLO)
                message = {"persona_id": "aria", "message": "Hello."}
                called = {"name": "persona_chat", "arguments": message}
                if asked:
                    chat = asyncio.ensure_future(ask("tools/call", called))
                    await server.arrived(1)
                process.send_signal(signal.SIGINT)
                await process.wait()
                told = (await process.stderr.read()).decode()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            if asked:
                await asyncio.wait([chat])

    assert (process.returncode, told.splitlines()[-1]) == (INTERRUPTED, "stopped"), told
    assert "Traceback" not in told


HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


def talk(
    to: asyncio.StreamWriter, of: asyncio.StreamReader
) -> Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]:
    """Speak JSON-RPC by hand; every line that comes must be an answer."""
    count = 0

    async def ask(method: str, params: dict[str, Any]) -> dict[str, Any]:
        nonlocal count
        count += 1
        line = {"jsonrpc": "2.0", "id": count, "method": method, "params": params}
        to.write(json.dumps(line).encode() + b"\n")
        answer: dict[str, Any] = json.loads(await of.readline())
        assert (answer["jsonrpc"], answer["id"]) == ("2.0", count)
        if method == "initialize":
            to.write(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}\n')
        return answer

    return ask
