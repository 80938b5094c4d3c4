"""How far a batch is, counted from what is told of it."""

from persona_mcp.server.batch.course import Course


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def begun(done: int = 0, failed: int = 0, turns: int = 0) -> tuple[Course, Clock]:
    clock = Clock()
    course = Course(4, 40, 7, clock)
    course.told({"event": "started", "done": done, "failed": failed, "turns": turns})
    return course, clock


def test_what_was_done_before_counts_and_nobody_knows_yet_what_time_is_left() -> None:
    course, _ = begun(done=1, failed=1, turns=15)

    assert (course.progress.dialogues_done, course.progress.dialogues_failed) == (2, 1)
    assert (course.progress.turns_done, course.progress.tokens_used) == (15, 7)
    assert course.progress.left_s is None


def test_turns_under_way_count_and_are_not_counted_again_at_the_end() -> None:
    course, clock = begun()
    for turn in (1, 2, 3, 4, 5):
        said = {"dialogue": 0, "turn": turn, "speaker": "ada", "tokens": 10}
        course.told({"event": "turn", **said})
    clock.now += 10.0

    assert (course.progress.turns_done, course.progress.tokens_used) == (5, 57)
    assert course.progress.current_speaker == "ada"
    assert course.progress.left_s == 70.0  # half of one of four took 10 s

    course.told({"event": "dialogue_failed", "dialogue": 0, "turns": 5})

    assert (course.progress.turns_done, course.progress.tokens_used) == (5, 57)
    assert (course.progress.dialogues_done, course.progress.dialogues_failed) == (1, 1)
    assert course.progress.current_speaker is None
