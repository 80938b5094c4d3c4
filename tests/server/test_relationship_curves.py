"""How a view went over time: points that are exact, and a scale on which a talk is not a line."""

from dataclasses import astuple
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.server.relationship_curves import (
    Axis,
    Curve,
    Happened,
    Point,
    axis_of,
    curve_of,
    in_words,
    marked,
    sampled,
)
from persona_mcp.state import relationship
from persona_mcp.state.arrow import Arrow, Event, Origin, Priors
from persona_mcp.state.relationship_store import Log, Logged
from tests.arrows import CRUEL, DAY, KIND, LAWS, NOW

gaps = st.lists(st.floats(0, 100 * DAY), min_size=1, max_size=20)
SHOWN = relationship.shown(Arrow(NOW), LAWS)


def log_of(*times: float) -> Log:
    """Every third event is a cruel one."""
    entries = [
        Logged(f"e{n}", None, f"why {n}", Event(at, n, CRUEL if n % 3 == 0 else KIND), Origin())
        for n, at in enumerate(times, start=1)
    ]
    return Log(Priors(0.1, 0.02), tuple(entries))


def curve(*times: float, now: float = NOW) -> Curve:
    found = curve_of(("Aria", "ann"), log_of(*times), now, LAWS)
    assert found is not None
    return found


def eventful(*times: float, until: float) -> Curve:
    """A curve of which only the times matter."""
    events = tuple(Happened("e", at, "turn", "why", SHOWN) for at in times)
    return Curve("a", "b", (Point(times[0], SHOWN), Point(until, SHOWN)), events)


def test_nothing_is_drawn_of_what_never_happened() -> None:
    assert curve_of(("Aria", "ann"), log_of(), NOW, LAWS) is None


@given(gaps, st.floats(0, 100 * DAY))
@settings(max_examples=50)
def test_a_curve_is_exact_at_each_of_its_points_and_goes_on_until_now(
    between: list[float], since: float
) -> None:
    times = [NOW + sum(between[: n + 1]) for n in range(len(between))]
    log, now = log_of(*times), times[-1] + since

    found = curve(*times, now=now)

    last = log.fold(LAWS)
    assert last is not None
    assert found.points[-1].at == now
    by_law = relationship.shown(relationship.decay(last, now, LAWS), LAWS)
    assert astuple(found.points[-1].shown) == pytest.approx(astuple(by_law), abs=1e-9)
    assert all(one.at <= other.at for one, other in pairwise(found.points))
    assert [event.id for event in found.events] == [entry.id for entry in log.entries]
    assert len(found.points) <= 200 + 3 * len(times) + 1


def test_an_event_has_a_point_before_it_and_one_after_it() -> None:
    found = curve(NOW, NOW + 60, now=NOW + 120)

    at = [point for point in found.points if point.at == NOW + 60]
    assert at[0].shown.affinity < at[-1].shown.affinity == found.events[1].after.affinity


@given(gaps, st.floats(0, 100 * DAY))
@settings(max_examples=50)
def test_law_a_scale_keeps_the_order_of_times_and_fills_its_room(
    between: list[float], since: float
) -> None:
    times = [NOW + sum(between[: n + 1]) for n in range(len(between))]

    axis = axis_of([eventful(*times, until=times[-1] + since)])

    places = [axis.place(at) for at in (*times, times[-1] + since)]
    assert places == sorted(places)
    assert axis.places[0] == 0.0
    assert axis.places[-1] == pytest.approx(1.0)
    assert (axis.place(times[0] - 9), axis.place(axis.times[-1] + 9)) == (0.0, axis.places[-1])


def test_a_long_rest_takes_no_more_room_than_a_few_exchanges() -> None:
    first = [NOW + 30.0 * n for n in range(20)]
    second = [first[-1] + 40 * DAY + 30.0 * n for n in range(20)]

    axis = axis_of([eventful(*first, *second, until=second[-1] + 30)])

    assert axis.rests == ((first[-1], second[0]),)
    assert axis.place(second[0]) - axis.place(first[-1]) < 0.4
    assert axis.place(first[-1]) > 0.3


def test_two_directions_share_a_scale() -> None:
    axis = axis_of([eventful(NOW, until=NOW + 60), eventful(NOW + 30, until=NOW + 60)])

    assert axis.times == (NOW, NOW + 30, NOW + 60)
    assert axis.place(NOW + 45) == pytest.approx(0.75)


def test_a_curve_is_read_from_the_left_to_the_right_and_is_empty_before_it_begins() -> None:
    late, axis = curve(NOW + 50, now=NOW + 100), Axis((NOW, NOW + 100), (0.0, 1.0), ())

    assert sampled(late, axis, "affinity", 4) == [
        None,
        pytest.approx(late.points[1].shown.affinity, abs=1e-3),
        pytest.approx(late.points[-1].shown.affinity, abs=1e-3),
        late.points[-1].shown.affinity,
    ]


def test_every_event_is_marked_once() -> None:
    busy = eventful(NOW, NOW + 1, NOW + 99, NOW + 100, until=NOW + 100)

    assert marked(busy.events, Axis((NOW, NOW + 100), (0.0, 1.0), ()), 4) == [2, 0, 0, 2]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 minute"), (7200, "2 hours"), (3 * DAY, "3 days")],
)
def test_a_length_of_time_is_said_in_its_largest_unit(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
