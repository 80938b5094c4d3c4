"""All operations, gathered: asking for them imports and registers each."""

from persona_mcp.server.operations.modules import MODULES, import_module_of
from persona_mcp.server.operations.registry import REGISTRY, Operation


def operations(toolset: str = "core") -> list[Operation]:
    """Return the operations of the core toolset, or all of them, in a fixed order."""
    for name in MODULES:
        import_module_of(name)
    modules = list(dict.fromkeys(MODULES.values()))
    found = [o for o in REGISTRY.values() if o.core or toolset == "all"]
    return sorted(found, key=lambda o: modules.index(o.run.__module__))
