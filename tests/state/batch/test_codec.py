import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.state.batch import codec
from persona_mcp.state.batch.values import Cast, CastMember, Job, Outcome, Place, RecordedCall
from persona_mcp.state.dialogue_spec import TalkSpec, Tie
from persona_mcp.state.errors import BadSnapshot
from persona_mcp.state.persona import PersonaSpec
from tests.outcomes import job_of, outcome_of

WORDS = st.text(max_size=20)
SPOKEN = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=20
)
IDS = st.sampled_from(("ada", "ben", "cleo-2", "dora"))
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
SHARES = st.floats(-1, 1)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(WORDS, VALUES, max_size=4)
ROWS = st.fixed_dictionaries(
    {
        "memories": st.lists(
            st.fixed_dictionaries(
                {
                    "id": IDS,
                    "place": st.integers(1, 9),
                    "importance": NUMBERS,
                    "importance_terms": OBJECTS,
                    "details": OBJECTS,
                    "origin": st.none() | OBJECTS,
                }
            ),
            max_size=3,
        ),
        "memory_vectors": st.lists(
            st.fixed_dictionaries({"memory_id": IDS, "vector": st.binary(max_size=32)}), max_size=2
        ),
        "persona_cards": st.lists(
            st.fixed_dictionaries({"card": WORDS, "file": st.none() | st.binary(max_size=9)}),
            max_size=1,
        ),
    }
)
TALKS = st.builds(
    TalkSpec,
    participants=st.none() | st.lists(IDS, min_size=2, max_size=4),
    scene=SPOKEN,
    max_turns=st.integers(1, 500),
    minutes=st.floats(0.5, 1440),
    joins=st.lists(st.builds(dict, persona=IDS, turn=st.integers(1, 500)), max_size=2),
)
JOBS = st.builds(
    Job,
    place=st.builds(Place, *[st.integers(0, 10**6)] * 5),
    id=IDS,
    seed=st.integers(0, 2**31 - 1),
    talk=TALKS,
    topic=SPOKEN,
    starts_at=NUMBERS,
    temperature=st.none() | st.floats(0, 2),
)
VIEWS = st.dictionaries(st.tuples(IDS, IDS), st.dictionaries(WORDS, SHARES, max_size=2), max_size=3)
OUTCOMES = st.builds(
    Outcome,
    job=JOBS,
    status=st.sampled_from(("done", "failed")),
    exit_reason=WORDS,
    error=st.none() | OBJECTS,
    rows=ROWS,
    before=VIEWS,
    after=VIEWS,
    ended_at=NUMBERS,
    calls=st.integers(0, 1000),
)
CALLS = st.builds(
    RecordedCall,
    index=st.integers(0, 10**6),
    number=st.integers(0, 1000),
    purpose=st.sampled_from(("reply", "summary", "appraisal")),
    asked=WORDS,
    model=WORDS,
    text=WORDS,
    output_tokens=st.none() | st.integers(0, 10**6),
    finish_reason=st.sampled_from(("stop", "length", None)),
    error=st.none() | OBJECTS,
)
SPECS = st.builds(
    PersonaSpec,
    name=SPOKEN,
    personality_traits=st.dictionaries(IDS, st.floats(0, 100), max_size=4),
    topic_preferences=st.dictionaries(IDS, st.integers(0, 100), max_size=4),
    exit_lines=st.dictionaries(
        st.sampled_from(("tired", "bored", "urgent")), st.lists(SPOKEN, max_size=2), max_size=3
    ),
)
CASTS = st.builds(
    Cast,
    members=st.lists(
        st.builds(
            CastMember,
            id=IDS,
            spec=SPECS,
            memories=st.lists(SPOKEN, max_size=3).map(tuple),
            card=st.none() | WORDS,
        ),
        max_size=3,
    ).map(tuple),
    ties=st.lists(st.builds(Tie, of=IDS, to=IDS, quality=SHARES), max_size=2).map(tuple),
    kept=ROWS,
)

few = settings(max_examples=30)


@few
@given(OUTCOMES)
def test_an_outcome_is_the_same_after_it_was_written_and_read(outcome: Outcome) -> None:
    text = codec.outcome_json(outcome)
    assert codec.read_outcome(text) == outcome
    assert codec.outcome_json(codec.read_outcome(text.encode())) == text


@few
@given(CALLS)
def test_a_call_is_the_same_after_it_was_written_and_read(call: RecordedCall) -> None:
    assert codec.read_call(codec.call_json(call)) == call


@few
@given(CASTS)
def test_a_cast_is_the_same_after_it_was_written_and_read(cast: Cast) -> None:
    text = codec.cast_json(cast)
    assert codec.read_cast(text) == cast
    assert codec.cast_json(codec.read_cast(text)) == text


@few
@given(CASTS)
def test_the_order_of_traits_and_topics_is_kept(cast: Cast) -> None:
    found = codec.read_cast(codec.cast_json(cast))
    for before, after in zip(cast.members, found.members, strict=True):
        for name in ("personality_traits", "topic_preferences", "exit_lines"):
            assert list(getattr(before.spec, name)) == list(getattr(after.spec, name))


@few
@given(OUTCOMES)
def test_what_was_measured_is_no_part_of_the_form(outcome: Outcome) -> None:
    measured = {"wall_s": 1.5}
    slow = codec.read_outcome(codec.outcome_json(outcome), measured)
    assert slow.measured == measured
    assert codec.outcome_json(slow) == codec.outcome_json(outcome)


def test_the_form_has_sorted_keys_and_no_spaces() -> None:
    assert codec.canonical({"b": [1, 2.5], "a": "ü"}) == '{"a":"ü","b":[1,2.5]}'


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"job": 3}', "{"])
def test_what_is_damaged_is_refused(text: str) -> None:
    for read in (codec.read_outcome, codec.read_call, codec.read_cast):
        with pytest.raises(BadSnapshot, match="cannot be read"):
            read(text)


def test_an_outcome_of_another_version_is_refused() -> None:
    found = json.loads(codec.outcome_json(outcome_of(job_of(), [])))
    found["job"]["talk"]["mood"] = "blue"
    with pytest.raises(BadSnapshot):
        codec.read_outcome(json.dumps(found), {})
