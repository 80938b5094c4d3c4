"""The commands on conversations, over the whole service and a model server."""

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from persona_mcp.config.loading import load_settings
from persona_mcp.server.cli import run as cli_run
from persona_mcp.server.cli.conversations import show_conversations
from persona_mcp.server.cli.dialogue import Stop
from persona_mcp.server.service import open_service
from persona_mcp.server.terminal import open_terminal
from tests.calls import call
from tests.command_line import Cli
from tests.model_server import Behaviour
from tests.processes import end, eventually, start, stored

REPLY = Behaviour().text


def statuses(data_dir: Path) -> list[Any]:
    return stored(data_dir, "select status, exit_reason, turn_count from conversations")


def test_a_talk_is_printed_as_it_goes_with_its_end(cli: Cli) -> None:
    done = cli.good("talk", "Aria", "Kira", "--topic", "music", "--turns", "3", "--seed", "5")

    *lines, last = done.out.splitlines()
    assert lines == [f"Aria: {REPLY}", f"Kira: {REPLY}", f"Aria: {REPLY}"]
    assert last.startswith("(3 turns, time or turns used up; conversation ")
    assert statuses(cli.data_dir) == [("ended", "time_limit", 3)]


def test_a_talk_as_json_is_one_object(cli: Cli) -> None:
    found = cli.good("talk", "kira", "aria", "--turns", "2", "--json", "--witness", "Noor").json

    assert [turn["content"] for turn in found["turns"]] == [REPLY, REPLY]
    assert found["turns"][0]["witnesses"] == ["aria", "kira", "noor"]
    assert (found["status"], found["turn_count"], found["topic"]) == ("ended", 2, "general")
    assert 0 <= found["seed"] < 2**53


def test_what_is_wrong_is_named_as_on_the_command_line(cli: Cli) -> None:
    for arguments, field in (
        (("Aria", "aria"), "OTHER"),
        (("Aria", "Kira", "--turns", "0"), "--turns"),
        (("Aria", "Kira", "--budget", "50"), "--budget"),
    ):
        done = cli("talk", *arguments)
        assert done.code == cli_run.FAILED
        assert done.err.startswith(f"error: {field}: allowed is")
    assert statuses(cli.data_dir) == []


def test_a_talk_that_fails_is_over(cli: Cli) -> None:
    cli.server.script("400")

    done = cli("talk", "Aria", "Kira")

    assert done.code == cli_run.FAILED
    assert statuses(cli.data_dir) == [("ended", "user_request", 0)]


def test_conversations_are_listed(cli: Cli) -> None:
    talk = cli.good("talk", "Aria", "Kira", "--turns", "2", "--json").json
    cli.good("ask", "Noor", "Good evening.")

    table = cli.good("conversations").out
    found = cli.good("conversations", "--persona", "Kira", "--status", "ended", "--json").json

    assert "aria, kira" in table and "turns used up" in table and "user, noor" in table
    assert [one["id"] for one in found["conversations"]] == [talk["id"]]
    assert cli("conversations", "--status", "over").err.startswith("error: --status: allowed is")


def test_the_next_page_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    talk = {
        **dict.fromkeys(("id", "topic", "status", "exit_reason"), "c7"),
        "started_at": "2026-01-01T10:00:00.000Z",
        "participants": ["aria", "sam"],
        "turn_count": 2,
    }

    show_conversations(open_terminal(), {"conversations": [talk], "next_cursor": "c7"})

    assert "more: --cursor c7" in capsys.readouterr().out


def test_ctrl_c_ends_a_talk_when_its_turn_is_done(cli: Cli) -> None:
    cli.server.script(Behaviour(delay_s=0.05))

    def interrupt() -> None:
        eventually(lambda: cli.server.requests, "the model to be asked")
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    done = cli.good("talk", "Aria", "Kira", "--seed", "5")
    interrupting.join()

    assert done.out.splitlines()[0] == f"Aria: {REPLY}"
    assert "(the talk ends after this turn)" in done.err
    assert statuses(cli.data_dir) == [("ended", "user_request", 1)]


async def gone_on_with(conversation_id: str) -> list[dict[str, Any]]:
    """Make a turn in a process of its own, and return all turns."""
    async with open_service(load_settings()) as service:
        where = {"conversation_id": conversation_id}
        await call(service, "conversation_advance", **where)
        turns: list[dict[str, Any]] = (await call(service, "conversation_get", **where))["turns"]
        return turns


def test_a_talk_whose_process_is_killed_goes_on_after_its_last_whole_turn(cli: Cli) -> None:
    cli.server.script("ok", "ok", Behaviour(fault="silence", after=2), Behaviour(text="At dawn."))
    given = {name: value for name, value in os.environ.items() if name.startswith("PERSONA_")}
    process = start("talk", "Aria", "Kira", "--seed", "5", **given)
    try:
        eventually(lambda: len(cli.server.requests) == 3, "the third turn")
    finally:
        process.kill()
        end(process)
    [(talk,)] = stored(cli.data_dir, "select id from conversations where lease_owner is not null")

    turns = asyncio.run(gone_on_with(talk))

    assert [(turn["speaker_id"], turn["content"]) for turn in turns] == [
        ("aria", REPLY),
        ("kira", REPLY),
        ("aria", "At dawn."),
    ]
    assert stored(cli.data_dir, "select status, count(*) from exchanges group by 1") == [
        ("done", 3),
        ("interrupted", 1),
    ]
    assert statuses(cli.data_dir) == [("active", None, 3)]


def test_a_second_ctrl_c_is_what_it_is_elsewhere() -> None:
    stop, usual = Stop(), signal.getsignal(signal.SIGINT)

    with stop.listening(open_terminal()):
        os.kill(os.getpid(), signal.SIGINT)

        assert stop.wished
        assert signal.getsignal(signal.SIGINT) is usual
