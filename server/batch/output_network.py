"""`network.graphml`: who sees whom how at the end of each run, as one graph of many edges.

A node is a persona, an edge how one saw another when a run ended; `arm` and `repeat` say of which.
It is written edge by edge, so that only one run's edges are held.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO
from xml.sax.saxutils import escape, quoteattr

from persona_mcp.server.batch.output_files import DECIMALS
from persona_mcp.server.graph_files import NAMESPACE, NO_XML, REPLACEMENT
from persona_mcp.state.batch.reading import DIMENSIONS, Ends
from persona_mcp.state.batch.values import Cast, Outcome

KEYS = (
    ("name", "node", "string"),
    ("arm", "edge", "int"),
    ("repeat", "edge", "int"),
    *((name, "edge", "double") for name in DIMENSIONS),
)


class Network:
    """A GraphML file that is being written."""

    def __init__(self, file: BinaryIO, casts: Iterable[Cast]) -> None:
        """Begin it with its nodes: everybody who is in any arm, called as in the first one."""
        self._file = file
        self._run: tuple[int, int] | None = None
        self._ends: dict[Ends, Mapping[str, float]] = {}
        self._put(f'<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="{NAMESPACE}">')
        for name, of, kind in KEYS:
            self._put(f'  <key id="{name}" for="{of}" attr.name="{name}" attr.type="{kind}"/>')
        self._put('  <graph edgedefault="directed">')
        names: dict[str, str] = {}
        for cast in casts:
            for member in cast.members:
                names.setdefault(member.id, member.spec.name)
        for id, name in names.items():
            self._element("node", f"id={quoteattr(id)}", [("name", name)])

    def add(self, outcome: Outcome) -> None:
        """Take a dialogue in; those of a run come one after the other, in their order."""
        run = outcome.job.place.run
        if run != self._run:
            self._flush()
            self._run = run
        self._ends.update(outcome.after)

    def close(self) -> None:
        """Write the last run's edges and the end of the file."""
        self._flush()
        self._put("  </graph>\n</graphml>")

    def _flush(self) -> None:
        if self._run is None:
            return
        arm, repeat = self._run
        for (of, to), shown in sorted(self._ends.items()):
            ends = f'id="{arm}.{repeat}.{of}.{to}" source={quoteattr(of)} target={quoteattr(to)}'
            values = [(name, str(round(shown[name], DECIMALS) + 0.0)) for name in DIMENSIONS]
            self._element("edge", ends, [("arm", str(arm)), ("repeat", str(repeat)), *values])
        self._ends.clear()

    def _element(self, tag: str, attributes: str, data: Sequence[tuple[str, str]]) -> None:
        self._put(f"    <{tag} {attributes}>")
        for key, value in data:
            self._put(f'      <data key="{key}">{escape(NO_XML.sub(REPLACEMENT, value))}</data>')
        self._put(f"    </{tag}>")

    def _put(self, line: str) -> None:
        self._file.write(line.encode() + b"\n")
