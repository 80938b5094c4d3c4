"""Who cannot talk now, why, and how long that lasts, as callers are told it."""

import math
from collections.abc import Sequence

from persona_mcp.state.errors import PersonaUnavailable
from persona_mcp.state.interaction import InteractionParams, InteractionState, Reason, waits
from persona_mcp.state.persona import Persona

NAMES: dict[Reason, str] = {
    "cooling_down": "cooldown",
    "no_time": "no_time",
    "no_energy": "no_energy",
    "busy": "in_conversation",
}
WORDS: dict[Reason, str] = {
    "cooling_down": "it rests after a conversation",
    "no_time": "it has no time left",
    "no_energy": "it has no energy left for company",
    "busy": "it is in other conversations",
}


def check_available(
    persona: Persona,
    state: InteractionState,
    params: InteractionParams,
    talks: Sequence[str] = (),
) -> None:
    """Refuse a persona that rests, has no time or energy left, or is in too many talks already.

    Args:
        persona: Who is asked for.
        state: What it has left, regenerated to now.
        params: The limits.
        talks: Ids of the talks with other personas that it is in.

    Raises:
        PersonaUnavailable: Names the reason that is the last to clear, and the others in `also`;
            nobody knows when a talk ends, so that one has no time.
    """
    found = waits(state, persona.spec.available_time, params)
    if len(talks) >= params.max_parallel:
        found["busy"] = math.inf
    if not found:
        return
    last, *others = sorted(found, key=lambda reason: found[reason], reverse=True)
    seconds = None if last == "busy" else math.ceil(found[last])
    when = "end one of them" if seconds is None else f"ask again in {seconds} s"
    raise PersonaUnavailable(
        f"persona '{persona.id}' cannot talk now: {WORDS[last]}; {when}, or "
        "choose another one from persona_list",
        persona_id=persona.id,
        reason=NAMES[last],
        available_in_seconds=seconds,
        retry_after_seconds=seconds,
        conversation_id=talks[0] if last == "busy" else None,
        also=[NAMES[reason] for reason in others],
    )
