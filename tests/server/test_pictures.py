"""Pictures of the graphs, and that those in the repository are those of the graphs as they are."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from persona_mcp.server.pictures import BUILDERS, mermaid, structure, svg
from persona_mcp.state.errors import NotFound

ROOT = Path(__file__).parents[2]
PICTURE = "docs/conversation.svg"
SVG = "{http://www.w3.org/2000/svg}"
NODES = {
    "conversation": [
        "load", "retrieve", "decide", "generate", "validate", "retry", "relate", "persist",
        "excuse",
    ],
    "dialogue": [
        "cast", "choose_speaker", "retrieve", "decide", "generate", "validate", "relate",
        "persist", "judge", "excuse",
    ],
    "relationship": ["appraise", "validate", "apply", "persist"],
}  # fmt: skip


def drawn(name: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg(name))


def test_the_picture_in_the_repository_is_that_of_the_graph() -> None:
    shown = (ROOT / PICTURE).read_text("utf-8")

    assert shown == svg("conversation"), (
        f"{PICTURE} is stale: run `persona graph conversation --svg {PICTURE}`"
    )
    assert f"({PICTURE})" in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", BUILDERS)
def test_every_node_has_a_box_of_its_own_with_its_name(name: str) -> None:
    nodes, _ = structure(name)
    picture = drawn(name)

    boxes = [(box.get("x"), box.get("y")) for box in picture.iter(f"{SVG}rect")]
    labels = [text.text for text in picture.iter(f"{SVG}text")]

    assert len(set(boxes)) == len(boxes) == len(nodes)
    assert labels == ["start", *nodes[1:-1], "end"]
    assert set(labels) >= set(NODES[name]) - {"retry"}


@pytest.mark.parametrize("name", BUILDERS)
def test_every_edge_has_an_arrow_and_choices_are_dashed(name: str) -> None:
    _, edges = structure(name)

    arrows = [path for path in drawn(name).iter(f"{SVG}path") if path.get("marker-end")]

    assert len(arrows) == len(edges)
    choices = [path for path in arrows if path.get("class") == "choice"]
    assert len(choices) == sum(choice for _, _, choice in edges)


@pytest.mark.parametrize("name", BUILDERS)
def test_everything_lies_inside_the_picture(name: str) -> None:
    picture = drawn(name)
    _, _, width, height = map(float, (picture.get("viewBox") or "").split())

    for box in picture.iter(f"{SVG}rect"):
        x, y, wide, high = (float(box.get(key, "nan")) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + wide <= width
        assert 0 <= y <= y + high <= height
    for path in drawn(name).iter(f"{SVG}path"):
        numbers = [float(n) for n in re.findall(r"-?\d+", path.get("d", ""))]
        assert all(0 <= number <= max(width, height) for number in numbers)


@pytest.mark.parametrize("name", BUILDERS)
def test_mermaid_names_every_node(name: str) -> None:
    nodes, _ = structure(name)

    text = mermaid(name)

    assert all(node in text for node in nodes)


@pytest.mark.parametrize("draw", [mermaid, svg, structure])
def test_a_graph_that_is_not_there_is_refused_with_those_that_are(draw: object) -> None:
    assert callable(draw)

    with pytest.raises(NotFound, match="others are conversation, dialogue, relationship"):
        draw("batch")
