"""The settings of SQL: where the record of everything is, and the limits of every wait for it."""

from pydantic import Field, SecretStr, field_validator

from persona_mcp.config.section import Seconds, Section

SCHEMES = ("postgresql://", "postgres://")
ADDRESS = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or empty"


class DatabaseSettings(Section):
    """SQL: the record of everything."""

    url: SecretStr = Field(
        SecretStr(""),
        description="PostgreSQL server; empty: SQLite in the data folder",
        json_schema_extra={"allowed": ADDRESS},
    )
    busy_s: Seconds = Field(10.0, description="Wait for another process's write, in seconds")
    queue_s: Seconds = Field(
        30.0, description="Limit of the wait for this process's other reads or writes, in seconds"
    )
    upgrade_s: Seconds = Field(60.0, description="Wait for another process's migration, in seconds")
    connect_s: float = Field(
        5.0, ge=2, le=600, description="Limit of connecting to PostgreSQL, in seconds"
    )
    statement_s: float = Field(
        30.0, ge=1, le=3600, description="Limit of one statement on PostgreSQL, in seconds"
    )
    idle_s: float = Field(
        15.0,
        ge=1,
        le=3600,
        description="PostgreSQL ends a transaction that is silent for this long, so that a process "
        "that stands still holds up no other, in seconds",
    )
    pool_s: Seconds = Field(
        10.0, description="Limit of the wait for a free connection to PostgreSQL, in seconds"
    )
    age_s: float = Field(
        1800.0,
        ge=1,
        le=86400,
        description="A connection to PostgreSQL is replaced after this long, in seconds",
    )
    unused_s: float = Field(
        300.0,
        ge=1,
        le=86400,
        description="An unused connection for checkpoints is closed after this long, in seconds",
    )
    connections: int = Field(
        5,
        ge=2,
        le=200,
        description="Most connections of a process to PostgreSQL: one writes, the others read",
    )
    checkpoint_connections: int = Field(
        8, ge=1, le=200, description="Most connections to PostgreSQL for checkpoints, beside these"
    )
    gone_s: float = Field(
        120.0,
        ge=5,
        le=86400,
        description="PostgreSQL: another process that shows no life for this long has ended, in "
        "seconds; longer than any lease",
    )
    echo: bool = Field(False, description="Log each SQL statement (level DEBUG)")
    checkpoints_kept: int = Field(
        200,
        ge=1,
        le=1_000_000,
        description="Checkpoints kept for a conversation, and up to a tenth more; older ones go",
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, value: SecretStr) -> SecretStr:
        """Refuse what is no address of PostgreSQL; the value is never repeated."""
        text = value.get_secret_value()
        if text and not text.startswith(SCHEMES):
            raise ValueError(ADDRESS)
        return value
