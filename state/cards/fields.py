"""The fields of a character card that are understood; all others are kept as they are.

Source: Character Card Specification V1, V2 and V3 (chara_card_v2, chara_card_v3).
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from persona_mcp.state.cards.text import Json, bad_card

FAULTS_SHOWN = 5


class Fields(BaseModel):
    """Base: unknown fields are let be, and nothing is taken for something else."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Entry(Fields):
    """An entry of a lorebook."""

    keys: list[str] = Field(default_factory=list)
    content: str = ""
    enabled: bool = True
    insertion_order: float = 0
    case_sensitive: bool | None = None
    use_regex: bool | None = None
    constant: bool | None = None
    priority: float | None = None
    selective: bool | None = None
    secondary_keys: list[str] | None = None
    position: str | int | None = None


class Book(Fields):
    """A lorebook."""

    scan_depth: float | None = None
    token_budget: float | None = None
    recursive_scanning: bool | None = None
    entries: list[Entry] = Field(default_factory=list)


class Asset(Fields):
    """Something that belongs to a card: an icon, a background."""

    type: str
    uri: str
    name: str = ""
    ext: str = ""


class Data(Fields):
    """What a card says of a character."""

    name: str = Field(min_length=1)
    description: str = ""
    personality: str = ""
    scenario: str = ""
    first_mes: str = ""
    mes_example: str = ""
    system_prompt: str = ""
    post_history_instructions: str = ""
    alternate_greetings: list[str] = Field(default_factory=list)
    group_only_greetings: list[str] = Field(default_factory=list)
    nickname: str | None = None
    tags: list[str] = Field(default_factory=list)
    character_book: Book | None = None
    assets: list[Asset] | None = None
    extensions: dict[str, Any] = Field(default_factory=dict)


def read_data(data: Json) -> Data:
    """Read what a card says.

    Raises:
        BadSnapshot: A field that is understood has a value of another type.
    """
    try:
        return Data.model_validate(data)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        more = len(faults) - FAULTS_SHOWN
        shown = "; ".join(faults[:FAULTS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise bad_card(shown) from error
