"""Whether all that is held of a batch has a date: simulated time ends with the year 9999."""

from collections.abc import Iterator

from persona_mcp.state.batch.arms import at_values, chosen_in
from persona_mcp.state.batch.grid import Arms, only
from persona_mcp.state.dialogue_spec import DialogueSpec
from persona_mcp.state.errors import Fault
from persona_mcp.state.moments import HOUR_S, LAST_MOMENT, rfc3339

WAVE_HOURS = 48.0
"""A wave is over by then: its dialogues take a day at most, and their last turns."""
DAY_HOURS = 24
IN_WAVE = ("times", "gap_hours")


def time_faults(spec: DialogueSpec) -> Iterator[Fault]:
    """Find arms that would be held after the last moment that has a date."""
    timed = only(spec, bears_on_time)
    arms = Arms(timed)
    for arm in arms:
        hours = hours_of(arm.spec)
        if arm.spec.starts_at + hours * HOUR_S > LAST_MOMENT:
            days = hours / DAY_HOURS
            fault: Fault = {
                "field": "starts_at",
                "allowed": "a time so early that the last wave ends before the year 10000",
                "given": f"{rfc3339(arm.spec.starts_at)}, with waves of up to {days:,.0f} days",
            }
            yield at_values(fault, spec, chosen_in(timed, arms.chosen(arm.number)))


def hours_of(spec: DialogueSpec) -> float:
    """Return how long a run takes at most, in hours of simulated time."""
    waves = sum(wave.times * (wave.gap_hours + WAVE_HOURS) for wave in spec.waves)
    return waves - spec.waves[0].gap_hours


def bears_on_time(path: str) -> bool:
    """Tell whether a path bears on how late it gets."""
    where, *inner = path.split(".")
    return where == "starts_at" or (where == "waves" and (len(inner) <= 1 or inner[1] in IN_WAVE))
