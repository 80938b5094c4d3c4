"""Dialogues word by word: who said what, who heard it, and what each keeps of it."""

from collections.abc import Mapping, Sequence

from persona_mcp.server.report.findings import ShownTalk, there
from persona_mcp.server.report.html import Markup, arrow_name, el, html, joined, named, table
from persona_mcp.state.batch.reading import Ends, SaidTurn, summaries
from persona_mcp.state.continuation import reason_in_words

BADGES = {"whispered": "whispered", "exit_line": "exit line", "narrated": "narrator"}
Names = Mapping[str, str]


def talk(
    shown: ShownTalk, names: Names, people: Sequence[str], arm: str, *, opened: bool
) -> Markup:
    """Write one dialogue.

    Args:
        shown: Which.
        names: Of the personas, by id.
        people: Ids of the cast, in order: each has its colour.
        arm: What the arm is called; empty where there is one only.
        opened: It is shown from the beginning.
    """
    outcome, job = shown.outcome, shown.outcome.job
    present = there(outcome)
    place = " · ".join(
        part for part in (arm, f"run {job.place.repeat}", f"wave {job.place.wave}") if part
    )
    failed = outcome.status == "failed"
    summary = el(
        "summary",
        el("b", f"#{job.place.index}"),
        el("span", place, class_="place"),
        el("span", *listed(present, names), class_="who"),
        el("span", "failed", class_="badge bad") if failed else None,
        el("span", ended(shown), class_="place"),
    )
    return el(
        "details",
        summary,
        el("p", named(job.talk.scene), class_="scene") if job.talk.scene else None,
        el("p", "Topic: ", named(job.topic), class_="note"),
        failure(shown),
        listeners(job.place.index, present, names),
        el("ol", *lines(shown, names, people, present), class_="turns"),
        changes(shown, names),
        kept(shown, names),
        id=f"talk-{job.place.index}",
        class_="talk",
        open=opened,
    )


def listed(ids: Sequence[str], names: Names) -> list[Markup]:
    """Write names one behind the other, each in its own direction of writing."""
    comma = html(", ")
    return [joined(comma if at else None, named(names.get(id, id))) for at, id in enumerate(ids)]


def ended(shown: ShownTalk) -> str:
    """Say how long a dialogue was and why it ended."""
    count = sum(turn.kind != "narrated" for turn in shown.turns)
    turns = f"{count} turn{'' if count == 1 else 's'}"
    reason = reason_in_words(shown.outcome.exit_reason)
    return f"{turns}, ended: {reason}" if reason else turns


def failure(shown: ShownTalk) -> Markup | None:
    """Say what a dialogue failed with."""
    error = shown.outcome.error
    if not error:
        return None
    kind = shown.outcome.failed_with or "error"
    return el("p", el("b", kind.replace("_", " ")), ": ", named(error.get("message", "")))


def listeners(index: int, present: Sequence[str], names: Names) -> Markup:
    """Write the choice of whose ears it is read with."""
    options = [el("option", "everybody", value="")]
    options += [el("option", names.get(id, id), value=id) for id in present]
    return el(
        "p",
        el("label", "As heard by ", for_=f"ears-{index}"),
        el("select", *options, id=f"ears-{index}", data_ears=True),
        class_="ears",
    )


def lines(
    shown: ShownTalk, names: Names, people: Sequence[str], present: Sequence[str]
) -> list[Markup]:
    """Write the turns, and who comes and goes between them."""
    talk_spec = shown.outcome.job.talk
    steps: dict[int, list[Markup]] = {}
    for one in talk_spec.joins:
        text = " comes in, and knows nothing of what was said before."
        steps.setdefault(one.turn, []).append(step(names.get(one.persona, one.persona), text))
    for one in talk_spec.leaves:
        text = " leaves, and hears nothing from here on."
        steps.setdefault(one.turn, []).append(step(names.get(one.persona, one.persona), text))
    written: list[Markup] = []
    for turn in shown.turns:
        written += steps.pop(turn.number, [])
        written.append(line(turn, names, people, present))
    return written


def step(name: str, text: str) -> Markup:
    """Write that somebody comes or goes."""
    return el("li", named(name), text, class_="step")


def line(turn: SaidTurn, names: Names, people: Sequence[str], present: Sequence[str]) -> Markup:
    """Write one turn."""
    narrated = turn.kind == "narrated"
    heard = [id for id in present if turn.perceived_by(id)]
    name = "Narrator" if narrated else names.get(turn.speaker, turn.speaker)
    missed = [names.get(id, id) for id in present if id not in heard]
    note = f"not heard by {', '.join(missed)}" if missed else None
    badge = BADGES.get(turn.kind)
    return el(
        "li",
        el("span", "" if narrated else turn.number, class_="number"),
        named(name, class_=f"speaker {colour(turn.speaker, people)}"),
        el(
            "div",
            el("p", named(turn.text), class_="text"),
            el(
                "p",
                el("span", badge, class_="badge") if badge else None,
                el("span", named(note), class_="missed") if note else None,
            )
            if badge or note
            else None,
        ),
        el("span", *dots(heard, names, people, present), class_="heard"),
        class_=f"turn {turn.kind}",
        data_heard=" ".join(heard),
    )


def dots(
    heard: Sequence[str], names: Names, people: Sequence[str], present: Sequence[str]
) -> list[Markup]:
    """Write a mark for each who is there: full if it heard the turn."""
    marks = []
    for id in present:
        full = id in heard
        title = f"{names.get(id, id)}: {'heard it' if full else 'did not hear it'}"
        mark = "●" if full else "○"
        marks.append(el("span", mark, class_=colour(id, people), title=title, aria_label=title))
    return marks


def colour(id: str, people: Sequence[str]) -> str:
    """Return the class that gives a persona its colour."""
    return f"p{people.index(id) % 12}" if id in people else "nobody"


def changes(shown: ShownTalk, names: Names) -> Markup | None:
    """Write how they saw each other before and after."""
    outcome = shown.outcome
    present = set(there(outcome))
    ends = sorted(e for e in {*outcome.before, *outcome.after} if present.issuperset(e))
    if not ends:
        return None
    rows = [change(one, shown, names) for one in ends]
    heads: list[object] = ["Who sees whom", "affinity", "trust", "respect", "intimacy", "strength"]
    return joined(
        el("h4", "Relationships, before → after"), table(heads, rows, class_="relationships")
    )


def change(ends: Ends, shown: ShownTalk, names: Names) -> list[object]:
    """Return the row of one relationship."""
    before, after = shown.outcome.before.get(ends), shown.outcome.after.get(ends)
    row: list[object] = [arrow_name(ends, names)]
    for name in ("affinity", "trust", "respect", "intimacy", "strength"):
        first = f"{before[name]:+.3f}" if before else "not met"
        row.append(f"{first} → {after[name]:+.3f}" if after else first)
    return row


def kept(shown: ShownTalk, names: Names) -> Markup | None:
    """Write what each persona keeps of the dialogue."""
    found = summaries(shown.outcome)
    if not found:
        return None
    parts = (
        joined(el("dt", named(names.get(id, id))), el("dd", named(text)))
        for id, text in found.items()
    )
    return joined(el("h4", "What each keeps of it"), el("dl", *parts, class_="kept"), html(""))
