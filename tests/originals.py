"""Data of the original Persona MCP server, as it left it: SQLite, and Chroma's own files."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import chromadb
import numpy as np
from chromadb.config import Settings

SCHEMA = """
CREATE TABLE personas (id TEXT PRIMARY KEY, name TEXT NOT NULL, description TEXT,
  personality_traits TEXT, topic_preferences TEXT, charisma INTEGER, intelligence INTEGER,
  social_rank TEXT, created_at TIMESTAMP);
CREATE TABLE persona_interaction_states (persona_id TEXT PRIMARY KEY, interest_level INTEGER,
  interaction_fatigue INTEGER, current_priority TEXT, available_time INTEGER,
  social_energy INTEGER, cooldown_until REAL, last_updated TIMESTAMP);
CREATE TABLE relationships (persona1_id TEXT, persona2_id TEXT, affinity REAL, trust REAL,
  respect REAL, interaction_count INTEGER, last_interaction TIMESTAMP, shared_experiences TEXT,
  relationship_type TEXT, PRIMARY KEY (persona1_id, persona2_id));
CREATE TABLE conversations (id TEXT PRIMARY KEY, participants TEXT, topic TEXT,
  topic_drift_count INTEGER, duration INTEGER, token_budget INTEGER, tokens_used INTEGER,
  continue_score INTEGER, score_history TEXT, turn_count INTEGER, started_at TIMESTAMP,
  ended_at TIMESTAMP, exit_reason TEXT);
CREATE TABLE conversation_turns (id TEXT PRIMARY KEY, conversation_id TEXT, speaker_id TEXT,
  turn_number INTEGER, content TEXT, response_type TEXT, continue_score INTEGER,
  tokens_used INTEGER, processing_time REAL, created_at TIMESTAMP);
CREATE TABLE memories (id TEXT PRIMARY KEY, persona_id TEXT, memory_type TEXT, importance REAL,
  emotional_valence REAL, related_personas TEXT, metadata TEXT, created_at TIMESTAMP,
  accessed_count INTEGER, last_accessed TIMESTAMP);
CREATE TABLE rooms (id TEXT);
"""
A, B = "6f1d1c0e-0000-4000-8000-00000000000a", "6f1d1c0e-0000-4000-8000-00000000000b"
DAY = "2024-05-01T12:00:00"


def make_original(folder: Path) -> None:
    """Write two personas who know each other, a talk and three memories; and what is broken."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / "personas.db")) as db:
        db.executescript(SCHEMA)
        traits = json.dumps({"openness": 80, "extraversion": 30})
        for row in (
            (A, "Aria", "A bard.", traits, '{"music": 90}', 15, 12, "performer", DAY),
            (B, "Oz", "A smith.", "{broken", "{}", 9, 14, "commoner", DAY),
            ("bad", "Nobody", "", "{}", "{}", 99, 10, "commoner", DAY),
        ):
            db.execute("INSERT INTO personas VALUES (?,?,?,?,?,?,?,?,?)", row)
        state = (A, 50, 3, "social", 0, 5, 0.0, DAY)
        db.execute("INSERT INTO persona_interaction_states VALUES (?,?,?,?,?,?,?,?)", state)
        for pair in ((A, B, 0.6, -0.25, 1.0, 7), (A, "bad", 0, 0, 0, 1)):
            values = (*pair, DAY, "[]", "friend")
            db.execute("INSERT INTO relationships VALUES (?,?,?,?,?,?,?,?,?)", values)
        talk = (
            "talk-1",
            json.dumps([A, B]),
            "iron",
            0,
            60,
            1000,
            40,
            55,
            "[50, 55]",
            2,
            DAY,
            None,
            None,
        )
        db.execute("INSERT INTO conversations VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", talk)
        for number, (who, said) in enumerate(((A, "Is it hot?"), (B, "It is iron.")), start=1):
            turn = (f"turn-{number}", "talk-1", who, number, said, "full_llm", 55, 20, 0.5, DAY)
            db.execute("INSERT INTO conversation_turns VALUES (?,?,?,?,?,?,?,?,?,?)", turn)
        memory = ("m1", A, "conversation", 0.8, 0.4, json.dumps([B]), '{"room": 3}', DAY, 2, None)
        db.execute("INSERT INTO memories VALUES (?,?,?,?,?,?,?,?,?,?)", memory)
        lost = ("lost", A, "conversation", 0.5, 0.0, "[]", "{}", DAY, 0, None)
        db.execute("INSERT INTO memories VALUES (?,?,?,?,?,?,?,?,?,?)", lost)
        db.execute("INSERT INTO rooms VALUES ('r1')")
        db.commit()
    client = chromadb.PersistentClient(str(folder / "memory"), Settings(anonymized_telemetry=False))
    for owner, ids in ((A, ["m1", "m2"]), (B, ["m3"]), ("gone", ["m4"])):
        client.create_collection(f"persona_{owner}_memories").add(
            ids=ids,
            documents=[f"What {id} says about iron." for id in ids],
            embeddings=np.full((len(ids), 2), 0.5, np.float32),
            metadatas=[{"importance": 0.9, "visibility": "public"} for _ in ids],
        )
