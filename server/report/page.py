"""`report.html`: what came of a batch, on one page that opens without a network.

All of it is in the file, and it says itself that nothing may be loaded. It is the same to the byte
for the same outcomes: nothing of when, where or how fast is in it.
"""

from collections.abc import Callable
from importlib.resources import files

from persona_mcp.server.report.curves import curves
from persona_mcp.server.report.findings import (
    ARMS_DRAWN,
    PEOPLE_DRAWN,
    TURNS_DRAWN,
    Drawn,
    Findings,
)
from persona_mcp.server.report.graph import graph, key
from persona_mcp.server.report.html import Markup, el, html, joined, named
from persona_mcp.server.report.sections import arm_name, arms, cards, controls, costs
from persona_mcp.server.report.talks import talk
from persona_mcp.state.batch.plan import BatchPlan
from persona_mcp.state.batch.values import Cast

TEMPLATE = "report.html"
TITLE, BODY = "<!--title-->", "<!--body-->"
SECTIONS = (
    ("summary", "Summary"),
    ("controls", "Controls"),
    ("relationships", "Relationships"),
    ("transcripts", "Transcripts"),
    ("cost", "Cost"),
)


def report(findings: Findings, plan: BatchPlan, casts: Callable[[int], Cast]) -> bytes:
    """Write the page.

    Args:
        findings: What was gathered of the outcomes.
        plan: What was held.
        casts: Gives who was cast in an arm.
    """
    labels = [label(plan, arm.number) for arm in findings.arms]
    page = {
        "summary": joined(cards(findings.counts), arms(findings, labels, len(plan.arms))),
        "controls": controls(findings.controls),
        "relationships": relationships(findings, labels, plan, casts),
        "transcripts": transcripts(findings, plan, casts),
        "cost": costs(findings, labels),
    }
    sections = (el("section", el("h2", title), page[name], id=name) for name, title in SECTIONS)
    body = joined(heading(plan), el("main", *sections))
    # Split once each: what stands in the body is never read as a place to fill in.
    start, rest = template().split(TITLE)
    middle, end = rest.split(BODY)
    return (start + html(plan.spec.name) + middle + body + end).encode()


def template() -> str:
    """Return the page with its style and script, and with places for title and body."""
    return files(__package__).joinpath(TEMPLATE).read_text("utf-8")


def label(plan: BatchPlan, arm: int) -> str:
    """Say what an arm is called."""
    values = plan.arms[arm].values
    return f"arm {arm}: {arm_name(values)}" if values else "all dialogues"


def heading(plan: BatchPlan) -> Markup:
    """Write the name of the batch, what it is, and the ways to its sections."""
    spec = plan.spec
    parts = ((len(plan.arms), "arm"), (plan.repeats, "run"), (plan.waves, "wave"))
    of_arms, runs, waves = (f"{n:,} {name}{'' if n == 1 else 's'}" for n, name in parts)
    first = "seed" if plan.repeats == 1 else "first seed"
    size = (
        f"{plan.total:,} dialogues: {of_arms} of {runs}, {waves} each, {first} {plan.run_seed(0)}"
    )
    links = (el("a", title, href=f"#{name}") for name, title in SECTIONS)
    return el(
        "header",
        el("h1", named(spec.name)),
        el("p", named(spec.description), class_="description") if spec.description else None,
        el("p", size, class_="note"),
        el("nav", *links, aria_label="Sections"),
    )


def relationships(
    findings: Findings, labels: list[str], plan: BatchPlan, casts: Callable[[int], Cast]
) -> Markup:
    """Write the pictures of relationships, an arm each."""
    parts = [key()]
    if len(plan.arms) > ARMS_DRAWN:
        parts.append(el("p", f"The first {ARMS_DRAWN} arms are drawn.", class_="note"))
    several = len(plan.arms) > 1
    pictures = (arm_pictures(d, labels[d.arm], casts(d.arm), several) for d in findings.drawn)
    return joined(*parts, *pictures)


def arm_pictures(drawn: Drawn, name: str, cast: Cast, several: bool) -> Markup:
    """Draw one arm: before, after, and how it went in between."""
    names = {member.id: member.spec.name for member in cast.members}
    people = list(names.items())[:PEOPLE_DRAWN]
    notes = [f"Means over {drawn.runs:,} runs."] if drawn.runs > 1 else []
    if len(names) > PEOPLE_DRAWN:
        notes.append(f"The first {PEOPLE_DRAWN} of {len(names):,} personas are drawn.")
    pictures = (
        el("figure", el("figcaption", title), graph(people, views, f"{title}: who sees whom how"))
        for title, views in (("Before", drawn.before), ("After", drawn.after))
    )
    picture = curves(drawn, names)
    course = "Over the turns of run 0"
    cut = f" Of it the dialogues up to turn {TURNS_DRAWN:,}." if drawn.cut else ""
    return el(
        "div",
        el("h3", named(name)) if several else None,
        el("p", " ".join(notes), class_="note") if notes else None,
        el("div", *pictures, class_="pair"),
        el("h4", course) if picture else None,
        el("p", cut, class_="note") if picture and cut else None,
        picture or el("p", "No relationship moved in run 0.", class_="note"),
        class_="arm",
    )


def transcripts(findings: Findings, plan: BatchPlan, casts: Callable[[int], Cast]) -> Markup:
    """Write the sample of dialogues."""
    total = findings.counts.done + findings.counts.failed
    shown = len(findings.talks)
    rule = (
        f"{shown} of {total:,} dialogues: evenly spaced by index, and the first that failed. All "
        "of them are in dialogues.jsonl and turns.parquet."
        if shown < total
        else "All dialogues."
    )
    notes = el(
        "p", f"{rule} ● heard a turn, ○ did not; a whisper is heard by some alone.", class_="note"
    )
    written = []
    for at, one in enumerate(findings.talks):
        place = one.outcome.job.place
        cast = casts(place.arm)
        names = {member.id: member.spec.name for member in cast.members}
        arm = label(plan, place.arm) if len(plan.arms) > 1 else ""
        written.append(talk(one, names, list(names), arm, opened=at == 0))
    return joined(notes, *written)
