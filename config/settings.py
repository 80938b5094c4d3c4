"""Every number and name that the program takes from outside, with its range, unit and default.

Read once at the door (`config/loading.py`) and passed on; nothing below `server/` reads it. Laws of
relationships, moods, talk, memory and prompts keep their constants beside the formulas, in
`state/`; they are sections here, so that each of them is a `PERSONA_...` variable too.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import platformdirs
from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from persona_mcp.config.access_settings import AccessSettings, OAuthSettings
from persona_mcp.config.database_settings import DatabaseSettings
from persona_mcp.config.dialogue_settings import DialogueSettings
from persona_mcp.config.limit_settings import LimitSettings
from persona_mcp.config.section import Seconds, Section
from persona_mcp.config.server_settings import ServerSettings, WebSocketSettings
from persona_mcp.config.tracing_settings import TracingSettings
from persona_mcp.config.variables import DEFAULT, ENV_FILE, SEPARATOR
from persona_mcp.state.continuation_params import ContinuationParams
from persona_mcp.state.emotion import EmotionParams
from persona_mcp.state.interaction import InteractionParams
from persona_mcp.state.memory.importance_params import ImportanceParams
from persona_mcp.state.memory.params import (
    ConsolidationParams,
    PruningParams,
    RetentionParams,
    RetrievalParams,
    UpkeepParams,
)
from persona_mcp.state.prompt_params import PromptParams
from persona_mcp.state.relationship_params import RelationshipParams
from persona_mcp.state.summarising import SummaryParams

PREFIX = "PERSONA_"


def absolute(path: Path) -> Path:
    """Expand `~` and make a path whole, so that a later change of folder does not move it."""
    return Path(os.path.expanduser(path)).absolute()  # unlike Path.expanduser it never raises


Url = Annotated[
    str,
    Field(
        pattern=r"^https?://([^\s/@]+@)?(\[[0-9a-fA-F:.]+\]|[^\s/:@\[\]]+)"
        r"(:([1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5]))?(/\S*)?$",
        json_schema_extra={"allowed": "address that starts with http:// or https://"},
    ),
]
Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        json_schema_extra={"allowed": "1..64 letters, digits, _ and -"},
    ),
]
Location = Annotated[Path, AfterValidator(absolute)]


class LogSettings(Section):
    """Logging, always to stderr."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "WARNING", description="Least severe level that is written"
    )
    format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, JSON otherwise"
    )


class LLMSettings(Section):
    """The language model; one set of limits for every provider."""

    model: str = Field(
        "auto",
        pattern=r"^(auto|(ollama|openai|embedded):.+)$",
        description="Language model; auto takes Ollama where it answers, else the embedded one",
        json_schema_extra={
            "allowed": "auto, ollama:MODEL, openai:MODEL, embedded:smollm2 or embedded:FILE.gguf"
        },
    )
    ollama_url: Url = Field("http://127.0.0.1:11434", description="Address of the Ollama server")
    openai_url: Url = Field(
        "https://api.openai.com/v1", description="Base address of an OpenAI-compatible server"
    )
    openai_api_key: SecretStr = Field(
        SecretStr(""), description="Key for it; local servers take any, empty sends 'none'"
    )
    profile: Literal["auto", "small", "large"] = Field(
        "auto", description="Prompt style; auto: small for the embedded model, large otherwise"
    )
    context_tokens: int = Field(
        8192,
        ge=512,
        le=1_048_576,
        description="Prompt and reply together, for ollama and openai, in tokens",
    )
    probe_s: Seconds = Field(
        2.0, description="Limit of a look whether the provider is there, in seconds"
    )
    connect_s: Seconds = Field(5.0, description="Limit of connecting, in seconds")
    first_token_s: Seconds = Field(
        60.0, description="Limit of the wait for the first token, in seconds"
    )
    idle_s: Seconds = Field(20.0, description="Limit of silence between two tokens, in seconds")
    total_s: Seconds = Field(180.0, description="Limit of one reply, in seconds")
    queue_s: Seconds = Field(
        60.0, description="Limit of the wait for a free place at the model, in seconds"
    )
    queued: int = Field(
        2000,
        ge=0,
        le=1_000_000,
        description="Replies that wait for a free place; those beyond are refused",
    )
    concurrency: int = Field(4, ge=1, le=1024, description="Replies made at once by this process")
    retries: int = Field(
        1, ge=0, le=10, description="Further tries when no token has come yet (refused, 429, 5xx)"
    )
    retry_wait_s: float = Field(
        0.5, ge=0, le=60, description="Wait before the first of them, doubled each time, in seconds"
    )
    max_reply_chars: int = Field(
        200_000,
        ge=1000,
        le=10_000_000,
        description="A longer reply is cut off and refused, in characters",
    )
    embedded_slots: int = Field(
        4, ge=1, le=64, description="Replies that the embedded model makes at once"
    )
    embedded_slot_tokens: int = Field(
        2048, ge=512, le=131_072, description="Prompt and reply of one of them, in tokens"
    )
    embedded_threads: int = Field(
        0, ge=0, le=256, description="Threads of the embedded model; 0: half of the processors"
    )
    embedded_load_s: Seconds = Field(60.0, description="Limit of loading the weights, in seconds")


class EmbedderSettings(Section):
    """What turns text into vectors."""

    model: str = Field(
        "embedded:minilm",
        pattern=r"^(embedded:minilm|(ollama|openai):.+)$",
        description="Embedder",
        json_schema_extra={"allowed": "embedded:minilm, ollama:MODEL or openai:MODEL"},
    )
    model_path: Location | None = Field(
        None,
        description="Another ONNX file for embedded:minilm; default: the packaged one",
        json_schema_extra={"allowed": "path of a file, or empty"},
    )
    model_sha256: str = Field(
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
        pattern=r"^[0-9a-f]{64}$",
        description="Check sum (SHA-256) that the ONNX file must have",
        json_schema_extra={"allowed": "64 hexadecimal digits in lower case"},
    )
    ollama_url: Url = Field("http://127.0.0.1:11434", description="Address of the Ollama server")
    openai_url: Url = Field(
        "https://api.openai.com/v1", description="Base address of an OpenAI-compatible server"
    )
    openai_api_key: SecretStr = Field(SecretStr(""), description="Key for it")
    threads: int = Field(
        1,
        ge=1,
        le=256,
        description="Threads of the embedded embedder; on short texts more than one do not pay",
    )
    batch: int = Field(32, ge=1, le=1024, description="Texts embedded at once")
    max_tokens: int = Field(256, ge=16, le=512, description="minilm cuts longer texts, in tokens")
    query_prefix: str = Field("", max_length=200, description="Put before a query (E5: 'query: ')")
    document_prefix: str = Field(
        "", max_length=200, description="Put before a document (E5: 'passage: ')"
    )
    timeout_s: Seconds = Field(30.0, description="Limit of one embedding call, in seconds")

    @field_validator("model_path", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value


class IndexSettings(Section):
    """The dense index over the vectors in SQL."""

    kind: Literal["auto", "chroma", "exact"] = Field(
        "auto",
        description="auto: Chroma where this process holds the folder's lock, else exact scoring",
    )
    url: str = Field(
        "",
        pattern=r"^(https?://(\[[0-9a-fA-F:.]+\]|[^\s/:@\[\]]+)(:\d{1,5})?/?)?$",
        description="A Chroma server in place of the folder; empty for none",
        json_schema_extra={"allowed": "http[s]://host[:port], or empty"},
    )
    token: SecretStr = Field(
        SecretStr(""), description="Token that it wants; empty where it wants none"
    )
    request_s: Seconds = Field(
        10.0, description="Limit of one request to it, and of any search in the index, in seconds"
    )
    batch: int = Field(256, ge=1, le=5000, description="Memories embedded and indexed at once")
    claim_s: Seconds = Field(
        30.0, description="How long a process keeps a claimed outbox row, in seconds"
    )
    poll_s: Seconds = Field(2.0, description="Look at the outbox at least this often, in seconds")
    drain_s: Seconds = Field(
        10.0, description="Limit of indexing what was left over at start, in seconds"
    )
    attempts: int = Field(
        5, ge=1, le=100, description="Tries of an outbox row before it waits for a reindex"
    )
    shards_cached: int = Field(
        64, ge=1, le=10_000, description="Personas whose vectors stay in memory"
    )
    held_each: int = Field(
        5000,
        ge=0,
        le=100_000,
        description="A persona that may know so many memories at most has them searched in "
        "memory, without the index; 0 for never",
    )
    held: int = Field(
        20_000, ge=0, le=10_000_000, description="Memories that are held in memory for that, in all"
    )


class ConversationSettings(Section):
    """How exchanges are run."""

    window_turns: int = Field(
        20, ge=0, le=200, description="Last turns that a prompt shows word for word"
    )
    lease_s: Seconds = Field(
        15.0, description="A run that shows no life for this long is interrupted, in seconds"
    )
    busy_wait_s: float = Field(
        30.0, ge=0, le=600, description="Wait for a conversation or call under way, in seconds"
    )
    attempts: int = Field(
        3, ge=1, le=10, description="Replies made before a bad one becomes an error"
    )
    total_s: Seconds = Field(
        300.0, description="Limit of an exchange, its wait and all its attempts, in seconds"
    )
    recursion_limit: int = Field(25, ge=10, le=1000, description="Most steps of one run of a graph")
    reply_wait_s: float = Field(
        45.0,
        ge=1,
        le=300,
        description="Wait for a reply before `running` is answered, in seconds (wait_s)",
    )
    progress_s: float = Field(
        0.2,
        ge=0.01,
        le=10,
        description="Shortest time between two progress messages of a reply, in seconds",
    )


class SessionSettings(Section):
    """Session handles: which persona and conversation a client is at."""

    kept_s: float = Field(
        86400.0,
        ge=60,
        le=31_536_000,
        description="An unused handle ends after this long (up to a hundredth later), in seconds",
    )


class Settings(BaseSettings):
    """Where data lies, who talks in which world, and a section for each part."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=SEPARATOR,
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
    )

    data_dir: Location = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("persona-mcp", appauthor=False)),
        description="Folder of all data",
        json_schema_extra={
            "allowed": "path of a folder",
            "default_words": "the platform's user data folder",
            "example": "~/.local/share/persona-mcp",
        },
    )
    world: Name = Field("main", description="World that is used when a call names none")
    user: Name = Field("user", description="Who talks, when a call names nobody")
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    llm: LLMSettings = LLMSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    database: DatabaseSettings = DatabaseSettings()
    index: IndexSettings = IndexSettings()
    conversation: ConversationSettings = ConversationSettings()
    dialogues: DialogueSettings = DialogueSettings()
    server: ServerSettings = ServerSettings()
    websocket: WebSocketSettings = WebSocketSettings()
    access: AccessSettings = AccessSettings()
    oauth: OAuthSettings = OAuthSettings()
    sessions: SessionSettings = SessionSettings()
    limits: LimitSettings = LimitSettings()
    prompts: PromptParams = PromptParams()
    summaries: SummaryParams = SummaryParams()
    retrieval: RetrievalParams = RetrievalParams()
    importance: ImportanceParams = ImportanceParams()
    retention: RetentionParams = RetentionParams()
    pruning: PruningParams = PruningParams()
    consolidation: ConsolidationParams = ConsolidationParams()
    upkeep: UpkeepParams = UpkeepParams()
    relationships: RelationshipParams = RelationshipParams()
    emotions: EmotionParams = EmotionParams()
    interaction: InteractionParams = InteractionParams()
    continuation: ContinuationParams = ContinuationParams()

    _sources: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _leases_end_first(self) -> Self:
        """See to it that who counts as ended holds nothing any more (PostgreSQL)."""
        leases = {
            "CONVERSATION__LEASE_S": self.conversation.lease_s,
            "DIALOGUES__LEASE_S": self.dialogues.lease_s,
            "INDEX__CLAIM_S": self.index.claim_s,
        }
        name, longest = max(leases.items(), key=lambda one: one[1])
        if self.database.url.get_secret_value() and longest >= self.database.gone_s:
            raise ValueError(
                f"{PREFIX}DATABASE__GONE_S (now {self.database.gone_s:g}) longer than "
                f"{PREFIX}{name} (now {longest:g})"
            )
        return self

    def source_of(self, variable: str) -> str:
        """Say where a variable's value is from: default, .env, environment or argument."""
        return self._sources.get(variable, DEFAULT)

    def note_sources(self, sources: Mapping[str, str]) -> None:
        """Remember where the variables that were given are from."""
        self._sources = sources
