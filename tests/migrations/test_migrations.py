import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, String, inspect

from persona_mcp import migrations
from persona_mcp.config.database import known_revisions, migration_engine, upgrade_database
from persona_mcp.config.migrating import alembic_config
from persona_mcp.config.postgres import is_postgres
from persona_mcp.config.settings import Settings
from persona_mcp.migrations.new import write_revision
from persona_mcp.state import tables

pytestmark = pytest.mark.databases

FOLDER = Path(migrations.__file__).parent
MODELS: MetaData = tables.World.metadata
HEAD = "0014"

WORDS = {
    "sqlite": "SELECT count(*) FROM memory_words WHERE memory_words MATCH 'harbour'",
    "postgresql": "SELECT count(*) FROM memory_words WHERE words @@ "
    "to_tsquery('persona_words', 'harbour')",
}

MEMORY = """
INSERT INTO memories (world_id, id, version, persona_id, content, indexed_text, memory_type,
    importance, importance_terms, emotional_valence, visibility, related_personas, details, pinned,
    active, created_at, updated_at)
VALUES ('main', 'm1', 1, 'mara', 'x', 'The harbour froze.', 'conversation', 0.5, '{}', 0.0,
    'private', '[]', '{}', false, true, 0.0, 0.0)
"""

UPGRADE = """
import sys
from pathlib import Path
from persona_mcp.config.database import upgrade_database
from persona_mcp.config.settings import Settings

settings = Settings(data_dir=Path(sys.argv[1]), _env_file=None)  # the address: environment
sys.stdin.readline()
print(*upgrade_database(settings))
"""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The folder `migrations`, to write revisions into."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(FOLDER, tmp_path / "migrations", ignore=ignored))


@pytest.fixture
def extra_column() -> Iterator[None]:
    """Edit the tables as a change of `state/tables.py` does: personas get a nickname."""
    table = MODELS.tables["personas"]
    column: Column[str] = Column("nickname", String(40), nullable=True)
    table.append_column(column)
    yield
    table._columns.remove(column)


def config_of(settings: Settings, folder: Path = FOLDER) -> Config:
    config = alembic_config(settings)
    config.set_main_option("script_location", str(folder))
    return config


def execute(settings: Settings, *statements: str) -> None:
    engine = migration_engine(settings)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def fill(settings: Settings) -> None:
    execute(settings, "INSERT INTO worlds VALUES ('main', 'Main', 1.0, NULL)", MEMORY)


def ask(settings: Settings, query: str) -> list[tuple[object, ...]]:
    engine = migration_engine(settings)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.exec_driver_sql(query)]
    engine.dispose()
    return found


def words(settings: Settings) -> int:
    """Count the memories that the full-text index has under `harbour`."""
    found = ask(settings, WORDS["postgresql" if is_postgres(settings) else "sqlite"])
    return int(str(found[0][0]))


def names_in(settings: Settings) -> set[str]:
    """Name what there is: tables and views, on PostgreSQL functions and searches too."""
    if not is_postgres(settings):
        query = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
    else:
        parts = [
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'v', 'S') AND relnamespace",
            "SELECT proname FROM pg_proc WHERE pronamespace",
            "SELECT cfgname FROM pg_ts_config WHERE cfgnamespace",
            "SELECT dictname FROM pg_ts_dict WHERE dictnamespace",
        ]
        query = " UNION ALL ".join(f"{part} = 'public'::regnamespace" for part in parts)
    return {str(name) for (name,) in ask(settings, query)}


def columns_of(settings: Settings, table: str) -> set[str]:
    engine = migration_engine(settings)
    names = {column["name"] for column in inspect(engine).get_columns(table)}
    engine.dispose()
    return names


def test_the_tables_and_the_migrations_agree(settings: Settings) -> None:
    upgrade_database(settings)

    command.check(config_of(settings))

    engine = migration_engine(settings)
    made = set(inspect(engine).get_table_names())
    engine.dispose()
    assert set(MODELS.tables) <= made


def test_the_revisions_that_the_files_are_named_after_are_those_that_alembic_finds(
    settings: Settings,
) -> None:
    scripts = ScriptDirectory.from_config(config_of(settings))

    assert known_revisions() == [one.revision for one in scripts.walk_revisions()][::-1]
    assert known_revisions()[-1] == scripts.get_current_head() == HEAD


def test_a_schema_can_be_taken_down_and_put_up_again(settings: Settings) -> None:
    upgrade_database(settings)
    fill(settings)

    command.downgrade(config_of(settings), "base")

    assert names_in(settings) == {"alembic_version"}
    assert upgrade_database(settings) == (None, HEAD)
    fill(settings)
    assert words(settings) == 1


@pytest.mark.parametrize(
    "revision",
    [
        "0001",
        "0002",
        "0003",
        "0004",
        "0005",
        "0006",
        "0007",
        "0008",
        "0009",
        "0010",
        "0011",
        "0012",
        "0013",
        "0014",
    ],
)
def test_each_revision_goes_up_and_down_alone(settings: Settings, revision: str) -> None:
    settings.data_dir.mkdir()
    config = config_of(settings)

    command.upgrade(config, revision)
    command.downgrade(config, "-1")
    command.upgrade(config, "head")

    command.check(config)


def test_an_upgrade_keeps_what_is_stored(settings: Settings) -> None:
    settings.data_dir.mkdir()
    command.upgrade(config_of(settings), "0001")
    execute(settings, "INSERT INTO worlds VALUES ('main', 'Main', 1.0, NULL)")

    assert upgrade_database(settings) == ("0001", HEAD)

    assert ask(settings, "SELECT id, name FROM worlds") == [("main", "Main")]


def test_two_processes_that_upgrade_at_once_both_succeed(settings: Settings) -> None:
    pipe = subprocess.PIPE
    arguments = [sys.executable, "-c", UPGRADE, str(settings.data_dir)]
    where = {"PERSONA_DATABASE__URL": settings.database.url.get_secret_value()}
    processes = [
        subprocess.Popen(
            arguments,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env={**os.environ, **where},
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()

    ends = [process.communicate() for process in processes]

    assert [process.returncode for process in processes] == [0, 0], ends
    assert sorted(out.split() for out, _ in ends) == [[HEAD, HEAD], ["None", HEAD]]
    assert ask(settings, "SELECT * FROM alembic_version") == [(HEAD,)]


def test_an_upgrade_that_is_cut_off_leaves_the_old_schema(settings: Settings, copied: Path) -> None:
    (copied / "versions" / "0015_broken.py").write_text(
        '"""Broken."""\n'
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        'revision, down_revision = "0015", "0014"\n'
        "def upgrade():\n"
        '    op.add_column("worlds", sa.Column("mood", sa.Text()))\n'
        '    raise KeyboardInterrupt("the power went")\n'
    )
    upgrade_database(settings)
    fill(settings)

    with pytest.raises(KeyboardInterrupt):
        command.upgrade(config_of(settings, copied), "head")

    assert "mood" not in columns_of(settings, "worlds")
    assert ask(settings, "SELECT * FROM alembic_version") == [(HEAD,)]
    assert upgrade_database(settings) == (HEAD, HEAD)


def test_a_schema_change_is_made_as_the_page_says(
    settings: Settings, copied: Path, extra_column: None
) -> None:
    """docs/migrations.md: edit the tables, write the revision, go up with data, go down."""
    upgrade_database(settings)
    fill(settings)

    written = write_revision("add a nickname", copied)

    assert written.name == "0015_add_a_nickname.py"
    assert "batch_op.add_column" in written.read_text()
    config = config_of(settings, copied)
    command.upgrade(config, "head")
    command.check(config)
    assert "nickname" in columns_of(settings, "personas")
    fill_persona(settings)
    command.downgrade(config, HEAD)
    assert "nickname" not in columns_of(settings, "personas")
    assert ask(settings, "SELECT id, name FROM personas") == [("mara", "Mara")]
    assert ask(settings, "SELECT id FROM worlds") == [("main",)]
    assert words(settings) == 1


def fill_persona(settings: Settings) -> None:
    execute(
        settings,
        "INSERT INTO personas (world_id, id, version, name, name_key, description,"
        " personality_traits, topic_preferences, charisma, intelligence, social_rank,"
        " social_energy, available_time, current_priority, tags, system_prompt, exit_lines,"
        " examples, created_at, updated_at, nickname) VALUES ('main', 'mara', 1, 'Mara',"
        " 'mara', '', '{}', '{}', 1, 1, '', 1.0, 1.0, 'none', '[]', '', '{}', '[]', 0.0, 0.0,"
        " 'M')",
    )


def test_a_revision_that_copies_memories_keeps_their_words_and_stamps(
    settings: Settings, copied: Path
) -> None:
    """As docs/migrations.md says: what goes with the table is dropped before and made after."""
    (copied / "versions" / "0015_no_details.py").write_text(
        '"""Copy the table."""\n'
        "from alembic import op\n"
        "from persona_mcp.state.memory.stamps import create_stamps, drop_stamps\n"
        "from persona_mcp.state.memory.words import create_words, drop_words\n"
        'revision, down_revision = "0015", "0014"\n'
        "def upgrade():\n"
        "    drop_stamps(op.get_bind())\n"
        "    drop_words(op.get_bind())\n"
        '    with op.batch_alter_table("memories") as batch_op:\n'
        '        batch_op.drop_column("details")\n'
        "    create_words(op.get_bind())\n"
        "    create_stamps(op.get_bind())\n"
    )
    upgrade_database(settings)
    fill(settings)
    witness = "INSERT INTO memory_witnesses VALUES ('main', 'm1', 'ann')"
    execute(settings, witness)

    command.upgrade(config_of(settings, copied), "head")

    assert "details" not in columns_of(settings, "memories")
    assert words(settings) == 1
    assert ask(settings, "SELECT party_id FROM memory_witnesses") == [("ann",)]
    assert ask(settings, "SELECT owner FROM memory_stamps") == []
    execute(settings, "DELETE FROM memories")
    assert words(settings) == 0
    assert ask(settings, "SELECT owner FROM memory_stamps") == [("mara",)]


def test_the_command_writes_an_empty_revision_when_nothing_changed(copied: Path) -> None:
    written = write_revision("nothing new", copied)

    assert written.name == "0015_nothing_new.py"
    assert written.read_text().count("    pass\n") == 2
    assert not (FOLDER / "versions" / written.name).exists()
