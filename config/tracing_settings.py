"""The settings of traces: where to, and of how many calls."""

from pydantic import Field, SecretStr

from persona_mcp.config.section import Seconds, Section


class TracingSettings(Section):
    """Traces for OpenTelemetry, of every call with its steps; never of what is said."""

    endpoint: str = Field(
        "",
        pattern=r"^(https?://(\[[0-9a-fA-F:.]+\]|[^\s/:@\[\]]+)(:\d{1,5})?(/[^\s@]*)?)?$",
        description="Where traces go, as OTLP over HTTP (extra `otel`); empty writes none",
        json_schema_extra={
            "allowed": "http[s]://host[:port][/path], such as http://127.0.0.1:4318/v1/traces, or "
            "empty"
        },
    )
    authorization: SecretStr = Field(
        SecretStr(""), description="Header Authorization for it; empty sends none"
    )
    share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of calls that are traced; a caller that traces its own decides itself",
    )
    name: str = Field(
        "persona-mcp", min_length=1, max_length=100, description="Name of the service in traces"
    )
    export_s: Seconds = Field(5.0, description="Limit of one request to it, in seconds")
    queued: int = Field(
        2048, ge=1, le=1_000_000, description="Spans that wait to be sent; more are dropped"
    )
    stop_s: Seconds = Field(
        2.0, description="Limit of sending what waits when the program ends, in seconds"
    )
