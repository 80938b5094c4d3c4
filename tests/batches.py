"""Batches for tests of the command line: specifications, and what is compared of their folders."""

import json
from pathlib import Path
from typing import Any

import yaml

OUTSIDE = ("run.db", "run.db-wal", "run.db-shm", "run.lock", "timings.jsonl", "forks")
"""What is no part of what two runs are to have in common."""


def persona(name: str, **more: Any) -> dict[str, Any]:
    """Give an inline persona of the cast."""
    return {
        "persona": {
            "name": name,
            "description": f"{name} keeps a stall by the harbour and speaks plainly.",
            "personality_traits": {"agreeableness": 60, "openness": 70},
            "topic_preferences": {"music": 80, "trade": 60},
            "available_time": 86400.0,
            "social_energy": 200.0,
            **more,
        }
    }


def specification(**changes: Any) -> dict[str, Any]:
    """Give a small batch: two runs of two waves, three talks each; fields may be others."""
    return {
        "name": "harbour",
        "personas": {"ada": persona("Ada"), "bo": persona("Bo"), "cleo": persona("Cleo")},
        "dialogue": {
            "scene": "A quay in the evening.",
            "topics": ["music", "trade"],
            "max_turns": 4,
            "bow_out": False,
            "stagnation": 0,
        },
        "waves": [
            {"name": "evening", "pairs": "all"},
            {"name": "morning", "gap_hours": 10.0, "pairs": "all"},
        ],
        "repeats": 2,
        "seed": 7,
        **changes,
    }


def written(path: Path, spec: dict[str, Any]) -> str:
    """Write a specification as YAML, and return its name."""
    path.write_text(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True), "utf-8")
    return str(path)


def results(folder: Path) -> dict[str, bytes]:
    """Read everything of a batch's folder that a replay has to make again."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.name not in OUTSIDE
    }


def lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
