"""What a worker in a process of this machine and the process that started it say to each other.

Frames over a pair of pipes: four bytes of length, most significant first, then a pickle. Only a
process and its child use them, so nobody else's bytes are ever read.

```
to the worker      Begin, then Hold, Leave, Crowd and Stop in any order; the end of the pipe ends it
from the worker    Begun or Faulty, then Told, and Alive every few seconds
```
"""

import asyncio
import pickle
import struct
from dataclasses import dataclass
from typing import Any

from persona_mcp.config.settings import Settings
from persona_mcp.server.batch.dialogue_worker import Event
from persona_mcp.state.batch.values import Job, RecordedCall
from persona_mcp.state.dialogue_spec import ModelSpec

LENGTH = struct.Struct(">I")


@dataclass(frozen=True)
class Begin:
    """What a worker is made with.

    Attributes:
        settings: In effect where the batch was begun.
        share: Its share of the places at the model.
        correlation_id: Of the command that runs the batch, for the lines of its log.
    """

    settings: Settings
    share: ModelSpec
    correlation_id: str | None


@dataclass(frozen=True)
class Begun:
    """The worker is there.

    Attributes:
        pid: Of its process.
    """

    pid: int


@dataclass(frozen=True)
class Hold:
    """Hold a dialogue; see `Worker.hold`.

    Attributes:
        ticket: Tells the dialogues of a worker apart.
        job: Which.
        frozen: The world of its run.
        played: Calls of it that are recorded already.
    """

    ticket: int
    job: Job
    frozen: bytes
    played: tuple[RecordedCall, ...]


@dataclass(frozen=True)
class Leave:
    """Leave off a dialogue: nobody listens any more.

    Attributes:
        ticket: Which.
    """

    ticket: int


@dataclass(frozen=True)
class Crowd:
    """Dialogues wait to be begun, or the last ones are held; see `Engine.crowd`.

    Attributes:
        crowded: Whether they wait.
    """

    crowded: bool


@dataclass(frozen=True)
class Stop:
    """Have every dialogue end where its turn ends."""


@dataclass(frozen=True)
class Told:
    """What happened in a dialogue, in order.

    Attributes:
        ticket: Which.
        events: As `Worker.hold` yields them.
    """

    ticket: int
    events: list[Event]


@dataclass(frozen=True)
class Alive:
    """The worker is there, whether it has something to tell or not."""


def framed(said: object) -> bytes:
    """Write a frame."""
    body = pickle.dumps(said, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(body)) + body


async def next_frame(reader: asyncio.StreamReader) -> Any:
    """Read a frame.

    Raises:
        EOFError: The other side is gone.
    """
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        body = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EOFError("the other side of the pipe is gone") from error
    return pickle.loads(body)  # noqa: S301 - our own child's, or our own parent's
