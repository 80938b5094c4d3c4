import tracemalloc
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.batch.checks import TAKEN
from persona_mcp.state.batch.faults import spec_of
from persona_mcp.state.batch.plan import BatchPlan, plan_batch
from persona_mcp.state.dialogue_spec import DialogueSpec
from persona_mcp.state.errors import InvalidParams

STARTS = 1000.0
CAST = {
    "ada": {"persona": {"name": "Ada", "personality_traits": {"openness": 50}}},
    "bo": {"persona": {"name": "Bo"}},
    "cy": {"persona": {"name": "Cy"}},
}
Json = dict[str, Any]


def spec(**fields: Any) -> DialogueSpec:
    return spec_of({"personas": CAST, **fields})


def plan(**fields: Any) -> BatchPlan:
    return plan_batch(spec(**fields))


def people(count: int) -> Json:
    return {f"p{n}": {"persona": {"name": f"P{n}"}} for n in range(count)}


def faults(raw: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    with pytest.raises(InvalidParams) as refused:
        plan_batch(spec_of({"personas": CAST, **raw}))
    return [(f["field"], f["allowed"], f["given"]) for f in refused.value.data["errors"]]


def test_without_more_a_batch_is_one_dialogue_of_all_the_cast() -> None:
    made = plan()

    (job,) = made.jobs(0, 0, 0, STARTS)
    assert (made.total, made.waves, made.turns_max, made.calls_max) == (1, 1, 20, 20)
    assert (len(made.arms), list(made.runs()), made.tokens_max) == (1, [(0, 0)], 8000)
    assert job.talk.participants == ["ada", "bo", "cy"]
    assert (job.topic, job.starts_at, job.temperature) == ("general", STARTS, None)
    assert made.place(0) == job.place


def test_who_only_overhears_does_not_talk() -> None:
    (job,) = plan(dialogue={"witnesses": ["bo"]}).jobs(0, 0, 0, STARTS)

    assert job.talk.participants == ["ada", "cy"]


def test_a_dialogue_of_a_wave_says_what_is_different() -> None:
    waves = [{"dialogues": [{"scene": "A pier."}, {"max_turns": 3, "participants": ["bo", "cy"]}]}]

    first, second = plan(dialogue={"max_turns": 9, "minutes": 5}, waves=waves).jobs(0, 0, 0, STARTS)

    assert (first.talk.scene, first.talk.max_turns, first.talk.minutes) == ("A pier.", 9, 5)
    assert (second.talk.scene, second.talk.max_turns, second.talk.minutes) == ("", 3, 5)
    assert second.talk.participants == ["bo", "cy"]


def test_what_a_dialogue_says_again_as_the_default_is_said() -> None:
    waves = [{"dialogues": [{"max_turns": 20}]}]

    (job,) = plan(dialogue={"max_turns": 9}, waves=waves).jobs(0, 0, 0, STARTS)

    assert job.talk.max_turns == 20


def test_pairs_are_all_that_there_are_in_order() -> None:
    made = plan(personas=people(5), waves=[{"pairs": "all"}])

    pairs = [tuple(job.talk.participants or ()) for job in made.jobs(0, 0, 0, STARTS)]

    assert pairs == list(combinations((f"p{n}" for n in range(5)), 2))


def test_pairs_are_drawn_so_that_nobody_is_in_two() -> None:
    made = plan(personas=people(7), waves=[{"pairs": "drawn", "times": 6}])

    drawn = [
        [tuple(job.talk.participants or ()) for job in made.jobs(0, 0, wave, STARTS)]
        for wave in range(made.waves)
    ]

    assert all(len({id for pair in pairs for id in pair}) == 6 for pairs in drawn)
    assert len({tuple(pairs) for pairs in drawn}) == 6, "another draw in each wave"
    again = plan(personas=people(7), waves=[{"pairs": "drawn", "times": 6}])
    assert drawn[3] == [job.talk.participants and tuple(job.talk.participants)
                        for job in again.jobs(0, 0, 3, STARTS)]  # fmt: skip


def test_pairs_are_made_of_the_participants_where_these_are_said() -> None:
    talk = {"participants": ["cy", "ada"]}

    (job,) = plan(dialogue=talk, waves=[{"pairs": "all"}]).jobs(0, 0, 0, STARTS)

    assert job.talk.participants == ["cy", "ada"]


def test_a_wave_of_several_times_counts_as_several_and_gaps_lie_between() -> None:
    made = plan(waves=[{"times": 2, "gap_hours": 24}, {"gap_hours": 1.5}])

    assert made.waves == 3
    assert [made.gap_s(0, wave) for wave in range(3)] == [0.0, 86400.0, 5400.0]


def test_each_combination_of_the_grid_is_an_arm_the_last_path_first() -> None:
    grid = {"dialogue.scene": ["here", "there"], "personas.ada.persona.charisma": [3, 18]}

    arms = plan(variations=grid).arms

    assert [(a.spec.dialogue.scene, charisma(a.spec)) for a in arms] == [
        ("here", 3),
        ("here", 18),
        ("there", 3),
        ("there", 18),
    ]
    assert arms[2].values == {"dialogue.scene": "there", "personas.ada.persona.charisma": 3}
    assert (arms[2].number, arms[2].spec.variations, arms[-1].number) == (2, {}, 3)


def charisma(arm: DialogueSpec) -> int | None:
    ada = arm.personas["ada"]
    return ada.persona.charisma if ada and ada.persona else None


@pytest.mark.parametrize(
    ("path", "value", "read"),
    [
        ("personas.ada.persona.personality_traits.openness", 90,
         lambda s: s.personas["ada"].persona.personality_traits),
        ("personas.ada.persona.personality_traits.shy", 5,
         lambda s: s.personas["ada"].persona.personality_traits["shy"]),
        ("personas.dan.changes.charisma", 5, lambda s: s.personas["dan"].changes["charisma"]),
        ("personas.ada.memories", ["A key."], lambda s: s.personas["ada"].memories),
        ("personas.ada", {"card": "a.json"}, lambda s: s.personas["ada"].card),
        ("waves.0.gap_hours", 5, lambda s: s.waves[0].gap_hours),
        ("waves", [{"pairs": "all"}], lambda s: s.waves[0].pairs),
        ("relationships.0.quality", -1, lambda s: s.relationships[0].quality),
        ("dialogue.ends_when", {"says": "bye"}, lambda s: s.dialogue.ends_when.says),
        ("dialogue.interventions.0.turn", 5, lambda s: s.dialogue.interventions[0].turn),
        ("model.temperature", 0, lambda s: s.model.temperature),
        ("starts_at", "2026-01-01T00:00:00Z", lambda s: s.starts_at),
        ("dialogue.topics", ["a", "b"], lambda s: s.dialogue.topics),
    ],
)  # fmt: skip
def test_any_field_can_be_varied(path: str, value: Any, read: Any) -> None:
    made = plan(
        personas={**CAST, "dan": None},
        relationships=[{"of": "ada", "to": "bo", "quality": 1}],
        dialogue={"interventions": [{"text": "Rain.", "turn": 2}]},
        variations={path: [value]},
    )

    found = read(made.arms[0].spec)

    expected = {"openness": 90} if path.endswith("openness") else value
    expected = {"waves": "all", "personas.ada": "a.json"}.get(path, expected)
    expected = "bye" if path == "dialogue.ends_when" else expected
    assert found == (1767225600.0 if path == "starts_at" else expected)


def test_arms_are_paired_the_same_seeds_ids_and_topics_in_each() -> None:
    made = plan(
        dialogue={"topics": ["a", "b", "c"]},
        waves=[{"times": 4}],
        repeats=3,
        variations={"personas.ada.persona.charisma": [3, 18]},
    )

    one, other = (
        [
            (j.id, j.seed, j.topic)
            for r in range(3)
            for w in range(4)
            for j in made.jobs(arm, r, w, 0)
        ]
        for arm in (0, 1)
    )

    assert one == other
    assert len({seed for _, seed, _ in one}) == 12
    assert len({id for id, _, _ in one}) == 12
    assert {topic for _, _, topic in one} == {"a", "b", "c"}


def test_another_seed_is_another_batch_and_the_first_run_has_the_seed_itself() -> None:
    one, other = plan(seed=7, repeats=2), plan(seed=8, repeats=2)

    assert (one.run_seed(0), other.run_seed(0)) == (7, 8)
    assert one.run_seed(1) not in (7, 8, other.run_seed(1))
    assert one.jobs(0, 0, 0, 0)[0].seed == plan(seeds=[7]).jobs(0, 0, 0, 0)[0].seed
    assert one.jobs(0, 0, 0, 0)[0].id != other.jobs(0, 0, 0, 0)[0].id


def test_seeds_stand_in_place_of_repeats() -> None:
    made = plan(seeds=[5, 9])

    assert (made.repeats, [made.run_seed(r) for r in range(2)]) == (2, [5, 9])


WAVES = st.lists(
    st.fixed_dictionaries({"times": st.integers(1, 3)})
    | st.fixed_dictionaries({"pairs": st.sampled_from(["all", "drawn"])})
    | st.fixed_dictionaries({"dialogues": st.lists(st.just({"max_turns": 3}), max_size=3)}),
    min_size=1,
    max_size=4,
)
GRIDS = st.sampled_from(
    [
        {},
        {"dialogue.scene": ["a", "b"]},
        {"dialogue.max_turns": [4, 5], "personas.ada.persona.charisma": [1, 2]},
        {"waves.0.times": [1, 3, 2], "dialogue.minutes": [5, 6]},
    ]
)


@given(WAVES, GRIDS, st.integers(1, 3))
def test_the_place_of_each_dialogue_is_where_it_comes(
    waves: list[Json], grid: Json, repeats: int
) -> None:
    made = plan(waves=waves, variations=grid, repeats=repeats)

    jobs = [
        job
        for arm, repeat in made.runs()
        for wave in range(made.waves)
        for job in made.jobs(arm, repeat, wave, STARTS)
    ]

    assert [job.place.index for job in jobs] == list(range(made.total))
    assert [made.place(job.place.index) for job in jobs] == [job.place for job in jobs]
    assert made.turns_max == sum(job.talk.max_turns for job in jobs)
    assert made.tokens_max == sum(job.talk.token_budget for job in jobs)
    assert all(
        made.first_index(job.place.arm, job.place.repeat, job.place.wave)
        == job.place.index - job.place.number
        for job in jobs
    )
    ids = {(job.place.repeat, job.place.wave, job.place.number): job.id for job in jobs}
    assert len(set(ids.values())) == len(ids)


def test_there_is_no_dialogue_behind_the_last_one() -> None:
    with pytest.raises(IndexError):
        plan().place(1)
    with pytest.raises(IndexError):
        plan().jobs(0, 0, 0, STARTS)[1]
    assert list(plan().jobs(0, 0, 1, STARTS)) == []


def test_a_plan_of_a_million_dialogues_takes_no_room() -> None:
    fields: Json = {
        "repeats": 100,
        "waves": [{"times": 100}],
        "variations": {
            "personas.ada.persona.charisma": list(range(1, 11)),
            "dialogue.max_turns": list(range(2, 12)),
        },
    }
    asked = spec(**fields)
    tracemalloc.start()
    try:
        made = plan_batch(asked)
        last = made.place(made.total - 1)
        job = made.jobs(last.arm, last.repeat, last.wave, STARTS)[last.number]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (made.total, job.place) == (1_000_000, last)
    assert job.talk.max_turns == 11
    assert peak < 4_000_000, "bytes, four a dialogue"


def test_a_wave_of_half_a_million_pairs_is_not_written_out() -> None:
    made = plan(personas=people(1000), waves=[{"pairs": "all"}])
    tracemalloc.start()
    try:
        jobs = made.jobs(0, 0, 0, STARTS)
        last = jobs[-1]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (len(jobs), last.talk.participants) == (499_500, ["p998", "p999"])
    assert peak < 500_000


TALK = {"participants": ["ada", "bo"], "max_turns": 8}
WRONG: list[tuple[Json, str, str, str]] = [
    # who is not in the cast
    ({"dialogue": {"participants": ["ada", "boo"]}}, "dialogue.participants.1",
     "one of the cast: did you mean bo? there are ada, bo, cy", "boo"),
    ({"dialogue": {**TALK, "witnesses": ["eve"]}}, "dialogue.witnesses.0", "one of the cast",
     "eve"),
    ({"dialogue": {"first_speaker": "eve"}}, "dialogue.first_speaker", "one of the cast", "eve"),
    ({"dialogue": {"joins": [{"persona": "eve", "turn": 2}]}}, "dialogue.joins.0.persona",
     "one of the cast", "eve"),
    ({"dialogue": {"leaves": [{"persona": "eve", "turn": 2}]}}, "dialogue.leaves.0.persona",
     "one of the cast", "eve"),
    ({"dialogue": {"whispers": [{"turn": 2, "to": ["eve"]}]}}, "dialogue.whispers.0.to.0",
     "one of the cast", "eve"),
    ({"dialogue": {"whispers": [{"turn": 2, "to": ["bo"], "by": "eve"}]}},
     "dialogue.whispers.0.by", "one of the cast", "eve"),
    ({"dialogue": {"interventions": [{"turn": 2, "text": "x", "to": ["eve"]}]}},
     "dialogue.interventions.0.to.0", "one of the cast", "eve"),
    ({"dialogue": {"interventions": [{"when": {"says": "x", "by": "eve"}, "text": "x"}]}},
     "dialogue.interventions.0.when.by", "one of the cast", "eve"),
    ({"dialogue": {"interventions":
      [{"when": {"relation": "trust", "of": "ada", "to": "eve", "above": 0}, "text": "x"}]}},
     "dialogue.interventions.0.when.to", "one of the cast", "eve"),
    ({"dialogue": {"ends_when": {"mood": True, "of": "eve", "below": 0}}}, "dialogue.ends_when.of",
     "one of the cast", "eve"),
    ({"relationships": [{"of": "ada", "to": "eve", "quality": 0}]}, "relationships.0.to",
     "one of the cast", "eve"),
    ({"relationships": [{"of": "ada", "to": "ada", "quality": 0}]}, "relationships.0.to",
     "somebody else than ada", "ada"),
    ({"waves": [{"dialogues": [{}, {"participants": ["ada", "eve"]}]}]},
     "waves.0.dialogues.1.participants.1", "one of the cast", "eve"),
    # who is not there
    ({"dialogue": {**TALK, "first_speaker": "cy"}}, "dialogue.first_speaker",
     "one who talks and is there in turn 1: there are ada, bo", "cy, who is no part of this"),
    ({"dialogue": {**TALK, "witnesses": ["cy"], "first_speaker": "cy"}}, "dialogue.first_speaker",
     "one who talks", "cy, who only witnesses it"),
    ({"dialogue": {"first_speaker": "cy", "joins": [{"persona": "cy", "turn": 3}]}},
     "dialogue.first_speaker", "one who talks and is there in turn 1", "cy, who comes before turn"),
    ({"dialogue": {"joins": [{"persona": "cy", "turn": 3}], "whispers": [{"turn": 2,
     "to": ["cy"]}]}},
     "dialogue.whispers.0.to.0", "one who is there in turn 2: there are ada, bo",
     "cy, who comes before turn 3"),
    ({"dialogue": {"leaves": [{"persona": "cy", "turn": 3}],
                   "interventions": [{"turn": 3, "text": "x", "to": ["cy"]}]}},
     "dialogue.interventions.0.to.0", "one who is there in turn 3: there are ada, bo",
     "cy, who has gone before turn 3"),
    ({"dialogue": {**TALK, "interventions": [{"turn": 3, "text": "x", "to": ["cy"]}]}},
     "dialogue.interventions.0.to.0", "one who is there in turn 3", "cy, who is no part of this"),
    ({"dialogue": {**TALK, "whispers": [{"turn": 3, "to": ["bo"], "by": "cy"}]}},
     "dialogue.whispers.0.by", "one who talks and is there in turn 3", "cy, who is no part"),
    ({"dialogue": {**TALK, "ends_when": {"mood": True, "of": "cy", "below": 0}}},
     "dialogue.ends_when.of", "a participant or witness of the dialogue",
      "cy, who is no part of it"),
    ({"dialogue": {**TALK, "witnesses": ["cy"], "ends_when": {"says": "x", "by": "cy"}}},
     "dialogue.ends_when.by", "somebody who talks", "cy, a witness"),
    ({"dialogue": {**TALK, "ends_when": {"relation": "trust", "of": "bo", "to": "bo", "above": 0}}},
     "dialogue.ends_when.to", "somebody else than bo", "bo"),
    ({"dialogue": {**TALK, "joins": [{"persona": "cy", "turn": 2}]}}, "dialogue.joins.0.persona",
     "a participant or witness of the dialogue", "cy"),
    ({"dialogue": {"whispers": [{"turn": 1, "to": ["ada", "bo"], "by": "bo"}]}},
     "dialogue.whispers.0.to.1", "somebody else than bo", "bo"),
    # turns
    ({"dialogue": {**TALK, "whispers": [{"turn": 9, "to": ["bo"]}]}}, "dialogue.whispers.0.turn",
     "a turn of at most max_turns, 8", "9"),
    ({"dialogue": {**TALK, "interventions": [{"turn": 9, "text": "x"}]}},
     "dialogue.interventions.0.turn", "a turn of at most max_turns, 8", "9"),
    ({"dialogue": {"max_turns": 8, "joins": [{"persona": "cy", "turn": 9}]}},
     "dialogue.joins.0.turn", "a turn of at most max_turns, 8", "9"),
    ({"dialogue": {"max_turns": 8, "leaves": [{"persona": "cy", "turn": 9}]}},
     "dialogue.leaves.0.turn", "a turn of at most max_turns, 8", "9"),
    ({"dialogue": {"joins": [{"persona": "cy", "turn": 5}], "leaves": [{"persona": "cy",
     "turn": 5}]}},
     "dialogue.leaves.0.turn", "a turn after turn 5, in which cy is there first", "5"),
    ({"dialogue": {"whispers": [{"turn": 2, "to": ["bo"]}, {"turn": 2, "to": ["cy"]}]}},
     "dialogue.whispers.1.turn", "each turn once in whispers", "2"),
    # how many
    ({"dialogue": {**TALK, "joins": [{"persona": "bo", "turn": 2}]}}, "dialogue.joins",
     "two who talk from turn 1 on, at least", "1 of 2"),
    ({"dialogue": {**TALK, "leaves": [{"persona": "bo", "turn": 4}]}}, "dialogue.leaves.0.persona",
     "who leaves two who talk, at least, in turn 4", "bo, which leaves ada"),
    ({"dialogue": {"witnesses": ["bo", "cy"]}}, "dialogue.participants",
     "two who talk from turn 1 on, at least", "1 of 1"),
    ({"personas": people(13)}, "personas",
     "at most 12 personas, or dialogue.participants to choose", "13 who would all talk"),
    ({"dialogue": {"participants": ["ada", "bo", "ada"]}}, "dialogue.participants.2",
     "each persona once", "ada"),
    ({"dialogue": {**TALK, "witnesses": ["bo"]}}, "dialogue.witnesses.0",
     "who does not talk: a persona stands once", "bo"),
    ({"dialogue": {**TALK, "witnesses": ["cy", "cy"]}}, "dialogue.witnesses.1",
     "each persona once", "cy"),
    ({"dialogue": {"leaves": [{"persona": "cy", "turn": 5}, {"persona": "cy", "turn": 7}]}},
     "dialogue.leaves.1.persona", "each persona once in leaves", "cy"),
    ({"dialogue": {"whispers": [{"turn": 2, "to": ["bo", "bo"]}]}}, "dialogue.whispers.0.to.1",
     "each persona once", "bo"),
    # runs and waves
    ({"repeats": 2, "seeds": [1]}, "repeats", "either seeds, or repeats and seed",
     "2 beside seeds"),
    ({"seed": 2, "seeds": [1]}, "seed", "either seeds, or repeats and seed", "2 beside seeds"),
    ({"seeds": [4, 5, 4]}, "seeds.2", "another seed than seeds.0", "4"),
    ({"waves": [{"pairs": "all", "dialogues": [{}]}]}, "waves.0.pairs",
     "either pairs or dialogues", "all and dialogues"),
    ({"waves": [{"pairs": "all"}], "dialogue": {"first_speaker": "ada"}}, "dialogue.first_speaker",
     "nobody by name, since waves.0 is held by pairs", "ada"),
    ({"waves": [{"pairs": "all"}], "dialogue": {"ends_when": {"mood": True, "of": "bo",
     "below": 0}}},
     "dialogue.ends_when", "nobody by name, since waves.0 is held by pairs", "bo"),
    ({"personas": people(50), "waves": [{"pairs": "all"}], "repeats": 1000}, "repeats",
     "at most 1,000,000 dialogues in all", "1,225,000 (1 arms, 1,000 runs of each)"),
    ({"starts_at": "9999-12-30T12:00:00Z"}, "starts_at",
     "a time so early that the last wave ends before the year 10000", "9999-12-30T12:00:00.000Z"),
    ({"starts_at": "9999-01-01T00:00:00Z", "waves": [{}, {"times": 20, "gap_hours": 400}]},
     "starts_at", "a time so early", "9999-01-01T00:00:00.000Z, with waves of up to 375 days"),
    ({"starts_at": "9999-01-01T00:00:00Z", "waves": [{}, {}],
      "variations": {"dialogue.scene": ["x", "y"], "waves.1.gap_hours": [1, 9000]}},
     "starts_at", "a time so early", "9999-01-01T00:00:00.000Z"),
    ({"variations": {"starts_at": ["2026-01-01T08:00:00Z", "9999-12-31T23:59:59Z"]}},
     "variations.starts_at.1", "a time so early", "9999-12-31T23:59:59.000Z"),
    # the cast
    ({"personas": {**CAST, "ada": {"persona": {"name": "A"}, "card": "a.png"}}},
     "personas.ada.card", "one of persona, card and source", "persona, card"),
    ({"personas": {**CAST, "ada": {"changes": {"charism": 5}}}}, "personas.ada.changes.charism",
     "did you mean charisma?", "5"),
    ({"personas": {**CAST, "ada": {"changes": {"charisma": 50}}}}, "personas.ada.changes.charisma",
     "whole number 1..20", "50"),
    ({"personas": {**CAST, "ada": {"changes": {"charisma": None}}}},
     "personas.ada.changes.charisma", "a value, or no such line", "null"),
    ({"personas": {**CAST, "dan": {"persona": {"name": "bo"}}}}, "personas.dan.persona.name",
     "a name that no other persona has: personas.bo has it, too", "bo"),
    ({"personas": {**CAST, TAKEN[0]: None}}, "personas.narrator",
     "another id: this one is the narrator's", "narrator"),
    ({"model": {"name": "embedded:x", "endpoints": [{"url": "http://localhost:1"}]}}, "model.name",
     "ollama:MODEL or openai:MODEL where endpoints are named", "embedded:x"),
    ({"model": {"slots": 3, "endpoints": [{"url": "http://localhost:1"}]}}, "model.slots",
     "slots of each endpoint", "3"),
    ({"model": {"endpoints": [{"url": "http://localhost:1"}, {"url": "http://localhost:1/"}]}},
     "model.endpoints.1.url", "each server once", "http://localhost:1"),
    # the grid
    ({"variations": {"dialogue.scen": ["x"]}}, "variations.dialogue.scen",
     "a path of a field: did you mean scene?", "dialogue.scen"),
    ({"variations": {"dialog.scene": ["x"]}}, "variations.dialog.scene",
     "a path of a field: did you mean dialogue?", "dialog"),
    ({"variations": {"personas.eve.persona.charisma": [1]}},
     "variations.personas.eve.persona.charisma", "an entry of personas: there are", "personas.eve"),
    ({"variations": {"personas.dan.persona.charisma": [1]}, "personas": {**CAST, "dan": None}},
     "variations.personas.dan.persona.charisma", "personas.dan.changes.charisma of one not said",
     "personas.dan.persona.charisma"),
    ({"variations": {"waves.3.times": [1]}}, "variations.waves.3.times", "a number below 1",
     "waves.3"),
    ({"variations": {"dialogue.ends_when.above": [0.5]}}, "variations.dialogue.ends_when.above",
     "dialogue.ends_when as a whole: there is nothing inside", "dialogue.ends_when.above"),
    ({"variations": {"dialogue.scene.x": ["y"]}}, "variations.dialogue.scene.x",
     "dialogue.scene as a whole", "dialogue.scene.x"),
    ({"variations": {"dialogue.scene": ["x", 5]}}, "variations.dialogue.scene.1",
     "text of 0..2000 characters", "5"),
    ({"variations": {"dialogue.ends_when": [{"says": ""}]}}, "variations.dialogue.ends_when.0.says",
     "text of 1..200 characters", '""'),
    ({"variations": {"personas.ada": [{"persona": {"name": "A", "age": 5}}]}},
     "variations.personas.ada.0.persona.age", "known are name", "5"),
    ({"variations": {"personas.ada.persona.personality_traits.openness": [50, 150]}},
     "variations.personas.ada.persona.personality_traits.openness.1", "number 0..100", "150"),
    ({"variations": {"personas.ada.changes.charisma": [5, 50]}},
     "variations.personas.ada.changes.charisma.1", "whole number 1..20", "50"),
    ({"variations": {"dialogue.first_speaker": ["ada", "eve"]}},
     "variations.dialogue.first_speaker.1",
     "one of the cast", "eve"),
    ({"variations": {"dialogue.participants": [["ada", "bo"], ["bo", "cy"]],
                     "dialogue.first_speaker": ["bo", "ada"]}},
     "variations.dialogue.first_speaker.1", "one who talks and is there in turn 1",
     "ada, who is no part"),
    ({"relationships": [{"of": "ada", "to": "bo", "quality": 0.5}],
      "variations": {"relationships.0.of": ["ada"], "relationships.0.to": ["bo", "ada"]}},
     "variations.relationships.0.to.1", "somebody else than ada", "ada"),
    ({"relationships": [{"of": "ada", "to": "bo", "quality": 0.5}],
      "variations": {"relationships.0.of": ["ada", "bo"], "relationships.0.to": ["cy", "ada"]}},
     "variations.relationships.0.to.1", "somebody else than ada", "ada"),
    ({"variations": {"personas.ada.persona.name": ["A", "B"],
                     "personas.bo.persona.name": ["C", "A"]}},
     "variations.personas.bo.persona.name.1",
     "a name that no other persona has: personas.ada has it, too", "A"),
    ({"variations": {"personas.ada.persona.name": ["Bo", "Di"]}},
     "variations.personas.ada.persona.name.0",
     "a name that no other persona has: personas.bo has it, too", "Bo"),
    ({"variations": {"personas.cy.changes.name": ["Di", "Bo"]}},
     "variations.personas.cy.changes.name.1",
     "a name that no other persona has: personas.bo has it, too", "Bo"),
    ({"relationships": [{"of": "ada", "to": "cy", "quality": 0}],
      "variations": {"personas": [CAST, {name: CAST[name] for name in ("ada", "bo")}]}},
     "relationships.0.to", "one of the cast", "cy"),
    ({"variations": {"personas.ada.card": [None, "ada.json"], "personas.ada.persona": [
        None, {"name": "Ada"}]}},
     "variations.personas.ada.card.1", "one of persona, card and source", "persona, card"),
    ({"variations": {"dialogue.max_turns": [8, 4]}, "dialogue": {
        "interventions": [{"turn": 6, "text": "x"}]}},
     "dialogue.interventions.0.turn", "a turn of at most max_turns, 4", "6"),
    ({"variations": {"dialogue": [{}], "dialogue.scene": ["x"]}}, "variations.dialogue.scene",
     "a path outside of dialogue, which is varied as a whole", "dialogue.scene"),
    ({"variations": {"repeats": [1, 2]}}, "variations.repeats",
     "a field that may differ between arms", "repeats"),
    ({"variations": {"model.name": ["ollama:a"]}}, "variations.model.name",
     "model.temperature alone of the model", "model.name"),
    ({"variations": {f"personas.{p}.persona.charisma": list(range(1, 21)) for p in CAST}
        | {"dialogue.scene": [str(n) for n in range(125)]}},
     "variations", "a grid of at most 10,000 combinations", "20 x 20 x 20 x 125 = 1,000,000"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "path", "allowed", "given"), WRONG, ids=lambda v: str(v)[:40])
def test_what_cannot_be_held_is_told_where_it_stands(
    raw: Json, path: str, allowed: str, given: str
) -> None:
    found = faults(raw)

    assert found[0][0] == path
    assert found[0][1].startswith(allowed) or allowed in found[0][1]
    assert found[0][2].startswith(given)
    assert len(found) == 1, found


def test_a_grid_of_very_many_values_is_counted_and_not_built() -> None:
    grid = {f"personas.p{n}.persona.charisma": list(range(1, 21)) for n in range(20)}
    asked = spec_of({"personas": people(20), "variations": grid})
    tracemalloc.start()
    try:
        with pytest.raises(InvalidParams, match="at most 10,000 combinations"):
            plan_batch(asked)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 200_000


def test_the_base_need_not_be_held_by_itself_where_a_grid_fills_it_in() -> None:
    made = plan(
        personas=people(13), variations={"dialogue.participants": [["p0", "p1"], ["p2", "p3"]]}
    )

    assert [made.jobs(arm, 0, 0, 0)[0].talk.participants for arm in (0, 1)] == [
        ["p0", "p1"],
        ["p2", "p3"],
    ]


def test_all_faults_are_told_at_once() -> None:
    raw = {
        "seeds": [1, 1],
        "dialogue": {"first_speaker": "eve", "whispers": [{"turn": 50, "to": ["bo"]}]},
        "relationships": [{"of": "eve", "to": "bo", "quality": 0}],
    }

    assert {field for field, _, _ in faults(raw)} == {
        "seeds.1",
        "dialogue.first_speaker",
        "dialogue.whispers.0.turn",
        "relationships.0.of",
    }


def test_ten_thousand_arms_are_checked_in_no_time() -> None:
    grid = {
        "personas.ada.persona.charisma": list(range(1, 21)),
        "personas.bo.persona.charisma": list(range(1, 21)),
        "dialogue.scene": [str(n) for n in range(25)],
    }

    made = plan(variations=grid)

    assert (len(made.arms), made.total) == (10_000, 10_000)
    assert made.place(9_999).arm == 9_999
