import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, update

from persona_mcp.config.migrating import alembic_config
from persona_mcp.config.settings import Settings
from persona_mcp.server.batch.cast import BROUGHT, cast_of
from persona_mcp.server.store import Store, open_store, read_store
from persona_mcp.state import tables
from persona_mcp.state.batch.faults import spec_of
from persona_mcp.state.batch.values import Cast
from persona_mcp.state.cards.files import read_file
from persona_mcp.state.cards.store import import_card
from persona_mcp.state.dialogue_spec import DialogueSpec
from persona_mcp.state.errors import InvalidParams, StorageUnavailable
from persona_mcp.state.snapshots.rows import Selection, choose, read_rows
from tests.cards import as_json, as_png
from tests.worlds import NOW, make_world

pytestmark = pytest.mark.anyio
RICH = "rich"
Json = dict[str, Any]
SOL: Json = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "data": {"name": "Sol", "description": "A boat builder.", "extensions": {"x": 1.50}},
}


def spec(personas: Json, **fields: Any) -> DialogueSpec:
    return spec_of({"personas": personas, **fields})


def inline(name: str) -> Json:
    return {"persona": {"name": name}}


async def refusal(spec: DialogueSpec, folder: Path | None, store: Store | None = None) -> Json:
    with pytest.raises(InvalidParams) as refused:
        await cast_of(spec, folder, store)
    return {f["field"]: f"{f['allowed']} | {f['given']}" for f in refused.value.data["errors"]}


async def rich_cast(settings: Settings, personas: Json) -> tuple[Cast, Json]:
    """Read a cast from a world with something in every table, and return all of its rows, too.

    How persona-0 sees persona-1 is in it, and how others see a user.
    """

    def fill(connection: Connection) -> None:
        make_world(connection, RICH, exchanges=24)
        for table in (tables.RelationshipEvent, tables.RelationshipState):
            its = (table.world_id == RICH, table.from_id == "persona-0")
            connection.execute(update(table).where(*its).values(to_id="persona-1"))

    async with open_store(settings) as store:
        await store.database.write(fill)
        rows = await store.database.read(read_rows, RICH)
    async with read_store(settings) as kept:
        return await cast_of(spec(personas), None, kept, RICH), rows


async def test_a_persona_is_said_in_the_file_itself() -> None:
    asked = spec(
        {"ada": {**inline("Ada"), "memories": ["A key."]}, "bo": inline("Bo")},
        relationships=[{"of": "ada", "to": "bo", "quality": 0.5}],
    )

    cast = await cast_of(asked, None, None)

    assert [(m.id, m.spec.name, m.memories, m.card) for m in cast.members] == [
        ("ada", "Ada", ("A key.",), None),
        ("bo", "Bo", (), None),
    ]
    assert (cast.ties, cast.kept) == (tuple(asked.relationships), {})


@pytest.mark.sqlite
async def test_a_bundled_persona_needs_no_data_folder_and_makes_none(settings: Settings) -> None:
    asked = spec({"aria": None, "K": {"source": "KIRA", "changes": {"charisma": 3}}})

    async with read_store(settings) as store:
        cast = await cast_of(asked, None, store)

    assert store is None
    assert [(m.id, m.spec.name) for m in cast.members] == [("aria", "Aria"), ("K", "Kira")]
    assert cast.members[1].spec.charisma == 3
    assert cast.members[0].spec.exit_lines
    assert not settings.data_dir.exists()


@pytest.mark.parametrize("name", ["card.json", "card.png"])
async def test_a_card_is_read_from_the_folder_of_the_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "cards").mkdir()
    raw = as_json(SOL) if name.endswith("json") else as_png(("chara", SOL))
    (tmp_path / "cards" / name).write_bytes(raw)

    cast = await cast_of(
        spec({"ada": {"card": f"cards/{name}", "changes": {"name": "Ada"}}, "bo": inline("Bo")}),
        tmp_path,
        None,
    )

    first = cast.members[0]
    assert first.spec.name == "Ada"
    assert first.card is not None
    assert json.loads(first.card) == SOL
    assert first.spec.description == "A boat builder."


async def test_a_persona_of_the_data_folder_goes_before_a_bundled_one(settings: Settings) -> None:
    def change(connection: Connection) -> None:
        card = {**SOL, "data": {**SOL["data"], "name": "Aria"}}
        came = read_file(as_json(card))
        import_card(connection, settings.world, came, "replace", NOW, store.laws.effects)

    async with open_store(settings) as store:
        await store.database.write(change)

    async with read_store(settings) as kept:
        cast = await cast_of(spec({"aria": None, "bo": inline("Bo")}), None, kept)

    assert cast.members[0].spec.description == "A boat builder."
    assert json.loads(cast.members[0].card or "")["data"]["name"] == "Aria"


async def test_what_personas_of_a_data_folder_know_and_feel_comes_with_them(
    settings: Settings,
) -> None:
    two = {"persona-0", "persona-1"}

    cast, rows = await rich_cast(settings, dict.fromkeys(sorted(two)))

    expected = choose(rows, Selection(BROUGHT, frozenset(two)))
    for name in ("relationship_events", "relationship_states"):
        expected[name] = [r for r in expected[name] if {r["from_id"], r["to_id"]} <= two]
    assert cast.kept == expected
    brought = {name for name, its in cast.kept.items() if its}
    assert {"memories", "memory_vectors", "mood_impulses", "persona_states"} <= brought
    assert {"relationship_events", "relationship_states"} <= brought
    assert not brought & {"personas", "conversations", "exchanges", "turns"}


async def test_their_rows_name_them_as_the_batch_does(settings: Settings) -> None:
    cast, rows = await rich_cast(
        settings, {"one": {"source": "persona-0"}, "persona-0": {"source": "persona-1"}}
    )

    assert [member.id for member in cast.members] == ["one", "persona-0"]
    owners = {row["persona_id"] for row in cast.kept["memories"]}
    assert owners == {"one", "persona-0"}
    by_id = {row["id"]: row for row in rows["memories"]}
    for row in cast.kept["memories"]:
        was = by_id[row["id"]]
        names = {"persona-0": "one", "persona-1": "persona-0"}
        assert row["persona_id"] == names[was["persona_id"]]
        assert row["speaker_id"] == names.get(was["speaker_id"], was["speaker_id"])
        assert row["related_personas"] == [names.get(p, p) for p in was["related_personas"]]
    arrows = {(r["from_id"], r["to_id"]) for r in cast.kept["relationship_events"]}
    assert arrows <= {("one", "persona-0"), ("persona-0", "one")}
    assert arrows


async def test_somebody_else_who_had_the_id_before_gets_another_one(settings: Settings) -> None:
    cast, rows = await rich_cast(
        settings, {"persona-0": None, "persona-1": {**inline("Somebody new")}}
    )

    named = {p for row in cast.kept["memory_witnesses"] for p in [row["party_id"]]}
    assert "persona-1" in {row["party_id"] for row in rows["memory_witnesses"]}
    assert "persona-1" not in named


def sums(folder: Path) -> dict[str, str]:
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


async def test_a_data_folder_is_only_read(settings: Settings) -> None:
    async with open_store(settings):
        pass
    before = sums(settings.data_dir)

    async with read_store(settings) as store:
        await cast_of(spec({"aria": None, "kira": None}), None, store)

    assert sums(settings.data_dir) == before


@pytest.mark.sqlite
async def test_a_data_folder_of_an_older_version_is_not_upgraded(settings: Settings) -> None:
    settings.data_dir.mkdir()
    config = alembic_config(settings)
    (first,) = ScriptDirectory.from_config(config).get_bases()
    command.upgrade(config, first)
    before = sums(settings.data_dir)

    with pytest.raises(StorageUnavailable, match=r"older version.*persona db upgrade"):
        async with read_store(settings):
            pass

    assert sums(settings.data_dir) == before


@pytest.mark.sqlite
async def test_a_damaged_database_is_no_data_folder(settings: Settings) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "persona.db").write_bytes(b"not a database at all" * 100)

    with pytest.raises(StorageUnavailable, match="cannot be opened"):
        async with read_store(settings):
            pass


async def test_somebody_who_is_nowhere_is_told_with_near_names(settings: Settings) -> None:
    asked = spec({"arya": None, "kay": {"source": "Kirra"}, "bo": inline("Bo")})

    assert await refusal(asked, None) == {
        "personas.arya": "persona or card, or one that is bundled, such as aria | arya",
        "personas.kay.source": "persona or card, or one that is bundled, such as kira | Kirra",
    }
    async with open_store(settings) as store:
        found = await refusal(asked, None, store)
    assert found["personas.arya"].startswith("persona or card, or one that is bundled or in the")


async def test_a_card_that_cannot_be_read_is_told_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"spec": "other"}')
    (tmp_path / "folder").mkdir()
    names = {"a": "none.png", "b": "bad.json", "c": "folder", "d": "x" * 900}
    asked = spec({id: {"card": path} for id, path in names.items()})

    found = await refusal(asked, tmp_path)

    assert list(found) == [f"personas.{id}.card" for id in "abcd"]
    assert found["personas.a.card"].endswith("| none.png: no such file or directory")
    assert found["personas.b.card"].startswith("a character card | bad.json: ")
    assert "folder: is a directory" in found["personas.c.card"]


async def test_where_no_files_may_be_read_a_card_is_refused() -> None:
    found = await refusal(spec({"a": {"card": "a.json"}, "b": inline("B")}), None)

    assert found == {"personas.a.card": "no files here: persona, with what the card says | a.json"}


async def test_two_of_one_name_are_refused_wherever_they_come_from(tmp_path: Path) -> None:
    found = await refusal(spec({"aria": None, "a": inline("ARIA")}), tmp_path)

    assert found == {
        "personas.a": "a persona of another name than aria's; changes can give it one | ARIA"
    }


async def test_one_of_the_data_folder_cannot_be_two(settings: Settings) -> None:
    async with open_store(settings) as store:
        twins = {"aria": None, "b": {"source": "aria", "changes": {"name": "Bea"}}}

        found = await refusal(spec(twins), None, store)

    assert found == {
        "personas.b.source": "a persona of the data folder once: aria is it, too | aria"
    }
