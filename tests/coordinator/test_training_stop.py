"""A run that somebody asks to stop: it ends where it said it would, and goes on from there."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.supercore.task_identity import TaskIdentity

from coordinator.flower import running_round, training_rounds
from coordinator.flower.round_source import RoundSum
from coordinator.flower.run_folder import (
    AFTER_ROUND,
    AFTER_STEP,
    STOPPED,
    MalformedRun,
    RoundRecord,
    RunFolder,
)
from privacy import walks
from privacy.descent import digest
from privacy.study_noise import noise_plan
from protocols.refusal import RefusalCode, Refused
from protocols.study import Study
from tests.coordinator.test_training_rounds import NODES, STUDY, Memory, Opened, Sums, honest, refusing, run
from tests.protocols.study_forms import study_form

RECORD = RoundRecord(1, 3, 4, 4, 0.5, 2.0, 1.5, {})


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)  # what Flower sets in a ServerApp's process
    monkeypatch.setattr(training_rounds, "TRY_AGAIN_S", 0.0)
    monkeypatch.setattr(running_round, "STOP_POLL_S", 0.0)
    monkeypatch.setattr(running_round, "REPLY_GRACE_S", 3.0)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    found = RunFolder(tmp_path, "run-1")
    found.create(STUDY)
    return found


class AfterSums(Sums):
    """Sums after the `count`th of which something happens."""

    def __init__(self, count: int, happens: Callable[[], None], *, ahead: int = 0) -> None:
        super().__init__(ahead=ahead)
        self.count, self.happens = count, happens

    def open(self, *, plan_hash: bytes, round: int, steps: int, without: object = ()) -> Opened:
        self.asked.append(round)
        return Counting(self, steps)


class Counting(Opened):
    """Counts its sums into `AfterSums`."""

    def __init__(self, sums: AfterSums, steps: int) -> None:
        super().__init__(sums, steps, breaks_after=None)
        self.after = sums

    def poll(self) -> RoundSum | None:
        found = super().poll()
        if found is not None:
            self.after.count -= 1
            if self.after.count == 0:
                self.after.happens()
        return found


def paid(sums: Sums) -> set[int]:
    """Return how many steps sites paid for: one number, if all paid for the same."""
    assert {len(vectors) for vectors in sums.inputs.values()} <= {len(NODES)}
    return {len(sums.inputs)}


def test_a_run_ends_after_its_round_and_goes_on_to_the_same_number_of_steps(folder: RunFolder) -> None:
    sums = AfterSums(2, lambda: folder.ask_to_stop(AFTER_ROUND))
    found = run(folder, sums, Memory({node: honest(sums) for node in NODES}))
    assert (found.round, found.steps, sums.asked) == (1, 3, [1])
    status = folder.status()
    assert status is not None
    assert (status.state, status.round, status.refusal) == (STOPPED, 1, None)
    folder.forget_stop()
    again = Sums()
    found = run(folder, again, Memory({node: honest(again) for node in NODES}))
    assert (found.round, found.steps, again.asked) == (2, 6, [2])
    assert [record.round for record in folder.rounds()] == [1, 2]


def test_a_run_ends_after_its_step_and_keeps_what_the_step_taught(folder: RunFolder) -> None:
    sums = AfterSums(1, lambda: folder.ask_to_stop(AFTER_STEP))
    found = run(folder, sums, Memory({node: honest(sums) for node in NODES}))
    assert (found.round, found.steps, sums.asked) == (1, 2, [1])  # the one at hand is waited for
    assert paid(sums) == {2}
    kept = folder.checkpoint(STUDY)
    assert kept is not None
    assert digest(kept.parameters) == digest(found.parameters)
    status = folder.status()
    assert status is not None
    assert (status.state, status.refusals) == (STOPPED, {})  # nobody is called late who was not let finish
    (record,) = folder.rounds()
    assert (record.steps, record.sites, record.agreeing) == (2, 4, 0)


@pytest.mark.parametrize("seed", range(3))
def test_no_sum_that_was_opened_is_lost_to_a_run_that_is_behind_when_it_is_stopped(
    tmp_path: Path, seed: int
) -> None:
    """Sites go on among themselves: what they paid for while the run lagged is in the model it keeps."""
    drawn = np.random.default_rng(seed)
    stop_after, ahead = int(drawn.integers(1, 12)), int(drawn.integers(1, 12))
    study = Study.from_json(study_form(training__rounds=2, training__steps_per_round=30))
    folder = RunFolder(tmp_path, "run-1")
    folder.create(study)
    sums = AfterSums(stop_after, lambda: folder.ask_to_stop(AFTER_STEP), ahead=ahead)
    found = run(folder, sums, Memory({node: honest(sums, study) for node in NODES}), study)
    assert found.steps == stop_after + ahead + 1 < study.training.steps_per_round
    assert paid(sums) == {found.steps}
    status = folder.status()
    assert status is not None
    assert (status.state, status.steps, status.refusals) == (STOPPED, found.steps, {})
    walk, plan = walks.begin(study, walks.initial(study)), noise_plan(study, participants=4, tolerance=1)
    for _, vectors in sorted(sums.inputs.items(), key=lambda item: item[0][1]):
        walk.apply(plan.decode(np.sum(vectors, axis=0, dtype=np.uint64)))
    assert np.array_equal(found.carried, walk.carried)


def test_a_last_round_that_is_cut_short_is_stopped_not_finished(folder: RunFolder) -> None:
    sums = AfterSums(4, lambda: folder.ask_to_stop(AFTER_STEP))
    found = run(folder, sums, Memory({node: honest(sums) for node in NODES}))
    assert (found.round, found.steps) == (2, 5)
    status = folder.status()
    assert status is not None
    assert status.state == STOPPED


def test_a_run_that_cannot_open_a_round_can_be_stopped(folder: RunFolder) -> None:
    sums = Sums()
    folder.ask_to_stop(AFTER_ROUND)
    found = run(folder, sums, Memory({node: refusing(RefusalCode.NOT_READY) for node in NODES}))
    assert (found.round, found.steps, sums.asked) == (0, 0, [])
    status = folder.status()
    assert status is not None
    assert status.state == STOPPED
    folder.forget_stop()
    with pytest.raises(Refused):
        run(folder, sums, Memory({node: refusing(RefusalCode.NOT_READY) for node in NODES}))


def test_rounds_are_recorded_with_the_norms_of_their_noisy_sums(folder: RunFolder) -> None:
    sums = Sums()
    run(folder, sums, Memory({node: honest(sums) for node in NODES}))
    plan = noise_plan(STUDY, participants=len(NODES), tolerance=STUDY.sites.tolerance)
    noise = plan.standard_deviation(contributors=len(NODES)) * STUDY.parameters**0.5
    for record in folder.rounds():
        assert record.noise_norm == pytest.approx(noise)
        assert record.steps == STUDY.training.steps_per_round
        assert 0.0 < record.sum_norm < 4 * noise + len(NODES)
        assert record.seconds > 0.0


def test_a_round_that_a_crash_wrote_half_is_written_again(folder: RunFolder) -> None:
    folder.add_round(RECORD)
    file = folder.path / "rounds.jsonl"
    file.write_bytes(file.read_bytes() + b'{"round": 2, "st')
    assert folder.rounds() == (RECORD,)
    second = dataclasses.replace(RECORD, round=2)
    folder.add_round(second)
    assert folder.rounds() == (RECORD, second)
    file.write_bytes(b'{"round": 1}\n')
    with pytest.raises(MalformedRun):
        folder.rounds()


def test_a_wish_to_stop_says_after_what(folder: RunFolder) -> None:
    assert folder.stop_asked() is None
    folder.ask_to_stop(AFTER_STEP)
    assert folder.stop_asked() == AFTER_STEP
    with pytest.raises(ValueError, match="after a round"):
        folder.ask_to_stop("soon")
    (folder.path / "stop").write_bytes(b"\xff")  # whoever wrote it meant to stop
    assert folder.stop_asked() == AFTER_ROUND
