"""The sections of a report that are tables: sums, arms side by side, controls, costs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from persona_mcp.server.report.arms import MEASURES, SIGNED, ArmTally, Counts
from persona_mcp.server.report.controls import Controls
from persona_mcp.server.report.findings import Findings
from persona_mcp.server.report.html import Markup, el, html, joined, named, table
from persona_mcp.state.batch.statistics import Interval
from persona_mcp.state.continuation import reason_in_words

LONGEST = 60
NONE = "\u2013"


def number(value: float | None, decimals: int, *, signed: bool = False) -> str:
    """Write a number; a dash for none."""
    if value is None:
        return NONE
    value = round(value, decimals) + 0.0
    return f"{value:+,.{decimals}f}" if signed else f"{value:,.{decimals}f}"


def interval(found: Interval, decimals: int = 2, *, signed: bool = False) -> Markup:
    """Write an estimate with its interval below."""
    value = number(found.value, decimals, signed=signed)
    if found.low is None or found.high is None:
        return el("span", value)
    low, high = (number(end, decimals, signed=signed) for end in (found.low, found.high))
    return joined(el("span", value), el("small", f"{low} to {high}", class_="interval"))


def percent(found: Interval) -> Markup:
    """Write a share with its interval."""
    ends = (found.value, found.low, found.high)
    value, low, high = (None if end is None else 100 * end for end in ends)
    if value is None:
        return html(NONE)
    if low is None or high is None:
        return html(f"{value:.1f} %")
    between = f"{low:.1f} to {high:.1f} %"
    return joined(el("span", f"{value:.1f} %"), el("small", between, class_="interval"))


def counted(counter: Counter[str]) -> Markup:
    """Write how often what was there, the most frequent first."""
    if not counter:
        return html(NONE)
    parts = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    return el("ul", *(el("li", f"{reason_in_words(name)}: {n:,}") for name, n in parts))


def cards(counts: Counts) -> Markup:
    """Write the sums of the whole batch."""
    told = "~" if counts.estimated else ""
    figures = (
        (f"{counts.done:,}", "dialogues done"),
        (f"{counts.failed:,}", "failed"),
        (f"{counts.turns:,}", "turns"),
        (f"{counts.calls:,}", "model calls"),
        (f"{told}{counts.tokens:,}", "tokens said"),
        (span(counts.seconds), "simulated"),
    )
    return el(
        "div",
        *(el("div", el("b", value), el("span", name), class_="card") for value, name in figures),
        class_="cards",
    )


def span(seconds: float) -> str:
    """Say how long something took, in a unit that fits."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} s"


def arm_name(values: Mapping[str, Any]) -> str:
    """Say what an arm is, by the ends of its paths."""
    parts = (f"{path.rsplit('.', 1)[-1]} = {short(value)}" for path, value in values.items())
    return ", ".join(parts)


def short(value: Any) -> str:
    """Write a value in a few words."""
    text = str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def arms(findings: Findings, labels: Sequence[str], total: int) -> Markup:
    """Write the arms side by side."""
    shown = findings.arms
    heads: list[object] = ["", *(named(labels[arm.number]) for arm in shown)]
    rows: list[list[object]] = [
        ["dialogues done", *(f"{a.counts.done:,}" for a in shown)],
        ["failed", *(f"{a.counts.failed:,}" for a in shown)],
        ["share done", *(percent(a.counts.share_done) for a in shown)],
        ["exit reasons", *(counted(a.counts.exits) for a in shown)],
    ]
    if any(arm.counts.errors for arm in shown):
        rows.append(["errors", *(counted(a.counts.errors) for a in shown)])
    for name in MEASURES:
        rows.append(measured(name, shown))
        if len(shown) > 1:
            rows.append(compared(name, shown))
    unit = "runs" if shown[0].by_run else "dialogues"
    few = f" The first {len(shown)} of {total:,} arms." if total > len(shown) else ""
    note = (
        f"Means over {unit}, with 95 % confidence intervals by Student's t; shares by Wilson's "
        "score. Changes are means over who sees whom in a dialogue, from its beginning to its end; "
        f"for who had not met, from first sight.{few}"
    )
    pairs = (
        " The difference to the first arm is taken pair by pair, since arms have the same seeds: "
        "an interval without 0 is a difference."
    )
    text = note + (pairs if len(shown) > 1 else "")
    return joined(table(heads, rows, class_="arms"), el("p", text, class_="note"))


def measured(name: str, shown: Sequence[ArmTally]) -> list[object]:
    """Return the row of a measure."""
    signed, decimals = name in SIGNED, decimals_of(name)
    return [name, *(interval(arm.mean(name), decimals, signed=signed) for arm in shown)]


def compared(name: str, shown: Sequence[ArmTally]) -> list[object]:
    """Return the row of how a measure differs from the first arm's."""
    cells: list[object] = [
        el("span", "difference to the first arm", class_="sub"),
        NONE,
    ]
    for arm in shown[1:]:
        found = arm.difference(name)
        decimals = decimals_of(name)
        cell = interval(found, decimals, signed=True)
        low, high = (round(bound or 0.0, decimals) for bound in (found.low, found.high))
        sure = low * high > 0  # as it is shown: nobody believes in a bold +0.000
        cells.append(el("div", cell, class_="differs") if sure else cell)
    return cells


def decimals_of(name: str) -> int:
    """Say how many decimals a measure is shown with."""
    return 3 if name in SIGNED else 1


def controls(found: Controls) -> Markup:
    """Write what the batch is watched for."""
    chance = "" if found.chance is None else f" Chance: {100 * found.chance:.1f} %."
    folds = "dialogues" if found.told.by_dialogue else "parts of the one dialogue"
    sample = (
        f" Of {found.dialogues:,} dialogues {found.sampled:,}, evenly spaced."
        if found.sampled < found.dialogues
        else ""
    )
    rows: list[list[object]] = [
        [
            "Agreeableness bias",
            interval(found.drift, 4, signed=True),
            "Mean change of affinity by a turn in dialogues that begin neutral: among people who "
            "have not met or are indifferent (affinity within ±0.2), without a narrator. There is "
            "no reason to like anybody more there, so what lies above 0 is the model's or the "
            f"appraiser's kindness. {found.neutral_dialogues:,} of {found.dialogues:,} dialogues "
            "are such.",
            how(found.drift, "dialogues"),
        ],
        [
            "Drift in all dialogues",
            interval(found.all_drift, 4, signed=True),
            "The same mean over all dialogues: what scenes, pasts and narrators give reason for is "
            "in it, too.",
            how(found.all_drift, "dialogues"),
        ],
        [
            "Warmth in neutral ones",
            interval(found.warmth, 3, signed=True),
            "Mean warmth, -1 to 1, that turns of dialogues that begin neutral are taken to have.",
            how(found.warmth, "dialogues"),
        ],
        [
            "Drift by neutral turns",
            interval(found.neutral, 4, signed=True),
            "Mean change of affinity by turns that are taken as neither kind nor hostile (warmth "
            "within ±0.1), in all dialogues: the laws of relationships have it at 0.",
            how(found.neutral, "dialogues"),
        ],
        [
            "Repetition",
            percent(found.repeats),
            "Share of turns of which at least half of the word trigrams stood in earlier turns of "
            f"the dialogue.{sample}",
            how(found.repeats, "turns"),
        ],
        [
            "Distinct-2",
            interval(found.distinct, 3),
            "Different bigrams by all bigrams of a dialogue, a mean: 1 where none comes twice.",
            how(found.distinct, "dialogues"),
        ],
        [
            "Distinct voices",
            percent(found.accuracy),
            "Share of turns whose speaker a naive Bayes classifier names by words and trigrams of "
            f"characters; it has learned from other {folds}. {found.told.speakers} speakers."
            f"{chance}",
            how(found.accuracy, "turns"),
        ],
    ]
    heads: list[object] = ["", "Estimate, 95 % interval", "What it is", "Interval by"]
    return table(heads, rows, class_="controls")


def how(found: Interval, unit: str) -> str:
    """Say how an interval was found."""
    match found.method:
        case "t":
            return f"Student's t, {found.count:,} {unit}"
        case "Wilson":
            return f"Wilson's score, {found.count:,} {unit}"
        case "bootstrap":
            return f"bootstrap of dialogues, seeded, {found.count:,} {unit}"
        case "none":
            return "too few" if found.count else "nothing to estimate it from"


def costs(findings: Findings, labels: Sequence[str]) -> Markup:
    """Write what the batch cost, in calls, tokens and simulated time."""
    heads: list[object] = [
        *("", "model calls", "tokens said", "tokens a turn", "calls a turn"),
        *("simulated", "simulated time a turn, s"),
    ]
    rows = [cost("whole batch", findings.counts)]
    if len(findings.arms) > 1:
        rows += [cost(labels[arm.number], arm.counts) for arm in findings.arms]
    note = (
        "Tokens are those of what was said, estimated by the words where the provider does not "
        "count (~). Time is that of the simulation. What was measured on the machine is not here, "
        "since a report of the same dialogues is the same to the byte: see timings.jsonl."
    )
    return joined(table(heads, rows), el("p", note, class_="note"))


def cost(label: str, counts: Counts) -> list[object]:
    """Return the row of what some dialogues cost."""
    turns = counts.turns or None
    return [
        named(label),
        f"{counts.calls:,}",
        f"{'~' if counts.estimated else ''}{counts.tokens:,}",
        number(turns and counts.tokens / turns, 1),
        number(turns and counts.calls / turns, 2),
        span(counts.seconds),
        number(turns and counts.seconds / turns, 1),
    ]
