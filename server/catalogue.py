"""All operations, gathered: importing this module registers them."""

from persona_mcp.server import (
    card_operations,
    chat_operations,
    conversation_advance,
    conversation_operations,
    conversation_reading,
    dialogue_operations,
    dialogue_results,
    emotional_operations,
    host_operations,
    memory_changes,
    memory_fading,
    memory_operations,
    memory_reading,
    memory_sharing,
    memory_upkeep,
    persona_changes,
    persona_operations,
    persona_status,
    relationship_changes,
    relationship_graph,
    relationship_history,
    relationship_operations,
    relationship_reading,
    state_files,
    state_operations,
    system_operations,
    visual_operations,
)
from persona_mcp.server.operations import REGISTRY, Operation

MODULES = (
    persona_operations,
    persona_changes,
    persona_status,
    card_operations,
    chat_operations,
    host_operations,
    conversation_operations,
    conversation_advance,
    conversation_reading,
    dialogue_operations,
    dialogue_results,
    memory_operations,
    memory_reading,
    memory_sharing,
    memory_changes,
    memory_upkeep,
    memory_fading,
    relationship_operations,
    relationship_reading,
    relationship_history,
    relationship_graph,
    relationship_changes,
    emotional_operations,
    visual_operations,
    state_operations,
    state_files,
    system_operations,
)


def operations(toolset: str = "core") -> list[Operation]:
    """Return the operations of the core toolset, or all of them, in a fixed order."""
    names = [module.__name__ for module in MODULES]
    found = [o for o in REGISTRY.values() if o.core or toolset == "all"]
    return sorted(found, key=lambda o: names.index(o.run.__module__))
