"""Worlds of any size with something in every table, written straight into SQL."""

import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from sqlalchemy import Connection, insert

from persona_mcp.state import tables
from persona_mcp.state.arrow import Arrow, Priors
from persona_mcp.state.embedding import pack
from persona_mcp.state.emotion import EmotionalState, Impulses
from persona_mcp.state.ids import derived_id, name_key
from persona_mcp.state.interaction import InteractionState
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.relationship import Appraisal, Deltas
from persona_mcp.state.table_base import Base

NOW = 1_700_000_000.0
WORDS = (
    *("boat", "harbour", "winter", "brother", "Ümlaut", "灯台", "letter"),
    *("storm", "🌊", "quiet", "garden", "promise", "debt"),
)
Rows = dict[type[Base], list[dict[str, Any]]]


def make_world(connection: Connection, world_id: str, **more: Any) -> Rows:
    """Make a world with rows from `rich_rows`, as they are in SQL."""
    world = {"id": world_id, "name": world_id, "created_at": NOW, "bundled_at": None}
    connection.execute(insert(tables.World), [world])
    rows = rich_rows(world_id, **more)
    for table, its in rows.items():
        for start in range(0, len(its), 500):
            connection.execute(insert(table), its[start : start + 500])
    return rows


def rich_rows(
    world_id: str,
    *,
    seed: int = 1,
    personas: int = 3,
    memories: int = 12,
    exchanges: int = 8,
    model_id: str = "double-64",
    dimension: int = 64,
) -> Rows:
    """Make rows for every table of a world, the same for the same seed."""
    chance = random.Random(seed)
    who = [f"persona-{number}" for number in range(personas)]
    return {
        tables.Persona: [persona_row(world_id, id, chance) for id in who],
        **about_personas(world_id, who, chance),
        **talk_rows(world_id, who, exchanges, chance),
        **feeling_rows(world_id, who, exchanges, chance),
        **memory_rows(world_id, who, memories, exchanges, chance, model_id, dimension),
    }


def text(chance: random.Random, words: int = 6) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(words))


def persona_row(world_id: str, id: str, chance: random.Random) -> dict[str, Any]:
    spec = PersonaSpec(
        name=f"{id.title()} {chance.choice(WORDS)}",
        description=text(chance, 20),
        personality_traits={"openness": chance.random(), "mood": "quick", "extraversion": 1.0},
        topic_preferences={word: chance.randint(0, 100) for word in WORDS[:4]},
        charisma=chance.randint(1, 20),
        tags=["made"],
        exit_lines={"tired": ["I must rest."]},
    )
    return {
        **spec.model_dump(mode="json"),
        "world_id": world_id,
        "id": id,
        "version": chance.randint(1, 5),
        "name_key": name_key(spec.name),
        "created_at": NOW - chance.random() * 1e6,
        "updated_at": NOW,
        "deleted_at": None,
    }


def about_personas(world_id: str, who: Sequence[str], chance: random.Random) -> Rows:
    first = {"world_id": world_id, "persona_id": who[0]}
    return {
        tables.PersonaVersion: [
            {**first, "version": 1, "spec": {"name": "Before"}, "created_at": NOW - 5.5}
        ],
        tables.PersonaCard: [
            {
                **first,
                "spec": "v2",
                "spec_version": "2.0",
                "carrier": "png",
                "card": '{"spec": "chara_card_v2", "data": {"name": "\\u00e9", "b": 1.0, "a": 2}}',
                "file": bytes(range(256)),
                "imported_at": NOW,
            }
        ],
        tables.VisualContext: [
            {
                "world_id": world_id,
                "target_kind": kind,
                "target": target,
                "type": "general",
                "version": 2,
                "data": {"light": 0.5, "deep": {"list": [1, 2.5, None, True]}},
                "description": text(chance),
                "size": 40,
                "updated_at": NOW,
                "expires_at": None,
            }
            for kind, target in (("persona", who[0]), ("scene", "the harbour"))
        ],
    }


def exchange_id(number: int) -> str:
    return f"x{number}"


def talk_rows(world_id: str, who: Sequence[str], count: int, chance: random.Random) -> Rows:
    """Make talks of ten exchanges each, the last exchange of all still running."""
    found: Rows = {
        table: []
        for table in (tables.Conversation, tables.Exchange, tables.Turn, tables.TurnWitness)
    }
    for number in range(count):
        talk, place = divmod(number, 10)
        conversation, persona = f"c{talk}", who[talk % len(who)]
        last = min(count, talk * 10 + 10) - 1
        if place == 0:
            found[tables.Conversation].append(
                {
                    "world_id": world_id,
                    "id": conversation,
                    "kind": "chat",
                    "persona_id": persona,
                    "user_id": "user",
                    "participants": ["user", persona],
                    "topic": text(chance, 2),
                    "scene": "the harbour" if talk % 2 else None,
                    "plan": {"seed": 5} if talk % 2 else None,
                    "status": "ended" if talk % 2 else "active",
                    "head_exchange_id": exchange_id(last),
                    "turn_count": 2 * (last - talk * 10 + 1),
                    "started_at": NOW + number,
                    "updated_at": NOW + last,
                    "ended_at": NOW + last if talk % 2 else None,
                    "exit_reason": "user_request" if talk % 2 else None,
                    "lease_owner": None,
                    "lease_until": None,
                }
            )
        exchange = {
            "world_id": world_id,
            "id": exchange_id(number),
            "conversation_id": conversation,
            "request_id": f"r{number}",
            "request_hash": derived_id("hash", number),
            "number": place + 1,
            "follows_id": exchange_id(number - 1) if place else None,
            "status": "done",
            "persona_id": persona,
            "persona_version": 1,
            "user_id": "user",
            "message": text(chance),
            "response": text(chance, 12),
            "response_type": "direct",
            "continue_score": chance.random() * 100,
            "score_terms": {"interest": chance.random(), "whole": 1.0},
            "tokens_used": chance.randint(1, 400),
            "tokens_estimated": False,
            "processing_s": chance.random(),
            "model": "scripted",
            "attempts": 1,
            "owner": "another-process",
            "created_at": NOW + number,
            "finished_at": NOW + number + 0.5,
        }
        found[tables.Exchange].append(exchange)
        for position, speaker in enumerate(("user", persona)):
            turn_id = f"t{number}-{position}"
            found[tables.Turn].append(
                {
                    "world_id": world_id,
                    "id": turn_id,
                    "conversation_id": conversation,
                    "exchange_id": exchange_id(number),
                    "position": position,
                    "number": 2 * place + position + 1,
                    "speaker_id": speaker,
                    "speaker_version": position or None,
                    "content": exchange["response" if position else "message"],
                    "created_at": NOW + number + position / 10,
                }
            )
            found[tables.TurnWitness] += [
                {"world_id": world_id, "turn_id": turn_id, "party_id": party}
                for party in ("user", persona)
            ]
    return found


def feeling_rows(world_id: str, who: Sequence[str], count: int, chance: random.Random) -> Rows:
    """Make one event, impulse and cost an exchange, and the caches behind them."""
    found: Rows = {
        table: []
        for table in (
            *(tables.RelationshipEvent, tables.MoodImpulse, tables.EnergySpent),
            *(tables.RelationshipState, tables.PersonaState),
        )
    }
    last = dict.fromkeys(who, 0)
    for number in range(count):
        persona = who[number // 10 % len(who)]
        last[persona] += 1
        effect = {
            "world_id": world_id,
            "exchange_id": exchange_id(number),
            "active": number % 7 != 6,
            "at": NOW + number + chance.random(),
            "seq": last[persona],
            "why": text(chance, 3),
            "params_version": 1,
        }
        found[tables.RelationshipEvent].append(
            {
                **effect,
                "id": f"e{number}",
                "from_id": persona,
                "to_id": "user",
                "kind": "turn",
                "context": "",
                "appraisal": asdict(Appraisal(warmth=chance.uniform(-1, 1))),
                "size": chance.random(),
                "weight": 1.0,
                "disclosure_weight": 1.0,
                "minutes": 0.25,
                "direct": True,
                "deltas": asdict(Deltas(affinity=chance.uniform(-0.1, 0.1), contact=0.1)),
                "priors": asdict(Priors(0.1, 0.02)) if last[persona] == 1 else None,
                "bond": None,
                "source_id": None,
                "appraiser": "local",
                "note": None,
                "turn_id": f"t{number}-0",
            }
        )
        push = asdict(Impulses(mood=chance.uniform(-0.2, 0.2)))
        absolute = {"mood": 0.5} if number % 5 == 4 else None
        its = {**effect, "persona_id": persona}
        found[tables.MoodImpulse].append(
            {**its, "id": f"i{number}", "impulse": push, "absolute": absolute}
        )
        found[tables.EnergySpent].append(
            {**its, "id": f"s{number}", "talk_s": chance.random() * 60, "share": 0.5}
        )
    for persona in who:
        arrow = Arrow(NOW, affinity_latent=chance.uniform(-1, 1), contact=chance.random())
        found[tables.RelationshipState].append(
            {
                "world_id": world_id,
                "from_id": persona,
                "to_id": "user",
                "arrow": asdict(arrow),
                "as_of": NOW,
                "last_seq": last[persona],
            }
        )
        mood = EmotionalState(NOW, chance.uniform(-1, 1), 0.5, chance.random(), 0.0, 1.0)
        state = InteractionState(NOW, fatigue=chance.random() * 10, energy=90.25)
        found[tables.PersonaState].append(
            {
                "world_id": world_id,
                "persona_id": persona,
                "emotion": asdict(mood),
                "emotion_seq": last[persona],
                "interaction": asdict(state),
                "interaction_seq": last[persona],
            }
        )
    return found


def memory_rows(
    world_id: str,
    who: Sequence[str],
    count: int,
    exchanges: int,
    chance: random.Random,
    model_id: str,
    dimension: int,
) -> Rows:
    """Make memories whose ids are in another order than that of writing, each with its vector."""
    found: Rows = {
        table: []
        for table in (
            *(tables.Memory, tables.MemoryWitness, tables.MemoryUse, tables.MemoryRevision),
            *(tables.MemoryVector, tables.PruneRun, tables.DecayRun),
        )
    }
    for number in range(count):
        id, owner = derived_id("memory", number), who[number % len(who)]
        key = {"world_id": world_id, "memory_id": id}
        from_turn = number < exchanges
        content = text(chance, 8)
        found[tables.Memory].append(
            {
                "world_id": world_id,
                "id": id,
                "version": 1 + number % 2,
                "persona_id": owner,
                "content": content,
                "indexed_text": f"user: {content}",
                "memory_type": chance.choice(["fact", "conversation", "goal"]),
                "speaker_id": "user" if number % 2 else None,
                "importance": chance.random(),
                "importance_terms": {"base": chance.random()},
                "emotional_valence": chance.uniform(-1, 1),
                "visibility": ["private", "private", "shared", "public"][number % 4],
                "related_personas": [who[0]] if number % 4 == 2 else [],
                "details": {"n": number, "half": number / 2},
                "pinned": number % 9 == 0,
                "conversation_id": f"c{number // 10}" if from_turn else None,
                "exchange_id": exchange_id(number) if from_turn else None,
                "turn_id": f"t{number}-0" if from_turn else None,
                "turn_number": 2 * (number % 10) + 1 if from_turn else None,
                "source_id": None,
                "origin": {"chain": ["user"]} if number % 6 == 5 else None,
                "archived_at": NOW if number % 11 == 10 else None,
                "created_at": NOW - chance.random() * 1e7,
                "updated_at": NOW,
            }
        )
        found[tables.MemoryWitness].append({**key, "party_id": owner})
        vector = np.array([chance.gauss(0, 1) for _ in range(dimension)], dtype=np.float32)
        found[tables.MemoryVector].append(
            {
                **key,
                "persona_id": owner,
                "model_id": model_id,
                "version": 1 + number % 2,
                "vector": pack(vector / np.linalg.norm(vector)),
            }
        )
        if number % 2:
            before = {"content": text(chance), "importance": 0.5}
            found[tables.MemoryRevision].append(
                {**key, "version": 1, "before": before, "replaced_at": NOW}
            )
        if exchanges:
            found[tables.MemoryUse].append(
                {
                    **key,
                    "exchange_id": exchange_id(number % exchanges),
                    "conversation_id": f"c{number % exchanges // 10}",
                    "active": True,
                    "at": NOW + number,
                }
            )
    run = {"world_id": world_id, "persona_id": who[0], "at": NOW, "undone_at": None}
    ids = [row["id"] for row in found[tables.Memory]][:3]
    weights = [0.25, 1.0, chance.random()][: len(ids)]
    found[tables.PruneRun].append(
        {
            **run,
            "id": "prune-1",
            "origin": "asked",
            "strategy": "score",
            "params": {"start": 900, "share": 0.25},
            "memory_ids": ids,
            "scores": weights,
            "before": 12,
            "archived": len(ids),
            "faded": 0,
            "importance_archived": 0.1,
            "importance_kept": 0.5,
            "took_s": 0.01,
            "restored": None,
        }
    )
    found[tables.DecayRun].append(
        {
            **run,
            "id": "decay-1",
            "factor": 0.1,
            "processed": 12,
            "decayed": len(ids),
            "memory_ids": ids,
            "importance_before": weights,
            "importance_after": weights,
            "restored": None,
        }
    )
    return found
