"""The reply, streamed from the model."""

import time
from contextlib import aclosing
from dataclasses import replace

from langgraph.runtime import Runtime

from persona_mcp.nodes.chat_state import ChatState, ChatUpdate, Draft, Scene
from persona_mcp.nodes.decided import Decision
from persona_mcp.nodes.events import tell
from persona_mcp.nodes.parts import ChatContext, Parts
from persona_mcp.nodes.prompts import Brief, Prompt
from persona_mcp.nodes.retrieval import prompt_of
from persona_mcp.nodes.validation import SENTENCE_END
from persona_mcp.state import continuation
from persona_mcp.state.dialogue import sampling_seed
from persona_mcp.state.fields import without_refused
from persona_mcp.state.model import Chunk, ModelInfo, Sampling
from persona_mcp.state.prompt_params import PromptParams

HOTTEST = 2.0
"""Highest temperature that every provider takes."""


async def generate_reply(
    parts: Parts, state: ChatState, runtime: Runtime[ChatContext]
) -> ChatUpdate:
    """Write the prompt, stream the reply, and pass each piece on as it comes.

    Reads: world_id, scene, message, recall, decision, verdict, attempts.
    Writes: draft, attempts; recall, where the prompt took more.

    Raises:
        LimitExceeded: Even the message alone does not fit.
        StorageUnavailable: The database did not answer.
        ModelError: The model did not answer, or not to the end.
        DeadlineExceeded: It took longer than its limits.
    """
    scene, decision, laws = state["scene"], state["decision"], parts.laws
    attempts = state.get("attempts", 0)
    complaints = state["verdict"].faults if attempts else ()
    if complaints:
        tell(runtime, "restart", reason=", ".join(complaints))
    info = await parts.model.info()
    brief = Brief(scene, state["message"], decision, laws.effects.relationships, tuple(complaints))
    prompt, found = await prompt_of(parts, state, runtime, brief, info)
    sampling = sampling_for(scene, info, decision, runtime.context, laws.prompts)
    if attempts:  # the same draw again would most often say the same again
        warmer = sampling.temperature + attempts * laws.prompts.retry_temperature
        sampling = replace(sampling, temperature=min(warmer, HOTTEST))
    seed = runtime.context.seed
    if scene.standing is not None:  # a run may have many turns
        seed = sampling_seed(scene.standing.plan, scene.standing.said)
    if seed is not None:
        sampling = replace(sampling, seed=seed + attempts)
    tell(runtime, "prompt", messages=[vars(m) for m in prompt.messages])
    started = time.monotonic()
    spoken = Spoken(laws.prompts.small_sentences if info.small else None)
    async with aclosing(parts.model.stream(prompt.messages, sampling)) as stream:
        async for chunk in stream:
            text = spoken.take(chunk)
            if text:
                tell(runtime, "token", text=text)
            if spoken.ended:
                break
    draft = draft_of(spoken, info, prompt, time.monotonic() - started, parts)
    return ChatUpdate(draft=draft, attempts=attempts + 1, recall=found)


class Spoken:
    """A reply as it comes; one of a small model ends with a number of sentences.

    Attributes:
        text: What has been said.
        ended: Nothing more is wanted, or nothing more will come.
        last: The last chunk.
    """

    def __init__(self, sentences: int | None) -> None:
        """Take everything, or this many sentences."""
        self.text = ""
        self.ended = False
        self.last = Chunk("")
        self._sentences = sentences
        self._begun = False
        self._held = ""

    def take(self, chunk: Chunk) -> str:
        """Take a chunk and return what of it is said; white space at both ends never is."""
        before, self.last = len(self.text), chunk
        self.text += without_refused(chunk.text)
        self.ended = chunk.finish_reason is not None
        if self._sentences is not None:
            ends = [match.start() for match in SENTENCE_END.finditer(self.text)]
            if len(ends) >= self._sentences:
                self.text = self.text[: ends[self._sentences - 1]]
                self.ended = True
        fresh = self._held + self.text[before:]
        if not self._begun:
            fresh = fresh.lstrip()
        said = fresh.rstrip()
        self._begun = self._begun or bool(said)
        self._held = fresh[len(said) :] if self._begun else ""
        return said


def draft_of(
    spoken: Spoken, info: ModelInfo, prompt: Prompt, seconds: float, parts: Parts
) -> Draft:
    """Put a reply together."""
    estimate = continuation.estimated_tokens(len(spoken.text.split()), parts.laws.continuation)
    counted = spoken.last.output_tokens
    return Draft(
        text=spoken.text.strip(),
        tokens=estimate if counted is None else counted,
        estimated=counted is None,
        finish_reason=spoken.last.finish_reason or "stop",
        seconds=seconds,
        model=info,
        prompt=prompt.messages,
        memories=prompt.memories,
    )


def sampling_for(
    scene: Scene,
    info: ModelInfo,
    decision: Decision,
    context: ChatContext,
    params: PromptParams,
) -> Sampling:
    """Choose how the reply is drawn; a small model is kept short and on one line."""
    user = scene.partner_name
    if not info.small:
        return Sampling(
            max_tokens=decision.max_tokens,
            temperature=decision.temperature,
            top_p=params.top_p,
            top_k=params.top_k,
            stop=(f"\n{user}:", "\nUser:"),
        )
    own = params.small_temperature if context.temperature is None else context.temperature
    return Sampling(
        max_tokens=min(decision.max_tokens, params.small_reply_tokens),
        temperature=own,
        top_p=params.top_p,
        top_k=params.top_k,
        min_p=params.small_min_p,
        repeat_penalty=params.small_repeat_penalty,
        stop=("\n",),
    )
