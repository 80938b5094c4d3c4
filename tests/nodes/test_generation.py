"""The reply as it is drawn: how a model is asked, and where a small one is stopped."""

from dataclasses import replace

import pytest

from persona_mcp.nodes.generation import Spoken
from persona_mcp.nodes.parts import ChatContext
from persona_mcp.server.service import Service
from persona_mcp.state.model import Chunk
from tests.calls import request
from tests.doubles import SMALL, Hangs, ScriptedModel

pytestmark = pytest.mark.anyio


async def test_a_large_model_is_stopped_where_it_would_speak_for_the_user(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Good evening.")

    run, _ = await service.chat(request("Hello.", user_id="ann"))
    await run.outcome()

    sampling = model.history[0].sampling
    assert sampling.stop == ("\nann:", "\nUser:")
    assert (sampling.min_p, sampling.repeat_penalty, sampling.seed) == (None, None, None)
    assert 0 < sampling.temperature <= 0.8


@pytest.mark.parametrize("small", [False, True])
async def test_temperature_and_seed_may_be_chosen_and_each_attempt_draws_anew(
    service: Service, model: ScriptedModel, small: bool
) -> None:
    model.known = replace(model.known, small=small)
    model.add("As an AI, I cannot.", "Good evening.")
    context = ChatContext(temperature=0.0, seed=7)

    run, _ = await service.chat(request("Hello.", context=context))
    await run.outcome()

    assert [asked.sampling.seed for asked in model.history] == [7, 8]
    assert [asked.sampling.temperature for asked in model.history] == [0.0, 0.3]


async def test_a_small_model_is_kept_short_and_on_one_line(
    service: Service, model: ScriptedModel
) -> None:
    model.known = SMALL
    model.add("Good evening.")

    run, _ = await service.chat(request("Hello."))
    await run.outcome()

    sampling = model.history[0].sampling
    assert (sampling.stop, sampling.max_tokens, sampling.temperature) == (("\n",), 48, 0.3)
    assert sampling.min_p and sampling.repeat_penalty


async def test_a_small_model_is_stopped_after_two_sentences(
    service: Service, model: ScriptedModel
) -> None:
    endless = Hangs('He said "go." So I went. And')
    model.known = SMALL
    model.add(endless)

    run, _ = await service.chat(request("Hello."))
    done = (await run.outcome())["exchange"]

    assert done.response == run.partial == 'He said "go." So I went.'
    assert done.outcome["trimmed"] == []
    assert not endless.reached.is_set()


def test_what_is_spoken_ends_with_its_last_sentence_whatever_the_pieces() -> None:
    text = "One here. Two “there.” Three more."
    for size in range(1, len(text)):
        spoken, said = Spoken(2), ""
        for start in range(0, len(text), size):
            said += spoken.take(Chunk(text[start : start + size]))
            if spoken.ended:
                break
        assert (spoken.text, spoken.ended) == ("One here. Two “there.”", True)
        assert said.rstrip() == spoken.text


def test_a_reply_without_a_limit_ends_with_its_last_chunk() -> None:
    spoken = Spoken(None)

    said = spoken.take(Chunk("One. Two. Three. ")) + spoken.take(Chunk("Four.", 9, "length"))

    assert (said, spoken.ended) == ("One. Two. Three. Four.", True)
    assert spoken.last.output_tokens == 9
