"""What the original server's clients send and read: its method names, arguments, result fields.

Only what it had is sent, and of the answers only what it had is looked at, with its types; more may
be there. Everything goes over a socket with its sub-protocol.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from persona_mcp.server.rpc_methods import METHODS, STREAM
from persona_mcp.server.service import Service
from tests.doubles import ScriptedModel
from tests.http_server import served
from tests.rpc_client import Client, connected

pytestmark = pytest.mark.anyio

NUMBER, INT, TEXT, FLAG, OBJECT = "number", "whole number", "text", "true or false", "object"
ANY = "anything"
KINDS: dict[str, tuple[type, ...]] = {
    NUMBER: (int, float),
    INT: (int,),
    TEXT: (str,),
    FLAG: (bool,),
    OBJECT: (dict,),
}


@dataclass(frozen=True)
class Maybe:
    """Of this shape, or null."""

    shape: Any


@dataclass(frozen=True)
class Each:
    """An object whose keys are ids; each value is of this shape."""

    shape: Any


def wrong(shape: Any, value: Any, path: str = "result") -> list[str]:
    """Name every field that is missing or of another type; a list must have an entry to look at."""
    match shape:
        case Maybe():
            return [] if value is None else wrong(shape.shape, value, path)
        case Each():
            if not isinstance(value, dict) or not value:
                return [f"{path}: {value!r} is no object with entries"]
            return [
                w for key, one in value.items() for w in wrong(shape.shape, one, f"{path}.{key}")
            ]
        case list():
            if not isinstance(value, list) or not value:
                return [f"{path}: {value!r} is no list with entries"]
            return [w for n, one in enumerate(value) for w in wrong(shape[0], one, f"{path}[{n}]")]
        case dict():
            if not isinstance(value, dict):
                return [f"{path}: {value!r} is no object"]
            missing = [f"{path}.{key}: missing" for key in shape if key not in value]
            return missing + [
                w
                for key in shape
                if key in value
                for w in wrong(shape[key], value[key], f"{path}.{key}")
            ]
        case str() if shape == ANY:
            return []
    fits = isinstance(value, KINDS[shape]) and (shape == FLAG or not isinstance(value, bool))
    return [] if fits else [f"{path}: {value!r} is no {shape}"]


@dataclass(frozen=True)
class Case:
    """A call as the original's clients make it, and what they read of its result."""

    method: str
    params: dict[str, Any]
    result: dict[str, Any]
    before: tuple[tuple[str, dict[str, Any]], ...] = ()


PAIR = {"persona1_id": "aria", "persona2_id": "noor"}
HARBOUR = "The harbour froze in the year of the long winter."
STORE = {
    "content": HARBOUR,
    "memory_type": "observation",
    "importance": 0.7,
    "visibility": "public",
    "related_personas": ["noor"],
}
SWITCH = ("persona.switch", {"persona_id": "aria"})
REMEMBER = ("memory.store", STORE)
MEET = ("relationship.update", {**PAIR, "interaction_quality": 0.6, "duration_minutes": 20})
START = (
    "conversation.start",
    {"persona1_id": "noor", "persona2_id": "kira", "topic": "the sea", "token_budget": 500},
)

RELATION = {
    "persona1_id": TEXT,
    "persona2_id": TEXT,
    "affinity": NUMBER,
    "trust": NUMBER,
    "respect": NUMBER,
    "intimacy": NUMBER,
    "relationship_type": TEXT,
    "interaction_count": INT,
    "total_interaction_time": NUMBER,
    "compatibility_score": NUMBER,
    "relationship_strength": NUMBER,
    "last_interaction": TEXT,
    "first_meeting": TEXT,
}
FELT = {
    "mood": NUMBER,
    "energy_level": NUMBER,
    "stress_level": NUMBER,
    "curiosity": NUMBER,
    "social_battery": NUMBER,
    "last_updated": TEXT,
}
PERSON = {"id": TEXT, "name": TEXT}

CASES = [
    Case(
        "persona.switch",
        {"persona_id": "Aria"},
        {
            "persona_id": TEXT,
            "name": TEXT,
            "description": TEXT,
            "status": TEXT,
            "social_energy": NUMBER,
            "available_time": NUMBER,
            "current_priority": TEXT,
        },
    ),
    Case(
        "persona.chat",
        {"message": "My cat is called Biscuit.", "token_budget": 200},
        {
            "response": TEXT,
            "response_type": TEXT,
            "continue_score": INT,
            "tokens_used": INT,
            "processing_time": NUMBER,
            "persona_state": {
                "social_energy": NUMBER,
                "available_time": NUMBER,
                "interaction_fatigue": NUMBER,
            },
        },
        (SWITCH,),
    ),
    Case(
        "persona.list",
        {},
        {
            "personas": [
                {
                    **PERSON,
                    "description": TEXT,
                    "available": FLAG,
                    "social_energy": NUMBER,
                    "current_priority": TEXT,
                    "cooldown_remaining": NUMBER,
                }
            ],
            "total_count": INT,
            "available_count": INT,
        },
    ),
    Case(
        "persona.create",
        {
            "name": "Juno",
            "description": "You mend clocks.",
            "personality_traits": {"openness": 80, "humour": 40},
            "topic_preferences": {"clocks": 90},
            "charisma": 12,
            "intelligence": 15,
            "social_rank": "merchant",
        },
        {"persona_id": TEXT, "name": TEXT, "created": FLAG},
    ),
    Case(
        "persona.status",
        {},
        {
            "persona": {
                **PERSON,
                "description": TEXT,
                "personality_traits": OBJECT,
                "topic_preferences": OBJECT,
                "charisma": INT,
                "intelligence": INT,
                "social_rank": TEXT,
            },
            "interaction_state": {
                "interest_level": NUMBER,
                "interaction_fatigue": NUMBER,
                "current_priority": TEXT,
                "available_time": NUMBER,
                "social_energy": NUMBER,
                "cooldown_until": Maybe(TEXT),
                "is_available": FLAG,
            },
            "memory_stats": OBJECT,
        },
        (SWITCH,),
    ),
    Case(
        "persona.memory",
        {"query": "harbour", "limit": 3},
        {
            "memories": [
                {"content": TEXT, "importance": NUMBER, "memory_type": TEXT, "created_at": TEXT}
            ],
            "query": TEXT,
            "total_found": INT,
        },
        (SWITCH, REMEMBER),
    ),
    Case(
        "persona.relationship",
        {"target_persona": "noor"},
        {"current_persona": TEXT, "target_persona": TEXT, "relationship": OBJECT},
        (SWITCH, MEET),
    ),
    Case(
        *START,
        {"conversation_id": TEXT, "participants": [ANY], "topic": TEXT, "started": FLAG},
    ),
    Case(
        "conversation.end",
        {"reason": "user_request"},
        {
            "conversation_id": TEXT,
            "ended": FLAG,
            "reason": TEXT,
            "final_stats": {"duration": NUMBER, "turns": INT, "tokens_used": INT},
        },
        (START,),
    ),
    Case(
        "conversation.status",
        {},
        {
            "id": TEXT,
            "participants": [ANY],
            "topic": TEXT,
            "turn_count": INT,
            "duration": NUMBER,
            "continue_score": NUMBER,
            "tokens_remaining": INT,
            "should_continue": FLAG,
        },
        (START,),
    ),
    Case(
        "memory.search",
        {"query": "harbour", "n_results": 3, "memory_type": "observation", "min_importance": 0.1},
        {
            "memories": [
                {
                    "id": TEXT,
                    "content": TEXT,
                    "memory_type": TEXT,
                    "importance": NUMBER,
                    "emotional_valence": NUMBER,
                    "related_personas": [TEXT],
                    "visibility": TEXT,
                    "created_at": TEXT,
                    "accessed_count": INT,
                }
            ],
            "query": TEXT,
            "result_count": INT,
        },
        (SWITCH, REMEMBER),
    ),
    Case(
        "memory.store",
        {**STORE, "persona_id": "aria", "emotional_valence": -0.2, "metadata": {"place": "pier"}},
        {"memory_id": TEXT, "stored": FLAG},
    ),
    Case(
        "memory.stats",
        {},
        {
            "total_memories": INT,
            "avg_importance": NUMBER,
            "memory_types": Each(INT),
            "high_importance_count": INT,
            "created_today": INT,
            "stats_calculation_time_ms": NUMBER,
        },
        (SWITCH, REMEMBER),
    ),
    Case(
        "memory.prune",
        {},
        {"status": TEXT, "current_memory_count": INT, "message": TEXT},
        (SWITCH, REMEMBER),
    ),
    Case(
        "memory.prune",
        {"persona_id": "aria", "force": True},
        {
            "status": TEXT,
            "memories_before": INT,
            "memories_after": INT,
            "memories_pruned": INT,
            "processing_time": NUMBER,
            "average_importance_pruned": Maybe(NUMBER),
            "average_importance_kept": NUMBER,
        },
        (SWITCH, REMEMBER),
    ),
    Case(
        "memory.prune_all",
        {},
        {
            "status": TEXT,
            "personas_processed": INT,
            "total_memories_before": INT,
            "total_memories_after": INT,
            "total_memories_pruned": INT,
            "processing_time": NUMBER,
            "errors_encountered": INT,
        },
        (SWITCH, REMEMBER),
    ),
    Case(
        "memory.prune_recommendations",
        {},
        {
            "persona_id": TEXT,
            "recommendations": {
                "needs_pruning": FLAG,
                "current_count": INT,
                "target_count": INT,
                "would_prune": INT,
                "average_importance_to_prune": Maybe(NUMBER),
                "importance_range_to_prune": Maybe(ANY),
                "recommendation": TEXT,
            },
        },
        (SWITCH, REMEMBER),
    ),
    Case(
        "memory.prune_stats",
        {},
        {
            "pruning_statistics": {
                "total_pruning_operations": INT,
                "total_memories_pruned": INT,
                "total_personas_processed": INT,
                "average_processing_time": NUMBER,
                "last_global_prune": Maybe(TEXT),
                "personas_last_pruned": OBJECT,
            }
        },
    ),
    Case(
        "memory.decay_start",
        {},
        {"status": TEXT, "interval_hours": NUMBER, "mode": TEXT, "auto_pruning": FLAG},
    ),
    Case("memory.decay_stop", {}, {"status": TEXT}),
    Case(
        "memory.decay_stats",
        {},
        {
            "decay_statistics": {
                "background_running": FLAG,
                "last_run": Maybe(TEXT),
                "total_decay_cycles": INT,
                "total_memories_decayed": INT,
                "total_auto_prunes_triggered": INT,
                "recent_cycle": OBJECT,
                "config": OBJECT,
            }
        },
    ),
    Case(
        "memory.decay_force",
        {"persona_id": "aria", "decay_factor": 0.2},
        {
            "status": TEXT,
            "persona_id": TEXT,
            "decay_factor": NUMBER,
            "memories_processed": INT,
            "memories_decayed": INT,
        },
        (SWITCH, REMEMBER),
    ),
    Case(
        "memory.decay_force",
        {},
        {
            "personas_processed": INT,
            "memories_decayed": INT,
            "auto_prunes_triggered": INT,
            "processing_time": NUMBER,
        },
        (SWITCH, REMEMBER),
    ),
    Case(
        "memory.search_cross_persona",
        {
            "query": "harbour",
            "n_results": 5,
            "min_importance": 0.5,
            "include_shared": True,
            "include_public": True,
        },
        {
            "requesting_persona": TEXT,
            "query": TEXT,
            "memories": [
                {
                    "memory_id": TEXT,
                    "content": TEXT,
                    "similarity": NUMBER,
                    "importance": NUMBER,
                    "memory_type": TEXT,
                    "created_at": TEXT,
                    "visibility": TEXT,
                    "source": TEXT,
                    "source_persona": TEXT,
                }
            ],
            "total_results": INT,
            "search_params": OBJECT,
        },
        (SWITCH, REMEMBER, ("persona.switch", {"persona_id": "noor"})),
    ),
    Case(
        "memory.shared_stats",
        {},
        {
            "shared_memory_statistics": {
                "total_personas": INT,
                "shared_memories": INT,
                "public_memories": INT,
                "cross_references": INT,
                "by_persona": Each({"shared": INT, "public": INT, "cross_references": INT}),
            },
            "timestamp": TEXT,
        },
        (SWITCH, REMEMBER),
    ),
    Case(
        "relationship.get",
        PAIR,
        {"relationship": RELATION, "exists": FLAG},
        (MEET,),
    ),
    Case("relationship.get", PAIR, {"exists": FLAG, "message": TEXT}),
    Case(
        "relationship.list",
        {},
        {
            "persona_id": TEXT,
            "relationships": [
                {
                    "other_persona_id": TEXT,
                    "affinity": NUMBER,
                    "trust": NUMBER,
                    "respect": NUMBER,
                    "intimacy": NUMBER,
                    "relationship_type": TEXT,
                    "interaction_count": INT,
                    "compatibility_score": NUMBER,
                    "relationship_strength": NUMBER,
                    "last_interaction": TEXT,
                }
            ],
            "total_relationships": INT,
        },
        (SWITCH, MEET),
    ),
    Case(
        "relationship.compatibility",
        PAIR,
        {
            "persona1": PERSON,
            "persona2": PERSON,
            "compatibility_analysis": {
                "overall": NUMBER,
                "personality": NUMBER,
                "social": NUMBER,
                "interests": NUMBER,
                "history": NUMBER,
                "prediction": ANY,
            },
            "interaction_suggestions": {
                "interaction_style": TEXT,
                "recommended_topics": ANY,
                "potential_challenges": ANY,
                "relationship_potential": TEXT,
                "interaction_frequency": TEXT,
            },
            "existing_relationship": FLAG,
        },
    ),
    Case(
        "relationship.stats",
        {},
        {
            "relationship_statistics": {
                "total_relationships": INT,
                "relationship_types": Each(INT),
                "average_compatibility": NUMBER,
                "total_interactions": INT,
                "most_active_personas": [ANY],
            },
            "timestamp": TEXT,
        },
        (MEET,),
    ),
    Case(
        "relationship.update",
        {**PAIR, "interaction_quality": 0.6, "duration_minutes": 12, "context": "conversation"},
        {
            "success": FLAG,
            "message": TEXT,
            "interaction_processed": {
                "quality": NUMBER,
                "duration_minutes": NUMBER,
                "context": TEXT,
            },
            "updated_relationship": {
                "affinity": NUMBER,
                "trust": NUMBER,
                "respect": NUMBER,
                "relationship_type": TEXT,
                "compatibility_score": NUMBER,
            },
        },
    ),
    Case("emotional.get_state", {}, {"persona_id": TEXT, "emotional_state": FELT}, (SWITCH,)),
    Case(
        "emotional.update_state",
        {"mood": 0.4, "stress_level": 0.2},
        {"success": FLAG, "message": TEXT, "updated_state": FELT},
        (SWITCH,),
    ),
    Case(
        "state.save",
        {},
        {
            "state_saved": FLAG,
            "state": {
                "current_persona_id": TEXT,
                "current_conversation_id": TEXT,
                "active_conversations": ANY,
                "timestamp": TEXT,
            },
        },
        (SWITCH, REMEMBER),
    ),
    Case(
        "state.load",
        {"confirm": True},  # beyond the original's: a world that is not empty is not lost unasked
        {
            "state_loaded": FLAG,
            "current_persona_id": Maybe(TEXT),
            "current_conversation_id": Maybe(TEXT),
        },
        (SWITCH, REMEMBER, ("state.save", {})),
    ),
    Case(
        "visual.update",
        {"type": "scene", "data": {"light": "dusk"}},
        {"visual_updated": FLAG, "update_type": TEXT, "timestamp": TEXT},
        (SWITCH,),
    ),
    Case(
        "system.status",
        {},
        {
            "system_status": TEXT,
            "llm_available": FLAG,
            "total_personas": INT,
            "available_personas": INT,
            "active_conversations": INT,
            "current_persona": ANY,
            "current_conversation": ANY,
            "timestamp": TEXT,
        },
        (SWITCH,),
    ),
    Case(
        "system.models",
        {},
        {"available_models": ANY, "current_model": TEXT, "provider": TEXT},
    ),
]
METHODS_OF_THE_ORIGINAL = {case.method for case in CASES}

EVENTS = {
    "stream_start": {
        "persona_id": TEXT,
        "persona_name": TEXT,
        "message": TEXT,
        "token_budget": INT,
    },
    "stream_chunk": {"chunk": TEXT, "chunk_number": INT, "total_length": INT},
    "stream_complete": {
        "full_response": TEXT,
        "chunk_count": INT,
        "processing_time": NUMBER,
        "response_length": INT,
        "tokens_used": INT,
        "persona_name": TEXT,
    },
}
REPEATED = {
    "stream_chunk": {"chunk": TEXT},
    "stream_complete": {"full_response": TEXT, "tokens_used": INT, "processing_time": NUMBER},
}


@pytest.fixture
async def client(service: Service, model: ScriptedModel) -> AsyncIterator[Client]:
    model.add("What a fine name for a cat.")
    async with served(service) as found, connected(found, "/mcp", legacy=True) as opened:
        yield opened


async def result(client: Client, method: str, params: dict[str, Any]) -> dict[str, Any]:
    told = await client.ask(method, {**params, "websocket_id": "w1"})
    assert told["error"] is None, told
    assert isinstance(told["result"], dict)
    return told["result"]


def test_the_thirty_five_methods_are_there() -> None:
    assert len(METHODS_OF_THE_ORIGINAL) == 35
    assert METHODS.keys() >= METHODS_OF_THE_ORIGINAL


@pytest.mark.parametrize(
    "case",
    CASES,
    ids=lambda case: f"{case.method} {','.join(case.params)}",
)
async def test_a_client_of_the_original_reads_what_it_read(client: Client, case: Case) -> None:
    for method, params in case.before:
        await result(client, method, params)

    told = await result(client, case.method, case.params)

    assert wrong(case.result, told) == []


async def test_a_stream_has_the_events_and_fields_of_the_original(client: Client) -> None:
    await result(client, *SWITCH)
    await client.send(STREAM, {"message": "My cat is called Biscuit.", "token_budget": 200}, id=9)
    frames = await client.events()

    kinds = [frame["result"]["event_type"] for frame in frames]
    assert kinds[0] == "stream_start" and kinds[-1] == "stream_complete"
    assert set(kinds[1:-1]) == {"stream_chunk"}
    for frame, kind in zip(frames, kinds, strict=True):
        event = frame["result"]
        outer = {"stream_id": TEXT, "timestamp": TEXT, "persona_id": TEXT, "seq": INT}
        assert (frame["id"], frame["error"]) == (9, None)
        assert wrong({**outer, **REPEATED.get(kind, {}), "data": EVENTS[kind]}, event) == []


def test_the_look_at_shapes_finds_what_is_missing_or_of_another_type() -> None:
    assert wrong({"a": INT}, {}) == ["result.a: missing"]
    assert wrong({"a": INT}, {"a": 1.5}) == ["result.a: 1.5 is no whole number"]
    assert wrong({"a": INT}, {"a": True}) == ["result.a: True is no whole number"]
    assert wrong({"a": [TEXT]}, {"a": []}) == ["result.a: [] is no list with entries"]
    assert wrong({"a": Each(INT)}, {"a": {"x": "y"}}) == ["result.a.x: 'y' is no whole number"]
    assert wrong({"a": Maybe(TEXT), "b": FLAG, "c": ANY}, {"a": None, "b": True, "c": 1}) == []
