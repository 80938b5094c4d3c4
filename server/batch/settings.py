"""What a batch was begun with, and goes on with, whatever the settings say by then."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from persona_mcp.config.settings import Settings
from persona_mcp.state.errors import BadSnapshot, Conflict

WHOLE = (
    "prompts",
    "summaries",
    "retrieval",
    "importance",
    "relationships",
    "emotions",
    "interaction",
    "continuation",
)
"""Sections that bear on what comes of a dialogue."""
PARTLY = {"conversation": ("window_turns", "attempts")}
"""Sections of which only these fields do."""
Begun = dict[str, Any]


def begun_with(settings: Settings, embedder: str, model: str) -> Begun:
    """Write down what dialogues will depend on.

    Args:
        settings: In effect.
        embedder: The embedder's `model_id`.
        model: Who writes the replies, `provider:name`.
    """
    told: dict[str, Any] = {}
    for name in (*WHOLE, *PARTLY):
        section = getattr(settings, name)
        fields = TypeAdapter(type(section)).dump_python(section, mode="json")
        kept = PARTLY.get(name, tuple(fields))
        told[name] = {field: fields[field] for field in kept}
    return {"embedder": embedder, "model": model, "settings": told}


def begun_in(manifest: Mapping[str, Any]) -> Begun:
    """Return what a manifest says a batch was begun with."""
    return {name: manifest[name] for name in ("embedder", "model", "settings")}


def as_begun(settings: Settings, begun: Mapping[str, Any]) -> Settings:
    """Return settings with everything that dialogues depend on as it was at the beginning.

    Raises:
        BadSnapshot: What was written down is not what this version knows.
    """
    update: dict[str, Any] = {}
    try:
        for name in (*WHOLE, *PARTLY):
            section, told = getattr(settings, name), begun["settings"][name]
            kind = TypeAdapter(type(section))
            update[name] = kind.validate_python({**kind.dump_python(section), **told})
    except (KeyError, TypeError, ValidationError) as error:
        raise BadSnapshot(
            "the batch was begun by another version: its settings cannot be read"
        ) from error
    return settings.model_copy(update=update)


def check_model(begun: Mapping[str, Any], model: str) -> None:
    """See to it that one model writes all replies of a batch.

    Raises:
        Conflict: Another one would go on with it.
    """
    if begun["model"] != model:
        raise Conflict(
            f"the batch was begun with the model {begun['model']}, now it is {model}: go on with "
            f"--model {begun['model']}, or begin anew in another folder",
            model=begun["model"],
        )


def check_name(begun: Mapping[str, Any] | None, name: str | None) -> None:
    """See to it that a finished batch does not answer for another model; none is asked.

    Args:
        begun: What the batch was begun with, if that is known.
        name: The model as it is asked for; None and `auto` are whichever there is.

    Raises:
        Conflict: The batch is of another one.
    """
    if begun is None or name is None or name == "auto":
        return
    provider, _, model = name.partition(":")
    its_own = Path(model).name if provider == "embedded" else model  # as the model calls itself
    check_model(begun, f"{provider}:{its_own}")


def check_embedder(begun: Mapping[str, Any], embedder: str) -> None:
    """See to it that texts are embedded as they were at the beginning.

    Raises:
        Conflict: The settings name another embedder now.
    """
    if begun["embedder"] != embedder:
        raise Conflict(
            f"the batch was begun with the embedder {begun['embedder']}, now it is {embedder}: "
            "set PERSONA_EMBEDDER__MODEL as it was",
            embedder=begun["embedder"],
        )
