"""Commands that let memories go: prune, fade, and the switch of the background upkeep."""

from persona_mcp.server.cli.calls import (
    Arguments,
    Ask,
    First,
    Shown,
    call,
    carry_out,
    check_alone,
    counted,
    memories_in_words,
    one_way,
    peek,
    table_of,
)
from persona_mcp.server.terminal import Terminal

DONE = (
    ("total_decay_cycles", "rounds"),
    ("total_memories_decayed", "memories archived since they had faded"),
    ("total_auto_prunes_triggered", "prunings"),
    ("total_errors", "personas whose upkeep failed"),
)


def prune(
    persona: str | None,
    everyone: bool,
    force: bool,
    dry_run: bool,
    undo: str | None,
    world: str | None,
    as_json: bool,
) -> None:
    """Archive the least memories of a persona or of all, or undo that."""

    def check(*_: object) -> None:
        one_way({"--persona": persona, "--all": everyone, "--undo": undo})
        check_alone("--force", force, "--all", everyone)
        check_alone("--force", force, "--undo", undo)
        check_alone("--dry-run", dry_run, "--undo", undo)

    if everyone:
        arguments: Arguments = {"dry_run": dry_run, "world_id": world}
        call("memory_prune_all", arguments, show_pruned_all, as_json, first=check)
    elif undo is not None:
        arguments = {"undo_prune_id": undo, "world_id": world}
        call("memory_prune", arguments, show_message, as_json, first=check)
    else:
        prune_one(persona, force, dry_run, world, as_json, check)


def prune_one(
    persona: str | None,
    force: bool,
    dry_run: bool,
    world: str | None,
    as_json: bool,
    check: First,
) -> None:
    """Archive the least memories of one persona; in a dry run the first of them are shown."""
    least: list[Shown] = []

    async def work(ask: Ask, given: Arguments) -> Shown:
        found = await ask("memory_prune", given)
        if dry_run and not as_json:
            least[:] = await peek(ask, found["memory_ids"], world)
        return found

    def show(terminal: Terminal, found: Shown) -> None:
        out, gone = terminal.out, found["memories_pruned"]
        if not gone:
            out.print(f"nothing to archive: {found['message']}", soft_wrap=True)
            return
        if least:
            out.print(table_of(least))
            if gone > len(least):
                out.print(f"and {gone - len(least)} more", style="dim")
        done = "would be archived" if dry_run else "archived"
        out.print(
            f"{gone} of {memories_in_words(found['memories_before'])} {done}, of mean importance "
            f"{found['average_importance_pruned']:.2f}; of those that stay it is "
            f"{found['average_importance_kept']:.2f}",
            soft_wrap=True,
        )
        if found["prune_id"]:
            say_undo(terminal, "prune", found["prune_id"])

    arguments = {"persona_id": persona, "force": force, "dry_run": dry_run, "world_id": world}
    carry_out(work, arguments, show, as_json, first=check)


def show_pruned_all(terminal: Terminal, found: Shown) -> None:
    """Say what a pruning of all personas did, or would do."""
    done = "would be archived" if found["status"] == "would_prune" else "archived"
    terminal.out.print(
        f"{found['total_memories_pruned']} of {memories_in_words(found['total_memories_before'])} "
        f"of {counted(found['personas_processed'], 'persona')} {done}",
        soft_wrap=True,
    )
    for persona_id, prune_id in found["prune_ids"].items():
        terminal.out.print(f"{persona_id}:", soft_wrap=True)
        say_undo(terminal, "prune", prune_id)
    for fault in found["errors"]:
        said = f"{fault['persona_id']}: {fault['message']}"
        terminal.err.print(said, style="bold red", soft_wrap=True)


def show_message(terminal: Terminal, found: Shown) -> None:
    """Print what an operation says of itself."""
    terminal.out.print(found["message"], soft_wrap=True)


def say_undo(terminal: Terminal, name: str, run_id: str) -> None:
    """Say how to take something back."""
    said = f"undo it with: persona memory {name} --undo {run_id}"
    terminal.out.print(said, style="dim", soft_wrap=True)


def fade(
    persona: str | None,
    everyone: bool,
    factor: float | None,
    dry_run: bool,
    undo: str | None,
    world: str | None,
    as_json: bool,
) -> None:
    """Lower the importance of memories of a persona or of all, or undo that."""

    def check(*_: object) -> None:
        one_way({"--persona": persona, "--all": everyone, "--undo": undo})
        check_alone("--factor", factor is not None, "--undo", undo)
        check_alone("--dry-run", dry_run, "--undo", undo)

    def show(terminal: Terminal, found: Shown) -> None:
        memories = memories_in_words(found["memories_processed"])
        if undo is not None:
            restored = found["memories_restored"]
            text = f"{restored} of {memories} have their importance back"
            rest = "" if restored else "; undone before, or all were changed since"
            terminal.out.print(text + rest, soft_wrap=True)
            return
        done = "would weigh" if dry_run else "weigh"
        terminal.out.print(
            f"{found['memories_decayed']} of {memories} {done} {found['decay_factor']:.0%} less; "
            "what is pinned, of importance 0.8 or more, or down to 0.1 stays as it is",
            soft_wrap=True,
        )
        if found["decay_id"]:
            say_undo(terminal, "fade", found["decay_id"])

    arguments: Arguments = {
        "decay_factor": factor,
        "dry_run": dry_run,
        "undo_decay_id": undo,
        "world_id": world,
    }
    whose = {} if everyone or undo else {"persona_id": persona}
    call("memory_decay_force", arguments | whose, show, as_json, first=check)


def upkeep_on(interval_hours: int, pruning: bool, world: str | None, as_json: bool) -> None:
    """Switch the background upkeep on."""

    def show(terminal: Terminal, found: Shown) -> None:
        was = "on already" if found["status"] == "already_running" else "on"
        hours = counted(found["interval_hours"], "hour")
        what = "archives what has faded"
        if found["auto_pruning"]:
            what += " and prunes what is too much"
        due = f"the next round is due {found['next_run'] or 'at once'}"
        terminal.out.print(f"upkeep is {was}: every {hours} it {what}; {due}", soft_wrap=True)
        runs = "it is done by whichever runs: persona serve, mcp or chat"
        terminal.out.print(runs, style="dim", soft_wrap=True)

    arguments = {"interval_hours": interval_hours, "auto_pruning": pruning, "world_id": world}
    call("memory_decay_start", arguments, show, as_json)


def upkeep_off(world: str | None, as_json: bool) -> None:
    """Switch the background upkeep off."""

    def show(terminal: Terminal, found: Shown) -> None:
        was = "off" if found["status"] == "stopped" else "off already"
        terminal.out.print(f"upkeep is {was}")

    call("memory_decay_stop", {"world_id": world}, show, as_json)


def upkeep_status(world: str | None, as_json: bool) -> None:
    """Say whether the background upkeep is on, and what it has done."""

    def show(terminal: Terminal, found: Shown) -> None:
        its, out = found["decay_statistics"], terminal.out
        on, config = its["background_running"], its["config"]
        if on:
            due = its["next_run"] or "at once"
            hours = counted(config["interval_hours"], "hour")
            pruning = "with" if config["auto_pruning"] else "without"
            out.print(f"upkeep is on: every {hours}, {pruning} pruning", soft_wrap=True)
            out.print(f"next round   {due}", soft_wrap=True)
        else:
            out.print("upkeep is off; persona memory upkeep on starts it", soft_wrap=True)
        out.print(f"last round   {its['last_run'] or 'never'}", soft_wrap=True)
        for name, meaning in DONE:
            out.print(f"{its[name]:8} {meaning}")

    call("memory_decay_stats", {"world_id": world}, show, as_json)
