"""Graphs as texts: whatever somebody is called, the text holds it and nothing else."""

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from persona_mcp.server.graph_files import NAMESPACE, dot, graphml

HOSTILE = [
    'Bobby "); drop',
    "<b>Tom</b> & 'Jerry'",
    "two\nlines\tand a tab",
    "ends with \\",
    '\\" -> "x" [a="',
    "]]> <!-- --> <![CDATA[ &amp; &#10; \\n \\N %s {}",
    "猫 🐈 é ",
    "graph",
]
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


def graph_of(name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    nodes = [{"id": "a", "name": name, "kind": "persona"}, {"id": "b", "name": "B", "kind": "user"}]
    return nodes, [{"from": "a", "to": "b", "affinity": -0.00001, "type": "friend"}]


def read_graphml(text: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read GraphML by a parser of XML, as others do."""
    root = ElementTree.fromstring(text)
    space = {"g": NAMESPACE}
    keys = {key.get("id"): key for key in root.findall("g:key", space)}

    def data(element: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for part in element.findall("g:data", space):
            key = keys[part.get("key")]
            number = key.get("attr.type") == "double"
            found[str(key.get("attr.name"))] = float(part.text) if number else part.text
        return found

    nodes = [{"id": n.get("id"), **data(n)} for n in root.findall("g:graph/g:node", space)]
    edges = [
        {"from": e.get("source"), "to": e.get("target"), **data(e)}
        for e in root.findall("g:graph/g:edge", space)
    ]
    return nodes, edges


def read_dot(text: str) -> list[tuple[list[str], dict[str, str]]]:
    """Read DOT as its grammar says: statements of quoted strings, each with attributes."""
    assert text.startswith("digraph relationships {\n") and text.endswith("}\n")
    statements = []
    for line in text.splitlines()[1:-1]:
        bare = STRING.sub("S", line)
        assert re.fullmatch(r"  S( -> S)? \[\w+=S(, \w+=S)*\];", bare), line
        strings = [unquoted(found) for found in STRING.findall(line)]
        names = re.findall(r"(\w+)=S", bare)
        ends = len(strings) - len(names)
        statements.append((strings[:ends], dict(zip(names, strings[ends:], strict=True))))
    return statements


def unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], text)


@pytest.mark.parametrize("name", HOSTILE)
def test_graphml_is_read_back_as_it_was_written(name: str) -> None:
    assert read_graphml(graphml(*graph_of(name))) == graph_of(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_dot_is_read_back_as_it_was_written(name: str) -> None:
    node, other, edge = read_dot(dot(*graph_of(name)))

    assert node == (["a"], {"label": name, "kind": "persona"})
    assert other == (["b"], {"label": "B", "kind": "user"})
    assert edge == (["a", "b"], {"affinity": "-1e-05", "type": "friend"})


def test_what_no_xml_can_hold_is_marked() -> None:
    nodes, _ = read_graphml(graphml(*graph_of("odd \ufffe one")))

    assert nodes[0]["name"] == "odd \ufffd one"


def test_a_graph_of_nobody_is_a_graph() -> None:
    assert read_graphml(graphml([], [])) == ([], [])
    assert read_dot(dot([], [])) == []
