"""What an identity opens."""

import asyncio

import pytest

from persona_mcp.state.callers import LOCAL, SCOPES, Identity, called_by, current_caller

GUEST = Identity("g", "guest", frozenset({"read"}), frozenset({"main"}))


def test_whoever_works_at_the_machine_may_do_everything_everywhere() -> None:
    assert LOCAL.scopes == set(SCOPES)
    assert LOCAL.opens("main")


def test_an_identity_opens_its_worlds_and_no_other() -> None:
    assert GUEST.opens("main")
    assert not GUEST.opens("other")
    assert not GUEST.opens("")


@pytest.mark.anyio
async def test_work_that_a_call_begins_goes_on_in_its_callers_name() -> None:
    async def whose() -> Identity:
        return current_caller()

    with called_by(GUEST):
        task = asyncio.create_task(whose())

    assert await task == GUEST
    assert current_caller() == LOCAL
