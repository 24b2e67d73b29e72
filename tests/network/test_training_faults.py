"""Training goes on with k of n: sites that drop, are late, lie or break, one kind of fault after another.

All over the real broker, with real nodes, ledgers and masks.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from coordinator.flower import training_rounds
from coordinator.flower.run_folder import RunFolder
from node.training import rounds
from node.training.gradient import Sums
from privacy import study_noise
from privacy.lattice import NoisePlan
from protocols.ids import NodeId
from protocols.refusal import RefusalCode
from protocols.round import RECORD
from protocols.study import Study
from protocols.wire import fedtwin_pb2 as pb
from tests.network.training_sites import CuttableNode, FaultySums, Fleet, auc, fleet, study

SITES, TOLERANCE = 10, 3  # three drop now and then, one is bad: more at a time than the noise tolerates

Vector = np.ndarray


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)  # what Flower sets in a ServerApp's process
    monkeypatch.setattr(training_rounds, "TRY_AGAIN_S", 0.5)


def _drops(seed: int) -> Callable[[CuttableNode, int, Vector], Any]:
    """Cut the node's stream at random steps: in every second round on average."""
    rng = np.random.default_rng(seed)

    async def dropping(node: CuttableNode, _step: int, _vector: Vector) -> None:
        if rng.random() < 1 / 6:
            node.cut()
            await asyncio.sleep(0.2)  # its session is gone by then

    return dropping


def _wrong_shape(_node: CuttableNode, _step: int, vector: Vector) -> Vector:
    return vector[:-1]


async def _broken_frame(node: CuttableNode, step: int, _vector: Vector) -> None:
    session = next(
        session.raw
        for session, joined in node.sums._joined.items()
        if joined.opened.parameters.purpose.startswith("training:")
    )
    node.send(
        pb.NodeFrame(sum_input=pb.SumInput(session_id=session, step=step, context=bytes(32), masked=b"x"))
    )


async def _late(_node: CuttableNode, step: int, _vector: Vector) -> None:
    if step == 1:
        await asyncio.sleep(4.0)


def _another_model(message: Message, reply: Message) -> Message:
    fields = {"parameters_digest": os.urandom(32), "steps": 4}
    return Message(RecordDict({RECORD: ConfigRecord(fields)}), reply_to=message)


def _garbage(message: Message, reply: Message) -> Message:
    return Message(RecordDict({RECORD: ConfigRecord({"weights": b"\x00" * 99})}), reply_to=message)


def _bad_gradient(monkeypatch: pytest.MonkeyPatch, network: Fleet, name: NodeId, value: float) -> None:
    """Let one site's own code compute nonsense."""
    right = rounds.contribution

    def contribution(plan: Study, walk: Any, table: Any, **more: Any) -> Sums:
        found = right(plan, walk, table, **more)
        split = network.trainers[name]._rows
        if split is not None and split[1].training is table:
            return Sums(np.full(plan.parameters, value), found.own)
        return found

    monkeypatch.setattr(rounds, "contribution", contribution)


def _checked(network: Fleet, plan: Study, status: Any, *, bad: NodeId | None, droppers: list[NodeId]) -> None:
    """What holds after every run: budgets, names, and that nobody honest was sent away."""
    charged = network.steps_charged(plan)
    assert all(steps <= plan.training.steps for steps in charged.values())
    honest = [name for name in network.names() if name != bad and name not in droppers]
    kept = RunFolder(network.home, plan.name).rounds()
    assert sum(record.steps for record in kept) == status.steps
    broken = sum(record.steps < plan.training.steps_per_round for record in kept)
    for name in honest:  # a broken session costs the step at hand, and no step is asked for twice
        assert status.steps <= charged[name] <= status.steps + broken
    assert network.held() == 0
    assert set(status.quarantined) == ({str(bad)} if bad else set())
    for node in network.nodes:
        node._parts.ledger.verify()


@pytest.mark.slow
def test_a_third_dropping_and_one_bad_site_end_with_nearly_the_undisturbed_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path, sites=SITES) as network:
            plan = study("undisturbed", sites=SITES, tolerance=TOLERANCE)
            tables = network.tables(plan)
            found, status = await network.run(plan)
            assert found is not None
            assert (status.state, status.steps, status.sites) == ("finished", 16, SITES)
            undisturbed = auc(plan, found.parameters, tables)
            assert undisturbed > 0.75
            bad, *others = network.names()
            droppers = others[:3]
            for name, faults in {
                "shape": {"sums": {bad: FaultySums(network.node(bad), _wrong_shape)}},
                "frame": {"sums": {bad: FaultySums(network.node(bad), _broken_frame)}},
                "digest": {"replies": {bad: _another_model}},
                "garbage": {"replies": {bad: _garbage}},
                "nan": {},
                "huge": {},
            }.items():
                plan = study(name, sites=SITES, tolerance=TOLERANCE)
                sums = dict(faults.get("sums", {}))
                for seed, dropper in enumerate(droppers):
                    sums[dropper] = FaultySums(network.node(dropper), _drops(seed))
                with monkeypatch.context() as patched:
                    if name in ("nan", "huge"):
                        value = float("nan") if name == "nan" else 1e12
                        _bad_gradient(patched, network, bad, value)
                    began = time.monotonic()
                    found, status = await network.run(plan, sums=sums, replies=faults.get("replies"))
                assert found is not None, status
                quality = auc(plan, found.parameters, tables)
                print(
                    f"{name}: AUC {quality:.4f} ({undisturbed:.4f} undisturbed), {status.steps} steps, "
                    f"{time.monotonic() - began:.1f} s, {status.quarantined}"
                )
                assert (status.state, status.round) == ("finished", plan.training.rounds)
                assert abs(quality - undisturbed) < 0.02
                assert status.steps >= 8
                assert status.quarantined == {str(bad): "protocol-violation"}
                _checked(network, plan, status, bad=bad, droppers=droppers)

    asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("aggregator", ["fedadam", "scaffold"])
def test_local_training_ends_as_well_and_what_it_remembers_is_not_lost(
    tmp_path: Path, aggregator: str
) -> None:
    rate = 0.3 if aggregator == "fedadam" else 1.0
    local = {"local_steps": 3, "aggregator": aggregator, "server_learning_rate": rate, "update_clip": 20.0}
    changes = {
        "privacy__epsilon": 30.0,
        "training__mode": "local",
        "training__rounds": 4,
        "training__steps_per_round": 4,
        "training__momentum": 0.0,
        "local": local,
    }

    async def scenario() -> None:
        async with fleet(tmp_path, sites=SITES) as network:
            plan = study("undisturbed", sites=SITES, tolerance=TOLERANCE, **changes)
            tables = network.tables(plan)
            found, status = await network.run(plan)
            assert found is not None
            undisturbed = auc(plan, found.parameters, tables)
            assert undisturbed > 0.75
            bad, *others = network.names()
            droppers = others[:3]
            plan = study("disturbed", sites=SITES, tolerance=TOLERANCE, **changes)
            sums = {bad: FaultySums(network.node(bad), _wrong_shape)}
            for seed, dropper in enumerate(droppers):
                sums[dropper] = FaultySums(network.node(dropper), _drops(seed))
            found, status = await network.run(plan, sums=sums)
            assert found is not None, status
            quality = auc(plan, found.parameters, tables)
            print(f"{aggregator}: AUC {quality:.4f} ({undisturbed:.4f} undisturbed), {status.steps} steps")
            assert (status.state, status.round) == ("finished", plan.training.rounds)
            assert abs(quality - undisturbed) < 0.02
            assert status.quarantined == {str(bad): "protocol-violation"}
            _checked(network, plan, status, bad=bad, droppers=droppers)
            if aggregator == "fedadam":
                assert found.memory[-1] == status.steps, "of all rounds, broken ones too"

    asyncio.run(scenario())


def test_a_late_site_is_cut_at_the_plans_deadline_and_asked_again_in_the_next_round(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path, sites=4) as network:
            plan = study("late", sites=4, tolerance=1, training__rounds=2, sites__step_deadline_s=1.0)
            late = network.names()[0]
            sums = {late: FaultySums(network.node(late), _late)}
            _, status = await network.run(plan, sums=sums)
            assert (status.state, status.steps) == ("finished", plan.training.steps)
            assert status.refusals == {str(late): "deadline"}
            assert max(status.seconds_per_round) < 6.0  # 1 s, and not the 4 s of each of its steps
            assert (
                network.steps_charged(plan)[late] == 2 * 2
            )  # two rounds, and in each up to where it was late
            _checked(network, plan, status, bad=None, droppers=[late])

    asyncio.run(scenario())


def test_a_vector_that_no_honest_site_can_have_ends_the_run_and_nobody_is_named(tmp_path: Path) -> None:
    """Under a mask nothing can be looked at: the total alone tells that somebody lied, not who."""

    async def scenario() -> None:
        async with fleet(tmp_path, sites=4) as network:
            plan = study("liar", sites=4, tolerance=1)
            liar, *honest = network.names()

            noise = study_noise.noise_plan(plan, participants=4, tolerance=1)
            lie = noise.encode(np.full(plan.parameters, 50_000.0))  # as if of 130,000 patients

            def lies(_node: CuttableNode, step: int, vector: Vector) -> Vector | None:
                return vector + lie if step == 2 else None

            found, status = await network.run(plan, sums={liar: FaultySums(network.node(liar), lies)})
            assert (status.state, status.refusal) == ("failed", RefusalCode.PROTOCOL_VIOLATION)
            assert status.quarantined == {}
            assert found is not None
            assert (found.round, found.steps) == (1, 2)  # what was learned before is kept
            assert np.isfinite(found.parameters).all()
            charged = network.steps_charged(plan)
            assert all(charged[name] in (3, 4) for name in honest)  # no step was asked for twice
            assert network.held() == 0

    asyncio.run(scenario())


def test_within_its_bound_a_liar_bends_a_step_by_no_more_than_the_threat_model_says() -> None:
    plan = study("bound", sites=4, tolerance=1)
    noise = study_noise.noise_plan(plan, participants=4, tolerance=1)
    assert isinstance(noise, NoisePlan)
    longest = study_noise.total_bounds(plan, noise, contributors=4).longest
    step = plan.training.learning_rate * longest / plan.training.expected_patients
    most = study_noise.MOST_TIMES * plan.training.learning_rate * plan.privacy.clip_norm
    assert step == pytest.approx(most, rel=0.1)  # ten honest steps of full length, noise aside
