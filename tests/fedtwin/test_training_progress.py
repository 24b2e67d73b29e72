"""How long a run will take, from what is seen of it."""

from dataclasses import replace

import pytest

from coordinator.flower.run_folder import RUNNING, Status
from fedtwin import training_progress
from fedtwin.training_progress import Pace, in_words, shown

BEGUN = Status(RUNNING, "0" * 64, round=0, rounds=4, steps=0, steps_in_all=40)


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_what_is_left_follows_from_the_steps_seen() -> None:
    clock = Hands()
    pace = Pace(clock)
    assert pace.left_s(BEGUN) is None
    clock.at += 60.0  # Flower starts, and the hospitals open a session: no pace of steps
    assert pace.left_s(replace(BEGUN, steps=1)) is None
    clock.at += 4.0
    assert pace.left_s(replace(BEGUN, steps=5)) == pytest.approx(35.0)  # a second a step, 35 to go
    clock.at += 5.0
    assert pace.left_s(replace(BEGUN, round=1, steps=10)) == pytest.approx(30.0)
    clock.at += 30.0
    assert pace.left_s(replace(BEGUN, round=4, steps=40)) == 0.0


def test_a_round_that_broke_off_leaves_whole_rounds_to_go() -> None:
    clock = Hands()
    pace = Pace(clock)
    pace.left_s(BEGUN)
    pace.left_s(replace(BEGUN, steps=1))
    clock.at += 2.0
    assert pace.left_s(replace(BEGUN, round=1, steps=3)) == pytest.approx(30.0)  # not 37


def test_a_resumed_run_goes_by_its_last_round_until_steps_come() -> None:
    clock = Hands()
    pace = Pace(clock)
    resumed = replace(BEGUN, round=2, steps=20, seconds_per_round=(90.0, 7.0))
    assert pace.left_s(resumed) == pytest.approx(14.0)
    clock.at += 4.0
    assert pace.left_s(replace(resumed, steps=21)) == pytest.approx(13.3)
    clock.at += 2.0
    assert pace.left_s(replace(resumed, steps=22)) == pytest.approx(36.0)


def test_where_nobody_watches_each_round_leaves_one_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(training_progress, "say", said.append)
    clock = Hands()
    with shown(4, clock=clock) as watch:
        for number in (0, 0, 1, 1, 2):
            clock.at += 1.0
            watch(replace(BEGUN, round=number, steps=10 * number))
    assert [line.split(":")[0] for line in said] == ["round 1 of 4", "round 2 of 4"]
    assert said[1].endswith("4 s left")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (90, "2 min"), (5340, "89 min"), (8000, "2 h 14 min")]
)
def test_durations_are_for_people(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
