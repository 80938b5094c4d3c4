"""`persona token`: made and shown once, listed, revoked after asking; and who may be served."""

import re
from pathlib import Path

import httpx
import pytest

from persona_mcp.config.loading import load_settings
from persona_mcp.server.cli.serve import needs_tokens
from persona_mcp.server.cli.tokens import expiry
from persona_mcp.state.errors import InvalidParams
from tests.command_line import Cli
from tests.http_server import API
from tests.processes import eventually, model_server, run, serving, stop, variables
from tests.tokens import bearer

TOKEN = re.compile(r"pmcp_[A-Za-z0-9_-]{43}")
NOW = 1_800_000_000.0


def test_a_token_is_printed_alone_and_never_again(cli: Cli) -> None:
    made = cli.good("token", "create", "--name", "guest")
    listed = cli.good("token", "list")
    listed_as_json = cli.good("token", "list", "--json")

    assert TOKEN.fullmatch(made.out.strip())
    assert "read, chat in main" in made.err
    assert made.out.strip() not in listed.out + listed_as_json.out
    assert "guest" in listed.out


def test_what_a_token_allows_is_told_as_json(cli: Cli) -> None:
    asked = ("--scopes", "admin, read", "--worlds", "main", "--expires", "30d")

    made = cli.good("token", "create", "--name", "ops", *asked, "--json").json
    [listed] = cli.good("token", "list", "--json").json["tokens"]

    assert TOKEN.fullmatch(made.pop("token"))
    assert made == listed
    assert (made["scopes"], made["worlds"]) == (["read", "admin"], ["main"])
    assert (made["status"], made["used_at"], made["revoked_at"]) == ("active", None, None)


def test_a_star_opens_every_world(cli: Cli) -> None:
    made = cli.good("token", "create", "--name", "all", "--worlds", "*", "--json").json

    assert made["worlds"] is None


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        (("--scopes", "read,fly"), ("--scopes", "fly", "read, chat, manage, admin")),
        (("--worlds", "main,nowhere"), ("world 'nowhere' not found",)),
        (("--worlds", ","), ("--worlds",)),
        (("--expires", "2020-01-31"), ("--expires", "still to come")),
        (("--expires", "soon"), ("--expires", "30d, 12h or 45m")),
        (("--expires", "0d"), ("--expires",)),
    ],
)
def test_what_is_wrong_is_named_as_it_was_given(
    cli: Cli, more: tuple[str, ...], wrong: tuple[str, ...]
) -> None:
    done = cli("token", "create", "--name", "guest", *more)

    assert done.code == 1
    for words in wrong:
        assert words in done.err
    assert cli.good("token", "list", "--json").json["tokens"] == []


def test_a_taken_name_is_refused_until_its_token_is_revoked(cli: Cli) -> None:
    first = cli.good("token", "create", "--name", "guest").out
    taken = cli("token", "create", "--name", "guest")
    cli.good("token", "revoke", "guest", "--yes")
    second = cli.good("token", "create", "--name", "guest").out

    assert taken.code == 1
    assert "persona token revoke guest" in taken.err
    assert first != second


def test_nothing_is_revoked_without_a_yes(cli: Cli) -> None:
    cli.good("token", "create", "--name", "guest")

    asked = cli("token", "revoke", "guest")
    unknown = cli("token", "revoke", "somebody", "--yes")
    before = cli.good("token", "list", "--json").json["tokens"][0]["status"]
    cli.good("token", "revoke", "guest", "--yes", "--json")
    after = cli.good("token", "list", "--json").json["tokens"][0]["status"]

    assert (asked.code, unknown.code) == (1, 1)
    assert "--yes" in asked.err
    assert "token 'somebody' not found" in unknown.err
    assert (before, after) == ("active", "revoked")


@pytest.mark.parametrize(
    ("text", "seconds"), [("45m", 2700), ("12h", 43200), ("30d", 2_592_000), (" 1D ", 86400)]
)
def test_how_long_it_lasts_is_counted_from_now(text: str, seconds: float) -> None:
    assert expiry(text, NOW) == NOW + seconds


@pytest.mark.parametrize(
    "text", ["2027-01-31T12:00:00Z", "2027-01-31T12:00:00", "2027-01-31T13:00:00+01:00"]
)
def test_a_date_without_a_zone_is_utc(text: str) -> None:
    assert expiry(text, NOW) == 1_801_396_800.0


@pytest.mark.parametrize("text", ["", "d", "-1d", "1.5h", "7w", "9999999d", "31.01.2027"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InvalidParams, match="--expires"):
        expiry(text, NOW)


@pytest.mark.parametrize(
    ("host", "tokens", "insecure", "needed"),
    [
        ("127.0.0.1", "auto", False, False),
        ("::1", "auto", False, False),
        ("127.0.0.1", "required", False, True),
        ("127.0.0.1", "required", True, True),
        ("0.0.0.0", "auto", False, True),
        ("::", "auto", False, True),
        ("persona.example", "auto", False, True),
        ("0.0.0.0", "auto", True, False),
    ],
)
def test_a_token_is_needed_where_others_reach_the_server(
    host: str, tokens: str, insecure: bool, needed: bool
) -> None:
    settings = load_settings(server={"host": host}, access={"tokens": tokens})

    assert needs_tokens(settings, insecure=insecure) == needed


def test_a_server_that_nobody_could_call_does_not_start(tmp_path: Path) -> None:
    given = variables(tmp_path / "data", "http://127.0.0.1:9")

    done = run("serve", "--host", "0.0.0.0", "--port", "0", **given)

    assert done.returncode == 1
    assert "callers of a server at 0.0.0.0 need a token" in done.stderr
    assert "persona token create" in done.stderr
    assert "--insecure" in done.stderr


def test_a_server_whose_setting_asks_for_tokens_names_the_setting(tmp_path: Path) -> None:
    more = {"PERSONA_ACCESS__TOKENS": "required"}
    given = variables(tmp_path / "data", "http://127.0.0.1:9", **more)

    done = run("serve", "--port", "0", "--insecure", **given)

    assert done.returncode == 1
    assert "PERSONA_ACCESS__TOKENS is required" in done.stderr
    assert "persona token create" in done.stderr
    assert "--insecure" not in done.stderr


def test_a_host_that_is_not_there_is_told_before_a_token_is_asked_for(tmp_path: Path) -> None:
    given = variables(tmp_path / "data", "http://127.0.0.1:9")

    done = run("serve", "--host", "192.0.2.1", "--port", "0", **given)

    assert done.returncode == 1
    assert "--host, --port: allowed is a free address of this machine" in done.stderr
    assert "token" not in done.stderr


def test_a_token_made_and_revoked_beside_a_server_acts_and_ends_there(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    more = {"PERSONA_ACCESS__TOKENS": "required", "PERSONA_ACCESS__KEPT_S": "0.5"}
    with model_server() as models:
        given = variables(folder, models.openai_url, **more)
        token = run("token", "create", "--name", "guest", **given).stdout.strip()
        with serving(folder, models.openai_url, **more) as (process, url):

            def status() -> int:
                return httpx.post(f"{url}{API}/persona/list", headers=bearer(token)).status_code

            without = httpx.post(f"{url}{API}/persona/list").status_code
            before = status()
            run("token", "revoke", "guest", "--yes", **given)
            eventually(lambda: status() == 401, "the token to stop acting")
            code, told = stop(process)

    assert (without, before, code) == (401, 200, 0)
    assert token not in told
