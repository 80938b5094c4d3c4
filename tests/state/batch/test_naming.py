"""The ids of dialogues in the world that they become part of."""

from persona_mcp.state.batch.naming import as_in_world, id_in_world, renamed
from persona_mcp.state.batch.values import Outcome
from tests.outcomes import Line, job_of, outcome_of


def ids_of(outcome: Outcome) -> set[str]:
    return {row["id"] for rows in outcome.rows.values() for row in rows if "id" in row}


def quarrel() -> Outcome:
    return outcome_of(job_of(), [Line("ada", "You sold it!", -0.8), Line("ben", "I had to.")])


def test_what_a_dialogue_made_has_an_id_of_its_own_in_each_batch() -> None:
    outcome = quarrel()

    found = [outcome, as_in_world(outcome, "b1"), as_in_world(outcome, "b2")]

    ids = [ids_of(one) for one in found]
    assert len(ids[0]) == len(ids[1]) == len(ids[2]) == len(set().union(*ids)) / 3
    assert found[1].job.id == id_in_world("b1", outcome.job.id)


def test_naming_again_gives_the_same_names_and_personas_keep_theirs() -> None:
    outcome = quarrel()

    assert as_in_world(outcome, "b1") == as_in_world(outcome, "b1")
    speakers = [row["speaker_id"] for row in outcome.rows["turns"]]
    assert [row["speaker_id"] for row in as_in_world(outcome, "b1").rows["turns"]] == speakers


def test_ids_are_renamed_wherever_they_stand() -> None:
    given = {"id": "a", "of": ["a", {"x": "a"}, 1, None], "text": "an a"}

    after = {"id": "b", "of": ["b", {"x": "b"}, 1, None], "text": "an a"}
    assert renamed(given, {"a": "b"}) == after
