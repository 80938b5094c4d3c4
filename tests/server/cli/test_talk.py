"""The commands that talk: ask, chat and demo, over the whole service and a model server."""

import io
import os
import pty
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from persona_mcp.server.cli import run as cli_run
from persona_mcp.server.cli.demo import FIRST, SECOND
from persona_mcp.server.cli.talk import COMMANDS, show
from persona_mcp.server.service import Service
from persona_mcp.server.terminal import Terminal, open_console
from tests.calls import request
from tests.command_line import Cli, Done
from tests.doubles import ScriptedModel
from tests.keyboard import plain, typed
from tests.model_server import Behaviour
from tests.processes import (
    LIMIT_S,
    PERSONA,
    end,
    environment,
    eventually,
    run,
    start,
    stored,
    variables,
)

pytestmark = pytest.mark.anyio

CAT = "My cat is called Biscuit."
REPLY = Behaviour().text
HIGH = "\u201cZo\u00eb\u201d \u2014 na\u00efve \u2603"


def said(cli: Cli) -> list[list[str]]:
    """Return the prompts' messages so far, the system's left out."""
    return [[m["content"] for m in r.body["messages"][1:]] for r in cli.server.requests]


def statuses(data_dir: Path) -> list[str]:
    return [row[0] for row in stored(data_dir, "select status from exchanges order by created_at")]


def refused(done: Done) -> str:
    assert done.code == cli_run.FAILED
    assert done.err.startswith("error: ")
    return done.err


def test_a_reply_is_all_that_is_on_stdout(cli: Cli) -> None:
    done = cli.good("ask", "Aria", CAT)

    assert (done.out, done.err) == (REPLY + "\n", "")
    assert statuses(cli.data_dir) == ["done"]


def test_asking_goes_on_with_the_last_conversation_unless_it_is_to_be_new(cli: Cli) -> None:
    first = cli.good("ask", "Aria", CAT, "--json").json
    second = cli.good("ask", "Aria", "And mine?", "--json").json
    third = cli.good("ask", "Aria", "And yours?", "--new", "--json").json
    fourth = cli.good(
        "ask", "Aria", "Still there?", "--conversation", first["conversation_id"], "--json"
    ).json

    assert first["conversation_id"] == second["conversation_id"] == fourth["conversation_id"]
    assert third["conversation_id"] != first["conversation_id"]
    assert [r["turn_number"] for r in (first, second, third, fourth)] == [2, 4, 2, 6]
    assert said(cli)[1] == [CAT, REPLY, "And mine?"]
    assert said(cli)[2] == ["And yours?"]


def test_users_are_kept_apart(cli: Cli) -> None:
    first = cli.good("ask", "Aria", CAT, "--json", "--user", "sam").json
    other = cli.good("ask", "Aria", CAT, "--json", "--user", "kim").json

    assert first["conversation_id"] != other["conversation_id"]


def test_the_same_request_is_answered_once(cli: Cli) -> None:
    asked = ("ask", "Aria", CAT, "--request-id", "r1", "--json")
    first = cli.good(*asked).json
    again = cli.good(*asked).json
    cli.good("ask", "Aria", "Something else.", "--request-id", "r2")
    later = cli.good("ask", "Aria", "Something else.", "--request-id", "r2", "--json").json

    assert (again["exchange_id"], again["response"]) == (first["exchange_id"], REPLY)
    assert later["turn_number"] == 4
    assert len(cli.server.requests) == 2
    assert statuses(cli.data_dir) == ["done", "done"]


def test_a_request_id_that_was_used_for_something_else_is_refused(cli: Cli) -> None:
    cli.good("ask", "Aria", CAT, "--request-id", "r1")

    assert "request_id 'r1'" in refused(cli("ask", "Aria", "Other.", "--request-id", "r1"))


def test_a_message_can_come_from_standard_input(cli: Cli) -> None:
    cli.good("ask", "Aria", "-", said=f"{CAT}\nHe is old.\n")

    assert said(cli) == [[f"{CAT}\nHe is old."]]


def test_an_explanation_has_the_prompt_the_memories_and_the_changes(cli: Cli) -> None:
    cli.good("ask", "Aria", CAT)

    told = cli.good("ask", "Aria", "What is my cat called?", "--new", "--explain", "--json").json

    found = told["explanation"]
    assert found["prompt"] == cli.server.requests[-1].body["messages"]
    assert any(CAT in memory["text"] for memory in found["memories"])
    assert [memory["id"] for memory in found["memories"]] == told["memories_used"]
    assert all(memory["text"] in found["prompt"][0]["content"] for memory in found["memories"])
    assert found["relationship"]["interaction_count"] == 4
    assert len(found["relationship_changes"]) == 2
    assert found["score_terms"]
    assert found["mood"]


def test_an_explanation_is_readable(cli: Cli) -> None:
    first = cli.good("ask", "Aria", CAT, "--explain").out
    second = cli.good("ask", "Aria", "What is my cat called?", "--new", "--explain").out

    assert first.startswith(REPLY + "\nMemories in the prompt:\n  none\n")
    assert CAT in second.split("Relationship now")[0]
    assert "What this exchange changed:" in second
    assert "familiarity" in second
    shown = second.partition("The prompt:\n")[2]
    [system, asked] = cli.server.requests[-1].body["messages"]
    assert shown == f"system: {system['content']}\nuser: {asked['content']}\n"


def test_what_a_persona_kept_to_itself_is_told_by_id_and_type_and_not_by_its_words(
    cli: Cli,
) -> None:
    secret = ("I was the one who ate the fish.", "--persona", "Aria", "--type", "secret")
    kept = cli.good("memory", "store", *secret, "--json").json["memory_id"]
    asked = ("ask", "Aria", "Who ate the fish?", "--new", "--explain")

    found = cli.good(*asked, "--json").json["explanation"]
    readable = cli.good(*asked).out

    assert found["held_back"] == [{"id": kept, "memory_type": "secret"}]
    assert kept not in [memory["id"] for memory in found["memories"]]
    assert "ate the fish." not in str(found["prompt"])
    assert f"Held back, not being close enough:\n  {kept} (secret)\n" in readable
    assert "ate the fish." not in readable


def test_a_reply_from_before_has_no_prompt_to_explain(cli: Cli) -> None:
    asked = ("ask", "Aria", CAT, "--request-id", "r1", "--explain")
    cli.good(*asked)

    assert cli.good(*asked, "--json").json["explanation"]["prompt"] == []
    assert "The prompt:\n  not known: it is never stored" in cli.good(*asked).out


def test_an_error_is_on_stderr_and_in_the_json(cli: Cli) -> None:
    cli.server.script("500", "500")

    plain, as_json = cli("ask", "Aria", CAT), cli("ask", "Aria", CAT, "--json")

    assert plain.out == ""
    assert "error: openai:test" in refused(plain)
    error = as_json.json["error"]
    assert (error["code"], error["data"]["code"]) == (-32003, "llm_error")
    assert f"correlation id: {error['data']['correlation_id']}" in as_json.err
    assert statuses(cli.data_dir) == ["failed", "failed"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("ask", "Nobody", "Hi."), "persona 'Nobody' not found"),
        (("ask", "Aria", "Hi.", "--conversation", "c9"), "conversation 'c9' not found"),
        (("ask", "Aria", "Hi.", "--user", "kira"), "user_id"),
        (("ask", "Aria", ""), "message"),
        (("ask", "Aria", "Hi.", "--user", "no good id!"), "user"),
        (("ask", "Aria", "Hi.", "--request-id", "r" * 300), "request"),
        (("ask", "Aria", "x" * 20001), "message"),
        (("ask", "Aria", "Hi.", "--model", "gpt"), "PERSONA_LLM__MODEL"),
    ],
)
def test_what_cannot_be_asked_is_refused_and_leaves_nothing(
    cli: Cli, arguments: tuple[str, ...], told: str
) -> None:
    done = cli(*arguments)

    assert told in refused(done)
    assert "went wrong on our side" not in done.err
    assert cli.server.requests == []
    assert not cli.data_dir.exists() or statuses(cli.data_dir) == []


def test_a_talk_in_a_pipe_has_every_command_and_outlives_an_error(cli: Cli) -> None:
    cli.server.script("ok", "500", "ok", "ok")
    lines = [
        CAT,
        "/why",
        "Fail!",
        "Go on.",
        "/help",
        "/dance",
        "",
        "/new",
        "Cat?",
        "/why",
        "/quit",
        "x",
    ]

    done = cli.good("chat", "Aria", said="\n".join(lines) + "\n")

    assert done.out.startswith("Aria by openai:test. /help lists commands.\n")
    assert done.out.endswith("bye\n")
    assert done.out.count(f"you: Aria: {REPLY}") == 3
    assert all(command in done.out for command, _ in COMMANDS)
    assert "There is no command /dance" in done.out
    assert "error: openai:test" in done.err
    before, after = done.out.split("A new conversation begins")
    assert "Memories in the prompt:\n  none" in before
    assert CAT in after.split("Memories in the prompt:")[1]
    assert statuses(cli.data_dir) == ["done", "failed", "done", "done"]
    assert said(cli)[-2] == [CAT, REPLY, "Go on."]
    assert said(cli)[-1] == ["Cat?"]


def test_a_talk_goes_on_where_it_ended(cli: Cli) -> None:
    cli.good("chat", "Aria", said=CAT)
    cli.good("chat", "aria", said="/why\nCat?")
    anew = cli.good("chat", "Aria", "--new", said="")

    again = cli.good("chat", "Aria", said="/why\n")

    assert said(cli)[-1] == [CAT, REPLY, "Cat?"]
    assert "You go on after 4 turns" in again.out
    assert "There is no reply yet." in again.out
    assert "You go on" not in anew.out


def test_a_talk_with_nobody_ends_at_once(cli: Cli) -> None:
    assert "persona 'Nobody' not found" in refused(cli("chat", "Nobody"))


def test_the_demo_shows_a_memory_and_a_feeling(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONA_EMBEDDER__MODEL", "embedded:minilm")

    told = cli.good("demo", "--json").json

    assert set(told) >= {
        "turns", "memories_used", "relationship_before", "relationship_after", "model",
    }  # fmt: skip
    lines = [*FIRST, *SECOND]
    assert [turn["text"] for turn in told["turns"][::2]] == lines
    assert [turn["text"] for turn in told["turns"][1::2]] == [REPLY] * len(lines)
    assert told["model"] == "openai:test"
    assert any("Biscuit" in text for text in told["memories_used"])
    assert said(cli)[-1] == [*SECOND]
    before, after = told["relationship_before"], told["relationship_after"]
    assert before["affinity"] < after["affinity"]
    assert before["familiarity"] < after["familiarity"]
    assert before["interaction_count"] == 0
    assert not cli.data_dir.exists()


def test_the_demo_is_readable(cli: Cli) -> None:
    out = cli.good("demo", "--model", "openai:other").out

    assert out.startswith("Model: openai:other\n")
    assert out.count(f"\nAria: {REPLY}\n") == len(FIRST) + len(SECOND)
    assert "Biscuit" in out.split("Recalled for this reply:")[1]
    assert "at first sight" in out


def test_a_demo_without_a_model_says_what_to_do(cli: Cli) -> None:
    cli.server.script("500")

    assert "openai:test" in refused(cli("demo"))


def test_output_is_right_in_a_pipe_that_knows_ascii_only(cli: Cli) -> None:
    cli.server.script(Behaviour(text=HIGH))

    done = run(
        *("ask", "Aria", "Hello."),
        **variables(cli.data_dir, cli.server.openai_url, PYTHONIOENCODING="ascii"),
    )

    assert (done.returncode, done.stdout) == (0, '"Zoe" - naive ?\n')


def on_a_terminal(*arguments: str, **more: str) -> tuple[int, str]:
    """Run a command whose output is a terminal, and return what that shows."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [PERSONA, *arguments], env=environment(TERM="xterm-256color", **more), stdout=slave,
        stderr=slave, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(slave)
    shown = b""
    try:
        while piece := os.read(master, 65536):
            shown += piece
    except OSError:  # Linux says so when the other side is closed
        pass
    finally:
        os.close(master)
    return process.wait(), shown.decode()


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}])
def test_a_terminal_gets_colour_unless_it_wants_none(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    code, shown = on_a_terminal("list", PERSONA_DATA_DIR=str(tmp_path), **variables)

    assert code == 0
    assert "Aria" in shown
    assert ("\x1b[1m" in shown) is not bool(variables)


class Tty(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


async def test_a_terminal_ends_with_the_reply_as_it_was_stored(
    service: Service, model: ScriptedModel
) -> None:
    model.add(REPLY)
    screen = Tty()
    terminal = Terminal(open_console(screen), open_console(io.StringIO()))
    run, _ = await service.chat(request(CAT))

    await show(terminal, "Aria", run)

    frames = plain(screen.getvalue()).split("Aria: ")
    assert len(frames) > 4
    assert frames[-1].strip() == (await run.outcome())["exchange"].response == REPLY


def test_a_line_is_edited_with_the_arrows_and_typed_again_from_the_history(cli: Cli) -> None:
    given = variables(cli.data_dir, cli.server.openai_url)
    left, up = b"\x1b[D", b"\x1b[A"

    code, shown = typed(
        ("chat", "Aria"),
        [("you: ", b"Helo." + 2 * left + b"l\r"), (f"{REPLY}\r\n", b""), ("you: ", up + b"\r"),
         (f"{REPLY}\r\n", b""), ("you: ", b"/quit\r")],
        **given,
    )  # fmt: skip

    assert code == 0, shown
    assert said(cli) == [["Hello."], ["Hello.", REPLY, "Hello."]]
    assert "\x1b[1;36myou:\x1b[0m " in shown
    assert not {"\001", "\002"} & set(shown)


def test_a_terminal_without_a_user_at_it_is_asked_without_an_editor(cli: Cli) -> None:
    given = variables(cli.data_dir, cli.server.openai_url)

    code, shown = on_a_terminal("chat", "Aria", **given)

    assert code == 0, shown
    assert "you: " in plain(shown)
    assert not {"\001", "\002"} & set(shown)


def test_ctrl_c_in_a_talk_stops_the_reply_and_the_talk_goes_on(cli: Cli) -> None:
    cli.server.script(Behaviour(fault="silence", after=2), "ok")

    def interrupt() -> None:
        eventually(lambda: cli.server.requests, "the model to be asked")
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    done = cli.good("chat", "Aria", said=f"Hello.\n{CAT}\n/quit\n")
    interrupting.join()

    assert "(stopped; nothing of it is remembered)" in done.out
    assert f"Aria: {REPLY}" in done.out
    assert statuses(cli.data_dir) == ["cancelled", "done"]
    eventually(cli.server.requests[0].disconnected.is_set, "the model to be left")


def test_ctrl_c_in_a_reply_stops_the_model_and_leaves_nothing(cli: Cli) -> None:
    cli.server.script(Behaviour(fault="silence", after=2))
    given: dict[str, Any] = variables(cli.data_dir, cli.server.openai_url)
    process = start("ask", "Aria", CAT, **given)
    try:
        eventually(lambda: cli.server.requests, "the model to be asked")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
    finally:
        end(process)

    assert (process.returncode, out, err) == (130, "", "stopped\n")
    assert statuses(cli.data_dir) == ["cancelled"]
    eventually(cli.server.requests[0].disconnected.is_set, "the model to be left")
    assert stored(cli.data_dir, "select * from memories") == []
    assert stored(cli.data_dir, "select lease_owner from conversations") == [(None,)]
