"""Which calls of a batch wait for which."""

from typing import Any

import pytest

from persona_mcp.server.call_order import Touch, clash, touch_of
from persona_mcp.server.json_rpc import Request
from persona_mcp.server.rpc_methods import Methods
from persona_mcp.server.service import Service

pytestmark = pytest.mark.anyio

STORE = "memory.store"


async def touch(service: Service, method: str, **params: Any) -> Touch:
    return await touch_of(service, Methods(service), Request(1, method, params))


@pytest.mark.parametrize(
    ("one", "other", "wait"),
    [
        ((STORE, {"persona_id": "aria"}), (STORE, {"persona_id": "aria"}), True),
        ((STORE, {"persona_id": "aria"}), (STORE, {"persona_id": "ARIA"}), True),
        ((STORE, {"persona_id": "aria"}), ("memory.list", {"persona_id": "Aria"}), True),
        ((STORE, {"persona_id": "aria"}), (STORE, {"persona_id": "noor"}), False),
        ((STORE, {"persona_id": "nobody"}), (STORE, {"persona_id": "Nobody"}), True),
        (
            (STORE, {"persona_id": "aria", "witnesses": ["noor"]}),
            (STORE, {"persona_id": "noor"}),
            True,
        ),
        ((STORE, {"persona_id": "aria"}), ("persona.list", {}), True),
        ((STORE, {"persona_id": "aria"}), (STORE, {"content": "Whose?"}), True),
        (("memory.list", {"persona_id": "aria"}), ("persona.list", {}), False),
        (("persona.get", {"persona_id": "aria"}), ("memory.list", {"persona_id": "aria"}), False),
        (
            ("persona.switch", {"persona_id": "aria"}),
            ("persona.chat", {"persona_id": "noor"}),
            True,
        ),
        (("session.clear", {}), ("memory.list", {"persona_id": "aria"}), True),
        ((STORE, {"persona_id": 7}), (STORE, {"persona_id": "noor"}), True),
    ],
)
async def test_calls_wait_where_one_changes_what_the_other_may_see(
    service: Service, one: tuple[str, Any], other: tuple[str, Any], wait: bool
) -> None:
    first, second = [await touch(service, name, **params) for name, params in (one, other)]

    assert clash(first, second) == clash(second, first) == wait


async def test_a_call_in_a_world_that_is_not_there_is_told_by_the_call_itself(
    service: Service,
) -> None:
    found = await touch(service, STORE, persona_id="Aria", world_id="nowhere")

    assert found == Touch(writes=True, personas=frozenset({"aria"}))


@pytest.mark.parametrize(
    "wrong",
    [{"persona_id": "\ud800"}, {"persona_id": "aria", "world_id": "\udfff"}],
)
async def test_a_call_with_arguments_that_nobody_can_read_may_have_to_do_with_anybody(
    service: Service, wrong: dict[str, str]
) -> None:
    found = await touch(service, STORE, **wrong)

    assert clash(found, await touch(service, STORE, persona_id="noor"))
