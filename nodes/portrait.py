"""Who a persona is, in words: for our own prompts, and for the models of MCP hosts.

Nothing here knows a graph, so that the MCP door can import it before LangGraph is loaded.
"""

from collections.abc import Sequence

from persona_mcp.state.persona import Example, PersonaSpec

LIKED = 70
SHUNNED = 20
LISTED = 6


def identity(spec: PersonaSpec) -> str:
    """Say who the persona is and what it is like."""
    liked, shunned = topics_in_words(spec)
    traits = traits_in_words(spec)
    said = spec.description.startswith(f"You are {spec.name}")
    lead = "" if said else f"You are {spec.name}, a {spec.social_rank}."
    parts = [f"{lead} {spec.description}".strip()]
    if traits:
        parts.append(f"You are known as: {traits}.")
    if liked:
        parts.append(f"You like to talk about {liked}.")
    if shunned:
        parts.append(f"You would rather avoid {shunned}.")
    return " ".join(parts)


def example_section(examples: Sequence[Example]) -> str:
    """Show how the persona talks."""
    if not examples:
        return ""
    lines = "\n".join(f"- To “{e.user}” you might say: “{e.reply}”" for e in examples)
    return f"How you talk:\n{lines}"


def traits_in_words(spec: PersonaSpec) -> str:
    """List what the persona is like: words and texts as given, numbers above the middle."""
    strong = [
        name.replace("_", " ") if not isinstance(value, str) else f"{name}: {value}"
        for name, value in spec.personality_traits.items()
        if isinstance(value, str) or (name != "scale" and value >= LIKED)
    ]
    return ", ".join(strong[:LISTED])


def topics_in_words(spec: PersonaSpec) -> tuple[str, str]:
    """List topics that the persona likes best, and those that it would rather avoid."""
    ordered = sorted(spec.topic_preferences.items(), key=lambda item: (-item[1], item[0]))
    liked = [name.replace("_", " ") for name, value in ordered if value >= LIKED]
    shunned = [name.replace("_", " ") for name, value in ordered if value < SHUNNED]
    return ", ".join(liked[:LISTED]), ", ".join(shunned[:LISTED])
