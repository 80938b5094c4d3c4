"""The reference, and that every door names the same operations as it does."""

import re

from persona_mcp.server.mcp import tool_of
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.reference_examples import EXAMPLES
from persona_mcp.server.reference_pages import PAGES, Shown
from persona_mcp.server.rest import PREFIX, path_of, rest_router
from persona_mcp.server.rpc_methods import METHODS, method_of


def test_tools_routes_methods_pages_and_examples_name_the_same_operations() -> None:
    names = [operation.name for operation in operations("all")]
    routes = {route.path for route in rest_router().routes if hasattr(route, "path")}
    text = "\n".join(page() for page in PAGES.values())

    assert [tool_of(operation).name for operation in operations("all")] == names
    assert {PREFIX + path_of(name) for name in names} <= routes
    assert list(METHODS) == [method_of(name) for name in names]
    assert sorted(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == sorted(names)
    assert set(EXAMPLES) == set(names)


def test_what_is_another_each_time_is_shown_by_the_same_stand_in() -> None:
    one, other = "a" * 32, "0123456789abcdef" * 2

    shown = Shown()({"id": one, "of": f"{other} and {one}", "processing_time": 0.1, "x": 0.12345})

    assert shown == {"id": "id-1", "of": "id-2 and id-1", "processing_time": 0.0, "x": 0.123}
