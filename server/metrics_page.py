"""The page of all numbers that /metrics tells, made from the list of them."""

from collections.abc import Iterable

from persona_mcp.server.metric_families import FAMILIES, PROCESS, Family

HEAD = """\
# Metrics

Made from `server/metric_families.py` by `make docs`; do not edit.

`GET /metrics` tells them in Prometheus' text format, the operation `system_metrics` as numbers too.
Each process counts for itself since its start; times are in seconds, sizes in bytes. No label has a
world, a persona, a caller or a text in it, so there are never more lines than this page allows.

What is looked up in the database is looked up at most every `PERSONA_SERVER__METRICS_KEPT_S`
seconds, when somebody asks; if that takes longer than `PERSONA_SERVER__METRICS_S`, the last numbers
are told, and `persona_gather_errors_total` counts it. Worlds of batches, which are held in memory,
count in the model's numbers and the embedder's, not in those of nodes and SQL.

`packaging/grafana/dashboards/persona.json` is a dashboard of these, and
`packaging/prometheus/alerts.yml` has rules that say when somebody should look, and what to do.
"""
TRACES = """\
## Traces

With `PERSONA_TRACING__ENDPOINT`, and the extra `otel` installed, every call is a trace, sent as OTLP
over HTTP: the door (`POST rest`, `POST mcp`, `websocket`, `stdio`), the operation, each node of its
graph, each transaction, each call of the embedder and of the model. A caller's trace is taken over
from the header `traceparent`, over stdio and WebSocket from `_meta.traceparent` of the call. Each
span has `persona.correlation_id`; lines of the log have `trace_id`.

| span | attributes |
|---|---|
| door | `persona.door`, `http.request.method`, `http.response.status_code` |
| operation | `persona.operation` |
| node of a graph | `persona.node` |
| transaction | `db.operation.name`: `read` or `write` |
| `chat MODEL` | `gen_ai.operation.name`, `gen_ai.request.model`, `gen_ai.provider.name`, `gen_ai.request.max_tokens`, `gen_ai.request.temperature`, `gen_ai.usage.input_tokens`, `gen_ai.usage.output_tokens`, `gen_ai.response.finish_reasons`, `gen_ai.response.time_to_first_chunk`, `server.address`, `server.port` |
| `embeddings MODEL` | `gen_ai.operation.name`, `gen_ai.request.model`, `gen_ai.provider.name`, `persona.texts`, `server.address`, `server.port` |

A span that failed has the error's code as `error.type`, and not its message. No prompt, no reply, no
name and no path is in any of them. Without the setting OpenTelemetry is not even imported.
"""  # noqa: E501 - a table's line


def metrics_page() -> str:
    """Write the page."""
    return (
        "\n".join(
            [
                HEAD,
                "## What is counted\n",
                *table(FAMILIES),
                "\n## What the system tells of the process (Linux)\n",
                *table(PROCESS),
                "",
                TRACES,
            ]
        ).rstrip()
        + "\n"
    )


def table(families: Iterable[Family]) -> list[str]:
    """Write a table of numbers."""
    rows = ["| name | kind | labels | meaning |", "|---|---|---|---|"]
    for family in families:
        labels = "; ".join(f"`{name}`: {values}" for name, values in family.labels.items())
        rows.append(f"| `{family.shown}` | {family.kind} | {labels} | {family.about} |")
    return rows
