"""The rounds of a run: what counts, what is refused, and what a broken round costs."""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from coordinator.flower import running_round, training_rounds
from coordinator.flower.round_source import RoundSum
from coordinator.flower.run_folder import Checkpoint, MalformedRun, RunFolder
from coordinator.flower.server_app import by_name
from coordinator.flower.training_rounds import train
from node.flower.client_app import answer
from privacy import update_sums, walks
from privacy.descent import digest, initial
from privacy.rng import SecureBits
from privacy.study_noise import noise_plan, private_plan
from protocols.ids import NodeId, SessionId
from protocols.refusal import RefusalCode, Refused
from protocols.round import RECORD, RoundReply, RoundRequest
from protocols.study import Study
from tests.protocols.study_forms import study_form

NODES = tuple(sorted(NodeId.new() for _ in range(4)))
STUDY = Study.from_json(study_form())  # two rounds of three steps, at least three sites, one may fall out


class Memory(Grid):
    """A grid whose nodes answer in threads of this process."""

    def __init__(self, nodes: Mapping[NodeId, Callable[[Message], Message]]) -> None:
        self._nodes = dict(enumerate(nodes.items(), start=1))
        self._replies: dict[str, Message] = {}  # by what they reply to; whole changes only, threads add to it
        self._threads: list[threading.Thread] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        message.metadata.__dict__["_message_id"] = message.object_id
        _, handler = self._nodes[message.metadata.dst_node_id]
        sent = message.object_id
        thread = threading.Thread(target=lambda: self._replies.__setitem__(sent, handler(message)))
        self._threads.append(thread)
        thread.start()
        return message.object_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        found = [self._replies.pop(sent, None) for sent in message_ids]
        return [reply for reply in found if reply is not None]

    def get_node_ids(self) -> Iterable[int]:
        return list(self._nodes)

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=number, name=str(node)) for number, (node, _) in self._nodes.items()]

    def join(self) -> None:
        for thread in self._threads:
            thread.join(10)

    # What the rounds do not use.
    def set_run(self, run: Run) -> None: ...

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def send_and_receive(self, *args: Any, **kwargs: Any) -> Iterable[Message]:
        raise NotImplementedError


class Sums:
    """Opens rounds and adds what the sites send; `breaks_after` sums of the first round, it ends early.

    Sites are at most `ahead` sums before the one that the run reads next.
    """

    def __init__(self, *, breaks_after: int | None = None, bend: int = 0, ahead: int = 1) -> None:
        self.ahead = ahead
        self.read: dict[SessionId, int] = {}
        self.asked: list[int] = []
        self.breaks_after, self.bend = breaks_after, bend
        self.changed = threading.Condition()
        self.inputs: dict[tuple[SessionId, int], list[NDArray[np.uint64]]] = {}
        self.ends_with: dict[SessionId, int] = {}  # the last step of sessions that were asked to end

    def open(self, *, plan_hash: bytes, round: int, steps: int, without: Collection[NodeId] = ()) -> "Opened":
        self.asked.append(round)
        return Opened(self, steps, breaks_after=self.breaks_after if len(self.asked) == 1 else None)

    def add(self, session: SessionId, step: int, vector: NDArray[np.uint64]) -> NDArray[np.uint64]:
        with self.changed:
            self.changed.wait_for(lambda: step <= self.read.get(session, 0) + self.ahead, timeout=20)
            if step > self.ends_with.get(session, step):
                raise Refused(RefusalCode.NOT_READY)  # before anything of it is paid for
            found = self.inputs.setdefault((session, step), [])
            found.append(vector)
            self.changed.notify_all()
            if not self.changed.wait_for(lambda: len(found) == len(NODES), timeout=20):
                raise Refused(RefusalCode.TOO_MANY_DROPOUTS)
            return np.sum(found, axis=0, dtype=np.uint64)


class Opened:
    """One round of `Sums`."""

    def __init__(self, sums: Sums, steps: int, *, breaks_after: int | None) -> None:
        self.session_id, self.participants = SessionId.new(), NODES
        self.left: dict[NodeId, RefusalCode] = {}
        self._sums, self._steps, self._step, self._breaks_after = sums, steps, 0, breaks_after
        self._ends_with: int | None = None

    def end(self) -> None:
        """Take no sum after the one at hand, and have the sites told."""
        with self._sums.changed:
            at_hand = self._step + self._sums.ahead
            self._ends_with = self._sums.ends_with[self.session_id] = at_hand

    def poll(self) -> RoundSum | None:
        if self._step == self._breaks_after:
            raise Refused(RefusalCode.TOO_MANY_DROPOUTS)
        if self._ends_with is not None and self._step > self._ends_with:
            raise Refused(RefusalCode.NOT_READY)
        found = self._sums.inputs.get((self.session_id, self._step), [])
        if len(found) < len(NODES):
            return None
        self._step += 1
        with self._sums.changed:
            self._sums.read[self.session_id] = self._step
            self._sums.changed.notify_all()
        total = np.sum(found, axis=0, dtype=np.uint64)
        total[:1] += np.uint64(self._sums.bend)
        return RoundSum(self._step - 1, total, len(NODES))

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *_: object) -> None: ...


class Trainer:
    """A site that trains on one made-up gradient."""

    def __init__(self, sums: Sums, study: Study = STUDY) -> None:
        self.sums, self.study = sums, study
        self.requests: list[RoundRequest] = []

    def train(self, request: RoundRequest) -> RoundReply:
        self.requests.append(request)
        study = self.study
        plan = noise_plan(study, participants=len(NODES), tolerance=study.sites.tolerance)
        walk = walks.begin(study, request.parameters)
        for step in range(study.training.steps_per_round):
            vector = plan.contribution(np.full(study.parameters, 0.5), bits=SecureBits())
            walk.apply(plan.decode(self.sums.add(request.session_id, step, vector)))
        return RoundReply(digest(walk.carried), walk.steps_done)


def honest(sums: Sums, study: Study = STUDY) -> Callable[[Message], Message]:
    trainer = Trainer(sums, study)
    return lambda message: answer(message, trainer)


def refusing(code: RefusalCode) -> Callable[[Message], Message]:
    return lambda message: Message(Error(100, code.value), reply_to=message)


def run(folder: RunFolder, sums: Sums, grid: Memory, study: Study = STUDY) -> Checkpoint:
    folder.create(study)
    try:
        return train(study, folder=folder, grid=grid, source=sums, directory=by_name)
    finally:
        grid.join()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)  # what Flower sets in a ServerApp's process
    monkeypatch.setattr(training_rounds, "TRY_AGAIN_S", 0.0)
    monkeypatch.setattr(running_round, "REPLY_GRACE_S", 3.0)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path, "run-1")


def test_all_rounds_end_with_the_sites_model_on_the_disk(folder: RunFolder) -> None:
    sums = Sums()
    found = run(folder, sums, Memory({node: honest(sums) for node in NODES}))
    assert (found.round, found.steps, sums.asked) == (2, 6, [1, 2])
    kept = folder.checkpoint(STUDY)
    assert kept is not None
    assert digest(kept.parameters) == digest(found.parameters)
    status = folder.status()
    assert status is not None
    assert (status.state, status.sites, status.refusals) == ("finished", 4, {})
    assert len(status.seconds_per_round) == 2


@pytest.mark.parametrize(
    "reply",
    [
        {"parameters_digest": bytes(32), "steps": 3},
        {"parameters_digest": b"short", "steps": 3},
        {"parameters_digest": bytes(32), "steps": float("nan")},
        {"parameters_digest": bytes(32), "steps": 3, "weights": [1.0]},
        {"steps": 3},
        {},
    ],
)
def test_a_reply_that_is_not_the_agreed_model_does_not_count(
    folder: RunFolder, reply: dict[str, Any]
) -> None:
    sums = Sums()
    inner = honest(sums)

    def lying(message: Message) -> Message:
        inner(message)
        return Message(RecordDict({RECORD: ConfigRecord(reply)}), reply_to=message)

    nodes = {node: honest(sums) for node in NODES[1:]} | {NODES[0]: lying}
    run(folder, sums, Memory(nodes))
    status = folder.status()
    assert status is not None
    assert (status.state, status.sites) == ("finished", 3)
    assert status.refusals == {str(NODES[0]): "protocol-violation"}


def test_a_run_stops_when_too_few_sites_hold_the_model(folder: RunFolder) -> None:
    sums = Sums(bend=2**40)  # the coordinator's sums differ from what the sites saw
    with pytest.raises(Refused) as refused:
        run(folder, sums, Memory({node: honest(sums) for node in NODES}))
    assert refused.value.code is RefusalCode.PROTOCOL_VIOLATION
    assert folder.checkpoint(STUDY) is None


def test_a_total_longer_than_any_honest_one_is_refused(folder: RunFolder) -> None:
    sums = Sums(bend=2**62)
    with pytest.raises(Refused) as refused:
        run(folder, sums, Memory({node: honest(sums) for node in NODES}))
    assert refused.value.code is RefusalCode.PROTOCOL_VIOLATION


def test_a_plan_that_the_sites_refuse_ends_with_their_code_and_is_not_tried_again(folder: RunFolder) -> None:
    sums = Sums()
    with pytest.raises(Refused) as refused:
        run(folder, sums, Memory({node: refusing(RefusalCode.NOT_APPROVED) for node in NODES}))
    assert refused.value.code is RefusalCode.NOT_APPROVED
    assert sums.asked == [1]
    status = folder.status()
    assert status is not None
    assert (status.state, status.refusal) == ("failed", RefusalCode.NOT_APPROVED)


def test_a_passing_refusal_is_tried_three_times(folder: RunFolder) -> None:
    sums = Sums()
    with pytest.raises(Refused):
        run(folder, sums, Memory({node: refusing(RefusalCode.NOT_READY) for node in NODES}))
    assert sums.asked == [1, 1, 1]


def test_words_of_an_error_are_not_repeated(folder: RunFolder) -> None:
    sums = Sums()
    leaky = {node: lambda message: Message(Error(1, "Jane Example"), reply_to=message) for node in NODES}
    with pytest.raises(Refused) as refused:
        run(folder, sums, Memory(leaky))
    assert refused.value.code is RefusalCode.INTERNAL
    assert all(b"Jane Example" not in path.read_bytes() for path in folder.path.iterdir())


def test_a_session_that_breaks_costs_its_round_and_keeps_what_it_taught(folder: RunFolder) -> None:
    sums = Sums(breaks_after=2)
    trainers = {node: Trainer(sums) for node in NODES}
    grid = Memory({node: lambda m, t=trainer: answer(m, t) for node, trainer in trainers.items()})
    found = run(folder, sums, grid)
    assert sums.asked == [1, 2]  # round 1 is never asked for again: two of its sums were opened
    assert (found.round, found.steps) == (2, 5)
    second = trainers[NODES[0]].requests[1]
    assert digest(second.parameters) != digest(initial(STUDY))


def test_a_session_that_breaks_before_its_first_sum_is_opened_anew(folder: RunFolder) -> None:
    sums = Sums(breaks_after=0)
    found = run(folder, sums, Memory({node: honest(sums) for node in NODES}))
    assert sums.asked == [1, 1, 2]
    assert (found.round, found.steps) == (2, 6)


def test_a_run_whose_steps_are_used_up_ends_with_the_model_it_has(folder: RunFolder) -> None:
    sums = Sums()
    trainers = {node: Trainer(sums) for node in NODES}

    def handler(trainer: Trainer) -> Callable[[Message], Message]:
        spent = refusing(RefusalCode.BUDGET_EXHAUSTED)
        return lambda message: spent(message) if trainer.requests else answer(message, trainer)

    found = run(folder, sums, Memory({node: handler(trainer) for node, trainer in trainers.items()}))
    assert (found.round, found.steps) == (1, 3)
    status = folder.status()
    assert status is not None
    assert (status.state, status.refusal) == ("finished", RefusalCode.BUDGET_EXHAUSTED)


def test_a_run_continues_from_its_checkpoint(folder: RunFolder) -> None:
    folder.create(STUDY)
    folder.write_checkpoint(STUDY, Checkpoint.of(STUDY, 1, 3, np.full(STUDY.carried, 0.25)))
    sums = Sums()
    found = run(folder, sums, Memory({node: honest(sums) for node in NODES}))
    assert (found.round, found.steps, sums.asked) == (2, 6, [2])
    assert [path.name for path in folder.path.glob("round-*.npz")] == ["round-2.npz"]


def test_a_damaged_or_foreign_checkpoint_is_refused(folder: RunFolder) -> None:
    folder.create(STUDY)
    folder.write_checkpoint(STUDY, Checkpoint.of(STUDY, 1, 3, np.zeros(STUDY.carried)))
    kept = folder.path / "round-1.npz"
    data = kept.read_bytes()
    memory = np.zeros(STUDY.carried - STUDY.parameters)
    np.savez(kept, parameters=np.ones(STUDY.parameters), memory=memory)
    with pytest.raises(MalformedRun, match="not what was written"):
        folder.checkpoint(STUDY)
    np.savez(kept, parameters=np.array([print], dtype=object))  # a pickle: never loaded
    with pytest.raises(MalformedRun, match="cannot be read"):
        folder.checkpoint(STUDY)
    kept.write_bytes(data)
    other = Study.from_json(study_form(study__name="other"))
    with pytest.raises(MalformedRun, match="another plan"):
        folder.checkpoint(other)
    with pytest.raises(MalformedRun, match="another plan"):
        folder.create(other)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", ".hidden", "x" * 65])
def test_a_run_name_cannot_lead_out_of_the_home(tmp_path: Path, name: str) -> None:
    with pytest.raises(MalformedRun):
        RunFolder(tmp_path, name)


# ---- what goes with the model from round to round ----

REMEMBERING = Study.from_json(
    study_form(training__mode="local")
    | {"local": {"local_steps": 1, "update_clip": 1.0, "aggregator": "fedadam", "server_learning_rate": 0.1}}
)


class Updating(Trainer):
    """A site whose updates are made up, and others in each sum of the run."""

    def train(self, request: RoundRequest) -> RoundReply:
        self.requests.append(request)
        plan = private_plan(REMEMBERING, participants=len(NODES), tolerance=REMEMBERING.sites.tolerance)
        walk = walks.begin(REMEMBERING, request.parameters)
        while not walk.finished:
            done = int(walk.carried[-1])  # sums of the whole run
            update = np.append(np.full(REMEMBERING.parameters, 0.1 / (1 + done)), 1.0)
            vector = plan.contribution(update, bits=SecureBits())
            walk.apply(plan.decode(self.sums.add(request.session_id, walk.steps_done, vector)))
        return RoundReply(digest(walk.carried), walk.steps_done)


UNIT = 2.0**update_sums.SCALE_BITS


def expected(sums: int) -> np.ndarray:
    """Return what so many sums make of the plan's start, in one walk."""
    whole = replace(REMEMBERING, training=replace(REMEMBERING.training, rounds=1, steps_per_round=sums))
    walk = walks.begin(whole, walks.initial(REMEMBERING))
    for done in range(sums):
        walk.apply(
            np.append(np.full(REMEMBERING.parameters, 4 * np.rint(UNIT * 0.1 / (1 + done)) / UNIT), 4.0)
        )
    return walk.carried


def run_remembering(folder: RunFolder, sums: Sums) -> tuple[Checkpoint, list[Updating]]:
    folder.create(REMEMBERING)
    sites = [Updating(sums) for _ in NODES]
    grid = Memory({n: lambda m, t=site: answer(m, t) for n, site in zip(NODES, sites, strict=True)})
    try:
        return train(REMEMBERING, folder=folder, grid=grid, source=sums, directory=by_name), sites
    finally:
        grid.join()


def test_what_a_run_remembers_goes_with_the_model_from_round_to_round(folder: RunFolder) -> None:
    found, sites = run_remembering(folder, Sums())
    assert np.array_equal(found.carried, expected(6))
    assert found.parameters.shape == (REMEMBERING.parameters,)
    assert np.array_equal(sites[0].requests[1].parameters, expected(3))
    kept = folder.checkpoint(REMEMBERING)
    assert kept is not None
    assert np.array_equal(kept.carried, found.carried)
    assert (kept.memory[-1], kept.parameters.tolist()) == (6.0, found.parameters.tolist())


def test_a_broken_round_and_a_killed_coordinator_lose_nothing_of_it(folder: RunFolder) -> None:
    """A round that breaks after two sums; and a step file that a killed coordinator left after the fifth."""
    found, sites = run_remembering(folder, Sums(breaks_after=2))
    assert (found.round, found.steps) == (2, 5)
    assert np.array_equal(sites[0].requests[1].parameters, expected(2))
    assert np.array_equal(found.carried, expected(5))
    folder.write_checkpoint(REMEMBERING, Checkpoint.of(REMEMBERING, 0, 0, walks.initial(REMEMBERING)))
    folder.write_step(REMEMBERING, Checkpoint.of(REMEMBERING, 1, 2, expected(2)))
    again, resumed = run_remembering(folder, Sums())
    assert np.array_equal(resumed[0].requests[0].parameters, expected(2))
    assert (again.round, again.steps, again.memory[-1]) == (2, 5, 5.0)
    assert np.array_equal(again.carried, expected(5))


def test_a_memory_that_was_tampered_with_is_refused(folder: RunFolder) -> None:
    run_remembering(folder, Sums())
    kept = folder.path / "round-2.npz"
    with np.load(kept) as arrays:
        parts = dict(arrays)
    np.savez(kept, **(parts | {"memory": parts["memory"] + 1.0}))
    with pytest.raises(MalformedRun, match="not what was written"):
        folder.checkpoint(REMEMBERING)
    np.savez(kept, parameters=parts["parameters"])
    with pytest.raises(MalformedRun, match="another shape"):
        folder.checkpoint(REMEMBERING)
    with np.load(folder.path / "step.npz") as arrays:
        step = dict(arrays)
    np.savez(folder.path / "step.npz", **(step | {"memory": step["memory"][:-1]}))
    with pytest.raises(MalformedRun, match="not what was written"):
        folder.step(REMEMBERING)
