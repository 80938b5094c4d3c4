"""Cards in SQL: a persona and its card are one write, and a name is found for it."""

import pytest

from persona_mcp.server.service import Service
from persona_mcp.state.cards.files import read_file
from persona_mcp.state.cards.store import card_use, import_card, kept_card
from persona_mcp.state.errors import BadSnapshot
from tests.calls import dump
from tests.cards import V3, as_json, as_png

pytestmark = pytest.mark.anyio


async def test_a_name_that_is_as_long_as_can_be_still_gets_a_number(service: Service) -> None:
    came = read_file(as_json({"name": "x" * 80}))
    params = service.laws.effects

    names = [
        (
            await service.database.write(import_card, "main", came, "rename", 1.0 + number, params)
        ).persona.name
        for number in range(2)
    ]

    assert names == ["x" * 80, "x" * 78 + " 2"]


async def test_a_card_is_kept_with_the_file_that_carried_it(service: Service) -> None:
    raw = as_png(("ccv3", V3))
    made = await service.database.write(
        import_card, "main", read_file(raw), "fail", 1.0, service.laws.effects
    )

    kept = await service.database.read(kept_card, "main", made.persona.id)
    use = await service.database.read(card_use, "main", made.persona.id)

    assert kept is not None
    assert use is not None
    assert (kept.carrier, kept.file, kept.card.text) == ("png", raw, as_json(V3).decode())
    assert (use.called, use.has_system, len(use.greetings)) == ("Mir", True, 2)
    assert await service.database.read(card_use, "main", "aria") is None


async def test_a_card_that_makes_no_persona_leaves_nothing(service: Service) -> None:
    before = await dump(service.database)
    own = {"persona_mcp": {"version": 1, "intelligence": 99}}
    came = read_file(as_json({"name": "a", "extensions": own}))

    with pytest.raises(BadSnapshot, match="intelligence"):
        await service.database.write(import_card, "main", came, "fail", 1.0, service.laws.effects)

    assert await dump(service.database) == before
