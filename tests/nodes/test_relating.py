"""What an exchange changes and what is kept of it, computed before anything is written."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from persona_mcp.nodes.chat_state import ChatState, Verdict
from persona_mcp.nodes.decision import excuse_self
from persona_mcp.nodes.persistence import report_of
from persona_mcp.nodes.relating import relate
from persona_mcp.nodes.remembering import HEARD, turns_of
from persona_mcp.server.service import Service
from persona_mcp.state.appraisal import Appraisal
from persona_mcp.state.appraiser import Taken
from persona_mcp.state.continuation import Party
from persona_mcp.state.embedding import pack
from persona_mcp.state.errors import ModelError
from tests.calls import dump
from tests.doubles import FickleEmbedder, FixedAppraiser
from tests.nodes.steps import state
from tests.scenes import decision, scene

pytestmark = pytest.mark.anyio


def replied(text: str = "Fog again.") -> ChatState:
    return state(scene=scene(), decision=decision(), verdict=Verdict(text, (), ()))


async def test_both_utterances_move_the_persona_its_own_by_a_smaller_share(
    service: Service,
) -> None:
    made = (await relate(service.parts, replied()))["consequences"]

    heard, said = made.relationships
    assert (heard.from_id, heard.to_id) == (said.from_id, said.to_id) == ("mara", "ann")
    assert heard.event.weight > said.event.weight > 0
    assert "Hello." in heard.why and "Fog again." in said.why


async def test_nothing_is_written_and_the_same_names_are_given_again(service: Service) -> None:
    before = await dump(service.database)

    first = await relate(service.parts, replied())
    second = await relate(service.parts, replied())

    assert first["consequences"].turns == second["consequences"].turns
    assert await dump(service.database) == before


async def test_what_was_heard_weighs_less_than_it_did_for_the_speaker(service: Service) -> None:
    made = (await relate(service.parts, replied("Hello.")))["consequences"]

    heard, said = made.memories
    assert heard.importance_terms["heard"] == HEARD
    assert "heard" not in said.importance_terms


def test_both_parties_witness_both_turns() -> None:
    for turn in turns_of(("main", "x9"), scene(), "Hello.", "Fog again."):
        assert set(turn.witnesses) == {"ann", "mara"}


async def test_an_exit_line_is_reported_as_a_template(service: Service) -> None:
    tired = replace(decision(), party=Party(10, 1, fatigue=90))
    excused = await excuse_self(service.parts, state(scene=scene(), decision=tired))

    report = report_of(state(scene=scene(), decision=tired, **excused))

    assert (report["response_type"], report["model"]) == ("template", None)


async def test_a_turning_point_weighs_more_and_is_named_in_the_reason(service: Service) -> None:
    broken = Taken(Appraisal(warmth=-0.5, reliability=-0.8), "promise_broken", "model", "as told")
    before = replace(broken, turning_point=None)

    turned, plain = [
        (await relate(replace(service.parts, appraiser=FixedAppraiser(taken)), replied()))[
            "consequences"
        ].relationships[0]
        for taken in (broken, before)
    ]

    factor = service.parts.laws.effects.relationships.turning_point_factor
    assert turned.event.size == pytest.approx(factor * plain.event.size)
    assert turned.event.deltas.trust == pytest.approx(factor * plain.event.deltas.trust)
    assert turned.why == "hostile and unreliable, a promise broken: “Hello.”"
    assert plain.why == "hostile and unreliable: “Hello.”"
    assert (turned.origin.appraiser, turned.origin.note) == ("model", "as told")


async def test_what_will_be_remembered_is_embedded_for_the_same_write(service: Service) -> None:
    made = (await relate(service.parts, replied()))["consequences"]

    texts = [memory.indexed_text(service.parts.now()) for memory in made.memories]
    assert made.vectors is not None
    assert made.vectors.model_id == service.embedder.model_id
    assert made.vectors.packed == {
        text: pack(vector)
        for text, vector in zip(texts, await service.embedder.embed_documents(texts), strict=True)
    }


async def test_an_embedder_that_fails_leaves_what_will_be_remembered_for_later(
    service: Service,
) -> None:
    down = FickleEmbedder()
    down.fault = ModelError("the embedder did not answer")

    with capture_logs() as logs:
        made = (await relate(replace(service.parts, embedder=down), replied()))["consequences"]

    assert (made.vectors, len(made.memories)) == (None, 2)
    assert [(entry["event"], entry["code"]) for entry in logs] == [("embedded later", "llm_error")]
