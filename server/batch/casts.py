"""Who is cast in each arm of a batch, read once and kept with it as `cast.json`."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from persona_mcp.state.batch import codec
from persona_mcp.state.batch.plan import Arm
from persona_mcp.state.batch.values import Cast
from persona_mcp.state.errors import BadSnapshot
from persona_mcp.state.snapshots.file import canonical

FORMAT = "persona-mcp-cast/1"
OF_A_CAST = ("personas", "relationships")
"""Parts of a specification that a cast depends on."""


@dataclass(frozen=True)
class Casts:
    """All casts of a batch; arms that have the same people share one.

    Attributes:
        by_key: Each cast, by the check sum of its text.
        keys: Of each arm, in order.
    """

    by_key: Mapping[str, Cast]
    keys: tuple[str, ...]

    def of(self, arm: int) -> Cast:
        """Return the cast of an arm."""
        return self.by_key[self.keys[arm]]

    def text(self) -> bytes:
        """Write them as canonical JSON."""
        casts = {key: json.loads(codec.cast_json(one)) for key, one in self.by_key.items()}
        return canonical({"format": FORMAT, "arms": list(self.keys), "casts": casts}) + b"\n"


async def read_casts(arms: Sequence[Arm], read: Callable[[Arm], Awaitable[Cast]]) -> Casts:
    """Read the casts of all arms; what makes no difference to a cast does not read it again."""
    by_key: dict[str, Cast] = {}
    known: dict[str, str] = {}
    keys: list[str] = []
    for arm in arms:
        touched = {p: v for p, v in arm.values.items() if p.split(".")[0] in OF_A_CAST}
        what = json.dumps(touched, sort_keys=True)
        if what not in known:
            cast = await read(arm)
            key = key_of(cast)
            by_key.setdefault(key, cast)
            known[what] = key
        keys.append(known[what])
    return Casts(by_key, tuple(keys))


def key_of(cast: Cast) -> str:
    """Return the check sum of a cast."""
    return hashlib.sha256(codec.cast_json(cast).encode()).hexdigest()


def casts_of_text(text: bytes) -> Casts:
    """Read what `Casts.text` wrote.

    Raises:
        BadSnapshot: It is something else.
    """
    try:
        told = json.loads(text)
        if told["format"] != FORMAT:
            raise BadSnapshot(f"cast.json: only {FORMAT} can be read")
        casts = {key: codec.read_cast(canonical(value)) for key, value in told["casts"].items()}
        keys = tuple(told["arms"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadSnapshot("cast.json: it is damaged, or of another version") from None
    if not set(keys) <= casts.keys() or any(key != key_of(cast) for key, cast in casts.items()):
        raise BadSnapshot("cast.json: it was changed, or an arm has no cast in it")
    return Casts(casts, keys)
