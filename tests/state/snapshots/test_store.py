"""Saved states: the same world gives the same bytes, in whatever world it was loaded."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, func, insert, select, update

from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.embedding import unpack
from persona_mcp.state.erasing import STAYS
from persona_mcp.state.errors import BadSnapshot, Conflict, NotFound
from persona_mcp.state.ids import new_id
from persona_mcp.state.index.synced import SyncedIndex
from persona_mcp.state.index.vector_index import VectorIndex
from persona_mcp.state.index.work import add_work
from persona_mcp.state.personas import PersonaStore
from persona_mcp.state.snapshots.file import (
    canonical,
    digest,
    enveloped,
    open_file,
    parsed,
)
from persona_mcp.state.snapshots.rows import Rows, Selection, read_rows
from persona_mcp.state.snapshots.store import (
    AUTOMATIC,
    AUTOMATIC_KEPT,
    About,
    Loaded,
    Mode,
    SnapshotStore,
    Which,
    Wish,
    rows_of,
)
from persona_mcp.state.snapshots.tables import BY_NAME, KEPT, SCHEMA, columns_kept
from persona_mcp.state.table_base import Base
from tests.worlds import NOW, make_world

pytestmark = [pytest.mark.anyio, pytest.mark.databases]

COLUMNS_OF_SCHEMA_13 = "253d0a0c5200514e"
EVERYTHING = Selection()


def made(database: Database, world_id: str = "old", **more: Any) -> None:
    with database.writing() as connection:
        make_world(connection, world_id, **more)


async def payload(
    database: Database, world_id: str = "old", selection: Selection = EVERYTHING
) -> bytes:
    store = SnapshotStore(database)
    saved = await store.save(world_id, about(), selection)
    return await store.payload(world_id, saved.id)


def about(name: str = "default", note: str = "", now: float = NOW) -> About:
    return About(new_id(), name, now, note)


def wish(world_id: str = "new", mode: Mode = "replace", model_id: str = "double-64") -> Wish:
    return Wish(world_id, mode, model_id, 128, new_id(), NOW)


async def load(database: Database, rows: Rows, into: Wish) -> Loaded:
    return await SnapshotStore(database).load(rows, into)


def rows_in(text: bytes) -> Rows:
    return rows_of(open_file(enveloped(text)))


async def in_sql(database: Database, world_id: str) -> dict[str, Any]:
    """Read all that is kept of a world, in order of writing where that is kept."""
    rows = await database.read(read_rows, world_id)
    return dict(rows)


def edited(text: bytes, change: Any) -> bytes:
    """Change a payload and give it the check sum that goes with it."""
    told = json.loads(text)
    change(told)
    return enveloped(canonical(told))


def test_every_table_of_a_world_is_saved_or_left_out_by_name() -> None:
    of_worlds = {t.name for t in Base.metadata.sorted_tables if "world_id" in t.c}

    assert set(BY_NAME) | STAYS == of_worlds
    assert not set(BY_NAME) & STAYS


def test_new_columns_need_a_new_schema_and_a_step_to_it() -> None:
    found = hashlib.sha256("\n".join(sorted(columns_kept())).encode()).hexdigest()[:16]

    assert (SCHEMA, found) == (13, COLUMNS_OF_SCHEMA_13)


@pytest.mark.parametrize("seed", range(8))
async def test_a_loaded_world_saved_again_gives_the_same_bytes(
    database: Database, seed: int
) -> None:
    sizes: dict[str, Any] = {"personas": 1 + seed % 4, "memories": 5 * seed, "exchanges": 3 * seed}
    made(database, seed=seed, **sizes)
    first = await payload(database)

    await load(database, rows_in(first), wish())

    assert await payload(database, "new") == first
    assert await in_sql(database, "new") == await in_sql(database, "old")


async def test_a_row_says_the_same_to_the_last_bit(database: Database) -> None:
    made(database)
    await load(database, rows_in(await payload(database)), wish())

    for kept in KEPT:
        query = select(*kept.columns).order_by(*(kept.table.c[name] for name in kept.key))
        with database.reading() as connection:
            old, new = (
                connection.execute(query.where(kept.table.c.world_id == world)).all()
                for world in ("old", "new")
            )
        assert old == new, kept.name


async def test_a_file_that_another_program_laid_out_anew_still_loads(database: Database) -> None:
    made(database)
    first = await payload(database)
    file = json.loads(enveloped(first))
    turned = json.dumps(dict(reversed(file.items())), indent=2).encode()

    await load(database, rows_of(open_file(turned)), wish())

    assert await payload(database, "new") == first


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**60), 2**60)
        | st.text()
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_canonical_json_says_what_it_was_made_of(value: Any) -> None:
    try:
        text = canonical(value)
    except UnicodeEncodeError:  # half a character: text of SQL never has it
        return

    assert parsed(text) == value
    assert canonical(parsed(text)) == text
    assert (
        text
        == json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    )


async def test_what_belongs_to_processes_and_clients_is_not_inside(database: Database) -> None:
    made(database)
    with database.writing() as connection:
        row = {"world_id": "old", "created_at": NOW}
        session = {**row, "id": "s3ssion-handle", "persona_id": None, "used_at": NOW}
        connection.execute(insert(tables.Session), [session])
        add_work(connection, "old", "upsert", {"w0rk": 1}, NOW)
        connection.execute(
            update(tables.Exchange)
            .values(
                owner="0wner", correlation_id="c0rr", prompt_id="pr0mpt", prompt={"x": "pr0mpt"}
            )
            .where(tables.Exchange.id == "x1")
        )
        lease = update(tables.Conversation).values(lease_owner="l3ase", lease_until=NOW + 9)
        connection.execute(lease)

    text = (await payload(database)).decode()

    for secret in (
        "s3ssion",
        "w0rk",
        "0wner",
        "c0rr",
        "pr0mpt",
        "l3ase",
        '"old"',
        "another-process",
    ):
        assert secret not in text


async def test_an_exchange_that_was_running_is_loaded_as_interrupted(database: Database) -> None:
    made(database)
    with database.writing() as connection:
        which = update(tables.Exchange).where(tables.Exchange.id == "x3")
        connection.execute(which.values(status="running", finished_at=None))
    first = await payload(database)

    await load(database, rows_in(first), wish())

    with database.reading() as connection:
        x = tables.Exchange
        query = select(x.status, x.finished_at, x.owner).where(x.world_id == "new", x.id == "x3")
        assert tuple(connection.execute(query).one()) == ("interrupted", NOW + 3, "")
    assert await payload(database, "new") == first


def nothing(told: Any) -> None:
    del told["tables"]["turns"]


BROKEN: dict[str, Any] = {
    "a table is missing": nothing,
    "there is another table": lambda t: t["tables"].update(sessions=[]),
    "a table is no list": lambda t: t["tables"].update(turns={}),
    "a row is no object": lambda t: t["tables"]["turns"].append("x"),
    "a column is missing": lambda t: t["tables"]["turns"][0].pop("content"),
    "there is another column": lambda t: t["tables"]["turns"][0].update(world_id="x"),
    "a number is text": lambda t: t["tables"]["memories"][0].update(importance="0.5"),
    "a number is out of range": lambda t: t["tables"]["memories"][0].update(importance=1.5),
    "a number is too large for SQL": lambda t: t["tables"]["turns"][0].update(number=2**70),
    "a text has a NUL": lambda t: t["tables"]["turns"][0].update(content="a\x00b"),
    "a truth is a number": lambda t: t["tables"]["memories"][0].update(pinned=1),
    "an id is no id": lambda t: t["tables"]["turns"][0].update(speaker_id="../x"),
    "a name is too long": lambda t: t["tables"]["conversations"][0].update(topic="x" * 201),
    "a column that must be there is null": lambda t: t["tables"]["turns"][0].update(content=None),
    "a status is unknown": lambda t: t["tables"]["exchanges"][0].update(status="running"),
    "an arrow is incomplete": lambda t: t["tables"]["relationship_states"][0].update(arrow={}),
    "an arrow has more": lambda t: t["tables"]["relationship_states"][0]["arrow"].update(x=1),
    "an appraisal is out of range": (
        lambda t: t["tables"]["relationship_events"][0]["appraisal"].update(warmth=2)
    ),
    "a mood is of text": lambda t: t["tables"]["persona_states"][0]["emotion"].update(mood="x"),
    "a trait is no trait": (
        lambda t: t["tables"]["personas"][0].update(personality_traits=[["openness", -1]])
    ),
    "traits are no pairs": (
        lambda t: t["tables"]["personas"][0].update(personality_traits=[["openness"]])
    ),
    "a name is not its key": lambda t: t["tables"]["personas"][0].update(name_key="other"),
    "a vector is no base64": lambda t: t["tables"]["memory_vectors"][0].update(vector="%%"),
    "a vector is no ASCII": lambda t: t["tables"]["memory_vectors"][0].update(vector="ää"),
    "a vector is half a number": lambda t: t["tables"]["memory_vectors"][0].update(vector="AAAA"),
    "a vector is infinite": lambda t: t["tables"]["memory_vectors"][0].update(vector="AHw="),
    "a vector is short": lambda t: t["tables"]["memory_vectors"][0].update(vector="AAA="),
    "a vector has another owner": (
        lambda t: t["tables"]["memory_vectors"][0].update(
            persona_id=next(
                row["id"]
                for row in t["tables"]["personas"]
                if row["id"] != t["tables"]["memory_vectors"][0]["persona_id"]
            )
        )
    ),
    "a row is there twice": lambda t: t["tables"]["turns"].append(t["tables"]["turns"][0]),
    "two personas have one name": lambda t: t["tables"]["personas"][1].update(
        {name: t["tables"]["personas"][0][name] for name in ("name", "name_key")}
    ),
    "two memories have one place": lambda t: t["tables"]["memories"][0].update(
        place=t["tables"]["memories"][1]["place"]
    ),
    "a turn is of no exchange": lambda t: t["tables"]["turns"][0].update(exchange_id="nobody"),
    "a memory is of nobody": lambda t: t["tables"]["memories"][0].update(persona_id="nobody"),
    "a witness is of no turn": lambda t: t["tables"]["turn_witnesses"][0].update(turn_id="none"),
    "a head is no exchange": (
        lambda t: t["tables"]["conversations"][0].update(head_exchange_id="nobody")
    ),
    "a value is nested too deep": (
        lambda t: t["tables"]["visual_contexts"][0].update(data=nested(40))
    ),
    "a card is no JSON": lambda t: t["tables"]["persona_cards"][0].update(card="x"),
    "a card is no card": lambda t: t["tables"]["persona_cards"][0].update(card='{"a": 1}'),
    "a card's own persona is none": (
        lambda t: t["tables"]["persona_cards"][0].update(
            card='{"name": "Bo", "extensions": {"persona_mcp": {"version": 1, "charisma": 99}}}'
        )
    ),
    "a carrier is unknown": lambda t: t["tables"]["persona_cards"][0].update(carrier="gif"),
    "a card's spec is unknown": lambda t: t["tables"]["persona_cards"][0].update(spec="v4"),
    "a conversation is of no kind": lambda t: t["tables"]["conversations"][0].update(
        kind="monologue"
    ),
    "a version is of no persona": (
        lambda t: t["tables"]["persona_versions"][0].update(spec={"name": "Before", "charisma": 99})
    ),
    "a version has no name": lambda t: t["tables"]["persona_versions"][0].update(spec={}),
    "an arrow is beyond computing": (
        lambda t: t["tables"]["relationship_states"][0]["arrow"].update(affinity_latent=1e308)
    ),
    "an arrow has less than no contact": (
        lambda t: t["tables"]["relationship_states"][0]["arrow"].update(contact=-1e308)
    ),
    "an event takes contact away": (
        lambda t: t["tables"]["relationship_events"][0]["deltas"].update(contact=-1.0)
    ),
    "there is more energy than can be computed": (
        lambda t: t["tables"]["persona_states"][0]["interaction"].update(energy=1e308)
    ),
    "a term of a score is text": (
        lambda t: t["tables"]["exchanges"][0].update(score_terms={"time": "x"})
    ),
    "a term of an importance is none": (
        lambda t: t["tables"]["memories"][0].update(importance_terms=[["novelty", None]])
    ),
    "a chat is with nobody": lambda t: t["tables"]["conversations"][0].update(persona_id=None),
    "a talk has no plan": lambda t: talk_of(t).update(plan=None),
    "a talk's budget is text": lambda t: talk_of(t)["plan"].update(token_budget="x"),
    "a talk's budget is none that can be": lambda t: talk_of(t)["plan"].update(token_budget=0),
    "nobody is in a talk": lambda t: talk_of(t).update(participants=[]),
    "a talk is begun by somebody else": lambda t: talk_of(t)["plan"].update(first_speaker="user"),
    "a whisper of a talk is none": lambda t: talk_of(t)["plan"].update(whispers=[{"turn": 0}]),
    "an arrow first met after all time": (
        lambda t: t["tables"]["relationship_states"][0]["arrow"].update(first_meeting=1e18)
    ),
    "a mood is before all time": (
        lambda t: t["tables"]["persona_states"][0]["emotion"].update(as_of=-1.0)
    ),
    "the format is another": lambda t: t.update(format="persona-mcp-state/2"),
    "the schema is newer": lambda t: t.update(schema=SCHEMA + 1),
    "the schema is none": lambda t: t.update(schema=True),
    "there are no tables": lambda t: t.update(tables=[]),
    "there is something else": lambda t: t.update(more=1),
}


def talk_of(told: Any) -> Any:
    """Have the first conversation be a talk between personas, and return it."""
    who = [row["id"] for row in told["tables"]["personas"]][:2]
    plan = {"token_budget": 1000, "max_duration": 600.0, "max_turns": 20, "seed": 5}
    its: dict[str, Any] = told["tables"]["conversations"][0]
    its |= {"kind": "dialogue", "participants": who, "plan": {**plan, "first_speaker": who[0]}}
    return its


def nested(levels: int) -> Any:
    return {"x": nested(levels - 1)} if levels else {}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN.keys())
async def test_a_file_that_does_not_hold_together_is_refused_and_changes_nothing(
    database: Database, change: Any
) -> None:
    made(database)
    file = edited(await payload(database), change)
    before = await in_sql(database, "old")

    with pytest.raises(BadSnapshot):
        await load(database, rows_of(open_file(file)), wish("old"))

    assert await in_sql(database, "old") == before


async def test_a_talk_between_personas_loads_with_its_plan(database: Database) -> None:
    made(database)
    file = edited(await payload(database), talk_of)

    await load(database, rows_of(open_file(file)), wish())

    loaded = json.loads(await payload(database, "new"))["tables"]["conversations"][0]
    assert (loaded["kind"], loaded["plan"]["token_budget"]) == ("dialogue", 1000)


TIMES = [
    (kept.name, column.name)
    for kept in KEPT
    for column in kept.columns
    if column.name in ("at", "as_of") or column.name.endswith("_at")
]


def test_every_table_that_tells_when_is_tried_with_wrong_times() -> None:
    silent = {kept.name for kept in KEPT} - {table for table, _ in TIMES}

    assert silent == {"turn_witnesses", "persona_states", "memory_witnesses", "memory_vectors"}


@pytest.mark.parametrize(("table", "column"), TIMES)
@pytest.mark.parametrize("when", [-1.0, 253402300800.0, 1e300])
async def test_a_time_that_has_no_date_is_refused_and_changes_nothing(
    database: Database, table: str, column: str, when: float
) -> None:
    made(database)
    file = edited(
        await payload(database), lambda told: told["tables"][table][0].update({column: when})
    )
    before = await in_sql(database, "old")

    with pytest.raises(BadSnapshot, match=rf"^{table} .*: {column}: "):
        await load(database, rows_of(open_file(file)), wish("old"))

    assert await in_sql(database, "old") == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file[: len(file) // 2],
        lambda file: file[:-3],
        lambda file: file.replace(b"boat", b"goat", 1),
        lambda file: file.replace(b'"sha256":"', b'"sha256":"0', 1),
        lambda file: file.replace(b"persona-mcp-state/1", b"persona-mcp-state/9", 1),
        lambda file: file.replace(b'"turn_count":', b'"turn_count":1e999,"x":', 1),
        lambda file: b"",
        lambda file: b"\xff\xfe",
        lambda file: b"[]",
        lambda file: b"[" * 100_000,
        lambda file: b"null",
        lambda file: b'{"format":"persona-mcp-state/1","payload":NaN,"sha256":""}',
    ],
)
async def test_a_file_that_was_cut_off_or_edited_is_refused(
    database: Database, damage: Any
) -> None:
    made(database)
    file = enveloped(await payload(database))

    with pytest.raises(BadSnapshot):
        open_file(damage(file))


def as_schema_9(told: Any) -> None:
    """Take away what migration 0010 brought, as a file of before it has it."""
    told["schema"] = 9
    for name in ("persona_versions", "persona_cards", "visual_contexts"):
        del told["tables"][name]
    for row in told["tables"]["conversations"]:
        for column in ("scene", "plan", "exit_reason"):
            del row[column]
    for row in told["tables"]["exchanges"]:
        del row["finish_reason"]


async def test_a_file_of_an_older_version_loads_with_what_it_could_not_say(
    database: Database,
) -> None:
    made(database)
    first = await payload(database)

    await load(database, rows_of(open_file(edited(first, as_schema_9))), wish())

    found = json.loads(await payload(database, "new"))
    assert found["schema"] == SCHEMA
    assert {row["exit_reason"] for row in found["tables"]["conversations"]} == {None}
    assert {row["finish_reason"] for row in found["tables"]["exchanges"]} == {None}
    assert found["tables"]["persona_cards"] == []
    assert found["tables"]["memories"] == json.loads(first)["tables"]["memories"]


async def test_what_is_replaced_is_saved_first_and_loading_that_undoes_it(
    database: Database,
) -> None:
    made(database)
    made(database, "new", seed=2, personas=2)
    store = SnapshotStore(database)
    before = await payload(database, "new")

    done = await load(database, rows_in(await payload(database)), wish())
    assert done.previous is not None and done.previous.automatic
    kept = await store.find("new", Which(name=AUTOMATIC))
    assert kept == done.previous
    await load(database, await store.open("new", kept.id, kept.sha256), wish())

    assert await payload(database, "new") == before


async def test_only_the_last_of_what_loads_replaced_is_kept(database: Database) -> None:
    made(database, personas=1, memories=1, exchanges=0)
    rows = rows_in(await payload(database))
    for _ in range(AUTOMATIC_KEPT + 3):
        await load(database, rows, wish("old"))

    found, total = await SnapshotStore(database).listed("old", AUTOMATIC, None, 50)

    assert total == AUTOMATIC_KEPT
    assert sorted(saved.version for saved in found) == list(range(4, AUTOMATIC_KEPT + 4))


async def test_a_merge_adds_what_is_new_and_leaves_what_is_there(database: Database) -> None:
    made(database)
    part = await payload(database, "old", Selection(persona_ids=frozenset({"persona-0"})))
    whole = await payload(database)

    await load(database, rows_in(part), wish())
    done = await load(database, rows_in(whole), wish(mode="merge"))
    again = await load(database, rows_in(whole), wish(mode="merge"))

    assert done.written["personas"] == 2
    assert sum(again.written.values()) == 0
    assert again.known > 0
    new, old = await in_sql(database, "new"), await in_sql(database, "old")
    new.pop("memories"), old.pop("memories")  # the order of writing is another
    assert new == old


async def test_a_merge_that_finds_other_content_tells_all_of_it_and_changes_nothing(
    database: Database,
) -> None:
    made(database)
    rows = rows_in(await payload(database))
    await load(database, rows, wish())
    with database.writing() as connection:
        m = tables.Memory
        connection.execute(update(m).where(m.world_id == "new").values(importance=0.125))
        connection.execute(
            delete(tables.VisualContext).where(tables.VisualContext.world_id == "new")
        )
    before = await in_sql(database, "new")
    planned = await SnapshotStore(database).plan(rows, wish(mode="merge"))

    with pytest.raises(Conflict) as refused:
        await load(database, rows, wish(mode="merge"))

    assert await in_sql(database, "new") == before
    assert refused.value.data["count"] == len(planned.clashes) == 12
    told = refused.value.data["conflicts"]
    assert {one["table"] for one in told} == {"memories"}
    assert all("importance" in one["reason"] for one in told)


async def test_a_merge_refuses_another_persona_of_the_same_name(database: Database) -> None:
    made(database, memories=0, exchanges=0)
    rows = rows_in(await payload(database))
    await load(database, rows, wish())
    with database.writing() as connection:
        for name in (
            *("persona_states", "persona_versions", "persona_cards"),
            *("prune_runs", "decay_runs"),
        ):
            table = BY_NAME[name].table
            connection.execute(delete(table).where(table.c.world_id == "new"))
        p = tables.Persona
        which = update(p).where(p.world_id == "new", p.id == "persona-0")
        connection.execute(which.values(id="somebody-else"))

    planned = await SnapshotStore(database).plan(rows, wish(mode="merge"))

    assert [(one.table, one.id) for one in planned.clashes] == [("personas", "persona-0")]
    assert "name_key" in planned.clashes[0].reason


async def test_a_merge_of_a_longer_log_brings_the_cache_along(database: Database) -> None:
    made(database)
    rows = rows_in(await payload(database))
    await load(database, rows, wish())
    with database.writing() as connection:
        connection.execute(
            delete(tables.RelationshipEvent).where(
                tables.RelationshipEvent.world_id == "new", tables.RelationshipEvent.id == "e7"
            )
        )
        r = tables.RelationshipState
        shorter = {"last_seq": 7, "arrow": {"as_of": 0.0}, "as_of": 0.0}
        connection.execute(
            update(r).where(r.world_id == "new", r.from_id == "persona-0").values(shorter)
        )

    await load(database, rows, wish(mode="merge"))

    assert (await in_sql(database, "new")) == (await in_sql(database, "old"))


async def test_a_part_of_a_world_can_be_saved(database: Database) -> None:
    made(database, exchanges=30)
    only = Selection(("personas", "memories"), frozenset({"persona-1"}))

    found = json.loads(await payload(database, "old", only))

    assert found["include"] == ["memories", "personas"]
    assert found["persona_ids"] == ["persona-1"]
    assert [row["id"] for row in found["tables"]["personas"]] == ["persona-1"]
    assert {row["persona_id"] for row in found["tables"]["memories"]} == {"persona-1"}
    assert len(found["tables"]["memory_witnesses"]) == 4
    assert found["tables"]["turns"] == found["tables"]["relationship_events"] == []


async def test_a_part_without_its_personas_loads_only_beside_them(database: Database) -> None:
    made(database)
    rows = rows_in(await payload(database, "old", Selection(("memories",))))
    people = rows_in(await payload(database, "old", Selection(("personas",))))

    with pytest.raises(BadSnapshot, match=r"memories .*: persona_id: allowed is a row of personas"):
        await load(database, rows, wish())
    await load(database, people, wish())
    done = await load(database, rows, wish(mode="merge"))

    assert done.written["memories"] == 12


@pytest.mark.sqlite
async def test_words_are_found_in_a_loaded_world(database: Database) -> None:
    made(database)
    await load(database, rows_in(await payload(database)), wish())

    with database.reading() as connection:
        words = connection.exec_driver_sql(
            "SELECT count(*) FROM memory_words JOIN memories ON memories.seq = memory_words.rowid "
            "WHERE memory_words MATCH 'boat' AND memories.world_id = 'new'"
        ).scalar_one()
        m = tables.Memory
        query = select(func.count()).where(m.world_id == "new", m.indexed_text.contains("boat"))
        assert words == connection.scalar(query)
        assert words > 0


async def test_meaning_is_found_in_a_world_that_was_replaced(
    database: Database, chroma: VectorIndex
) -> None:
    made(database)
    made(database, "new", seed=5, memories=20)
    index = SyncedIndex(database, chroma, "double-64", batch=4)
    with database.reading() as connection:
        v = tables.MemoryVector
        row = connection.execute(select(v).where(v.world_id == "old").order_by(v.seq)).first()
        assert row is not None
    vector = unpack(row.vector)
    await index.reconcile("new")  # Chroma has the world of before: the same ids, other vectors

    await load(database, rows_in(await payload(database)), wish())
    await index.forget()

    expected = await index.search("old", vector, row.persona_id, 5)
    found = await index.search("new", vector, row.persona_id, 5)
    assert [hit.memory_id for hit in found] == [hit.memory_id for hit in expected]
    assert found[0].similarity == pytest.approx(1.0, abs=1e-3)
    assert await index.reconcile("new") == (0, 0)
    await index.aclose()


async def test_vectors_of_another_embedder_are_kept_and_new_ones_asked_for(
    database: Database,
) -> None:
    made(database)
    first = await payload(database)

    done = await load(database, rows_in(first), wish(model_id="other"))

    assert done.to_embed == 12
    assert await payload(database, "new") == first
    with database.reading() as connection:
        o = tables.OutboxEntry
        found = connection.scalars(select(o.operation).where(o.world_id == "new")).all()
        assert found == ["upsert"] * 12


async def test_vectors_of_another_length_are_refused(database: Database) -> None:
    made(database, dimension=8)

    with pytest.raises(BadSnapshot, match="128 bytes, this one has 16"):
        await load(database, rows_in(await payload(database)), wish())


async def test_names_count_versions_and_are_listed_newest_first(database: Database) -> None:
    made(database, memories=1, exchanges=0)
    store = SnapshotStore(database)
    for place, name in enumerate(("default", "default", "trip")):
        await store.save("old", about(name, f"note {place}", NOW + place), EVERYTHING)

    found, total = await store.listed("old", None, None, 2)
    rest, _ = await store.listed("old", None, found[-1].id, 2)
    named, count = await store.listed("old", "default", None, 9)

    assert [(s.name, s.version, s.note) for s in [*found, *rest]] == [
        ("trip", 1, "note 2"),
        ("default", 2, "note 1"),
        ("default", 1, "note 0"),
    ]
    assert (total, count, len(named)) == (3, 2, 2)
    assert (await store.find("old", Which())).version == 2
    assert (await store.find("old", Which(version=1))).note == "note 0"
    assert rest[0].counts["memories"] == 1


async def test_the_same_save_sent_twice_is_one_version(database: Database) -> None:
    made(database)
    store, same = SnapshotStore(database), about()

    first = await store.save("old", same, EVERYTHING)
    with database.writing() as connection:
        connection.execute(update(tables.Memory).values(importance=0.5))
    again = await store.save("old", same, EVERYTHING)

    assert again == first
    assert (await store.listed("old", None, None, 9))[1] == 1


async def test_what_is_not_saved_is_not_found(database: Database) -> None:
    made(database)
    made(database, "new")
    store = SnapshotStore(database)
    saved = await store.save("old", about(), EVERYTHING)

    for world, which in (("old", Which("x")), ("old", Which(version=2)), ("new", Which(saved.id))):
        with pytest.raises(NotFound):
            await store.find(world, which)
    with pytest.raises(NotFound):
        await store.save("nowhere", about(), EVERYTHING)


async def test_a_saved_state_that_is_damaged_in_the_database_is_refused(
    database: Database,
) -> None:
    made(database)
    store = SnapshotStore(database)
    saved = await store.save("old", about(), EVERYTHING)
    assert saved.sha256 == digest(await store.payload("old", saved.id))
    with database.writing() as connection:
        connection.execute(update(tables.Snapshot).values(payload=b"not compressed"))

    with pytest.raises(BadSnapshot, match="damaged"):
        await store.open("old", saved.id, saved.sha256)


async def test_an_empty_world_is_saved_and_loaded_as_well(database: Database) -> None:
    await PersonaStore(database).ensure_world("old", "old", [], NOW)
    made(database, "new")

    await load(database, rows_in(await payload(database)), wish())

    assert not any((await in_sql(database, "new")).values())
