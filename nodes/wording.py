"""Feelings and relationships in words, since a prompt never shows numbers."""

from persona_mcp.nodes.chat_state import Scene
from persona_mcp.state import emotion, relationship
from persona_mcp.state.feelings import Feelings
from persona_mcp.state.memory import HEARSAY, Memory
from persona_mcp.state.relationship import RelationshipParams, Shown

NOTABLE = 0.15
STRONG = 0.5
TIRED_BATTERY = 0.3
WORN_FATIGUE = 50.0

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


def memory_in_words(memory: Memory) -> str:
    """Say what a memory is: `user said: Hello.`; hearsay says who told it, never that it was so."""
    if memory.memory_type == HEARSAY:
        return memory.indexed_text.partition("] ")[2]
    if memory.speaker_id is None:
        return memory.content
    return f"{memory.speaker_id} said: {memory.content}"


def mood_in_words(feelings: Feelings) -> str:
    """Say how a persona feels: `cheerful and a little tired`."""
    words = MOODS[emotion.label(feelings.emotion)]
    tired = (
        feelings.interaction.fatigue > WORN_FATIGUE
        or feelings.emotion.social_battery < TIRED_BATTERY
    )
    return f"{words} and tired of talking" if tired else words


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
    user = scene.conversation.user_id
    if scene.arrow is None:
        return f"You meet {user} for the first time."
    tie = TIES[relationship.relationship_type(scene.arrow, None, params)].format(user=user)
    felt = feeling_in_words(relationship.shown(scene.arrow, params))
    return f"{tie}; you {' and '.join(felt)}." if felt else f"{tie}."
