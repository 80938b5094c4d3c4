"""Traces by setting: whether they are to be written, and whether they can be.

Nothing here needs OpenTelemetry; `persona_mcp.config.otel` does.
"""

import asyncio
import importlib
import importlib.util
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from persona_mcp.config.settings import Settings
from persona_mcp.state.errors import NotConfigured
from persona_mcp.state.watching import Facts, Tracer

NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
PORTS = {"http": 80, "https": 443}


@asynccontextmanager
async def open_tracer(settings: Settings) -> AsyncIterator[Tracer | None]:
    """Give what writes spans; None where the settings ask for none, and nothing is imported then.

    Raises:
        NotConfigured: The extra for it is not installed.
    """
    if not settings.tracing.endpoint:
        yield None
        return
    await asyncio.to_thread(check_extra)
    otel = await asyncio.to_thread(importlib.import_module, "persona_mcp.config.otel")
    tracer = otel.sending(settings.tracing, servers_of(settings))
    try:
        yield tracer
    finally:
        await asyncio.to_thread(tracer.close, settings.tracing.stop_s)


def check_extra() -> None:
    """Make sure that the extra for traces is installed.

    Raises:
        NotConfigured: It is not; the message says what to install.
    """
    for name in NEEDED:
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise NotConfigured(
                "PERSONA_TRACING__ENDPOINT names where traces go, and what writes them is not "
                "installed: pip install 'persona-mcp[otel]'; without the variable none are written"
            )


def servers_of(settings: Settings) -> Mapping[str, Facts]:
    """Return what spans say of the servers of models, by provider."""
    urls = {
        "ollama": settings.llm.ollama_url,
        "openai": settings.llm.openai_url,
        "embedder ollama": settings.embedder.ollama_url,
        "embedder openai": settings.embedder.openai_url,
    }
    return {provider: server_of(url) for provider, url in urls.items()}


def server_of(url: str) -> Facts:
    """Return a server's name and port; whatever else an address has may be a secret."""
    parts = urlsplit(url)
    return {
        "server.address": parts.hostname or "",
        "server.port": parts.port or PORTS[parts.scheme],
    }
