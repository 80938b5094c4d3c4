"""Secrets that are asked for by those who were not there: a short run of the benchmark."""

import re
from collections.abc import AsyncGenerator, Sequence

import pytest

from benchmarks.instant import InstantModel
from benchmarks.secrets import KINDS, TOLD_ATTEMPTS, Leak, measure
from persona_mcp.config.settings import Settings
from persona_mcp.state.model import Chunk, Message, Sampling
from tests.doubles import WordEmbedder

pytestmark = pytest.mark.anyio

ATTEMPTS = 40
TOKEN = re.compile(r"zq[0-9a-f]{12}")


class Gossip(InstantModel):
    """Says every secret that its prompt has."""

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        found = TOKEN.findall("\n".join(message.content for message in messages))
        yield Chunk(f"I was told {' '.join(found)} once.", 9, "stop")


async def test_no_prompt_has_a_secret_of_others_and_without_the_rule_many_have(
    settings: Settings,
) -> None:
    found, leaks = await measure(settings, WordEmbedder(), ATTEMPTS, 1, Gossip())

    assert leaks == list[Leak]()
    assert (found.attempts, found.prompt_leaks) == (ATTEMPTS, 0)
    assert found.attempts > len(KINDS)
    assert found.prompt_leaks_without_rule > 0
    assert found.told_against_instruction == found.told_replies == TOLD_ATTEMPTS


async def test_without_a_model_nothing_is_said_of_what_it_would_tell(settings: Settings) -> None:
    found, _ = await measure(settings, WordEmbedder(), 4, 1, None)

    assert (found.told_replies, found.told_against_instruction) == (0, None)
