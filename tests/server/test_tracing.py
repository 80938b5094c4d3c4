"""What a trace of a call says: its door, its steps in their order, and nothing that was said."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mcp_types import CallToolRequestParams
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.contextvars import get_contextvars

from persona_mcp.config.otel import OtelTracer, provider_of
from persona_mcp.config.settings import Settings
from persona_mcp.config.tracing import servers_of
from persona_mcp.config.tracing_settings import TracingSettings
from persona_mcp.server.door_watch import CARRIED, called_at, carrier_of, door_of
from persona_mcp.server.service import Service, open_service
from persona_mcp.state.errors import ModelError, NotFound
from tests.calls import call, say
from tests.doubles import Fails, Says, ScriptedModel, WordEmbedder
from tests.http_server import CHAT, served
from tests.rpc_client import connected

pytestmark = pytest.mark.anyio

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CARRIER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
SAID, REPLIED = "Where did the lighthouse keeper go?", "Up the stairs, as every evening."


class Spans:
    """A provider that keeps what it is given."""

    def __init__(self, share: float = 1.0) -> None:
        self._kept = InMemorySpanExporter()
        self.provider: TracerProvider = provider_of(TracingSettings(share=share))
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.tracer = OtelTracer(self.provider, servers_of(Settings(_env_file=None)))

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self._kept.get_finished_spans())

    def named(self, name: str) -> ReadableSpan:
        return next(span for span in self.all if span.name == name)

    def path(self, span: ReadableSpan) -> list[str]:
        """Name the spans above a span, the nearest first."""
        by_id = {one.context.span_id: one for one in self.all if one.context}
        names, above = [], span.parent
        while above is not None and above.span_id in by_id:
            names.append(by_id[above.span_id].name)
            above = by_id[above.span_id].parent
        return names


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
async def traced(settings: Settings, model: ScriptedModel, spans: Spans) -> AsyncIterator[Service]:
    async with open_service(settings, model, WordEmbedder(), tracer=spans.tracer) as opened:
        yield opened


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_an_exchange_is_one_trace_from_the_door_to_the_model(
    traced: Service, model: ScriptedModel, spans: Spans
) -> None:
    model.add(Says(REPLIED, tokens=7))
    async with served(traced) as found, found.client() as client:
        body = {"persona_id": "aria", "message": SAID}
        headers = {**CARRIER, "X-Correlation-ID": "mine-1"}
        answer = await client.post(CHAT, json=body, headers=headers)
    assert answer.status_code == 200

    door, reply = spans.named("POST rest"), spans.named("chat large")
    assert door.parent and f"{door.parent.span_id:016x}" == PARENT
    assert facts(door) == {
        "http.request.method": "POST",
        "persona.door": "rest",
        "http.response.status_code": 200,
        "persona.correlation_id": "mine-1",
    }
    assert spans.path(reply) == ["conversation generate", "persona_chat", "POST rest"]
    assert spans.path(spans.named("conversation persist"))[0] == "persona_chat"
    written = [span for span in spans.all if span.name == "sql write"]
    assert ["conversation persist"] in [spans.path(span)[:1] for span in written]
    its = [span for span in spans.all if span.context and f"{span.context.trace_id:032x}" == TRACE]
    assert {"sql read", "embeddings double-64", "conversation load"} <= {one.name for one in its}
    assert all(facts(one)["persona.correlation_id"] == "mine-1" for one in its)


async def test_a_reply_is_described_as_the_conventions_for_generative_ai_have_it(
    traced: Service, model: ScriptedModel, spans: Spans
) -> None:
    model.add(Says(REPLIED, tokens=7))
    await say(traced, SAID)

    its = facts(spans.named("chat large"))
    assert its["gen_ai.operation.name"] == "chat"
    assert its["gen_ai.request.model"] == "large"
    assert its["gen_ai.provider.name"] == "scripted"
    assert its["gen_ai.usage.output_tokens"] == 7
    assert its["gen_ai.response.finish_reasons"] == ("stop",)
    assert its["gen_ai.response.time_to_first_chunk"] > 0
    embedded = facts(spans.named("embeddings double-64"))
    assert embedded["gen_ai.operation.name"] == "embeddings"


async def test_no_span_has_anything_in_it_that_was_said(
    traced: Service, model: ScriptedModel, spans: Spans
) -> None:
    model.add(REPLIED, Fails(ModelError(f"the server said {SAID}")))
    await say(traced, SAID)
    with pytest.raises(ModelError):
        await say(traced, SAID)

    told = json.dumps([json.loads(span.to_json()) for span in spans.all])
    assert "lighthouse" not in told and "stairs" not in told
    assert str(traced.settings.data_dir) not in told


async def test_what_fails_is_marked_with_the_code_of_its_error(
    traced: Service, spans: Spans
) -> None:
    with pytest.raises(NotFound):
        await call(traced, "persona_get", persona_id="nobody")

    failed = spans.named("persona_get")
    assert facts(failed)["error.type"] == "not_found"
    assert not failed.status.is_ok and not failed.status.description
    assert not failed.events


async def test_a_model_that_fails_ends_its_span_with_the_code(
    traced: Service, model: ScriptedModel, spans: Spans
) -> None:
    model.add(Fails(ModelError("gone"), after="Good"))
    with pytest.raises(ModelError):
        await say(traced, SAID)

    assert facts(spans.named("chat large"))["error.type"] == "llm_error"
    assert facts(spans.named("conversation generate"))["error.type"] == "llm_error"


async def test_log_lines_of_a_call_have_its_trace(traced: Service, spans: Spans) -> None:
    with spans.tracer.call("stdio", CARRIER, {}):
        inside = dict(get_contextvars())

    assert inside["trace_id"] == TRACE
    assert "trace_id" not in get_contextvars()


async def test_over_websocket_the_trace_is_taken_over_from_the_call(
    traced: Service, spans: Spans
) -> None:
    async with served(traced) as found, connected(found) as client:
        await client.ask("persona.list", {"_meta": CARRIER})
        await client.ask("persona.get", {"persona_id": "nobody"})

    mine = [one for one in spans.all if one.context and f"{one.context.trace_id:032x}" == TRACE]
    assert {one.name for one in mine} >= {"websocket", "persona_list"}
    doors = [one for one in spans.all if one.name == "websocket"]
    assert [facts(one).get("error.type") for one in doors] == [None, "not_found"]


async def test_over_stdio_a_call_is_counted_and_goes_on_with_the_callers_trace(
    traced: Service, spans: Spans
) -> None:
    params = CallToolRequestParams(name="persona_list", _meta=CARRIER)
    with called_at(traced.metrics, None, params.meta):
        await call(traced, "persona_list")

    assert spans.path(spans.named("persona_list")) == ["stdio"]
    found = traced.metrics.samples()["persona_requests_total"]
    assert ({"door": "stdio", "status": "200"}, 1.0) in found
    assert facts(spans.named("stdio"))["persona.door"] == "stdio"


async def test_who_looks_after_the_process_leaves_no_trace(traced: Service, spans: Spans) -> None:
    async with served(traced) as found, found.client() as client:
        for path in ("/health/live", "/metrics"):
            assert (await client.get(path)).status_code == 200

    assert not [one for one in spans.all if one.name.startswith("GET")]


async def test_a_share_of_nothing_writes_nothing_but_what_a_caller_traces(
    settings: Settings, model: ScriptedModel
) -> None:
    spans = Spans(share=0.0)
    async with open_service(settings, model, WordEmbedder(), tracer=spans.tracer) as service:
        await call(service, "persona_list")
        assert spans.all == []
        with spans.tracer.call("stdio", CARRIER, {}):
            await call(service, "persona_list")

    assert {one.name for one in spans.all} >= {"stdio", "persona_list"}


async def test_runs_at_the_same_time_keep_their_traces_apart(
    traced: Service, model: ScriptedModel, spans: Spans
) -> None:
    model.add("One.", "Two.", "Three.")
    await asyncio.gather(*(say(traced, f"{SAID} {n}", user_id=f"u{n}") for n in range(3)))

    replies = [span for span in spans.all if span.name == "chat large"]
    traces = {span.context.trace_id for span in replies if span.context}
    assert len(traces) == len(replies) == 3


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, {}),
        ({"_meta": CARRIER}, CARRIER),
        (CARRIER, CARRIER),
        ({"_meta": {"traceparent": 7}}, {}),
        ({"_meta": "x"}, {}),
    ],
)
def test_only_what_says_where_a_trace_is_is_carried(given: Any, found: Any) -> None:
    assert carrier_of(given) == found
    assert set(carrier_of(given)) <= set(CARRIED)


@pytest.mark.parametrize(
    ("path", "door"),
    [
        ("/", "page"),
        ("/mcp", "mcp"),
        ("/x/all/mcp", "mcp"),
        ("/api/v1/persona/chat", "rest"),
        ("/api/v1/persona/chat_stream/abc", "stream"),
        ("/health/ready", "health"),
        ("/metrics", "metrics"),
        ("/wp-login.php", "other"),
    ],
)
def test_every_path_belongs_to_one_of_a_few_doors(path: str, door: str) -> None:
    assert door_of(path) == door


def test_a_wrong_trace_of_a_caller_begins_a_new_one(
    spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), spans.tracer.call("stdio", {"traceparent": "00-zz"}, {}):
        pass

    assert spans.named("stdio").parent is None
