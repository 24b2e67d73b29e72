"""What is said of runs, and how one is stopped whose process is gone: without a network."""

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.flower.run_folder import (
    AFTER_ROUND,
    AFTER_STEP,
    FAILED,
    FINISHED,
    RUNNING,
    STOPPED,
    RunFolder,
)
from coordinator.flower.training_desk import StartedRun
from fedtwin import training_run
from fedtwin.screen import Exit
from fedtwin.training_run import HasEnded, UnknownRun, folder_of, listed, mark_stopped, run_study, stop_run
from protocols.study import Study
from tests.fedtwin.conftest import Fedtwin
from tests.fedtwin.trained import RUN, trained
from tests.protocols.exact_forms import exact_form
from tests.protocols.study_forms import study_form

STUDY = Study.from_json(study_form())
VERBS = ("show", "stop", "resume", "export", "report")


@pytest.mark.parametrize("run", ["nothing", "../elsewhere", "Upper", ""])
@pytest.mark.parametrize("verb", VERBS)
def test_a_run_that_is_not_there_is_said_not_to_be(
    fedtwin: Fedtwin, tmp_path: Path, verb: str, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    more = ("--to", tmp_path / "p") if verb == "export" else ()
    said = fedtwin("train", verb, run, *more, "--home", tmp_path, "--json")
    assert said.code == Exit.USAGE
    assert "train list" in said.err
    assert said.json["exit_code"] == Exit.USAGE
    assert sorted(path.name for path in tmp_path.iterdir()) in ([], ["runs"])


def test_a_run_whose_process_is_gone_is_marked_as_stopped_and_keeps_its_model(tmp_path: Path) -> None:
    folder = trained(tmp_path, STUDY, state=RUNNING, rounds=1)
    folder.write_flower_run(2**63 + 5)  # no SuperLink answers here
    status = stop_run(RUN, home=tmp_path, after=AFTER_ROUND)
    assert (status.state, status.round, status.steps) == (STOPPED, 1, 3)
    kept = folder.checkpoint(STUDY)
    assert kept is not None
    assert kept.round == 1
    assert folder.stop_asked() == AFTER_ROUND
    with pytest.raises(HasEnded):
        stop_run(RUN, home=tmp_path, after=AFTER_ROUND)


def test_a_run_that_never_began_can_be_stopped_too(fedtwin: Fedtwin, tmp_path: Path) -> None:
    RunFolder(tmp_path, RUN).create(STUDY)
    said = fedtwin("train", "stop", RUN, "--home", tmp_path, "--json").json
    assert (said["state"], said["round"], said["run"]) == (STOPPED, 0, RUN)


class Desk:
    """A SuperLink's desk that only cuts runs off."""

    def __init__(self) -> None:
        self.cut_off: list[int] = []

    async def stop(self, started: StartedRun) -> bool:
        self.cut_off.append(started.run_id)
        return True


def test_an_interrupted_run_ends_after_its_step(tmp_path: Path) -> None:
    folder = trained(tmp_path, STUDY, state=RUNNING, rounds=1)
    desk, started = Desk(), StartedRun(7, folder)

    async def run() -> None:
        """Go on as the process of the run does: look whether it is to stop, and say so."""
        while folder.stop_asked() != AFTER_STEP:
            await asyncio.sleep(0.01)
        status = folder.status()
        assert status is not None
        folder.write_status(replace(status, state=STOPPED))

    async def both() -> None:
        await asyncio.gather(run(), training_run._interrupted(desk, started))  # type: ignore[arg-type]

    asyncio.run(both())
    assert desk.cut_off == []


def test_an_interrupted_run_that_hangs_is_cut_off_and_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_run, "INTERRUPTED_S", 0.1)
    folder = trained(tmp_path, STUDY, state=RUNNING, rounds=1)
    desk = Desk()
    asyncio.run(training_run._interrupted(desk, StartedRun(7, folder)))  # type: ignore[arg-type]
    assert desk.cut_off == [7]
    status = folder.status()
    assert status is not None
    assert (status.state, status.round) == (STOPPED, 1)


def test_what_a_run_says_of_itself_is_not_overwritten(tmp_path: Path) -> None:
    folder = trained(tmp_path, STUDY, state=FAILED)
    assert mark_stopped(folder).state == FAILED
    assert folder.status().state == FAILED  # type: ignore[union-attr]


def test_a_finished_run_neither_stops_nor_goes_on(fedtwin: Fedtwin, tmp_path: Path) -> None:
    trained(tmp_path, STUDY)
    for verb in ("stop", "resume"):
        said = fedtwin("train", verb, RUN, "--home", tmp_path)
        assert said.code == Exit.USAGE
        assert "finished already" in said.err
    with pytest.raises(HasEnded):
        run_study(STUDY, home=tmp_path, run=RUN)


def test_a_run_that_cannot_be_read_does_not_hide_the_others(fedtwin: Fedtwin, tmp_path: Path) -> None:
    trained(tmp_path, STUDY)
    broken = RunFolder(tmp_path, "another")
    broken.create(STUDY)
    (broken.path / "status.json").write_text("{")
    (tmp_path / "runs" / "not A run").mkdir()
    rows = {row["run"]: row["state"] for row in listed(tmp_path)}
    assert rows == {RUN: FINISHED, "another": "unreadable", "not A run": "unreadable"}
    assert RUN in fedtwin("train", "list", "--home", tmp_path).out


def test_runs_are_listed_in_the_order_in_which_they_began(fedtwin: Fedtwin, tmp_path: Path) -> None:
    for name, began in (("b-1", 1_700_000_000), ("a-1", 1_700_000_060), ("c-1", 1_699_999_999)):
        folder = RunFolder(tmp_path, name)
        folder.create(STUDY)
        os.utime(folder.path / "study.json", (began, began))
    said = fedtwin("train", "list", "--home", tmp_path, "--json").json["runs"]
    assert [row["run"] for row in said] == ["c-1", "b-1", "a-1"]
    assert said[1]["started_at"] == "2023-11-14T22:13:20.000+00:00"
    assert "2023-11-14 22:13 UTC" in fedtwin("train", "list", "--home", tmp_path).out


def test_a_run_is_shown_round_by_round(fedtwin: Fedtwin, tmp_path: Path) -> None:
    trained(tmp_path, STUDY)
    shown = fedtwin("train", "show", RUN, "--home", tmp_path, "--json").json
    assert [row["sites"] for row in shown["history"]] == [4, 3]
    assert shown["state"] == FINISHED
    assert 0.0 < shown["epsilon"] <= STUDY.privacy.epsilon
    assert len(shown["parameters"]) == STUDY.parameters
    told = fedtwin("train", "show", RUN, "--home", tmp_path).out
    assert "norm of sums" in told


def test_a_run_without_noise_has_no_epsilon(fedtwin: Fedtwin, tmp_path: Path) -> None:
    trained(tmp_path, Study.from_json(exact_form("linear")))
    shown = fedtwin("train", "show", RUN, "--home", tmp_path, "--json").json
    assert shown["epsilon"] is None
    assert json.dumps(shown, allow_nan=False)


def test_a_folder_is_found_by_its_plan(tmp_path: Path) -> None:
    (tmp_path / "runs" / RUN).mkdir(parents=True)
    with pytest.raises(UnknownRun):
        folder_of(RUN, home=tmp_path)
    trained(tmp_path, STUDY)
    assert folder_of(RUN, home=tmp_path).study().plan_hash() == STUDY.plan_hash()
