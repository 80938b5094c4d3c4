"""The example call of each operation that the reference shows with its real answer.

A text `$memory_store.memory_id` stands for a field of the last answer that this operation gave;
`$persona_chat.memory_ids.0` goes further down. A new operation needs one entry here, and is then
documented, and called by the tests through every door.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A call that makes what an example is about."""

    operation: str
    arguments: Arguments


@dataclass(frozen=True)
class Example:
    """A call that is good, and calls that are refused.

    Attributes:
        arguments: What the example gives.
        before: Calls that are made first, in order.
        wrong: Arguments that are refused, beside ids that nothing has.
        beside: What such an id must come with.
    """

    arguments: Arguments
    before: tuple[Step, ...] = ()
    wrong: tuple[Arguments, ...] = ()
    beside: Arguments = field(default_factory=dict)


ARIA, KIRA = "aria", "kira"
NOBODY = "nobody-here"
NO_IDS = ("session_id", "request_id", "world_id", "user_id", "prompt_id")
"""Arguments that look like the id of a thing of the world, and are none that must be there."""
WORLD = (
    Step("persona_chat", {"persona_id": ARIA, "message": "My brother Tom sold his red boat."}),
    Step(
        "memory_store",
        {
            "persona_id": KIRA,
            "content": "The ferry to the island leaves at nine.",
            "visibility": "shared",
        },
    ),
    Step(
        "relationship_update",
        {"persona1_id": ARIA, "persona2_id": KIRA, "interaction_quality": 0.6},
    ),
)
"""What has happened before the examples."""
OF_ARIA = {"persona_id": ARIA}
PAIR = {"persona1_id": ARIA, "persona2_id": KIRA}
NOTE = {"persona_id": ARIA, "content": "The harbour café closes at six."}
NOTED = Step("memory_store", NOTE)
IN_THE_FIRST = {"conversation_id": "$persona_chat.conversation_id"}
TALK = {"conversation_id": "$conversation_start.conversation_id"}
HELD = {"participants": [ARIA, KIRA], "topic": "the sea", "max_turns": 4, "seed": 7}
LONG = {
    "spec": {
        "personas": {ARIA: None, KIRA: None},
        "dialogue": {"max_turns": 500, "token_budget": 32768, "stagnation": 0, "bow_out": False},
        "repeats": 1000,
    }
}
"""Lasts until it is stopped."""
SAVED = {"snapshot_id": "$state_save.state.snapshot_id"}

EXAMPLES: dict[str, Example] = {
    "persona_list": Example({"limit": 2}),
    "persona_get": Example(OF_ARIA),
    "persona_create": Example(
        {
            "name": "Mira",
            "description": "A lighthouse keeper who counts ships.",
            "personality_traits": {"openness": 70, "neuroticism": 20},
            "topic_preferences": {"the sea": 90},
        },
        wrong=({"name": "Aria"},),
    ),
    "persona_switch": Example(OF_ARIA),
    "persona_chat": Example(
        {"persona_id": ARIA, "message": "Do you remember his boat?", **IN_THE_FIRST},
        wrong=(
            {"message": "Hello."},
            {"persona_id": KIRA, "message": "Hello.", **IN_THE_FIRST},
        ),
    ),
    "persona_status": Example(OF_ARIA, wrong=({},)),
    "persona_update": Example(
        {"persona_id": "$persona_create.persona_id", "charisma": 12, "expected_version": 1},
        wrong=(
            {"persona_id": "$persona_create.persona_id", "charisma": 14, "expected_version": 9},
            {"persona_id": "$persona_create.persona_id", "name": "Kira"},
        ),
    ),
    "persona_delete": Example(
        {"persona_id": "$persona_create.persona_id", "confirm": True},
        before=(Step("persona_create", {"name": "Olaf"}),),
        wrong=({"persona_id": "$persona_create.persona_id"},),
    ),
    "persona_relationship": Example(
        {"persona_id": ARIA, "target_persona": KIRA},
        wrong=({}, {"persona_id": ARIA, "target_persona": NOBODY}),
    ),
    "persona_import": Example(
        {
            "card": {
                "spec": "chara_card_v2",
                "spec_version": "2.0",
                "data": {
                    "name": "Imre",
                    "description": "{{char}} repairs clocks.",
                    "first_mes": "You have brought it at last.",
                },
            }
        },
        wrong=({}, {"data": "%%%"}, {"card": {"name": "Aria"}}),
    ),
    "persona_export": Example(OF_ARIA),
    "persona_prompt": Example(
        {"persona_id": ARIA, "message": "What shall we do tomorrow?", "token_budget": 200},
        wrong=({"message": "Hello."},),
    ),
    "persona_record_turn": Example(
        {"prompt_id": "$persona_prompt.prompt_id", "response": "Let us take the ferry to Noor."},
        before=(Step("persona_prompt", {"persona_id": ARIA, "message": "Where shall we go?"}),),
        wrong=({"prompt_id": NOBODY, "response": "Let us take the ferry."},),
    ),
    "visual_update": Example(
        {"persona_id": ARIA, "type": "clothes", "description": "She wears a red coat."},
        wrong=({"description": "She wears a red coat."},),
    ),
    "conversation_start": Example(
        {**PAIR, "topic": "the ferry", "seed": 7},
        wrong=({"persona1_id": ARIA, "persona2_id": ARIA},),
    ),
    "conversation_status": Example(TALK, wrong=({},)),
    "conversation_end": Example({**TALK, "reason": "the ferry has come"}, wrong=({},)),
    "conversation_advance": Example(
        TALK,
        before=(Step("conversation_start", {**PAIR, "topic": "the tide", "seed": 8}),),
        wrong=({},),
    ),
    "conversation_list": Example({"limit": 1}),
    "conversation_history": Example({**TALK, "limit": 1}, wrong=({},)),
    "conversation_get": Example(IN_THE_FIRST, wrong=({},)),
    "dialogue_start": Example(
        {**HELD, "keep": False},
        wrong=(
            {},
            {"participants": [ARIA, NOBODY]},
            {"participants": [ARIA, ARIA]},
            {"spec": {"personas": {ARIA: None}}},
        ),
    ),
    "dialogue_status": Example({"dialogue_id": "$dialogue_start.dialogue_id", "wait_ms": 20_000}),
    "dialogue_cancel": Example(
        {"dialogue_id": "$dialogue_start.dialogue_id", "reason": "The wrong topic."},
        before=(Step("dialogue_start", LONG), Step("dialogue_start", LONG)),
        wrong=({"dialogue_id": "$dialogue_status.dialogue_id"},),
    ),
    "dialogue_list": Example(
        {"status": "completed"},
        before=(
            Step("dialogue_list", {"status": "running"}),
            Step("dialogue_cancel", {"dialogue_id": "$dialogue_list.dialogues.0.dialogue_id"}),
        ),
    ),
    "dialogue_result": Example(
        {"dialogue_id": "$dialogue_status.dialogue_id", "include": ["scores", "transcript"]}
    ),
    "memory_search": Example(
        {"persona_id": ARIA, "query": "Tom's boat", "n_results": 2}, wrong=({"query": "boat"},)
    ),
    "memory_store": Example(
        NOTE, wrong=({"content": "Tom sold the boat."},), beside={"told_by": KIRA}
    ),
    "memory_get": Example({"memory_id": "$memory_store.memory_id"}),
    "memory_list": Example({"persona_id": ARIA, "limit": 2}, wrong=({},)),
    "memory_stats": Example(OF_ARIA, wrong=({},)),
    "memory_search_cross_persona": Example(
        {"persona_id": ARIA, "query": "ferry", "min_importance": 0.0}, wrong=({"query": "ferry"},)
    ),
    "memory_shared_stats": Example({}),
    "persona_memory": Example({"persona_id": ARIA, "query": "boat", "limit": 1}, wrong=({},)),
    "memory_update": Example(
        {"memory_id": "$memory_store.memory_id", "content": "The harbour café closes at seven."},
        before=(NOTED,),
        wrong=({"memory_id": "$memory_store.memory_id", "pinned": True, "expected_version": 99},),
    ),
    "memory_delete": Example(
        {"memory_id": "$memory_store.memory_id"}, before=(NOTED,), wrong=({},)
    ),
    "memory_import": Example(
        {
            "persona_id": ARIA,
            "title": "Harbour guide",
            "text": "# The pier\n\nIt is the oldest in the town.\n\n# The mole\n\nIt is new.",
        },
        wrong=({"text": "It is old."},),
    ),
    "memory_export": Example(
        {"persona_id": ARIA, "format": "csv", "limit": 1}, wrong=({"cursor": "no cursor"},)
    ),
    "memory_prune": Example(
        {"persona_id": ARIA, "dry_run": True},
        wrong=({}, {"persona_id": ARIA, "undo_prune_id": NOBODY}),
    ),
    "memory_prune_all": Example({"dry_run": True}),
    "memory_prune_recommendations": Example(OF_ARIA, wrong=({},)),
    "memory_prune_stats": Example({}),
    "memory_decay_start": Example({"interval_hours": 168, "auto_pruning": False}),
    "memory_decay_stop": Example({}),
    "memory_decay_stats": Example({}),
    "memory_decay_force": Example({"persona_id": ARIA, "decay_factor": 0.2, "dry_run": True}),
    "relationship_get": Example(PAIR, wrong=({"persona1_id": ARIA, "persona2_id": ARIA},)),
    "relationship_list": Example(OF_ARIA, wrong=({},)),
    "relationship_compatibility": Example(PAIR),
    "relationship_stats": Example({}),
    "relationship_history": Example({**PAIR, "top": 1}),
    "relationship_graph": Example({"persona_ids": [ARIA, KIRA]}),
    "relationship_update": Example(
        {**PAIR, "interaction_quality": 0.5, "why": "They repaired the net together."},
        wrong=({"persona1_id": ARIA, "persona2_id": ARIA},),
    ),
    "emotional_get_state": Example(OF_ARIA, wrong=({},)),
    "emotional_update_state": Example(
        {"persona_id": ARIA, "mood": 0.4, "why": "The sun is out."}, wrong=({"mood": 0.4},)
    ),
    "system_status": Example({}),
    "system_models": Example({}),
    "system_health": Example({}),
    "system_metrics": Example({"format": "prometheus"}),
    "state_save": Example({"name": "spring", "note": "Before the storm."}),
    "state_list": Example({}),
    "state_export": Example(SAVED),
    "state_load": Example({**SAVED, "into": "summer"}),
}


def wrong_calls(name: str, parameters: dict[str, Any]) -> Iterator[Arguments]:
    """Give the calls of an operation that are refused: its own, and one for each unknown id."""
    example = EXAMPLES[name]
    yield from example.wrong
    for parameter in parameters:
        if parameter.endswith("_id") and parameter not in NO_IDS:
            yield {**example.arguments, **example.beside, parameter: NOBODY}


def filled(value: Any, answers: dict[str, Any]) -> Any:
    """Put fields of earlier answers where a value names them."""
    if isinstance(value, dict):
        return {key: filled(item, answers) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, answers) for item in value]
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    found: Any = answers
    for part in value[1:].split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found
