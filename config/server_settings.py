"""The settings of the server's doors: where they are, who may come in, and their limits."""

from pydantic import Field

from persona_mcp.config.section import Seconds, Section


class ServerSettings(Section):
    """`persona serve`: the HTTP doors."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        max_length=255,
        description="Address to listen on; at one that others reach, callers need a token",
    )
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0: a free one")
    allowed_hosts: list[str] = Field(
        [],
        description="Further Host headers that are answered, as name or name:port (name:* for all)",
    )
    allowed_origins: list[str] = Field(
        [],
        description="Further origins whose web pages may call and read the answers (CORS), as "
        "https://name[:port] (https://name:* for all ports)",
    )
    max_body_bytes: int = Field(
        8 * 1024 * 1024,
        ge=1024,
        le=1 << 30,
        description="Longest request body, in bytes; a document of 4 MiB as base64 fits",
    )
    head_bytes: int = Field(
        64 * 1024,
        ge=1024,
        le=1 << 24,
        description="Address and headers of a request together, in bytes",
    )
    head_fields: int = Field(100, ge=10, le=10_000, description="Headers of a request")
    head_s: Seconds = Field(
        20.0,
        description="A connection that has not sent a request's headers within this long is "
        "closed, in seconds",
    )
    grace_s: Seconds = Field(
        30.0,
        description="A reply whose caller is gone is made on for this long, then stopped, in "
        "seconds",
    )
    heartbeat_s: float = Field(
        10.0, ge=0.05, le=60, description="A silent stream shows life this often, in seconds"
    )
    keep_alive_s: int = Field(
        75,
        ge=1,
        le=3600,
        description="An idle connection is kept open for this long, in seconds; let it be longer "
        "than callers keep theirs, or one is closed as its next request arrives",
    )
    send_s: Seconds = Field(
        30.0, description="A reader who takes nothing for this long is gone, in seconds"
    )
    streams_kept_s: Seconds = Field(
        60.0, description="An ended stream can be read again for this long, in seconds"
    )
    streams_kept: int = Field(
        1000, ge=1, le=100_000, description="Ended streams kept at once; the oldest go first"
    )
    stop_s: Seconds = Field(
        10.0, description="On SIGTERM running replies may go on for this long, in seconds"
    )
    close_s: Seconds = Field(
        15.0,
        description="After that everything is closed within this time, or the process ends as it "
        "is, in seconds; what is stored stays stored",
    )
    mcp_sessions: int = Field(
        10_000, ge=1, le=1_000_000, description="Open MCP sessions of the handshake era"
    )
    mcp_session_idle_s: Seconds = Field(
        1800.0, description="Such a session that is silent for this long is closed, in seconds"
    )
    check_s: Seconds = Field(2.0, description="Limit of each check of /health/ready, in seconds")
    checks_kept_s: float = Field(
        5.0, ge=0, le=3600, description="/health/ready answers from the last check for this long"
    )
    metrics_s: Seconds = Field(
        2.0,
        description="Limit of counting what /metrics tells of the database; after it the last "
        "numbers are told, in seconds",
    )
    metrics_kept_s: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="/metrics counts in the database again after this long, in seconds",
    )


class WebSocketSettings(Section):
    """The WebSocket door of `persona serve`: JSON-RPC at /ws and, for old clients, at /mcp."""

    frame_bytes: int = Field(
        1024 * 1024,
        ge=1024,
        le=1 << 28,
        description="Longest message that is read, in bytes; one of twice that ends the connection",
    )
    connections: int = Field(1000, ge=1, le=100_000, description="Open connections at once")
    in_flight: int = Field(8, ge=1, le=1000, description="Requests of one connection done at once")
    queued: int = Field(
        64, ge=0, le=10_000, description="Further ones that wait; those beyond are refused"
    )
    idle_s: Seconds = Field(
        300.0, description="A connection that asks for nothing for this long is closed, in seconds"
    )
    ping_s: Seconds = Field(
        30.0,
        description="A connection is looked after this often; one that does not answer within as "
        "long is gone; in seconds",
    )
