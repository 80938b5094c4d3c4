"""The original's data into a world; importing the same again adds nothing."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, insert, select, update

from persona_mcp.state import tables
from persona_mcp.state.appraisal import Appraisal, Deltas
from persona_mcp.state.effects import EffectParams, RelationshipChange, add_relationship_change
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.fields import METADATA_BYTES, clean_text
from persona_mcp.state.ids import derived_id, name_key
from persona_mcp.state.memory.memory import NewMemory
from persona_mcp.state.memory.store import add_memories
from persona_mcp.state.original import Original, Row, moment_of
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.relationship import Event, Priors
from persona_mcp.state.table_base import Base
from persona_mcp.state.validation import validate

FARTHEST = 0.999
"""Values of -1 and 1 have no latent value; these are as near as makes no difference."""
CONTACTS = 1000
"""Meetings of a pair that are carried over, at most."""
ENERGY, TIME = (20, 200), (60, 86_400)
ENDED = "imported"
WHY = "imported from the original Persona MCP"


@dataclass
class Imported:
    """What was imported, or would be: how many of each kind, how many were there, what was not."""

    added: dict[str, int] = field(default_factory=dict)
    there: dict[str, int] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)


def import_original(
    connection: Connection, world_id: str, original: Original, params: EffectParams, now: float
) -> Imported:
    """Write what is new of the original into a world, inside a transaction.

    Ids are made from the original's, so the same data again finds its rows. A relationship, which
    has no direction there, becomes the two arrows: a meeting for each that was counted, the last of
    which carries the values. They show the same on the day of the import, and fade from then on.
    """
    done = Imported(unread=list(original.unread))
    ids = add_personas(connection, world_id, original, done, now)
    add_relationships(connection, world_id, original, ids, params, done, now)
    add_conversations(connection, world_id, original, ids, done, now)
    add_all_memories(connection, world_id, original, ids, done, now)
    return done


def own_id(kind: str, id: object) -> str:
    """Make an id from one of the original's."""
    return derived_id("original", kind, str(id))


def known(connection: Connection, world_id: str, table: Any) -> set[str]:
    """Return the ids that a table of the world has."""
    return set(connection.scalars(select(table.id).where(table.world_id == world_id)))


def counted(done: Imported, kind: str, rows: Iterable[Row], there: set[str]) -> list[Row]:
    """Keep the rows whose `key` is new, and count both."""
    every = list(rows)
    new = [row for row in every if row["key"] not in there]
    done.added[kind] = len(new)
    done.there[kind] = len(every) - len(new)
    return new


def keyed(kind: str, rows: Iterable[Row]) -> list[Row]:
    """Give rows of the original the ids that they have here."""
    return [{**row, "key": own_id(kind, row["id"])} for row in rows]


def add_personas(
    connection: Connection, world_id: str, original: Original, done: Imported, now: float
) -> dict[str, str]:
    """Write personas and return their ids here by their ids there."""
    table = tables.Persona
    states = {row["persona_id"]: row for row in original.rows["persona_interaction_states"]}
    rows = keyed("persona", original.rows["personas"])
    specs: dict[str, PersonaSpec] = {}
    for row in rows:
        try:
            specs[row["key"]] = spec_of(row, states.get(row["id"], {}))
        except InvalidParams as error:
            done.unread.append(f"personas: {row['id']}: {error.message}")
    readable = [row for row in rows if row["key"] in specs]
    names = set(connection.scalars(select(table.name_key).where(table.world_id == world_id)))
    for row in counted(done, "personas", readable, known(connection, world_id, table)):
        spec = with_free_name(specs[row["key"]], names)
        if spec.name != specs[row["key"]].name:
            done.unread.append(f"personas: the name {row['name']} is taken; now '{spec.name}'")
        made = moment_of(row.get("created_at")) or now
        values = {"id": row["key"], "name_key": name_key(spec.name), "created_at": made}
        connection.execute(
            insert(table).values(
                **spec.model_dump(mode="json"), **values, world_id=world_id, updated_at=now
            )
        )
    return {row["id"]: row["key"] for row in readable}


def spec_of(row: Row, state: Row) -> PersonaSpec:
    """Read a persona; what it can rest to is what it had, within our ranges.

    Raises:
        InvalidParams: It is none that could be created here.
    """
    given: dict[str, Any] = {
        **{name: row.get(name) for name in ("charisma", "intelligence", "social_rank")},
        "name": row.get("name"),
        "description": row.get("description"),
        "personality_traits": row.get("personality_traits"),
        "topic_preferences": row.get("topic_preferences"),
        "current_priority": state.get("current_priority"),
    }
    for name, (low, high) in (("social_energy", ENERGY), ("available_time", TIME)):
        value = state.get(name)
        if isinstance(value, (int, float)):
            given[name] = min(max(float(value), low), high)
    return validate(PersonaSpec, {key: value for key, value in given.items() if value is not None})


def with_free_name(spec: PersonaSpec, names: set[str | None]) -> PersonaSpec:
    """Give a persona a number behind its name if that is taken."""
    name, number = spec.name, 1
    while name_key(name) in names:
        number += 1
        name = f"{spec.name[:74]} {number}"
    names.add(name_key(name))
    return spec.model_copy(update={"name": name})


def add_relationships(
    connection: Connection,
    world_id: str,
    original: Original,
    ids: Mapping[str, str],
    params: EffectParams,
    done: Imported,
    now: float,
) -> None:
    """Write the two arrows of each relationship."""
    rows = []
    for row in original.rows["relationships"]:
        pair = [ids.get(row.get(name, "")) for name in ("persona1_id", "persona2_id")]
        if None in pair or pair[0] == pair[1]:
            done.unread.append(
                f"relationships: {row.get('persona1_id')} and "
                f"{row.get('persona2_id')}: not two personas that were read"
            )
            continue
        arrows = (tuple(pair), tuple(reversed(pair)))
        rows += [{**row, "arrow": a, "key": own_id("arrow", "/".join(map(str, a)))} for a in arrows]
    there = known(connection, world_id, tables.RelationshipEvent)
    for row in counted(done, "relationships", rows, there):
        meetings = min(max(int(row.get("interaction_count") or 0), 1), CONTACTS)
        met = moment_of(row.get("last_interaction")) or now
        contact = params.relationships.contact_per_event
        for number in range(meetings):
            last = number == meetings - 1
            values = latent(row) if last else {}
            change = RelationshipChange(
                id=row["key"] if last else derived_id(row["key"], number),
                from_id=row["arrow"][0],
                to_id=row["arrow"][1],
                event=Event(
                    at=now if last else min(met, now),
                    seq=0,
                    deltas=Deltas(**values, contact=contact),
                    context="imported",
                    appraisal=Appraisal(),
                ),
                priors=Priors(),
                why=WHY,
            )
            add_relationship_change(connection, world_id, None, change, params.relationships)


def latent(row: Row) -> dict[str, float]:
    """Turn shown values, [-1, 1], into the latent ones whose tanh they are."""
    found = {}
    for name in ("affinity", "trust", "respect"):
        value = row.get(name)
        number = float(value) if isinstance(value, (int, float)) else 0.0
        found[name] = math.atanh(min(max(number, -FARTHEST), FARTHEST))
    return found


def add_conversations(
    connection: Connection,
    world_id: str,
    original: Original,
    ids: Mapping[str, str],
    done: Imported,
    now: float,
) -> None:
    """Write talks with their turns, ended: one exchange a turn, as talks between personas have."""
    turns: dict[str, list[Row]] = {}
    for turn in keyed("turn", original.rows["conversation_turns"]):
        if turn["speaker_id"] in ids and turn.get("content"):
            turns.setdefault(turn["conversation_id"], []).append(turn)
        else:
            done.unread.append(f"conversation_turns: {turn['id']}: no text, or no persona said it")
    rows = []
    for row in keyed("conversation", original.rows["conversations"]):
        parties = [ids[one] for one in row.get("participants") or [] if one in ids]
        if len(parties) > 1:
            said = sorted(turns.pop(row["id"], []), key=lambda turn: turn["turn_number"] or 0)
            rows.append({**row, "parties": parties, "turns": said})
        else:
            done.unread.append(f"conversations: {row['id']}: not two personas that were read")
    done.unread += [
        f"conversation_turns: {len(t)} of {talk}: no such talk" for talk, t in turns.items()
    ]
    new = counted(done, "conversations", rows, known(connection, world_id, tables.Conversation))
    done.added["turns"] = sum(len(row["turns"]) for row in new)
    for row in new:
        written = conversation_rows(world_id, row, ids, now)
        for table, its in written.items():
            if its:
                connection.execute(insert(table), its)
        if row["turns"]:
            c = tables.Conversation
            head = derived_id(row["turns"][-1]["key"], "exchange")
            its_row = update(c).where(c.world_id == world_id, c.id == row["key"])
            connection.execute(its_row.values(head_exchange_id=head))


def conversation_rows(
    world_id: str, row: Row, ids: Mapping[str, str], now: float
) -> dict[type[Base], list[Row]]:
    """Make the rows of one talk."""
    began = moment_of(row.get("started_at")) or now
    times = [moment_of(turn.get("created_at")) or began for turn in row["turns"]]
    ended = moment_of(row.get("ended_at")) or (times[-1] if times else began)
    found: dict[type[Base], list[Row]] = {
        tables.Conversation: [
            {
                "world_id": world_id,
                "id": row["key"],
                "kind": "dialogue",
                "participants": row["parties"],
                "topic": str(row.get("topic") or "general")[:200],
                "status": "ended",
                "turn_count": len(row["turns"]),
                "started_at": began,
                "updated_at": ended,
                "ended_at": ended,
                "exit_reason": str(row.get("exit_reason") or ENDED)[:200],
            }
        ],
        tables.Exchange: [],
        tables.Turn: [],
        tables.TurnWitness: [],
    }
    before = [None, *(derived_id(turn["key"], "exchange") for turn in row["turns"])]
    links = pairwise(before)
    for number, (turn, at, (follows, id)) in enumerate(
        zip(row["turns"], times, links, strict=True), start=1
    ):
        speaker = ids[turn["speaker_id"]]
        other = next((one for one in row["parties"] if one != speaker), speaker)
        where = {"world_id": world_id, "number": number, "follows_id": follows}
        when = {"created_at": at, "finished_at": at}
        exchange = exchange_row(row, turn, id, speaker, other)
        found[tables.Exchange].append({**exchange, **where, **when})
        found[tables.Turn].append(
            {
                "world_id": world_id,
                "id": turn["key"],
                "conversation_id": row["key"],
                "exchange_id": id,
                "position": 0,
                "number": number,
                "speaker_id": speaker,
                "content": turn["content"],
                "created_at": at,
            }
        )
        found[tables.TurnWitness] += [
            {"world_id": world_id, "turn_id": turn["key"], "party_id": party}
            for party in row["parties"]
        ]
    return found


def exchange_row(row: Row, turn: Row, id: str | None, speaker: str, other: str) -> Row:
    """Make the row of the exchange that a turn stands for, but for its place and time."""
    return {
        "id": id,
        "conversation_id": row["key"],
        "request_id": derived_id(turn["key"], "request"),
        "request_hash": derived_id(turn["key"], "hash"),
        "status": "done",
        "persona_id": speaker,
        "user_id": other,
        "message": "",
        "response": turn["content"],
        "response_type": turn.get("response_type"),
        "continue_score": turn.get("continue_score"),
        "tokens_used": turn.get("tokens_used"),
        "processing_s": turn.get("processing_time"),
        "attempts": 1,
        "owner": "",
    }


def add_all_memories(
    connection: Connection,
    world_id: str,
    original: Original,
    ids: Mapping[str, str],
    done: Imported,
    now: float,
) -> None:
    """Write memories: their text is in Chroma, the rest in both; SQL's word counts."""
    beside = {row["id"]: row for row in original.rows["memories"]}
    rows = []
    for id, record in original.memories.items():
        row = {**record, **{k: v for k, v in beside.pop(id, {}).items() if v is not None}}
        owner = ids.get(str(row.get("persona_id"))) or next(
            (mine for theirs, mine in ids.items() if theirs in record["collection"]), None
        )
        if owner is None:
            done.unread.append(
                f"memories: {id} of {record['collection']}: of no persona that was read"
            )
        else:
            rows.append({**row, "owner": owner, "key": own_id("memory", id)})
    if beside:
        done.unread.append(f"memories: the text of {len(beside)} is in no Chroma file")
    for row in counted(done, "memories", rows, known(connection, world_id, tables.Memory)):
        try:
            memory = memory_of(row, ids)
        except (ValueError, ValidationError) as error:
            done.unread.append(f"memories: {row['id']}: {error}")
            continue
        add_memories(connection, world_id, [memory], moment_of(row.get("created_at")) or now)


def memory_of(row: Row, ids: Mapping[str, str]) -> NewMemory:
    """Read a memory; numbers are kept within their ranges, and an unknown visibility is private."""
    related = row.get("related_personas")
    if isinstance(related, str):
        related = json.loads(related) if related.startswith("[") else related.split(",")
    visibility = row.get("visibility")
    metadata = row.get("metadata")
    details: dict[str, Any] = metadata if isinstance(metadata, dict) else {}
    fits = len(json.dumps(details).encode()) <= METADATA_BYTES
    return NewMemory(
        id=row["key"],
        persona_id=row["owner"],
        content=str(clean_text(str(row["content"]))),
        importance=within(row.get("importance"), 0.5, 0.0),
        importance_terms={},
        memory_type=str(row.get("memory_type") or "conversation").lower()[:32],
        visibility=visibility if visibility in ("private", "shared", "public") else "private",
        emotional_valence=within(row.get("emotional_valence"), 0.0, -1.0),
        related_personas=tuple(ids[one] for one in related or () if one in ids),
        details=details if fits else {},
    )


def within(value: object, default: float, low: float) -> float:
    """Keep a number within [low, 1]."""
    return min(max(float(value), low), 1.0) if isinstance(value, (int, float)) else default
