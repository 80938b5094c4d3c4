"""The original server's data: read from its files as they are, and imported once."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from persona_mcp.server.cli.original import OnlyPlanned
from persona_mcp.server.service import Service
from persona_mcp.state.errors import NotFound
from persona_mcp.state.original import moment_of, read_original
from persona_mcp.state.original_import import Imported, import_original
from tests.calls import call
from tests.command_line import Cli
from tests.originals import A, make_original
from tests.worlds import NOW


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "original"
    make_original(made)
    return made


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(f): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_what_is_read_is_never_written(folder: Path) -> None:
    before = bytes_of(folder)

    found = read_original(folder)

    assert bytes_of(folder) == before
    assert len(found.rows["personas"]) == 3
    assert found.memories["m1"]["content"] == "What m1 says about iron."
    assert found.memories["m3"]["importance"] == 0.9


def test_what_cannot_be_read_is_told(folder: Path) -> None:
    (folder / "other.db").write_bytes(b"SQLite format 3\x00 and then nothing")
    (folder / "text.db").write_text("no database", "utf-8")

    told = "\n".join(read_original(folder).unread)

    for what in ("other.db: ", "text.db: file is not a database", "table rooms with 1 rows"):
        assert what in told
    assert "personas.personality_traits: no JSON" in told


def test_a_table_of_any_name_is_told_of(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "personas.db")) as db, db:
        db.execute('CREATE TABLE "a"" UNION SELECT ""b" (x)')
        db.execute('INSERT INTO "a"" UNION SELECT ""b" VALUES (1)')

    told = "\n".join(read_original(folder).unread)

    assert 'table a" UNION SELECT "b with 1 rows' in told


def test_a_copy_beside_the_original_is_told_of_and_counts_for_nothing(
    cli: Cli, folder: Path
) -> None:
    copy = folder / "personas-backup.db"
    shutil.copy(folder / "personas.db", copy)
    with closing(sqlite3.connect(copy)) as db, db:
        db.execute("UPDATE personas SET description = 'As she was before.'")
    shutil.copytree(folder / "memory", folder / "old" / "memory")

    planned = cli.good("import-original", str(folder), "--dry-run", "--json").json
    done = cli.good("import-original", str(folder))

    assert planned["added"]["personas"] == 2
    assert planned["added"]["memories"] == 3
    told = " ".join(done.err.split())
    assert f"personas-backup.db: table personas: read before, and the first counts: {A}" in told
    assert "personas-backup.db: table conversation_turns: read before" in told
    assert (
        "old/memory/chroma.sqlite3: records: read before, and the first counts: m1, m2, m3" in told
    )
    assert cli.good("show", "Aria 2", "--json").json["description"] == "A bard."


def test_a_copy_of_many_rows_is_told_in_one_line(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "personas.db")) as db, db:
        for n in range(9):
            db.execute("INSERT INTO conversations (id) VALUES (?)", (f"more-{n}",))
    shutil.copy(folder / "personas.db", folder / "zcopy.db")

    [told] = [one for one in read_original(folder).unread if "zcopy.db: table conversations" in one]

    assert told.endswith("counts: talk-1, more-0, more-1, more-2, more-3 and 5 more")


def test_our_own_database_is_not_taken_for_the_originals(cli: Cli, folder: Path) -> None:
    cli.good("list")
    shutil.copy(cli.data_dir / "persona.db", folder / "persona.db")

    done = cli.good("import-original", str(folder), "--json").json

    assert done["added"]["personas"] == 2
    told = "persona.db: it has a table alembic_version, so it is this Persona MCP's own"
    assert any(one.startswith(told) for one in done["unread"])


def test_a_folder_with_our_own_database_only_is_refused(cli: Cli) -> None:
    cli.good("list")

    refused = cli("import-original", str(cli.data_dir))

    assert refused.code == 1
    assert "no data of the original Persona MCP found" in refused.err


def test_a_folder_without_its_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no data of the original Persona MCP"):
        read_original(tmp_path)


def test_times_are_utc_where_no_offset_is_said() -> None:
    assert moment_of("2024-05-01T12:00:00") == moment_of("2024-05-01T14:00:00+02:00")
    wrong = ("1969-12-31T23:00:00", "9999-12-31T23:59:59-01:00", 1e300)
    assert [moment_of(value) for value in wrong] == [None] * 3
    assert (moment_of(5), moment_of("soon"), moment_of(None)) == (5.0, None, None)


def test_a_dry_run_carries_what_it_would_do() -> None:
    assert OnlyPlanned(Imported({"personas": 1})).found.added == {"personas": 1}


def test_the_original_is_imported_once_with_what_could_not_be_read(cli: Cli, folder: Path) -> None:
    planned = cli.good("import-original", str(folder), "--dry-run", "--json").json
    nobody_yet = cli.good("list", "--json").json["total_count"]
    done = cli.good("import-original", str(folder))
    again = cli.good("import-original", str(folder), "--json").json

    counts = {"personas": 2, "relationships": 2, "conversations": 1, "turns": 2, "memories": 3}
    assert planned["added"] == counts
    assert nobody_yet == 3
    assert "memories: 3 imported" in done.out
    for what in ("personas: bad", "now 'Aria 2'", "m4 of persona_gone", "the text of 1 is in no"):
        assert what in " ".join(done.err.split())
    assert set(again["added"].values()) == {0}
    assert again["there"]["memories"] == 3


def test_what_was_imported_is_as_it_was(cli: Cli, folder: Path) -> None:
    cli.good("import-original", str(folder))

    aria = cli.good("show", "Aria 2", "--json").json
    arrows = cli.good("relationships", "--of", "Aria 2", "--json").json
    memories = cli.good("memory", "list", "--persona", "Aria 2", "--json").json["memories"]
    saved = cli.good("state", "save", "--json").json
    copied = cli.good("state", "load", "--into", "copy", "--json").json

    assert aria["personality_traits"] == {"openness": 80, "extraversion": 30}
    assert (aria["social_energy"], aria["available_time"]) == (20, 60)
    [arrow] = arrows["relationships"]
    assert arrow["affinity"] == pytest.approx(0.6, abs=1e-3)
    assert arrow["trust"] == pytest.approx(-0.25, abs=1e-3)
    assert arrow["respect"] == pytest.approx(0.999, abs=1e-3)
    assert arrow["interaction_count"] == 7
    by_text = {memory["content"]: memory for memory in memories}
    assert by_text["What m1 says about iron."]["importance"] == 0.8
    assert by_text["What m2 says about iron."]["visibility"] == "public"
    assert saved["counts"] == copied["restored"]


@pytest.mark.anyio
async def test_an_imported_talk_is_read_like_any_other(service: Service, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "personas.db")) as db, db:
        db.execute("UPDATE conversation_turns SET continue_score = NULL WHERE turn_number = 1")
    laws = service.laws.effects
    await service.database.write(import_original, "main", read_original(folder), laws, NOW)
    [listed] = (await call(service, "conversation_list"))["conversations"]
    talk = {"conversation_id": listed["id"]}

    transcript = await call(service, "conversation_get", **talk)
    status = await call(service, "conversation_status", **talk)

    assert [turn["content"] for turn in transcript["turns"]] == ["Is it hot?", "It is iron."]
    assert [turn["continue_score"] for turn in transcript["turns"]] == [None, 55]
    assert (status["status"], status["turn_count"], status["continue_score"]) == ("ended", 2, 55)
    assert status["tokens_remaining"] is None
