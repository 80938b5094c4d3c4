"""Traces by setting: off unless asked for, sent as OTLP to a real receiver, never in the way."""

import asyncio
import gzip
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from persona_mcp.config.settings import Settings
from persona_mcp.config.tracing import open_tracer, server_of
from persona_mcp.config.tracing_settings import TracingSettings
from persona_mcp.server.service import open_service
from persona_mcp.state.errors import NotConfigured
from tests.calls import call
from tests.doubles import ScriptedModel, WordEmbedder

pytestmark = pytest.mark.anyio


@dataclass
class Receiver:
    """A collector: reads OTLP as it comes over HTTP."""

    url: str = ""
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    async def take(self, request: Request) -> Response:
        body = await request.body()
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert request.headers["content-type"] == "application/x-protobuf"
        self.requests.append(ExportTraceServiceRequest.FromString(body))
        self.keys.append(request.headers.get("authorization"))
        return Response(media_type="application/x-protobuf")

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def names(self) -> set[str]:
        """Of the services that sent."""
        return {
            attribute.value.string_value
            for request in self.requests
            for resource in request.resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
        }


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = Starlette(routes=[Route("/v1/traces", found.take, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(30):
        while not server.started:
            await asyncio.sleep(0)
    port = server.servers[0].sockets[0].getsockname()[1]
    found.url = f"http://127.0.0.1:{port}/v1/traces"
    yield found
    server.should_exit = True
    await serving


def tracing_to(settings: Settings, **chosen: object) -> Settings:
    tracing = TracingSettings.model_validate(chosen)
    return settings.model_copy(update={"tracing": tracing})


async def test_a_receiver_is_sent_every_span_by_the_time_that_the_program_ends(
    settings: Settings, receiver: Receiver
) -> None:
    chosen = tracing_to(
        settings, endpoint=receiver.url, name="harbour", authorization=SecretStr("Bearer s3cret")
    )

    async with open_service(chosen, ScriptedModel(), WordEmbedder()) as service:
        await call(service, "persona_list")

    operations = [span for span in receiver.spans if span.name == "persona_list"]
    assert len(operations) == 1
    below = [one for one in receiver.spans if one.parent_span_id == operations[0].span_id]
    assert "sql read" in {one.name for one in below}
    assert {one.trace_id for one in below} == {operations[0].trace_id}
    assert receiver.names == {"harbour"}
    assert set(receiver.keys) == {"Bearer s3cret"}


async def test_a_receiver_that_is_not_there_neither_slows_nor_breaks_a_call(
    settings: Settings, free_port: int
) -> None:
    chosen = tracing_to(
        settings, endpoint=f"http://127.0.0.1:{free_port}/v1/traces", export_s=0.2, stop_s=0.2
    )

    async with open_service(chosen, ScriptedModel(), WordEmbedder()) as service:
        found = await call(service, "persona_list")
        began = time.monotonic()

    assert found["total_count"] > 0
    assert time.monotonic() - began < 20


@pytest.fixture
def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def test_without_the_extra_a_start_that_asks_for_traces_says_what_to_install(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    chosen = tracing_to(settings, endpoint="http://127.0.0.1:4318/v1/traces")

    with pytest.raises(NotConfigured, match=r"persona-mcp\[otel\]"):
        async with open_tracer(chosen):
            pass


OFF = """
import asyncio, sys
from pathlib import Path
from persona_mcp.config.settings import Settings
from persona_mcp.server.store import open_store
from persona_mcp.config.tracing import open_tracer
import persona_mcp.server.service

async def main():
    settings = Settings(_env_file=None, data_dir=Path(sys.argv[1]))
    async with open_tracer(settings) as tracer, open_store(settings, tracer) as store:
        assert store.metrics.tracer is None
    print([name for name in sys.modules if name.startswith("opentelemetry.exporter")
           or name == "persona_mcp.config.otel"])

asyncio.run(main())
"""


def test_without_the_setting_nothing_of_it_is_imported(settings: Settings) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OFF, str(settings.data_dir)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("url", "address", "port"),
    [
        ("http://127.0.0.1:11434", "127.0.0.1", 11434),
        ("https://user:key@api.example.com/v1", "api.example.com", 443),
        ("http://[::1]/x", "::1", 80),
    ],
)
def test_a_server_is_named_without_what_may_be_a_secret(url: str, address: str, port: int) -> None:
    assert server_of(url) == {"server.address": address, "server.port": port}
