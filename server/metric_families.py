"""Every number that is counted: its name, what it says, and its labels, each of a bounded set.

docs/metrics.md is made from this list, and so are the counters themselves (`Metrics`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

SECONDS = tuple(step * 10.0**power for power in range(-3, 3) for step in (1, 2, 5))
"""Upper ends of what a caller or a model may take: 0.001, 0.002, 0.005, ... 500 s."""
SHORT = tuple(step * 10.0**power for power in range(-4, 2) for step in (1, 3))
"""Upper ends of a step inside of a call: 0.0001, 0.0003, 0.001, ... 30 s."""
Kind = Literal["counter", "gauge", "histogram"]
CODES = "as in [http.md](http.md): `not_found`, `llm_error`, ..."

CALLS, ERRORS = "persona_operation_seconds", "persona_operation_errors"
REQUESTS, CONNECTIONS = "persona_requests", "persona_connections"
EXCHANGES = "persona_exchanges"
REPLIES, FIRST = "persona_model_seconds", "persona_model_first_token_seconds"
TOKENS, TOKENS_IN = "persona_model_tokens", "persona_model_input_tokens"
FAULTS = "persona_model_errors"
EMBEDDINGS, EMBEDDED = "persona_embedding_seconds", "persona_embedding_texts"
EMBEDDING_FAULTS = "persona_embedding_errors"
NODES, NODE_FAULTS = "persona_node_seconds", "persona_node_errors"
SQL, SQL_WAITS = "persona_sql_seconds", "persona_sql_wait_seconds"
SQL_FAULTS, SQL_TIMEOUTS = "persona_sql_errors", "persona_sql_pool_timeouts"
POOL, QUEUE = "persona_sql_pool_connections", "persona_queue"
MEMORIES, BATCHES = "persona_memories", "persona_batches"
UPKEEPS, UPKEEP = "persona_upkeep_runs", "persona_upkeep_seconds"
DATABASE_BYTES, CHECKPOINT_BYTES = "persona_database_bytes", "persona_checkpoint_bytes"
DISK_BYTES = "persona_disk_free_bytes"
LAG = "persona_event_loop_lag_seconds"
PART, MISSED = "persona_part_up", "persona_gather_errors"
BUILD = "persona_build_info"


@dataclass(frozen=True)
class Family:
    """One number, or one for each value of its labels.

    Attributes:
        name: Without the `_total` of counters.
        kind: Of Prometheus.
        about: What it counts or measures.
        labels: By name, which values there are, in words.
        ends: Of a histogram: the upper ends of its buckets, rising.
    """

    name: str
    kind: Kind
    about: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ends: tuple[float, ...] = SECONDS

    @property
    def shown(self) -> str:
        """The name as Prometheus has it."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


ACCESS = {"kind": "`read`, `write`"}
NODE = {
    "graph": "`conversation`, `dialogue`, `relationship`",
    "node": "as in [architecture.md](architecture.md)",
}
FAMILIES = (
    Family(CALLS, "histogram", "Calls of operations", {"operation": "every operation's name"}),
    Family(
        ERRORS,
        "counter",
        "Calls that failed",
        {"operation": "every operation's name", "code": f"{CODES}, or `cancelled`"},
    ),
    Family(
        REQUESTS,
        "counter",
        "Requests that were answered",
        {
            "door": "`rest`, `stream`, `mcp`, `websocket`, `stdio`, `health`, `metrics`, `page`, "
            "`other`",
            "status": "of HTTP, as 3 digits; `websocket` and `stdio`: as HTTP would have it",
        },
    ),
    Family(CONNECTIONS, "gauge", "Open requests and sockets", {"kind": "`http`, `websocket`"}),
    Family(
        EXCHANGES,
        "counter",
        "What became of exchanges",
        {
            "outcome": "`done`; `waiting`: for a host's reply; `failed`; `cancelled`",
            "code": f"of an error, {CODES}; else `ok`",
        },
    ),
    Family(REPLIES, "histogram", "Replies of the language model"),
    Family(FIRST, "histogram", "Wait for the first words of a reply"),
    Family(TOKENS, "counter", "Tokens of replies, as the model's server counted them"),
    Family(TOKENS_IN, "counter", "Tokens of prompts, as the model's server counted them"),
    Family(FAULTS, "counter", "Replies that failed", {"code": CODES}),
    Family(
        EMBEDDINGS,
        "histogram",
        "Calls of the embedder",
        {"kind": "`query`, `document`"},
        SHORT,
    ),
    Family(EMBEDDED, "counter", "Texts that were embedded", {"kind": "`query`, `document`"}),
    Family(EMBEDDING_FAULTS, "counter", "Calls of the embedder that failed", {"code": CODES}),
    Family(NODES, "histogram", "Runs of a node of a graph", NODE, SHORT),
    Family(NODE_FAULTS, "counter", "Runs of a node that failed", NODE),
    Family(SQL, "histogram", "Transactions, from first statement to last", ACCESS, SHORT),
    Family(SQL_WAITS, "histogram", "Wait of a transaction for its thread", ACCESS, SHORT),
    Family(SQL_FAULTS, "counter", "Transactions that the database did not carry out", ACCESS),
    Family(SQL_TIMEOUTS, "counter", "Transactions for which the pool had no connection in time"),
    Family(
        POOL,
        "gauge",
        "Connections to the database",
        {"state": "`size`: the most that are kept; `open`; `used`: by a transaction now"},
    ),
    Family(
        QUEUE,
        "gauge",
        "What waits, or is under way",
        {
            "what": "`memories`: to be indexed; `given_up`: not to be embedded; `replies`: under "
            "way; `model`: replies that wait for a place at the model"
        },
    ),
    Family(MEMORIES, "gauge", "Memories of all worlds", {"state": "`active`, `archived`"}),
    Family(
        BATCHES,
        "gauge",
        "Batches of dialogues of all worlds",
        {"status": "`queued`, `running`, `completed`, `cancelled`, `failed`"},
    ),
    Family(
        UPKEEPS,
        "counter",
        "Upkeeps of a world",
        {"outcome": "`whole`; `faulty`: a persona failed; `partial`: stopped, or left to others"},
    ),
    Family(UPKEEP, "histogram", "Upkeeps of a world"),
    Family(DATABASE_BYTES, "gauge", "Size of the database"),
    Family(CHECKPOINT_BYTES, "gauge", "Size of the checkpoints"),
    Family(DISK_BYTES, "gauge", "Room on the disk of the data folder"),
    Family(LAG, "histogram", "Lateness of the event loop, seen twice a second", {}, SHORT),
    Family(
        PART,
        "gauge",
        "Whether a part was well at the last check: 1, or 0",
        {"part": "as in `system_health`"},
    ),
    Family(MISSED, "counter", "Times that numbers could not be gathered, and old ones were told"),
    Family(
        BUILD,
        "gauge",
        "Always 1",
        {"version": "of the program", "database": "`sqlite`, `postgresql`"},
    ),
)
"""All that a process counts itself."""
PROCESS = (
    Family("process_virtual_memory_bytes", "gauge", "Memory that the process has addresses of"),
    Family("process_resident_memory_bytes", "gauge", "Memory that the process has in use"),
    Family("process_start_time_seconds", "gauge", "When the process began, since the epoch"),
    Family("process_cpu_seconds", "counter", "Time of processors that was used"),
    Family("process_open_fds", "gauge", "Files and sockets that are open"),
    Family("process_max_fds", "gauge", "The most that may be"),
)
"""What prometheus_client reads of the process, where the system tells it (Linux)."""
ALL = {family.name: family for family in (*FAMILIES, *PROCESS)}
