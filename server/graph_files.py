"""Directed graphs as texts that other programs read: GraphML and DOT.

A node is a mapping with an `id`, an edge one with `from` and `to`; whatever else they hold are
their attributes, the same ones in all nodes and in all edges.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

Attributes = Mapping[str, Any]

NAMESPACE = "http://graphml.graphdrawing.org/xmlns"
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML document can hold."""
REPLACEMENT = "\ufffd"
ENDS = ("id", "from", "to")


def graphml(nodes: Sequence[Attributes], edges: Sequence[Attributes]) -> str:
    """Write a graph as GraphML (http://graphml.graphdrawing.org)."""
    root = Element("graphml", xmlns=NAMESPACE)
    for kind, parts in (("node", nodes), ("edge", edges)):
        for name, value in attributes_of(parts[0] if parts else {}).items():
            type_ = "double" if isinstance(value, float) else "string"
            about = {"id": f"{kind}-{name}", "for": kind, "attr.name": name, "attr.type": type_}
            SubElement(root, "key", about)
    graph = SubElement(root, "graph", edgedefault="directed")
    for node in nodes:
        add_data(SubElement(graph, "node", id=node["id"]), "node", node)
    for edge in edges:
        ends = {"source": edge["from"], "target": edge["to"]}
        add_data(SubElement(graph, "edge", **ends), "edge", edge)
    indent(root)
    return tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def add_data(element: Element, kind: str, part: Attributes) -> None:
    """Put the attributes of a node or an edge into its element."""
    for name, value in attributes_of(part).items():
        data = SubElement(element, "data", key=f"{kind}-{name}")
        data.text = NO_XML.sub(REPLACEMENT, str(value))


def attributes_of(part: Attributes) -> dict[str, Any]:
    """Return everything but the ends."""
    return {name: value for name, value in part.items() if name not in ENDS}


def dot(nodes: Sequence[Attributes], edges: Sequence[Attributes]) -> str:
    """Write a graph in DOT, the language of Graphviz; a node is labelled with its name."""
    lines = [f"  {quoted(node['id'])} {listed(labelled(node))};" for node in nodes]
    lines += [f"  {quoted(e['from'])} -> {quoted(e['to'])} {listed(e)};" for e in edges]
    return "\n".join(["digraph relationships {", *lines, "}"]) + "\n"


def labelled(node: Attributes) -> dict[str, Any]:
    """Call a node's name its label, in which alone Graphviz reads backslashes."""
    return {"label": node["name"], **{k: v for k, v in node.items() if k != "name"}}


def listed(part: Attributes) -> str:
    """Write attributes: `[affinity="0.5", type="friend"]`."""
    return "[" + ", ".join(f"{k}={quoted(v)}" for k, v in attributes_of(part).items()) + "]"


def quoted(value: object) -> str:
    """Write a string of DOT, in which only backslash, quote and newline mean something."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'
