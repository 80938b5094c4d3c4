"""Which module has which operation, so that a call imports its own module and no other.

All of them together take as long to import as the rest of a command that reads one thing.
"""

import importlib
from collections.abc import Mapping

OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "personas": ("persona_list", "persona_get", "persona_create", "persona_switch"),
    "persona_changes": ("persona_update", "persona_delete"),
    "persona_status": ("persona_status", "persona_relationship"),
    "cards": ("persona_import", "persona_export"),
    "chat": ("persona_chat", "conversation_get"),
    "host": ("persona_prompt", "persona_record_turn"),
    "conversations": ("conversation_start", "conversation_status", "conversation_end"),
    "conversation_advance": ("conversation_advance",),
    "conversation_reading": ("conversation_list", "conversation_history"),
    "dialogues": (
        "dialogue_start",
        "dialogue_status",
        "dialogue_cancel",
        "dialogue_list",
    ),
    "dialogue_results": ("dialogue_result",),
    "memories": ("memory_search", "memory_store"),
    "memory_reading": ("memory_get", "memory_list", "memory_stats"),
    "memory_sharing": ("memory_search_cross_persona", "memory_shared_stats", "persona_memory"),
    "memory_changes": ("memory_update", "memory_delete"),
    "memory_documents": ("memory_import", "memory_export"),
    "memory_upkeep": (
        "memory_prune",
        "memory_prune_all",
        "memory_prune_recommendations",
        "memory_prune_stats",
    ),
    "memory_fading": (
        "memory_decay_start",
        "memory_decay_stop",
        "memory_decay_stats",
        "memory_decay_force",
    ),
    "relationships": ("relationship_get",),
    "relationship_reading": (
        "relationship_list",
        "relationship_compatibility",
        "relationship_stats",
    ),
    "relationship_history": ("relationship_history",),
    "relationship_graph": ("relationship_graph",),
    "relationship_changes": ("relationship_update",),
    "emotions": ("emotional_get_state", "emotional_update_state"),
    "visuals": ("visual_update",),
    "states": ("state_save", "state_load"),
    "state_files": ("state_list", "state_export"),
    "system": ("system_status", "system_models", "system_health", "system_metrics"),
}
"""In the order in which they are listed."""
MODULES: Mapping[str, str] = {
    name: f"{__package__}.{module}" for module, names in OPERATIONS.items() for name in names
}


def import_module_of(name: str) -> None:
    """Import the module of an operation, which registers it; nothing is done for other names."""
    if name in MODULES:
        importlib.import_module(MODULES[name])
