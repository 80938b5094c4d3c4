"""Feelings and relationships in words, since a prompt never shows numbers."""

from persona_mcp.nodes.chat_state import Scene
from persona_mcp.state import emotion, relationship
from persona_mcp.state.emotion import EmotionalState
from persona_mcp.state.feelings import Feelings
from persona_mcp.state.memory.disclosure import confides
from persona_mcp.state.memory.memory import HEARSAY, Memory
from persona_mcp.state.prompt_params import PromptParams
from persona_mcp.state.relationship import RelationshipParams, RelationshipType, Shown

NOTABLE = 0.15
STRONG = 0.5
WORN_FATIGUE = 50.0
LOW, HIGH = 0.3, 0.7
FRESH = 0.95
"""Nobody's social battery rests above this: whose does is glad of company more than usually."""

MOODS = {
    "even": "in an even mood",
    "cheerful": "cheerful",
    "excited": "excited",
    "content": "quietly content",
    "strained": "in good spirits but strained",
    "grumpy": "grumpy",
    "upset": "upset",
    "gloomy": "gloomy",
    "overwhelmed": "overwhelmed",
}
TIES = {
    "stranger": "You hardly know {user}",
    "acquaintance": "{user} is an acquaintance of yours",
    "friend": "{user} is your friend",
    "close_friend": "{user} is one of your closest friends",
    "rival": "{user} is your rival",
    "enemy": "{user} is your enemy",
    "mentor": "{user} is your mentor",
    "student": "{user} looks up to you",
    "romantic": "You love {user}",
    "family": "{user} is family to you",
}
ADDRESS: dict[RelationshipType, str] = {
    "stranger": "formally, as one does a stranger",
    "acquaintance": "politely, as one does an acquaintance",
    "friend": "familiarly, as one does a friend",
    "close_friend": "familiarly, as one does an old friend",
    "rival": "formally and with reserve",
    "enemy": "formally and at a distance",
    "mentor": "with deference, as one does a teacher",
    "student": "as a teacher does a student",
    "romantic": "tenderly, as one does a lover",
    "family": "familiarly, as one does kin",
}
WARMTH = (
    (STRONG, "very warmly"),
    (NOTABLE, "kindly"),
    (-NOTABLE, "civilly"),
    (-STRONG, "coolly"),
    (-1.0, "coldly"),
)
"""How one talks from an affinity on, [-1, 1]."""
CIVIL = "civilly"
CONFIDING = "Hold nothing back from them, not even what you tell nobody else"
OPENNESS = (
    (STRONG, "Tell them openly what you think and feel, but keep your secrets"),
    (NOTABLE, "Speak openly of yourself, but keep your secrets"),
    (-NOTABLE, "Keep what is personal to yourself"),
    (-1.0, "Tell them nothing about yourself that they could use against you"),
)
"""What one shares from a trust on, [-1, 1]."""


def memory_in_words(memory: Memory) -> str:
    """Say what a memory is: `user said: Hello.`; hearsay says who told it, never that it was so."""
    if memory.memory_type == HEARSAY:
        return memory.indexed_text.partition("] ")[2]
    if memory.speaker_id is None:
        return memory.content
    return f"{memory.speaker_id} said: {memory.content}"


def mood_in_words(feelings: Feelings, most: int = 4) -> str:
    """Say how a persona feels: `cheerful, full of energy and tired of talking`.

    One word for mood, energy and stress together, then what of all five values stands out.

    Args:
        feelings: What it feels and has left.
        most: So much that stands out is said, what weighs most first.
    """
    felt = feelings.emotion
    parts = [MOODS[emotion.label(felt)], *standing_out(felt, feelings.interaction.fatigue)[:most]]
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def standing_out(felt: EmotionalState, fatigue: float) -> list[str]:
    """Say what of a persona's feelings is beyond where anybody's rest; the worst first."""
    sides = (
        (felt.social_battery < LOW or fatigue > WORN_FATIGUE, "tired of talking"),
        (felt.stress_level > HIGH, "close to breaking point"),
        (felt.energy_level < LOW, "worn out"),
        (felt.curiosity < LOW, "hard to interest in anything"),
        (felt.curiosity > HIGH, "curious about everything"),
        (felt.energy_level > HIGH, "full of energy"),
        (felt.social_battery > FRESH and fatigue <= WORN_FATIGUE, "glad of company"),
    )
    return [words for stands_out, words in sides if stands_out]


def feeling_in_words(shown: Shown) -> list[str]:
    """Say what stands out of how one sees another; nothing if nothing does."""
    sides = (
        (shown.affinity, "like them", "dislike them"),
        (shown.trust, "trust them", "distrust them"),
        (shown.respect, "respect them", "think little of them"),
    )
    return [
        f"{degree(value)} {liking if value > 0 else disliking}"
        for value, liking, disliking in sides
        if abs(value) >= NOTABLE
    ]


def degree(value: float) -> str:
    """Say how much."""
    return "deeply" if abs(value) >= STRONG else "somewhat"


def relationship_in_words(scene: Scene, params: RelationshipParams) -> str:
    """Say how the persona sees who talks to it, as one or two sentences."""
    user = scene.partner_name
    if scene.arrow is None:
        return f"You meet {user} for the first time."
    tie = TIES[tie_of(scene, params)].format(user=user)
    felt = feeling_in_words(relationship.shown(scene.arrow, params))
    return f"{tie}; you {' and '.join(felt)}." if felt else f"{tie}."


def manner_in_words(scene: Scene, params: RelationshipParams, prompts: PromptParams) -> str:
    """Say how the persona is to talk: how it addresses the other, how warm and how open it is."""
    user, address = scene.partner_name, ADDRESS[tie_of(scene, params)]
    values = shown_of(scene, params)
    affinity, trust = (values.affinity, values.trust) if values else (0.0, 0.0)
    open_to = CONFIDING if confides(values, prompts) else from_table(trust, OPENNESS)
    return f"Address {user} {address}, and speak {from_table(affinity, WARMTH)}. {open_to}."


def manner_in_short(scene: Scene, params: RelationshipParams) -> str:
    """Say how warm the persona is, as a sentence; empty if that is nothing special."""
    values = shown_of(scene, params)
    warmth = from_table(values.affinity, WARMTH) if values else CIVIL
    return "" if warmth == CIVIL else f"You speak {warmth} to {scene.partner_name}."


def tie_of(scene: Scene, params: RelationshipParams) -> RelationshipType:
    """Return what the other is to the persona; a stranger before they have met."""
    if scene.arrow is None:
        return "stranger"
    return relationship.relationship_type(scene.arrow, scene.reverse, params)


def shown_of(scene: Scene, params: RelationshipParams) -> Shown | None:
    """Return the public numbers of how the persona sees the other; None before they have met."""
    return relationship.shown(scene.arrow, params) if scene.arrow else None


def from_table(value: float, table: tuple[tuple[float, str], ...]) -> str:
    """Return the words of the first border, from high to low, that a value reaches."""
    return next(words for border, words in table if value >= border)
