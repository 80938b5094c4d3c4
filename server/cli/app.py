"""The command line: what there is, with which options; work is imported when it is run."""

import gc
import os
import signal
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from persona_mcp.server.cli.batch_commands import dialogue
from persona_mcp.server.cli.memory_commands import memory
from persona_mcp.server.cli.options import AsJson, Commands, Model, Name, User, World, command
from persona_mcp.server.cli.persona_commands import personas
from persona_mcp.server.cli.state_commands import state
from persona_mcp.server.cli.token_commands import token
from persona_mcp.server.cli.world_commands import world

app = typer.Typer(
    name="persona",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="AI personas that remember, feel and relate. Begin with `persona demo`, then "
    "`persona chat Aria`.",
)
database = typer.Typer(
    cls=Commands, no_args_is_help=True, help="The database: upgrade, backup and restore."
)
app.add_typer(personas)
app.add_typer(database, name="db")
app.add_typer(memory, name="memory")
app.add_typer(state, name="state")
app.add_typer(dialogue, name="dialogue")
app.add_typer(token, name="token")
app.add_typer(world, name="world")


def show_version(asked: bool) -> None:
    """Print the version and end."""
    if asked:
        typer.echo(version("persona-mcp"))
        raise typer.Exit


@app.callback()
def persona(
    shown: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Hold the options of the program itself."""


@app.command()
def demo(model: Model = None, as_json: AsJson = False) -> None:
    """Play a short talk that shows memory and feeling at work, with a real model.

    Uses a data folder of its own that is removed at the end.

    Example: persona demo --model ollama:llama3.1:8b
    """
    command("demo", "demo")(model, as_json)


@app.command()
def chat(
    name: Name,
    user: User = None,
    model: Model = None,
    new: Annotated[bool, typer.Option("--new", help="Start another conversation.")] = False,
    world: World = None,
) -> None:
    """Talk to a persona; goes on where you left off.

    Inside, /help lists what else there is and /why shows what was behind the last reply.

    Example: persona chat Aria
    """
    command("talk", "chat")(name, user, model, new, world)


@app.command()
def ask(
    name: Name,
    message: Annotated[
        str, typer.Argument(help="What to say; - reads standard input.", metavar="MESSAGE")
    ],
    as_json: AsJson = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Add the prompt, the memories and the relationship.")
    ] = False,
    new: Annotated[bool, typer.Option("--new", help="Start another conversation.")] = False,
    conversation: Annotated[
        str | None, typer.Option("--conversation", help="Go on with this conversation.")
    ] = None,
    request_id: Annotated[
        str | None,
        typer.Option("--request-id", help="The same id again gives the stored reply."),
    ] = None,
    user: User = None,
    model: Model = None,
    world: World = None,
) -> None:
    """Say one thing to a persona and print the reply; for scripts.

    Goes on with the last conversation of this user and persona.

    Example: persona ask Kira "What are you reading?" --json
    """
    command("talk", "ask")(
        name, message, user, model, new, conversation, request_id, explain, world, as_json
    )


@app.command()
def talk(
    one: Annotated[
        str, typer.Argument(help="Who talks: id or name; see `persona list`.", metavar="ONE")
    ],
    other: Annotated[
        str, typer.Argument(help="To whom: another persona's id or name.", metavar="OTHER")
    ],
    topic: Annotated[
        str | None, typer.Option("--topic", help="What about; left out: general.")
    ] = None,
    turns: Annotated[int, typer.Option("--turns", help="How many, at most: 1..500.")] = 20,
    budget: Annotated[
        int | None,
        typer.Option("--budget", help="Tokens for the whole talk: 51..32768; left out: 1000."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Makes what is drawn by lot the same again.")
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option("--witness", help="A persona that overhears it; repeat it.", metavar="NAME"),
    ] = None,
    model: Model = None,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Let two personas talk, and print what they say; Ctrl-C ends it after the turn.

    Both remember it. It ends by itself when one of them has had enough.

    Example: persona talk Aria Kira --topic music --turns 6
    """
    begin = {
        "persona1_id": one,
        "persona2_id": other,
        "topic": topic,
        "max_turns": turns,
        "token_budget": budget,
        "seed": seed,
        "witnesses": witness,
    }
    command("dialogue", "talk")(begin, model, world, as_json)


@app.command()
def conversations(
    whose: Annotated[
        str | None,
        typer.Option(
            "--persona",
            "-p",
            help="Only those that this persona talks in: id or name.",
            metavar="NAME",
        ),
    ] = None,
    status: Annotated[
        str | None, typer.Option("--status", help="active, ended or all; left out: all.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", help="Shown, at most: 1..200; left out: 50.")
    ] = None,
    cursor: Annotated[
        str | None, typer.Option("--cursor", help="next_cursor of the page before.")
    ] = None,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """List chats and talks between personas, the last begun first.

    Example: persona conversations --persona Aria --status active
    """
    which = {
        "persona_id": whose,
        "status": status,
        "limit": limit,
        "cursor": cursor,
        "world_id": world,
    }
    command("conversations", "list_conversations")(which, as_json)


@app.command()
def relationships(
    whose: Annotated[
        str | None,
        typer.Option("--of", help="How this persona sees everybody: id or name.", metavar="NAME"),
    ] = None,
    over_time: Annotated[
        tuple[str, str] | None,
        typer.Option("--over-time", help="How A sees B, and B sees A, over time.", metavar="A B"),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw it instead, as .svg or .png.", metavar="FILE"),
    ] = None,
    world: World = None,
    as_json: AsJson = False,
) -> None:
    """Show who sees whom how: all in a table, one persona's view, or two over time.

    Example: persona relationships --over-time Aria user --plot aria.svg
    """
    command("relationships", "show")(whose, over_time, plot, world, as_json)


@app.command()
def tools(
    name: Annotated[
        str | None,
        typer.Argument(help="Show this one with all that it takes and returns.", metavar="NAME"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """List the operations that every door serves, or show one.

    Example: persona tools memory_search
    """
    command("tools", "tools")(name, as_json)


@app.command()
def config(as_json: AsJson = False) -> None:
    """Print the settings in effect and where each is from; secrets are masked."""
    command("system", "config")(as_json)


@app.command()
def doctor(model: Model = None, as_json: AsJson = False) -> None:
    """Check model, embedder, database and index, and say what to do about each."""
    command("system", "doctor")(model, as_json)


@app.command()
def mcp(
    toolset: Annotated[str, typer.Option("--toolset", help="core, or all operations.")] = "core",
) -> None:
    """Serve MCP over standard input and output; a client starts this.

    Example, for Claude Code: claude mcp add persona -- uv run --directory PATH persona mcp
    """
    command("mcp", "mcp")(toolset)


@app.command()
def serve(
    host: Annotated[
        str | None,
        typer.Option(
            "--host", help="Address to listen on; left out: PERSONA_SERVER__HOST (127.0.0.1)."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=0,
            max=65_535,
            help="Port to listen on, 0 for a free one; left out: PERSONA_SERVER__PORT (8000).",
        ),
    ] = None,
    model: Model = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Ask for no token at an address that others reach: anybody may do everything.",
        ),
    ] = False,
) -> None:
    """Serve MCP, REST and token streams over HTTP until Ctrl-C.

    MCP is at /mcp (all operations: /x/all/mcp), REST at /api/v1, its description at /openapi.json,
    the state of each part at /health/ready. At an address that others reach, callers need a token
    (persona token create).

    Example: persona serve --port 8000
    """
    command("serve", "serve")(host, port, model, insecure)


@app.command()
def graph(
    name: Annotated[
        str, typer.Argument(help="conversation, dialogue or relationship.", metavar="NAME")
    ] = "conversation",
    svg: Annotated[
        Path | None, typer.Option("--svg", help="Write a picture instead.", metavar="FILE")
    ] = None,
) -> None:
    """Print a graph as Mermaid, or draw it.

    Example: persona graph conversation
    """
    command("system", "graph")(name, svg)


@database.command("upgrade")
def upgrade() -> None:
    """Bring the database to the newest schema; does nothing if it is there."""
    command("system", "upgrade")()


@database.command("backup")
def backup(
    folder: Annotated[Path, typer.Argument(help="To be made.", metavar="FOLDER")],
    as_json: AsJson = False,
) -> None:
    """Copy the data folder while it is in use: databases and background dialogues.

    The copy is checked. Chroma's index is left out: it is made anew from the database.

    Example: persona db backup ~/backups/persona-monday
    """
    command("backup", "backup")(folder, as_json)


@database.command("restore")
def restore(
    folder: Annotated[Path, typer.Argument(help="A backup.", metavar="FOLDER")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the backup, and change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Restore without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup in the place of the data folder's content, which is kept beside it.

    No other process may use the data folder.

    Example: persona db restore ~/backups/persona-monday --dry-run
    """
    command("backup", "restore")(folder, dry_run, yes, as_json)


def main() -> None:
    """Run the command line.

    What a command imports is no garbage: looking for some meanwhile took a tenth of the processor
    time of one that reads one thing. And a Ctrl-C meanwhile ends the process: raised within what
    is not written in Python it would come out as something else, or be lost. `run_loop` has both
    as usual again.
    """
    gc.disable()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell may have it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    fill_descriptors()
    try:
        app()
    except OSError as error:  # of Typer's own output, such as help: a command's are told by itself
        command("run", "end_unwritten")(error)


def fill_descriptors() -> None:
    """Open nothing as standard input, output or error where the process was started without it.

    Else the next file or socket gets its number. uvloop aborts the process when it closes such a
    socket, and what we start would write its errors into such a file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
