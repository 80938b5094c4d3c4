"""The settings of how much callers may ask for: how often, how much at once, and of the model."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from persona_mcp.config.section import Seconds, Section

NUMBER = r"[1-9]\d{0,8}"
ONE = rf"{NUMBER}/({NUMBER} )?(second|minute|hour|day)s?"
Rate = Annotated[
    str,
    Field(
        pattern=rf"^({ONE}(; ?{ONE})*)?$",
        json_schema_extra={
            "allowed": "NUMBER/second, /minute, /hour or /day; several with ; between; or empty"
        },
    ),
]
"""As the library `limits` writes it: `120/minute`, `10/second; 600/hour`, `5/10 minutes`."""
LimitedToolset = Literal[
    "persona", "conversation", "dialogue", "memory", "relationship", "emotion", "system"
]
ADDRESS = "redis[s]://[[user]:password@]host[:port][/number], or empty"
STORAGE = ("redis://", "rediss://")


class LimitSettings(Section):
    """How often, and how much at once, callers may ask; those of one caller are for tokens."""

    local: bool = Field(
        False,
        description="Limits of one caller hold for this machine's user too, who shows no token",
    )
    rate: Rate = Field(
        "3000/minute", description="Calls of one caller, in each toolset; empty for any number"
    )
    rates: dict[LimitedToolset, Rate] = Field(
        {},
        description="The same for single toolsets, in place of it",
        json_schema_extra={"allowed": 'JSON object: toolset to rate, {"dialogue": "60/minute"}'},
    )
    model_rate: Rate = Field(
        "", description="Calls of the language model for everybody together; empty for any number"
    )
    model_rate_caller: Rate = Field(
        "", description="Calls of the language model for one caller; empty for any number"
    )
    storage_url: SecretStr = Field(
        SecretStr(""),
        description="Redis that counts rates for several processes (extra `redis`); empty: each "
        "process counts in its memory",
        json_schema_extra={"allowed": ADDRESS},
    )
    storage_s: Seconds = Field(0.5, description="Limit of one question to Redis, in seconds")
    storage_away: Literal["alone", "refuse"] = Field(
        "alone",
        description="When Redis does not answer: alone: each process counts for itself; refuse: "
        "calls that are to be counted are refused",
    )
    storage_rest_s: Seconds = Field(
        5.0, description="After that it is asked again no sooner than this, in seconds"
    )
    calls: int = Field(
        5000, ge=1, le=1_000_000, description="Calls under way at once in this process"
    )
    calls_caller: int = Field(
        500, ge=1, le=1_000_000, description="Calls of one caller under way or waiting at once"
    )
    waiting: int = Field(
        1000, ge=0, le=1_000_000, description="Further calls that wait; those beyond are refused"
    )
    wait_s: Seconds = Field(
        5.0, description="A call that has waited this long for its place is refused, in seconds"
    )
    streams: int = Field(
        2000, ge=1, le=1_000_000, description="Streams open at once in this process"
    )
    streams_caller: int = Field(
        200, ge=1, le=1_000_000, description="Streams of one caller open at once"
    )
    tokens_day: int = Field(
        0,
        ge=0,
        le=1_000_000_000_000,
        description="Tokens that the model may write for one caller in a day (UTC); 0: any number",
    )
    note_s: float = Field(
        2.0,
        ge=0.05,
        le=60,
        description="Tokens are written down this often, so that other processes know of them, in "
        "seconds",
    )

    @field_validator("storage_url")
    @classmethod
    def _is_redis(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and not value.get_secret_value().startswith(STORAGE):
            raise ValueError(ADDRESS)
        return value
