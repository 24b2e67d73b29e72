"""Runs with looks at the model, offenders, and coordinators that end in the middle of a round."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from coordinator.flower import running_round, training_rounds
from coordinator.flower.round_source import RoundSum
from coordinator.flower.run_folder import Checkpoint, MalformedRun, RunFolder
from coordinator.flower.server_app import by_name
from coordinator.flower.training_rounds import train
from node.flower.client_app import answer
from privacy import validation, walks
from privacy.descent import digest, initial
from privacy.rng import SecureBits
from privacy.study_noise import noise_plan
from protocols.ids import NodeId
from protocols.refusal import RefusalCode, Refused
from protocols.round import RECORD, RoundReply, RoundRequest
from protocols.study import Study
from tests.coordinator.test_training_rounds import NODES, Memory, Opened, Sums, refusing
from tests.protocols.study_forms import study_form

SECTION: dict[str, Any] = {"every": 1, "fraction": 0.1, "share": 0.5, "loss_bound": 2.0, "patience": 2}
STUDY = Study.from_json(study_form(validation=SECTION, training__rounds=6, privacy__epsilon=60.0))
PATIENTS = 5_000  # of validation at each site: the noise hardly matters


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)  # what Flower sets in a ServerApp's process
    monkeypatch.setattr(training_rounds, "TRY_AGAIN_S", 0.0)
    monkeypatch.setattr(running_round, "REPLY_GRACE_S", 3.0)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    found = RunFolder(tmp_path, "run-1")
    found.create(STUDY)
    return found


class SomeSums(Sums):
    """Sums among the nodes that are asked; `without` is remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.without: list[set[NodeId]] = []
        self.members: dict[Any, int] = {}  # by session: whom it was opened with
        self.sizes: dict[Any, int] = {}  # how many of them send
        self.stop_at: tuple[int, int] | None = None  # round and step: the coordinator's process ends

    def open(self, *, plan_hash: bytes, round: int, steps: int, without: Any = ()) -> Opened:
        self.asked.append(round)
        self.without.append(set(without))
        opened = _SomeOpened(self, steps, breaks_after=None)
        opened.participants = tuple(node for node in NODES if node not in set(without))
        opened.number = round
        self.members[opened.session_id] = self.sizes[opened.session_id] = len(opened.participants)
        return opened

    def add(self, session: Any, step: int, vector: np.ndarray) -> np.ndarray:
        with self.changed:
            found = self.inputs.setdefault((session, step), [])
            found.append(vector)
            self.changed.notify_all()
            if not self.changed.wait_for(lambda: len(found) == self.sizes[session], timeout=10):
                raise Refused(RefusalCode.TOO_MANY_DROPOUTS)
            return np.sum(found, axis=0, dtype=np.uint64)


class _SomeOpened(Opened):
    number = 0

    def poll(self) -> RoundSum | None:
        sums = self._sums
        if (self.number, self._step) == sums.stop_at:
            raise KeyboardInterrupt
        found = sums.inputs.get((self.session_id, self._step), [])
        if self._step == self._steps or len(found) < len(self.participants):
            return None
        self._step += 1
        return RoundSum(self._step - 1, np.sum(found, axis=0, dtype=np.uint64), len(self.participants))


class Looking:
    """A site that trains on a made-up gradient and says at each look which loss the round has."""

    def __init__(self, sums: SomeSums, losses: Callable[[int], float]) -> None:
        self.sums, self.losses = sums, losses
        self.requests: list[RoundRequest] = []

    def train(self, request: RoundRequest) -> RoundReply:
        self.requests.append(request)
        sites = self.sums.members[request.session_id]
        plan = noise_plan(STUDY, participants=sites, tolerance=1)
        walk = walks.begin(STUDY, request.parameters)
        for step in range(STUDY.training.steps_per_round):
            vector = plan.contribution(np.full(STUDY.parameters, 0.5), bits=SecureBits())
            walk.apply(plan.decode(self.sums.add(request.session_id, step, vector)))
        look = validation.noise_plan(STUDY, participants=sites, tolerance=1)
        each = np.full(PATIENTS, self.losses(request.round))
        rows = validation.rows(STUDY, each, each < 0.69, others=9 * PATIENTS)
        vector = look.contribution_of_rows(rows, bits=SecureBits())
        self.sums.add(request.session_id, walk.steps_done, vector)
        return RoundReply(digest(walk.carried), walk.steps_done)


def run(
    folder: RunFolder, sums: SomeSums, losses: Callable[[int], float], **bad: Callable[..., Any]
) -> tuple[Checkpoint, dict[NodeId, Looking]]:
    sites = {node: Looking(sums, losses) for node in NODES}
    handlers: dict[NodeId, Any] = {
        node: lambda message, site=site: answer(message, site) for node, site in sites.items()
    }
    if "first" in bad:
        handlers[NODES[0]] = bad["first"](sites[NODES[0]])
    grid = Memory(handlers)
    try:
        return train(STUDY, folder=folder, grid=grid, source=sums, directory=by_name), sites
    finally:
        grid.join()


def test_a_run_ends_when_looks_bring_nothing_and_its_model_is_the_best_one(folder: RunFolder) -> None:
    sums = SomeSums()
    losses = {1: 1.0, 2: 0.6, 3: 0.8, 4: 0.9, 5: 0.1}
    found, sites = run(folder, sums, losses.__getitem__)
    assert sums.asked == [
        1,
        2,
        3,
        4,
    ]  # two looks after the best: the fifth round, the best of all, is not run
    status = folder.status()
    assert status is not None
    assert (status.state, status.round, status.steps) == ("finished", 4, 12)
    assert (status.best_round, status.stopped_early) == (2, True)
    third = sites[NODES[0]].requests[2]
    assert digest(found.carried) == digest(third.parameters)  # what the third round began with
    kept = folder.checkpoint(STUDY)
    assert kept is not None
    assert (kept.holds, kept.round, digest(kept.parameters)) == (2, 4, digest(found.parameters))
    by_name_ = {(m.round, m.name): m for m in status.metrics}
    assert {name for _, name in by_name_} == {"patients", "loss", "accuracy"}
    for round_, loss in list(losses.items())[:4]:
        metric = by_name_[round_, "loss"]
        assert metric.value == pytest.approx(loss, abs=6.0 * metric.noise_sd)
        assert 0.0 < metric.noise_sd < 0.02
    patients = by_name_[1, "patients"]
    assert patients.value == pytest.approx(4 * 10 * PATIENTS, abs=6.0 * patients.noise_sd)


def test_looks_that_always_bring_something_run_the_plan_to_its_end(folder: RunFolder) -> None:
    found, _ = run(folder, SomeSums(), lambda round_: 1.0 - 0.1 * round_)
    status = folder.status()
    assert status is not None
    assert (status.round, status.best_round, status.stopped_early) == (6, 6, False)
    assert found.holds is None


def test_a_finished_run_that_is_started_again_asks_nobody(folder: RunFolder) -> None:
    losses = {1: 1.0, 2: 0.6, 3: 0.8, 4: 0.9}.__getitem__
    first, _ = run(folder, SomeSums(), losses)
    again = SomeSums()
    second, _ = run(folder, again, losses)
    assert again.asked == []
    assert digest(second.parameters) == digest(first.parameters)
    assert [path.name for path in folder.path.glob("round-*.npz")] == ["round-2.npz"]


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_a_coordinator_that_ends_in_a_round_goes_on_from_the_last_sum_it_saw(
    folder: RunFolder, step: int
) -> None:
    """At step 3 it waits for the look: the round's steps are done, and its look is lost."""
    sums = SomeSums()
    sums.stop_at = (2, step)
    with pytest.raises(KeyboardInterrupt):
        run(folder, sums, lambda round_: 1.0 - 0.1 * round_)
    again = SomeSums()
    found, sites = run(folder, again, lambda round_: 1.0 - 0.1 * round_)
    assert again.asked == ([2, 3, 4, 5, 6] if step == 0 else [3, 4, 5, 6])  # no opened sum is asked for again
    assert found.steps == 18 - (3 - step if step else 0)
    status = folder.status()
    assert status is not None
    looks = {metric.round for metric in status.metrics}
    assert looks == ({1, 2, 3, 4, 5, 6} if step == 0 else {1, 3, 4, 5, 6})
    if step:
        kept = sites[NODES[0]].requests[0].parameters
        assert digest(kept) != digest(initial(STUDY))


def test_a_damaged_step_is_refused(folder: RunFolder) -> None:
    folder.write_step(STUDY, Checkpoint.of(STUDY, 1, 2, np.ones(STUDY.carried)))
    found = folder.step(STUDY)
    assert found is not None
    assert (found.round, found.steps) == (1, 2)
    with np.load(folder.path / "step.npz") as arrays:
        parts = dict(arrays)
    np.savez(folder.path / "step.npz", **(parts | {"parameters": np.zeros(STUDY.parameters)}))
    with pytest.raises(MalformedRun, match="not what was written"):
        folder.step(STUDY)
    np.savez(folder.path / "step.npz", parameters=np.array([print], dtype=object))  # a pickle: never loaded
    with pytest.raises(MalformedRun, match="cannot be read"):
        folder.step(STUDY)


def _lying(site: Looking) -> Callable[[Message], Message]:
    def handle(message: Message) -> Message:
        answer(message, site)
        fields = {"parameters_digest": bytes(32), "steps": 3}
        return Message(RecordDict({RECORD: ConfigRecord(fields)}), reply_to=message)

    return handle


def test_an_offender_is_named_and_not_asked_again_also_after_a_restart(folder: RunFolder) -> None:
    sums = SomeSums()
    sums.stop_at = (4, 0)
    with pytest.raises(KeyboardInterrupt):
        run(folder, sums, lambda round_: 1.0 - 0.1 * round_, first=_lying)
    assert sums.without == [set(), {NODES[0]}, {NODES[0]}, {NODES[0]}]
    again = SomeSums()
    run(folder, again, lambda round_: 1.0 - 0.1 * round_, first=_lying)
    assert all(without == {NODES[0]} for without in again.without)
    status = folder.status()
    assert status is not None
    assert (status.state, status.sites) == ("finished", 3)
    assert status.quarantined == {str(NODES[0]): "protocol-violation"}


@pytest.mark.parametrize(
    ("code", "again"),
    [(RefusalCode.DEADLINE, True), (RefusalCode.MALFORMED, False), (RefusalCode.NO_DATA, True)],
)
def test_only_who_breaks_the_protocol_is_not_asked_again(
    folder: RunFolder, code: RefusalCode, again: bool
) -> None:
    class Tolerant(SomeSums):
        def open(self, **more: Any) -> Opened:  # the broker's session goes on without the site that refused
            opened = super().open(**more)
            self.sizes[opened.session_id] = len(set(opened.participants) - {NODES[0]})
            return _Without(self, opened)

    class _Without(_SomeOpened):
        def __init__(self, sums: SomeSums, opened: Any) -> None:
            self.__dict__.update(opened.__dict__)
            self.session_id, self.participants = opened.session_id, opened.participants

        def poll(self) -> RoundSum | None:
            found = self._sums.inputs.get((self.session_id, self._step), [])
            if self._step == self._steps or len(found) < self._sums.sizes[self.session_id]:
                return None
            self._step += 1
            return RoundSum(self._step - 1, np.sum(found, axis=0, dtype=np.uint64), len(found))

    sums = Tolerant()
    run(folder, sums, lambda round_: 1.0 - 0.1 * round_, first=lambda _site: refusing(code))
    status = folder.status()
    assert status is not None
    assert status.state == "finished"
    assert (NODES[0] in sums.without[-1]) is not again
    assert status.quarantined == ({} if again else {str(NODES[0]): code.value})


def test_a_status_of_before_looks_is_still_read(folder: RunFolder) -> None:
    run(folder, SomeSums(), lambda round_: 1.0 - 0.1 * round_)
    status = folder.status()
    assert status is not None
    fields = status.to_json()
    for key in ("metrics", "best_round", "stopped_early", "quarantined"):
        del fields[key]
    old = type(status).from_json(fields)
    assert old == dataclasses.replace(
        status, metrics=(), best_round=None, stopped_early=False, quarantined={}
    )
