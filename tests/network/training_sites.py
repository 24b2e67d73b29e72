"""Hospitals that train over the real broker, and what can be wrong with some of them.

Everything is there but Flower's transport: coordinator and nodes over gRPC with mutual TLS, stores, ledgers,
policies, masks; the rounds' messages are passed from thread to thread.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message

from coordinator.flower.round_source import BrokerRounds, open_lead_channel
from coordinator.flower.run_folder import Checkpoint, RunFolder, Status
from coordinator.flower.server_app import by_name
from coordinator.flower.training_rounds import train
from node.features.study_rows import feature_table
from node.features.table import FeatureTable
from node.flower.client_app import answer
from node.policy import starter
from node.running import Parts, RunningNode
from node.training.models import probabilities
from node.training.rounds import Trainer
from protocols import proposal
from protocols.ids import NodeId, SessionId
from protocols.refusal import RefusalCode, Refused
from protocols.study import Study
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc
from tests.network.consortium import CLOCK, PROJECT, Consortium, until
from tests.node.patients import DAY, HEART_FAILURE, SBP, Patient, fill_new
from tests.protocols.study_forms import study_form

PATIENTS = 220  # at each site
WIDE = {b"max_epsilon = 4.0": b"max_epsilon = 40.0", b"epsilon_total = 20.0": b"epsilon_total = 74.0"}


def study(name: str, *, sites: int, tolerance: int, **changes: Any) -> Study:
    """Return a small plan with a public half of its ε to spare: noise hardly matters, faults do."""
    training = {
        "rounds": 4,
        "steps_per_round": 4,
        "learning_rate": 2.0,
        "momentum": 0.3,
        "expected_patients": PATIENTS * sites,
        "train_fraction": 0.7,
    }
    form = study_form(
        study={"name": name, "project": PROJECT, "model": "logistic"},
        training=training,
        privacy={"epsilon": 8.0, "delta": 1e-5, "clip_norm": 1.0, "max_sites_per_patient": 2},
        sites={"minimum": max(3, sites - tolerance - 1), "tolerance": tolerance, "step_deadline_s": 10.0},
    )
    for key, value in changes.items():
        section, _, inner = key.partition("__")
        if inner:
            form[section][inner] = value
        else:
            form[section] = value
    return Study.from_json(form)


def patients(count: int, *, seed: int) -> list[Patient]:
    """Return people whose heart failure hangs on age, pressure and sex."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        born, pressure, male = int(rng.integers(1930, 1990)), float(rng.uniform(95, 185)), rng.random() < 0.5
        logit = 0.07 * (1965 - born) + 0.04 * (pressure - 140) + 0.8 * male - 0.4
        ill = rng.random() < 1.0 / (1.0 + np.exp(-logit))
        found.append(
            Patient(
                number + 1,
                born=born,
                sex=8507 if male else 8532,
                measurements=[(SBP, pressure, DAY)],
                conditions=[(HEART_FAILURE, DAY)] if ill else [],
            )
        )
    return found


class CuttableNode(RunningNode):
    """A node whose stream a test can end."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        hold = self.stream._hold
        self._call: Any = None

        async def remembering(call: Any) -> None:
            self._call = call
            await hold(call)

        self.stream._hold = remembering  # type: ignore[method-assign]

    def cut(self) -> None:
        """End the stream, as a line that is cut does. The node comes back by itself."""
        self._call.cancel()


class FaultySums:
    """A site's secure sums with something wrong: `at` is called before each input and may change it."""

    def __init__(self, node: CuttableNode, at: Callable[[CuttableNode, int, np.ndarray], Any]) -> None:
        self._node, self._at = node, at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node.sums, name)

    async def contribute(
        self, session: SessionId, step: int, context: bytes, vector: np.ndarray, **more: Any
    ) -> None:
        found = self._at(self._node, step, vector)
        if asyncio.iscoroutine(found):
            found = await found
        await self._node.sums.contribute(session, step, context, vector if found is None else found, **more)


@dataclass
class Fleet:
    """The hospitals of a network at work."""

    consortium: Consortium
    nodes: list[CuttableNode]
    home: Path
    trainers: dict[NodeId, Trainer] = field(default_factory=dict)

    def names(self) -> list[NodeId]:
        return [node._parts.me for node in self.nodes]

    def node(self, name: NodeId) -> CuttableNode:
        return next(node for node in self.nodes if node._parts.me == name)

    def trainer(self, name: NodeId, sums: Any = None) -> Trainer:
        node = self.node(name)
        parts = node._parts
        return Trainer(
            approvals=parts.approvals,
            policy=parts.policy,
            ledger=parts.ledger,
            audit=parts.audit,
            store=parts.store(),
            sums=sums or node.sums,
            loop=asyncio.get_running_loop(),
            split_key=node._parts.me.raw,
            bits=parts.bits,
            clock=parts.clock,
            dataset=parts.dataset,
        )

    def tables(self, plan: Study) -> list[FeatureTable]:
        return [feature_table(plan, node._parts.store()) for node in self.nodes]

    async def propose(self, plan: Study) -> None:
        """Let the lead propose the plan, and every hospital approve it."""
        lead = self.consortium.lead
        for node in self.nodes:
            node._parts.approvals.approve(plan, clock=CLOCK)
        async with self.consortium.channel(lead) as channel:
            envelope = proposal.signed(plan, signer=lead.name, key=lead.identity_key())
            stub = fedtwin_pb2_grpc.ResearchStub(channel)
            await stub.ProposeStudy(pb.ProposeStudyRequest(study_envelope=envelope))

    async def run(
        self,
        plan: Study,
        *,
        sums: dict[NodeId, Any] | None = None,
        replies: dict[NodeId, Callable[[Message, Message], Message]] | None = None,
    ) -> tuple[Checkpoint | None, Status]:
        """Run the plan; return its model and the run's last status. Faults by node: in sums, in replies."""
        from tests.coordinator.test_training_rounds import Memory

        await self.propose(plan)
        handlers = {}
        for name in self.names():
            trainer = self.trainers[name] = self.trainer(name, (sums or {}).get(name))
            handlers[name] = _handler(trainer, (replies or {}).get(name))
        grid, folder = Memory(handlers), RunFolder(self.home, plan.name)
        folder.create(plan)

        def running() -> Checkpoint | None:
            with open_lead_channel(self.consortium.home.path) as channel, contextlib.suppress(Refused):
                return train(plan, folder=folder, grid=grid, source=BrokerRounds(channel), directory=by_name)
            return folder.checkpoint(plan)

        found = await asyncio.to_thread(running)
        status = folder.status()
        assert status is not None
        await asyncio.to_thread(grid.join)
        return found, status

    def steps_charged(self, plan: Study) -> dict[NodeId, int]:
        return {name: trainer.steps_taken(plan.plan_hash()) for name, trainer in self.trainers.items()}

    def held(self) -> int:
        """Return how many reservations are open anywhere."""
        from privacy.budget import Selection

        return sum(node._parts.ledger.open_reservations(Selection()) for node in self.nodes)


def _handler(
    trainer: Trainer, bend: Callable[[Message, Message], Message] | None
) -> Callable[[Message], Message]:
    def handle(message: Message) -> Message:
        found = answer(message, trainer)
        return found if bend is None else bend(message, found)

    return handle


@contextlib.asynccontextmanager
async def fleet(folder: Path, *, sites: int) -> AsyncIterator[Fleet]:
    """Start a coordinator and `sites` hospitals with patients; stop all of it at the end."""
    consortium = Consortium(folder, sites=sites)
    consortium.found()
    async with consortium.coordinator() as serving:
        for site in range(sites):
            await enrol(consortium, site)
        async with consortium.nodes(make=CuttableNode) as nodes:
            await until(lambda: len(serving.broker.connected()) == sites)
            yield Fleet(consortium, nodes, folder / "runs")  # type: ignore[arg-type]


async def enrol(consortium: Consortium, site: int) -> None:
    """Let one hospital join, with patients and a wide policy; needs a serving coordinator."""
    from node.enrolment import join

    with contextlib.closing(consortium.home.open_state()) as state:
        token = consortium.home.invite(state, f"Hospital {site}", clock=CLOCK).to_token()
    home = consortium.node(site)
    await asyncio.to_thread(join, home, token, clock=CLOCK)
    policy = starter("demo").replace(b'"*" = 20.0', b'"*" = 74.0').replace(b'"*" = 10.0', b'"*" = 74.0')
    for old, new in WIDE.items():
        assert old in policy
        policy = policy.replace(old, new)
    home.policy.write_bytes(policy)
    home.store.parent.mkdir()
    fill_new(home.store, f"training {site}", lambda: patients(PATIENTS, seed=site))


def auc(plan: Study, parameters: np.ndarray, tables: list[FeatureTable]) -> float:
    """Return the area under the curve over everybody, by ranks."""
    scores = np.concatenate([probabilities(plan, parameters, table.x) for table in tables])
    y = np.concatenate([table.y for table in tables])
    ranks = np.argsort(np.argsort(scores)) + 1.0
    ill = y > 0.5
    return float((ranks[ill].sum() - ill.sum() * (ill.sum() + 1) / 2) / (ill.sum() * (~ill).sum()))


REFUSED = Refused(RefusalCode.NOT_READY)
