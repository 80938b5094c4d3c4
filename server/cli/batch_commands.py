"""Commands on batches of dialogues: what there is, with which options."""

from pathlib import Path
from typing import Annotated

import typer

from persona_mcp.server.cli.options import AsJson, Commands, Model, command

dialogue = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Batches of dialogues between personas, by a file."
)

File = Annotated[Path, typer.Argument(help="The specification, YAML or JSON.", metavar="FILE")]
Folder = Annotated[Path, typer.Argument(help="The batch's folder.", metavar="DIR")]
Events = Annotated[
    bool, typer.Option("--json", help="Print one JSON object a line for each event.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Dialogues held at once, or workers of another engine; left out: what suits it.",
        min=1,
        max=10_000,
    ),
]


@dialogue.command()
def check(
    file: File,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Do not ask the model how long a call takes.")
    ] = False,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Check a specification, and tell what would be run.

    That is who is cast, how many dialogues, turns and calls of the model there are at most, and
    about how long that takes.

    Example: persona dialogue check examples/quarrel.yaml --no-probe
    """
    command("batch_check", "check")(file, model, as_json, asks=not no_probe)


@dialogue.command()
def run(
    file: File,
    out: Annotated[Path, typer.Option("--out", help="Folder of the results.", metavar="DIR")],
    workers: Workers = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="local: in this process; processes: in one for each processor; ray: on a cluster.",
        ),
    ] = "local",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what was begun in that folder.")
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Go on, and hold again what failed and its sequels."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Throw away what batch is in that folder.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be run; change nothing.")
    ] = False,
    model: Model = None,
    as_json: Events = False,
) -> None:
    """Hold all dialogues of a specification, and write what came of them.

    Ctrl-C stops where each dialogue's turn ends, twice at once; --resume goes on. Exits with 0 if
    all are done, 3 if some failed, 130 after Ctrl-C, 1 for anything else.

    Example: persona dialogue run examples/quarrel.yaml --out quarrel
    """
    command("batch", "run_file")(
        file,
        out,
        workers=workers,
        engine=engine,
        resume=resume,
        retry_failed=retry_failed,
        force=force,
        dry_run=dry_run,
        model=model,
        as_json=as_json,
    )


@dialogue.command()
def verify(folder: Folder, as_json: AsJson = False) -> None:
    """Check a finished batch, byte for byte.

    First its files' hashes, then all of it is held again from its recording. No model is asked.
    Exits with 1, and says where, if a byte is not the same.

    Example: persona dialogue verify quarrel
    """
    command("batch", "verify")(folder, as_json)


@dialogue.command()
def fork(
    folder: Folder,
    which: Annotated[
        int, typer.Option("--dialogue", help="Its number in the batch, from 0.", min=0)
    ],
    turn: Annotated[
        int, typer.Option("--turn", help="The last turn that stays as it is; 0 for none.", min=0)
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="What is different after it, e.g. dialogue.max_turns=30, "
            "personas.ada.charisma=3, model.temperature=0.2; repeat it.",
            metavar="PATH=VALUE",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder of both transcripts; left out: below forks.", metavar="DIR"
        ),
    ] = None,
    repeats: Annotated[
        int,
        typer.Option(
            "--repeats", help="Hold the rest so often: by its own lot, then by others.", min=1
        ),
    ] = 1,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Hold the rest of one dialogue differently, and compare.

    Example: persona dialogue fork quarrel --dialogue 0 --turn 4 --set model.temperature=0.2
    """
    command("batch_fork", "fork")(folder, which, turn, changes or [], out, repeats, model, as_json)


@dialogue.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Tell how far a batch is, and what failed.

    Example: persona dialogue status quarrel
    """
    command("batch", "status")(folder, as_json)


@dialogue.command()
def report(folder: Folder, as_json: AsJson = False) -> None:
    """Write report.html again, of what is done so far.

    Example: persona dialogue report quarrel
    """
    command("batch", "report")(folder, as_json)
