"""The relationships of a world as a graph, at any time."""

import time
from typing import Any

import pytest

from persona_mcp.server.service import Service
from persona_mcp.state.errors import InvalidParams, LimitExceeded, NotFound
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.relationship import Deltas
from tests.arrows import CRUEL, DAY, KIND, crowd, delete_persona, happen
from tests.calls import call, say
from tests.doubles import ScriptedModel
from tests.server.test_graph_files import HOSTILE, read_dot, read_graphml

pytestmark = pytest.mark.anyio

CLOSE = Deltas(affinity=0.5, trust=0.5, contact=1.0)


@pytest.fixture
def began(service: Service) -> float:
    """Aria and Kira like each other; two days later Kira comes to dislike Noor, and Aria likes her.

    Returns:
        When it began, five days ago.
    """
    began = time.time() - 5 * DAY
    happen(service.database, "e1", "aria", "kira", CLOSE, at=began)
    happen(service.database, "e2", "kira", "aria", at=began)
    happen(service.database, "e3", "kira", "noor", CRUEL, at=began + 2 * DAY)
    happen(service.database, "e4", "aria", "noor", KIND, at=began + 2 * DAY)
    happen(service.database, "e5", "aria", "sam", KIND, at=began + 2 * DAY)
    return began


def ends(graph: dict[str, Any]) -> list[tuple[str, str]]:
    return [(edge["from"], edge["to"]) for edge in graph["edges"]]


async def test_a_graph_has_everybody_and_who_sees_whom_how(service: Service, began: float) -> None:
    graph = await call(service, "relationship_graph")

    assert graph["nodes"] == [
        {"id": "aria", "name": "Aria", "kind": "persona"},
        {"id": "kira", "name": "Kira", "kind": "persona"},
        {"id": "noor", "name": "Noor", "kind": "persona"},
        {"id": "sam", "name": "sam", "kind": "user"},
    ]
    assert ends(graph) == [
        ("aria", "kira"),
        ("aria", "noor"),
        ("aria", "sam"),
        ("kira", "aria"),
        ("kira", "noor"),
    ]
    assert (graph["format"], graph["document"]) == ("json", None)
    assert graph["at"].endswith("Z")


async def test_an_edge_says_what_the_single_relationship_says(
    service: Service, began: float
) -> None:
    graph = await call(service, "relationship_graph")
    got = await call(service, "relationship_get", persona1_id="aria", persona2_id="kira")

    edge, view = graph["edges"][0], got["relationship"]
    assert edge["strength"] == pytest.approx(view["relationship_strength"], abs=1e-5)
    assert edge["type"] == view["relationship_type"]
    for name in ("affinity", "trust", "respect", "intimacy", "familiarity"):
        assert edge[name] == pytest.approx(view[name], abs=1e-5)


async def test_a_graph_is_told_in_numbers(service: Service, began: float) -> None:
    numbers = (await call(service, "relationship_graph"))["metrics"]

    assert numbers["reciprocity"] == pytest.approx(2 / 4)
    assert numbers["density"] == pytest.approx(5 / (3 * 3), abs=1e-6)
    assert numbers["balance"] == 0.0  # Aria likes two who do not like each other


async def test_a_graph_is_shown_as_it_was(service: Service, began: float) -> None:
    before = await call(service, "relationship_graph", at=rfc3339(began - DAY))
    early = await call(service, "relationship_graph", at=rfc3339(began + DAY))
    named = await call(
        service, "relationship_graph", at=rfc3339(began + DAY), persona_ids=["Noor", "aria"]
    )

    assert before["nodes"] == before["edges"] == []
    assert before["metrics"] == {"reciprocity": None, "balance": None, "density": None}
    assert ends(early) == [("aria", "kira"), ("kira", "aria")]
    assert [node["id"] for node in early["nodes"]] == ["aria", "kira"]
    assert early["at"] == rfc3339(began + DAY)
    assert [node["id"] for node in named["nodes"]] == ["aria", "noor"]
    assert named["edges"] == []


async def test_a_past_graph_shows_the_values_of_then(service: Service, began: float) -> None:
    happen(service.database, "e9", "aria", "kira", CRUEL, at=began + 3 * DAY)

    then = (await call(service, "relationship_graph", at=rfc3339(began + DAY)))["edges"][0]
    now = (await call(service, "relationship_graph"))["edges"][0]

    assert then["trust"] > now["trust"]
    assert then["familiarity"] < now["familiarity"]


async def test_a_graph_may_be_of_some_and_of_those_who_know_each_other_well(
    service: Service, model: ScriptedModel, began: float
) -> None:
    model.add("Hello, Sam.")
    await say(service, "Hello.", user_id="sam")

    some = await call(service, "relationship_graph", persona_ids=["sam", "ARIA", "aria"])
    close = await call(service, "relationship_graph", min_familiarity=0.5)

    assert some["nodes"] == [
        {"id": "aria", "name": "Aria", "kind": "persona"},
        {"id": "sam", "name": "sam", "kind": "user"},
    ]
    assert ends(some) == [("aria", "sam")]
    assert ends(close) == [("aria", "kira")]


async def test_a_deleted_persona_is_in_no_graph(service: Service, began: float) -> None:
    delete_persona(service.database, "kira")

    graph = await call(service, "relationship_graph")

    assert [node["id"] for node in graph["nodes"]] == ["aria", "noor", "sam"]
    assert ends(graph) == [("aria", "noor"), ("aria", "sam")]
    with pytest.raises(NotFound, match="persona 'kira' not found"):
        await call(service, "relationship_graph", persona_ids=["kira"])


async def test_a_graph_that_is_too_large_is_refused(service: Service) -> None:
    people = service.database
    ids = crowd(people, 2)
    for number in range(500):
        happen(people, f"e{number}", ids[0], f"user-{number}")

    with pytest.raises(LimitExceeded, match="505 personas and users are more than") as refused:
        await call(service, "relationship_graph")

    assert refused.value.data["field"] == "persona_ids"
    assert (await call(service, "relationship_graph", persona_ids=ids))["edges"]


@pytest.mark.parametrize("name", HOSTILE)
async def test_every_format_holds_any_name(service: Service, name: str) -> None:
    made = await call(service, "persona_create", name=name)
    happen(service.database, "e1", made["persona_id"], "kira", CLOSE, at=time.time())
    plain, xml, dot = [
        await call(service, "relationship_graph", format=each)
        for each in ("json", "graphml", "dot")
    ]

    nodes, edges = read_graphml(xml["document"])

    assert xml["nodes"] == xml["edges"] == dot["nodes"] == dot["edges"] == []
    assert nodes == plain["nodes"]
    assert edges == [pytest.approx(edge, abs=1e-4) for edge in plain["edges"]]
    labels = [attributes["label"] for ends, attributes in read_dot(dot["document"])[:4]]
    assert labels == [node["name"] for node in plain["nodes"]]
    assert xml["metrics"] == dot["metrics"] == plain["metrics"]


async def test_an_unknown_format_and_too_many_names_are_refused(service: Service) -> None:
    with pytest.raises(InvalidParams, match="format: allowed is one of json, graphml, dot"):
        await call(service, "relationship_graph", format="svg")
    with pytest.raises(InvalidParams, match="persona_ids"):
        await call(service, "relationship_graph", persona_ids=["aria"] * 501)
