"""A batch that is killed at random moments comes to the bytes of an undisturbed one."""

from pathlib import Path

from benchmarks.crash_batch import differences, play

ROUNDS = 3


def test_kills_at_random_moments_leave_a_batch_that_comes_to_the_same_bytes(
    tmp_path: Path,
) -> None:
    batches = list(play(tmp_path, ROUNDS, seed=7))

    assert sum(batch.kills for batch in batches) == ROUNDS
    assert [batch.faults for batch in batches] == [()] * len(batches)
    assert max(done for batch in batches for done in batch.done_at) > 0


def test_a_difference_is_found() -> None:
    assert list(differences({"a": b"1", "b": b"2"}, {"a": b"1", "b": b"3", "c": b""})) == [
        "b is not the same",
        "c is not the same",
    ]
