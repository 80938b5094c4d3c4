import asyncio
import string

import pytest
from sqlalchemy import update

from persona_mcp.config.persona_files import bundled_personas
from persona_mcp.state import tables
from persona_mcp.state.commit import commit_exchange
from persona_mcp.state.database import Database
from persona_mcp.state.errors import Conflict, InvalidParams, NotFound
from persona_mcp.state.feelings import at_rest
from persona_mcp.state.ids import ID_LENGTH, id_from_name, name_key
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.personas import PersonaStore, answering, free_id, near
from tests.state.rows import NOW, PARAMS, begin, commit_of, spec

pytestmark = [pytest.mark.anyio, pytest.mark.databases]


@pytest.fixture
def store(database: Database) -> PersonaStore:
    return PersonaStore(database)


async def test_a_world_is_made_once_with_its_first_personas(store: PersonaStore) -> None:
    made = await asyncio.gather(
        *(store.ensure_world("main", "main", bundled_personas(), NOW) for _ in range(4))
    )

    assert sorted(made) == [False, False, False, True]
    assert await store.count("main") == len(bundled_personas())
    assert not await store.ensure_world("main", "main", [spec("Late")], NOW)
    assert await store.count("main") == len(bundled_personas())


async def test_a_world_that_is_not_there_is_not_found(store: PersonaStore) -> None:
    with pytest.raises(NotFound, match="world 'nowhere'"):
        await store.check_world("nowhere")
    with pytest.raises(NotFound, match="world 'nowhere'"):
        await store.create("nowhere", spec("Zoe"), NOW)


async def test_a_world_that_is_there_passes(store: PersonaStore, world: str) -> None:
    await store.check_world(world)


async def test_a_persona_is_read_as_it_was_written(store: PersonaStore, world: str) -> None:
    whole = PersonaSpec.model_validate(
        {
            "name": "Zoë",
            "description": "Line one.\nLine two.",
            "personality_traits": {"openness": 80, "motto": "5", "scale": 100},
            "topic_preferences": {"music": 90},
            "charisma": 17,
            "intelligence": 3,
            "social_rank": "Noble",
            "social_energy": 120.5,
            "available_time": 60,
            "current_priority": "urgent",
            "tags": ["bard"],
            "system_prompt": "Rhyme.",
            "exit_lines": {"tired": ["I must go."]},
            "examples": [{"user": "Hi", "reply": "Hail!"}],
        }
    )

    made = await store.create(world, whole, NOW)

    assert made.spec == whole
    assert (made.id, made.name, made.version, made.created_at) == ("zoe", "Zoë", 1, NOW)
    assert await store.resolve(world, "zoe") == made
    assert made.trait("motto") == "5"
    assert made.trait("none") is None


@pytest.mark.parametrize("bundled", bundled_personas(), ids=lambda persona: persona.name)
async def test_a_bundled_persona_is_read_as_it_was_written(
    store: PersonaStore, world: str, bundled: PersonaSpec
) -> None:
    made = await store.create(world, bundled, NOW)

    assert (await store.resolve(world, made.id)).spec == bundled


@pytest.mark.parametrize("reference", ["zoe", "Zoë", "ZOË", " zoë ", "Zoe\u0308"])
async def test_a_persona_is_found_by_id_or_name_in_any_case_and_form(
    store: PersonaStore, world: str, reference: str
) -> None:
    await store.create(world, spec("Zoë"), NOW)

    assert (await store.resolve(world, reference)).name == "Zoë"


async def test_an_id_goes_before_a_name(store: PersonaStore, world: str) -> None:
    first = await store.create(world, spec("Zo e"), NOW)
    second = await store.create(world, spec("zo-e"), NOW)

    assert (first.id, second.id) == ("zo-e", "zo-e-2")
    assert (await store.resolve(world, "zo-e")).id == first.id
    assert (await store.resolve(world, "zo-e-2")).id == second.id


async def test_a_name_is_taken_whatever_its_case_or_form(store: PersonaStore, world: str) -> None:
    await store.create(world, spec("Zoë"), NOW)

    for name in ("Zoë", "ZOË", "zoe\u0308"):
        with pytest.raises(Conflict, match="is there already") as caught:
            await store.create(world, spec(name), NOW)

    assert caught.value.data["field"] == "name"
    assert await store.count(world) == 3


async def test_names_that_make_the_same_id_get_a_number(store: PersonaStore, world: str) -> None:
    names = ["A!", "A?", "A.", "A b"]

    ids = [(await store.create(world, spec(name), NOW)).id for name in names]

    assert ids == ["a", "a-2", "a-3", "a-b"]


async def test_a_persona_that_was_deleted_is_not_found_and_frees_its_name(
    database: Database, store: PersonaStore, world: str
) -> None:
    with database.writing() as connection:
        gone = update(tables.Persona).where(tables.Persona.id == "mara")
        connection.execute(gone.values(deleted_at=NOW, name_key=None))

    with pytest.raises(NotFound):
        await store.resolve(world, "mara")
    assert await store.count(world) == 1
    with pytest.raises(InvalidParams, match="an id that no persona has"):
        await database.read(answering, world, "tobin", "mara")
    assert (await store.create(world, spec("Mara"), NOW)).id == "mara-2"


async def test_near_names_are_suggested(store: PersonaStore, world: str) -> None:
    with pytest.raises(NotFound) as caught:
        await store.resolve(world, "marra")
    with pytest.raises(NotFound) as other:
        await store.resolve(world, "xyz")

    assert caught.value.message == "persona 'marra' not found; did you mean Mara?"
    assert caught.value.data == {"kind": "persona", "id": "marra", "suggestions": ["Mara"]}
    assert other.value.data["suggestions"] == ["Mara", "Tobin"]
    assert other.value.message == "persona 'xyz' not found; others are Mara, Tobin"


async def test_a_wildcard_is_no_name(store: PersonaStore, world: str) -> None:
    for reference in ("%", "mar_", "*", "' OR 1=1 --", ""):
        with pytest.raises(NotFound):
            await store.resolve(world, reference)


async def test_personas_come_with_their_feelings(
    database: Database, store: PersonaStore, world: str
) -> None:
    mara = await store.resolve(world, "mara")
    await commit_exchange(database, commit_of(await begin(database), mara), PARAMS)

    found = await store.with_feelings(world, NOW + 1, PARAMS)

    assert [persona.id for persona, _ in found] == ["mara", "tobin"]
    (_, felt), (tobin, rested) = found
    assert felt.emotion.as_of == NOW + 1
    assert felt.interaction.fatigue > 0
    assert rested == at_rest(tobin, NOW + 1, PARAMS)


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("Zoë", "zoe"),
        ("Ångström  O'Neil", "angstrom-o-neil"),
        ("ﬁne", "fine"),
        ("--A__b--", "a-b"),
        ("x" * 80, "x" * 56),
    ],
)
def test_an_id_is_made_of_a_name(name: str, id: str) -> None:
    assert id_from_name(name) == id


@pytest.mark.parametrize("name", ["李雷", "...", "", "🙂"])
def test_a_name_without_a_latin_letter_gets_a_random_id(name: str) -> None:
    first, second = id_from_name(name), id_from_name(name)

    assert first != second
    assert len(first) == 32
    assert set(first) <= set(string.hexdigits.lower())


async def test_a_persona_with_any_name_can_be_stored_and_found(
    store: PersonaStore, world: str
) -> None:
    for name in ("李雷", "...", "x" * 80, "y" * 79 + "!"):
        made = await store.create(world, spec(name), NOW)
        assert (await store.resolve(world, name)) == made
        assert (await store.resolve(world, made.id)) == made


def test_a_free_id_fits_the_column() -> None:
    wanted = id_from_name("x" * 80)

    assert free_id(wanted, {wanted, f"{wanted}-2"}) == f"{wanted}-3"
    assert len(free_id(wanted, {wanted})) <= ID_LENGTH


def test_names_are_one_by_nfc_and_case() -> None:
    assert name_key(" Straße ") == name_key("STRASSE")
    assert name_key("e\u0301") == name_key("É")


def test_without_a_near_name_the_first_three_are_told() -> None:
    assert near("qqq", ["a", "b", "c", "d"]) == ["a", "b", "c"]
    assert near("ARIA", ["aria", "Ariadne", "Bob"]) == ["aria", "Ariadne"]
