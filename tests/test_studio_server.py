"""`langgraph dev` as a developer starts it, driven as Studio drives it, and our doors in it."""

import os
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient
from mcp.client import Client

from persona_mcp.state.ids import thread_id
from tests.model_server import ModelServer
from tests.postgres import stored as in_postgres
from tests.processes import environment, model_server, run, stored, variables

LANGGRAPH = Path(sysconfig.get_path("scripts")) / "langgraph"
WANTED = "PERSONA_TEST_STUDIO"
"""Set in `.ci/run`: there a missing Studio is a failure."""
pytestmark = [
    pytest.mark.studio,
    pytest.mark.xdist_group("studio"),
    pytest.mark.skipif(
        not LANGGRAPH.exists() and WANTED not in os.environ,
        reason="langgraph-cli is not installed: uv sync --extra studio",
    ),
]

ROOT = Path(__file__).parents[1]
STUDIO_PAGE = "https://smith.langchain.com"
NODES = {"load", "retrieve", "decide", "excuse", "generate", "validate", "refuse", "relate"}
DOG, CAT, BOAT = "My dog is called Rex.", "My cat is called Biscuit.", "My boat is called Petrel."
START_S, LIMIT_S, LOOK_S = 120.0, 30.0, 0.1
NOWHERE = "http://127.0.0.1:9"
OFFLINE = {"ALL_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1,localhost"}
"""Whoever heeds proxies, as LangChain's clients do, reaches nothing but this machine."""


@dataclass(frozen=True)
class Studio:
    """The server of Studio on a data folder of its own, and the model that it talks to."""

    url: str
    data_dir: Path
    model: ModelServer
    client: SyncLangGraphClient

    @property
    def given(self) -> dict[str, str]:
        return variables(self.data_dir, self.model.openai_url)

    def ask(self, message: str, *options: str) -> dict[str, Any]:
        """Say something from the command line, on the same data folder."""
        done = run("ask", "noor", message, "--json", *options, **self.given)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = httpx.Response(200, text=done.stdout).json()
        return found

    def rest(self, path: str, **arguments: Any) -> dict[str, Any]:
        """Call an operation over REST, in Studio's server."""
        answer = httpx.post(
            f"{self.url}/api/v1/{path}", json=arguments, timeout=LIMIT_S, trust_env=False
        )
        assert answer.status_code == httpx.codes.OK, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def chat(self, message: str, **more: Any) -> dict[str, Any]:
        """Say something over REST, in Studio's server."""
        return self.rest("persona/chat", persona_id="noor", message=message, **more)

    def open(self, conversation_id: str) -> str:
        """Make a conversation of the product known to Studio, and return its thread."""
        thread = thread_id("main", conversation_id)
        self.client.threads.create(
            thread_id=thread, metadata={"graph_id": "conversation"}, if_exists="do_nothing"
        )
        return thread

    def say(self, thread: str, message: str, **more: Any) -> Any:
        """Run the graph with a message, as Studio's form does."""
        return self.client.runs.wait(thread, "conversation", input={"message": message}, **more)

    def window(self) -> str:
        """What the model was last given, but for the system's message."""
        messages = self.model.requests[-1].body["messages"]
        assert messages[0]["role"] == "system"
        return "\n".join(message["content"] for message in messages[1:])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def dev_server(given: dict[str, str], log: Path) -> Iterator[str]:
    """Run `langgraph dev`, and stop it as Ctrl-C does."""
    port = free_port()
    command = [str(LANGGRAPH), "dev", "--no-browser", "--no-reload", "--port", str(port)]
    command += ["--config", str(ROOT / "langgraph.json")]
    with (
        log.open("w") as written,
        subprocess.Popen(
            command,
            cwd=log.parent,  # its state lies there: two servers in one folder trip over each other
            env=environment(**given, **OFFLINE),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + START_S
            while not answers(url):
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(LOOK_S)
            yield url
            process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT_S) == 0
        finally:
            process.kill()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ok", trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("studio")
    data_dir = folder / "data"
    with (
        model_server() as model,
        dev_server(variables(data_dir, model.openai_url), folder / "log") as url,
        get_sync_client(url=url) as client,
    ):
        yield Studio(url, data_dir, model, client)
    log = (folder / "log").read_text()
    assert "Traceback" not in log, log


def test_the_form_has_the_knobs_with_their_ranges(studio: Studio) -> None:
    [assistant] = studio.client.assistants.search(graph_id="conversation")
    schemas = studio.client.assistants.get_schemas(assistant["assistant_id"])
    knobs: Any = schemas["context_schema"]
    fields = knobs["properties"]

    assert set(fields) == {"routing", "token_budget", "temperature", "persona_id", "seed", "host"}
    assert all(field["description"] for field in fields.values())
    assert (fields["token_budget"]["minimum"], fields["token_budget"]["maximum"]) == (1, 32768)
    number = fields["temperature"]["anyOf"][0]
    assert (number["minimum"], number["maximum"]) == (0, 2)
    assert fields["routing"]["pattern"] == "^(direct|score)$"
    assert "message" in schemas["input_schema"]["properties"]  # type: ignore[index]


def test_the_drawing_has_the_steps(studio: Studio) -> None:
    drawn: Any = studio.client.assistants.get_graph("conversation")

    assert {node["id"] for node in drawn["nodes"]} >= NODES
    assert studio.client.assistants.search(graph_id="relationship")


def test_a_run_is_an_exchange_of_the_one_service_that_the_doors_have_too(studio: Studio) -> None:
    thread = studio.client.threads.create(graph_id="conversation")["thread_id"]
    reply = studio.say(thread, DOG, context={"persona_id": "noor"})["reply"]
    where = studio.client.threads.get_state(thread)["values"]["conversation_id"]  # type: ignore
    told = studio.rest("conversation/get", conversation_id=where)
    studio.chat(CAT, conversation_id=where)

    assert [turn["content"] for turn in told["turns"]] == [DOG, reply]
    owners = stored(studio.data_dir, "select owner from exchanges where conversation_id = ?", where)
    assert len(owners) == 2 and len(set(owners)) == 1


def test_a_conversation_of_the_command_line_goes_on_in_studio_and_back(studio: Studio) -> None:
    begun = studio.ask(DOG, "--new")
    where = begun["conversation_id"]
    thread = studio.open(where)
    before: Any = studio.client.threads.get_state(thread)
    studio.say(thread, CAT)
    window = studio.window()
    studio.ask(BOAT, "--conversation", where)
    told = studio.rest("conversation/get", conversation_id=where)

    assert before["values"]["reply"] == begun["response"]
    assert before["values"]["conversation_id"] == where
    assert DOG in window and CAT in window
    assert DOG in studio.window() and CAT in studio.window()
    assert [turn["content"] for turn in told["turns"]][::2] == [DOG, CAT, BOAT]
    assert {exchange["status"] for exchange in told["exchanges"]} == {"done"}


def test_a_fork_goes_on_from_its_checkpoint_and_not_from_the_newest(studio: Studio) -> None:
    first = studio.chat(DOG)
    where = first["conversation_id"]
    second = studio.chat(CAT, conversation_id=where)
    thread = studio.open(where)
    history: Any = studio.client.threads.get_history(thread)
    heads = {state["values"].get("head"): state for state in history if not state["next"]}
    assert set(heads) == {first["exchange_id"], second["exchange_id"]}

    studio.say(thread, BOAT, checkpoint=heads[first["exchange_id"]]["checkpoint"])

    window = studio.window()
    assert DOG in window and BOAT in window and CAT not in window
    last = "select follows_id from exchanges where conversation_id = ? order by number desc"
    assert stored(studio.data_dir, last, where)[0] == (first["exchange_id"],)


@pytest.mark.anyio
async def test_our_doors_answer_there(studio: Studio) -> None:
    async with httpx.AsyncClient(base_url=studio.url, trust_env=False) as web:
        health = await web.get("/health/ready")
        described = (await web.get("/openapi.json")).json()["paths"]
    async with Client(f"{studio.url}/mcp") as client:
        called = await client.call_tool("persona_list", {})

    assert (health.status_code, health.json()["status"]) == (httpx.codes.OK, "ok")
    assert not called.is_error
    assert {"/api/v1/persona/chat", "/threads", "/runs/wait"} <= set(described)


def test_studios_page_may_call_and_others_may_not(studio: Studio) -> None:
    def search(origin: str) -> httpx.Response:
        return httpx.post(
            f"{studio.url}/assistants/search", json={}, headers={"Origin": origin}, trust_env=False
        )

    allowed = search(STUDIO_PAGE)

    assert allowed.status_code == httpx.codes.OK
    assert allowed.headers["access-control-allow-origin"] in ("*", STUDIO_PAGE)
    assert search("https://example.com").status_code == httpx.codes.FORBIDDEN


def test_what_the_server_itself_refuses_has_its_own_form(studio: Studio) -> None:
    missing = httpx.get(f"{studio.url}/threads/{thread_id('main', 'none')}", trust_env=False)

    assert missing.status_code == httpx.codes.NOT_FOUND
    assert "not found" in missing.json()["detail"]


def test_on_postgresql_studio_goes_on_from_the_products_checkpoints(
    tmp_path: Path, postgres_url: str
) -> None:
    data_dir, log = tmp_path / "data", tmp_path / "log"
    with model_server() as model:
        given = variables(data_dir, model.openai_url, PERSONA_DATABASE__URL=postgres_url)
        with dev_server(given, log) as url, get_sync_client(url=url) as client:
            studio = Studio(url, data_dir, model, client)
            begun = studio.chat(DOG)
            thread = studio.open(begun["conversation_id"])
            before: Any = client.threads.get_state(thread)
            reply = studio.say(thread, CAT)["reply"]
            window = studio.window()
            history = client.threads.get_history(thread)

    assert before["values"]["reply"] == begun["response"]
    assert DOG in window
    assert history[0]["values"]["reply"] == reply  # type: ignore[call-overload]
    count = "SELECT count(*) FROM checkpoints WHERE thread_id = %s"
    assert in_postgres(postgres_url, count, thread) == [(len(history),)]
    assert not (data_dir / "checkpoints.db").exists()
    assert "Traceback" not in log.read_text(), log.read_text()
