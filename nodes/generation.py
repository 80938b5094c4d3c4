"""The reply, streamed from the model."""

import time
from collections.abc import Sequence
from contextlib import aclosing

from langgraph.runtime import Runtime

from persona_mcp.nodes.chat_state import ChatState, ChatUpdate, Draft, Scene
from persona_mcp.nodes.parts import ChatContext, Parts
from persona_mcp.nodes.prompts import compose
from persona_mcp.state import continuation
from persona_mcp.state.model import Chunk, ModelInfo, Sampling
from persona_mcp.state.prompt_params import PromptParams


async def generate_reply(
    parts: Parts, state: ChatState, runtime: Runtime[ChatContext]
) -> ChatUpdate:
    """Write the prompt, stream the reply, and pass each piece on as it comes.

    Reads: scene, message, recall, decision, verdict, attempts.
    Writes: draft, attempts.

    Raises:
        ModelError: The model did not answer, or not to the end.
        DeadlineExceeded: It took longer than its limits.
    """
    scene, decision, laws = state["scene"], state["decision"], parts.laws
    attempts = state.get("attempts", 0)
    complaints = state["verdict"].faults if attempts else ()
    if complaints:
        runtime.stream_writer({"event": "restart", "reason": ", ".join(complaints)})
    info = await parts.model.info()
    prompt = compose(
        scene,
        state["message"],
        state["recall"],
        decision,
        info,
        laws.prompts,
        laws.effects.relationships,
        complaints,
    )
    sampling = sampling_for(scene, info, decision.max_tokens, decision.temperature, laws.prompts)
    if runtime.context.seed is not None:
        sampling = Sampling(**{**vars(sampling), "seed": runtime.context.seed + attempts})
    runtime.stream_writer({"event": "prompt", "messages": [vars(m) for m in prompt]})
    started = time.monotonic()
    chunks: list[Chunk] = []
    async with aclosing(parts.model.stream(prompt, sampling)) as stream:
        async for chunk in stream:
            chunks.append(chunk)
            if chunk.text:
                runtime.stream_writer({"event": "token", "text": chunk.text})
    draft = draft_of(chunks, info, time.monotonic() - started, parts)
    return ChatUpdate(
        draft=Draft(**{**vars(draft), "prompt": tuple(prompt)}), attempts=attempts + 1
    )


def draft_of(chunks: Sequence[Chunk], info: ModelInfo, seconds: float, parts: Parts) -> Draft:
    """Put the pieces of a reply together."""
    text = "".join(chunk.text for chunk in chunks).strip()
    last = chunks[-1]
    estimate = continuation.estimated_tokens(len(text.split()), parts.laws.continuation)
    return Draft(
        text=text,
        tokens=estimate if last.output_tokens is None else last.output_tokens,
        estimated=last.output_tokens is None,
        finish_reason=last.finish_reason or "stop",
        seconds=seconds,
        model=info,
        prompt=(),
    )


def sampling_for(
    scene: Scene, info: ModelInfo, max_tokens: int, temperature: float, params: PromptParams
) -> Sampling:
    """Choose how the reply is drawn; a small model is kept short and on one line."""
    user = scene.conversation.user_id
    if not info.small:
        return Sampling(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=params.top_p,
            top_k=params.top_k,
            stop=(f"\n{user}:", "\nUser:"),
        )
    return Sampling(
        max_tokens=min(max_tokens, params.small_reply_tokens),
        temperature=params.small_temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        min_p=params.small_min_p,
        repeat_penalty=params.small_repeat_penalty,
        stop=("\n",),
    )
