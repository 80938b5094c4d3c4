"""Whether a reply may be said and remembered."""

import re

from langgraph.runtime import Runtime

from persona_mcp.nodes.chat_state import ChatState, ChatUpdate, Draft, Scene, Verdict
from persona_mcp.nodes.company import others_of
from persona_mcp.nodes.decided import Decision
from persona_mcp.nodes.events import tell
from persona_mcp.nodes.parts import ChatContext, Parts
from persona_mcp.state.errors import ModelError
from persona_mcp.state.prompt_params import PromptParams

OUT_OF_CHARACTER = re.compile(
    r"\b(i am|i'm|i’m|as|i am just|i'm just)\s+an?\s+"  # noqa: RUF001
    r"(large\s+)?(ai|a\.i\.|artificial intelligence|language model|chat ?bot|virtual assistant)"
    r"(\s+(assistant|model|language model))?\b(?!\s+"
    r"(researcher|engineer|developer|scientist|expert|student|specialist|consultant|teacher)\b)"
    r"|\b(my training data|my knowledge cutoff)\b"
    r"|\bi (was|am) (made|trained|created|built|developed) by (openai|anthropic|google|meta)\b"
    r"|\byou remember:|^\(you are\b",
    re.IGNORECASE,
)
REMINDER = re.compile(r"^\(you are\b[^()]*\)\s*", re.IGNORECASE)
CLOSING = "\"'\u201d\u2019)"
SENTENCE_END = re.compile(rf"(?:(?<=[.!?…])|(?<=[.!?…][{CLOSING}]))\s+")
LETTER = re.compile(r"\w")
LAST_STOP = re.compile(rf"^.*[.!?…][{CLOSING}]*", re.DOTALL)
WORD = re.compile(r"\w+")
TOO_LONG = "too_long"
"""The reply was cut at the end of a sentence."""
SHOWN = re.compile(r"<(memory|sight)>.*?</\1>", re.DOTALL)


async def validate_reply(
    parts: Parts, state: ChatState, runtime: Runtime[ChatContext]
) -> ChatUpdate:
    """Judge the draft: hard faults have it made again, soft ones are mended and marked.

    A reply that was given before, word for word, is marked as well.

    Reads: scene, decision, draft.
    Writes: verdict.
    """
    scene, draft = state["scene"], state["draft"]
    told = "\n".join(m.content for m in draft.prompt if m.role == "system")
    system = SHOWN.sub("", told)  # what is remembered and seen may be told
    text = without_own_name(draft.text, scene.persona.name)
    faults = hard_faults(text, scene, system, parts.laws.prompts)
    if faults:
        return ChatUpdate(verdict=Verdict(text, tuple(faults), ()))
    kept, mended = mend(text, draft, state["decision"], parts.laws.prompts)
    if kept != draft.text:
        tell(runtime, "restart", reason=", ".join(mended) or "tidied")
        tell(runtime, "token", text=kept)
    again = ["repeats"] if said_before(text, scene) else []
    marked = dict.fromkeys([*mended, *again])
    return ChatUpdate(verdict=Verdict(kept, (), tuple(marked)))


def said_before(text: str, scene: Scene) -> bool:
    """Tell whether the persona has said just this in the window."""
    own = (turn for turn in scene.window if turn.speaker_id == scene.persona.id)
    words = WORD.findall(text.casefold())
    return any(WORD.findall(turn.content.casefold()) == words for turn in own)


async def refuse_reply(parts: Parts, state: ChatState) -> ChatUpdate:
    """Give up: the last allowed attempt had a hard fault too.

    Reads: verdict, draft, attempts.

    Raises:
        ModelError: Always; a bad reply is never passed off as one.
    """
    model = state["draft"].model
    name = model.id if model else "the model"
    raise ModelError(
        f"{name} gave no usable reply in {state['attempts']} attempts "
        f"({', '.join(state['verdict'].faults)}); send it again, or choose a larger model "
        "with PERSONA_LLM__MODEL",
        stage="validate",
        model=name,
        reasons=list(state["verdict"].faults),
    )


def without_own_name(text: str, name: str) -> str:
    """Take off `Aria:` in front of a reply, and quotation marks round the whole of it.

    Also `(You are Aria ...)`, which stands before what a small model is told: it says it again at
    times, and answers behind it.
    """
    said = REMINDER.sub("", text.strip())
    bare = re.sub(rf"^{re.escape(name)}\s*:\s*", "", said, flags=re.IGNORECASE)
    if bare[:1] in '"“' and bare[-1:] in '"”' and not re.search('["“”]', bare[1:-1]):
        bare = bare[1:-1].strip()
    return bare


def hard_faults(text: str, scene: Scene, system: str, params: PromptParams) -> list[str]:
    """List what makes a reply unusable; empty if nothing does."""
    user = "|".join(re.escape(name) for name in others_of(scene))
    checks = (
        ("it is empty", not LETTER.search(text)),
        ("it falls out of character", bool(OUT_OF_CHARACTER.search(text))),
        (
            "it speaks for the user",
            bool(re.search(rf"^\s*({user}|user|human)\s*:", text, re.IGNORECASE | re.MULTILINE)),
        ),
        ("it repeats its instructions", leaks(text, system, params.leak_words)),
    )
    return [fault for fault, found in checks if found]


def leaks(text: str, instructions: str, length: int) -> bool:
    """Tell whether `length` words in a row stand in both."""
    told = " ".join(WORD.findall(instructions.casefold()))
    said = WORD.findall(text.casefold())
    runs = (" ".join(said[i : i + length]) for i in range(len(said) - length + 1))
    return any(f" {run} " in f" {told} " for run in runs)


def mend(
    text: str, draft: Draft, decision: Decision, params: PromptParams
) -> tuple[str, list[str]]:
    """Trim what is too long or said twice, at the ends of sentences."""
    mended = []
    sentences = SENTENCE_END.split(text)
    fresh = list(dict.fromkeys(sentences))
    if len(fresh) < len(sentences):
        mended.append("repeats")
        text = " ".join(fresh)
    whole = LAST_STOP.match(text)
    if draft.finish_reason == "length" and whole and whole.group() != text:
        mended.append(TOO_LONG)
        text = whole.group()
    if len(text.split()) > params.length_slack * decision.words:
        mended = [*dict.fromkeys([*mended, TOO_LONG])]
        text = within(text, decision.words)
    return text, mended


def within(text: str, words: int) -> str:
    """Keep the sentences that fit into a number of words; the first one in any case."""
    kept: list[str] = []
    for sentence in SENTENCE_END.split(text):
        if kept and len(" ".join([*kept, sentence]).split()) > words:
            break
        kept.append(sentence)
    return " ".join(" ".join(kept).split()[: int(words * 2)])
