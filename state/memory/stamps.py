"""Triggers that write down that memories were changed or deleted, for whoever holds what it read.

What is added needs none: its `seq` is greater than any before.
"""

from sqlalchemy import Connection

from persona_mcp.state.dialect import is_postgres

CHANGED = "active, archived_at, visibility, indexed_text, content, memory_type, related_personas"
"""What bears on how a memory is found, and by whom."""
EVERYBODY = ""
"""Owner of the stamp of all memories that are open to others than their owner."""
KEEP = "ON CONFLICT (world_id, owner) DO UPDATE SET stamp = excluded.stamp"
PRIVATE = "old.visibility = 'private'"
STAYS_PRIVATE = f"{PRIVATE} AND new.visibility = 'private'"


def stamped(owner: str, stamp: str, unless: str = "1 = 0") -> str:
    """Return the statement that stamps the memories of an owner, unless something holds.

    Args:
        owner: As SQL has it.
        stamp: A random whole number, as SQL has it.
        unless: A condition on `old` and `new`.
    """
    return (
        f"INSERT INTO memory_stamps (world_id, owner, stamp) SELECT old.world_id, {owner}, {stamp} "
        f"WHERE NOT ({unless}) {KEEP};"
    )


def both(stamp: str, unless: str) -> str:
    """Return the statements that stamp a memory's owner, and everybody unless it is private."""
    return f"{stamped('old.persona_id', stamp)} {stamped(repr(EVERYBODY), stamp, unless)}"


SQLITE = (
    f"CREATE TRIGGER memory_stamps_update AFTER UPDATE OF {CHANGED} ON memories "
    f"BEGIN {both('random()', STAYS_PRIVATE)} END",
    "CREATE TRIGGER memory_stamps_delete AFTER DELETE ON memories "
    f"BEGIN {both('random()', PRIVATE)} END",
)
SQLITE_DROP = ("DROP TRIGGER memory_stamps_update", "DROP TRIGGER memory_stamps_delete")
ANY_NUMBER = "(random() * 9007199254740992)::bigint"
POSTGRES = (
    "CREATE FUNCTION memory_stamps_update() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    f"{both(ANY_NUMBER, STAYS_PRIVATE)} RETURN NULL; END $$",
    "CREATE FUNCTION memory_stamps_delete() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    f"{both(ANY_NUMBER, PRIVATE)} RETURN NULL; END $$",
    f"CREATE TRIGGER memory_stamps_update AFTER UPDATE OF {CHANGED} ON memories "
    "FOR EACH ROW EXECUTE FUNCTION memory_stamps_update()",
    "CREATE TRIGGER memory_stamps_delete AFTER DELETE ON memories "
    "FOR EACH ROW EXECUTE FUNCTION memory_stamps_delete()",
)
POSTGRES_DROP = (
    "DROP TRIGGER memory_stamps_update ON memories",
    "DROP TRIGGER memory_stamps_delete ON memories",
    "DROP FUNCTION memory_stamps_update()",
    "DROP FUNCTION memory_stamps_delete()",
)


def create_stamps(connection: Connection) -> None:
    """Make the triggers (a migration calls it)."""
    for statement in POSTGRES if is_postgres(connection) else SQLITE:
        connection.exec_driver_sql(statement)


def drop_stamps(connection: Connection) -> None:
    """Undo `create_stamps`."""
    for statement in POSTGRES_DROP if is_postgres(connection) else SQLITE_DROP:
        connection.exec_driver_sql(statement)
