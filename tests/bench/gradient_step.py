"""Milliseconds of one DP gradient step of a round: eight hospitals, 100,000 parameters, gRPC over mutual TLS.

In one process, and so on the same two cores: rounds as they are (gradient, noise share, ledger, audit line,
masks, survivors, reveal, total, descent) and, in turn with them, rounds with the masks and their opening
taken out and everything else left in. A gradient is timed inside its step, where all sites compute at once.
"""

import asyncio
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.running import RunningNode
from node.sums import OpenSession
from node.training import contributions
from node.training.gradient import Sums as ClippedSums
from node.training.gradient import clipped_sums
from node.training.round_sums import Sums
from node.training.rounds import Trainer
from privacy import study_noise, walks
from privacy.lanes import laid
from privacy.long_vectors import ready_for_long_vectors
from privacy.secure_sum import SessionParameters, threshold_for
from protocols import proposal
from protocols.ids import NodeId, SessionId
from protocols.refusal import RefusalCode
from protocols.round import RoundRequest
from protocols.study import Study
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc
from tests.bench.figure import Figure
from tests.network.consortium import CLOCK, PROJECT, Consortium, until
from tests.network.totals import numbers_of
from tests.protocols.study_forms import study_form

SITES = 8
GOAL_BEYOND_MS = 100.0
GOAL_RATIO = 3.0
WARM_UP_STEPS = 2  # of each round: session set-up, features, first tables of the noise sampler


@dataclass
class Times:
    """Milliseconds of each step, and of the slowest site's gradient in it."""

    steps: list[float] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)

    def add(self, arrivals: list[float], gradients: dict[int, list[float]]) -> None:
        """Take the times at which totals came and, by thread, how long each gradient took (s)."""
        slowest = np.max(list(gradients.values()), axis=0)[1:]  # the first total has no total before it
        self.steps += list(1000.0 * np.diff(arrivals)[WARM_UP_STEPS:])
        self.gradients += list(1000.0 * slowest[WARM_UP_STEPS:])

    @property
    def beyond(self) -> float:
        """Median of what a step takes besides the gradient."""
        return statistics.median(np.subtract(self.steps, self.gradients))


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield the step, the same without masks, and the gradient."""
    count, steps = (1, 6) if quick else (4, 12)
    ready_for_long_vectors()  # as hospitals' and coordinators' servers do
    with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as folder:
        masked, plain = asyncio.run(_measured(Path(folder), count=count, steps=steps))
    step, without = statistics.median(masked.steps), statistics.median(plain.steps)
    yield Figure("gradient_step", step, "ms", without, f"without masks; goal: ratio up to {GOAL_RATIO:g}")
    yield Figure("gradient_step.gradient", statistics.median(masked.gradients), "ms")
    yield Figure("gradient_step.beyond_the_gradient", masked.beyond, "ms", GOAL_BEYOND_MS, "goal")
    yield Figure("gradient_step.beyond_without_masks", plain.beyond, "ms")


def _study(*, count: int, steps: int, name: str) -> Study:
    """An MLP of 100,077 parameters over 252 columns, none of which these patients have."""
    codes = list(range(63))
    features = [
        {"name": f"f{n}", "kind": "category", "table": "observation", "concept_id": n + 1, "codes": codes}
        for n in range(4)
    ]
    training = {"rounds": count, "steps_per_round": steps, "learning_rate": 0.1, "expected_patients": 1000}
    return Study.from_json(
        study_form(
            study={"name": name, "project": PROJECT, "model": "mlp", "hidden": [394]},
            features=features,
            training=training | {"train_fraction": 1.0},
            privacy={"epsilon": 2.0, "delta": 1e-6, "clip_norm": 1.0, "max_sites_per_patient": 2},
        )
    )


async def _measured(folder: Path, *, count: int, steps: int) -> tuple[Times, Times]:
    """Return the times with and without masks."""
    masked = _study(count=count, steps=steps, name="masked")
    plain = _study(count=count, steps=steps, name="plain")
    with_masks, without = Times(), Times()
    async with _network(folder) as (consortium, serving, nodes):
        for node in nodes:
            for study in (masked, plain):
                node._parts.approvals.approve(study, clock=CLOCK)
        adder = PlainAdder(serving.broker)
        serving.broker.listen(adder)
        for number in range(1, count + 1):
            await _round_over_the_broker(consortium, nodes, masked, number, with_masks)
            await _round_without_masks(adder, nodes, plain, number, without)
    return with_masks, without


@asynccontextmanager
async def _network(folder: Path) -> AsyncIterator[tuple[Consortium, Any, list["PlainNode"]]]:
    consortium = Consortium(folder, sites=SITES)
    consortium.found()
    async with consortium.coordinator() as serving:
        await consortium.enrol_all()
        async with consortium.nodes(make=PlainNode) as nodes:
            await until(lambda: len(serving.broker.connected()) == SITES)
            yield consortium, serving, nodes  # type: ignore[misc]


async def _round_over_the_broker(
    consortium: Consortium, nodes: list["PlainNode"], study: Study, number: int, times: Times
) -> None:
    """Run a round as the lead's ServerApp does."""
    lead = consortium.lead
    async with consortium.channel(lead) as channel:
        stub = fedtwin_pb2_grpc.ResearchStub(channel)
        envelope = proposal.signed(study, signer=lead.name, key=lead.identity_key())
        await stub.ProposeStudy(pb.ProposeStudyRequest(study_envelope=envelope))
        asked = pb.OpenRoundRequest(
            plan_hash=study.plan_hash(), round=number, steps=study.training.steps_per_round
        )
        arrivals: list[float] = []
        training: asyncio.Future[dict[int, list[float]]] | None = None
        async for event in stub.OpenRound(asked):
            if event.WhichOneof("body") == "opened":
                session = SessionId(event.opened.session_id)
                sums = [(node, node.sums) for node in nodes]
                training = asyncio.ensure_future(_train(study, session, number, sums))
            elif event.WhichOneof("body") == "sum":
                arrivals.append(time.perf_counter())
            else:
                raise RuntimeError(event.refusal)
        assert training is not None
        times.add(arrivals, await training)


async def _round_without_masks(
    adder: "PlainAdder", nodes: list["PlainNode"], study: Study, number: int, times: Times
) -> None:
    """Run the same round with plain vectors."""
    parameters = SessionParameters(
        session_id=SessionId.new(),
        participants=tuple(sorted(node._parts.me for node in nodes)),
        threshold=threshold_for(SITES, colluders=1),
        steps=study.training.steps_per_round,
        purpose=study_noise.session_purpose(study.plan_hash()),
        round=number,
    )
    adder.arrivals.clear()
    adder.session = parameters.session_id.raw
    sums = [(node, PlainSums(node, OpenSession(parameters, 1))) for node in nodes]
    times.add(adder.arrivals, await _train(study, parameters.session_id, number, sums))


async def _train(
    study: Study, session: SessionId, number: int, nodes: Iterable[tuple["PlainNode", Sums]]
) -> dict[int, list[float]]:
    """Let every site train the round; return by thread how long each gradient took (s)."""
    request = RoundRequest(study.plan_hash(), number, session, walks.initial(study))
    trainers = [_trainer(node, sums) for node, sums in nodes]
    taken: dict[int, list[float]] = defaultdict(list)

    def timed(*args: Any, **named: Any) -> ClippedSums:
        started = time.perf_counter()
        found = clipped_sums(*args, **named)
        taken[threading.get_ident()].append(time.perf_counter() - started)
        return found

    contributions.clipped_sums = timed
    try:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(SITES) as pool:  # as Flower's runner does it: no thread of the loop's own
            replies = await asyncio.gather(*(loop.run_in_executor(pool, t.train, request) for t in trainers))
    finally:
        contributions.clipped_sums = clipped_sums
    assert len({reply.parameters_digest for reply in replies}) == 1
    return taken


def _trainer(node: "PlainNode", sums: Sums) -> Trainer:
    parts = node._parts
    return Trainer(
        approvals=parts.approvals,
        policy=parts.policy,
        ledger=parts.ledger,
        audit=parts.audit,
        store=parts.store(),
        sums=sums,
        loop=asyncio.get_running_loop(),
        split_key=b"of a benchmark only",
        bits=parts.bits,
        clock=parts.clock,
        dataset=parts.dataset,
    )


# ---- the same step without masks: plain vectors over the same streams ----


class PlainNode(RunningNode):
    """A node that also hears the totals of plain sums."""

    def __init__(self, parts: Any) -> None:
        super().__init__(parts)
        self.totals: dict[tuple[bytes, int], asyncio.Future[NDArray[np.uint64]]] = {}
        heard: Callable[[pb.CoordinatorFrame], Any] = self.stream._handle

        async def handle(frame: pb.CoordinatorFrame) -> None:
            result = frame.sum_result
            waiting = self.totals.get((result.session_id, result.step))
            if frame.WhichOneof("body") == "sum_result" and waiting is not None:
                waiting.set_result(numbers_of(result))
            else:
                await heard(frame)

        self.stream._handle = handle


class PlainSums:
    """What a trainer adds to, without any mask."""

    def __init__(self, node: PlainNode, opened: OpenSession) -> None:
        self._node, self._opened = node, opened

    async def opened(self, session: SessionId) -> OpenSession:
        """Return the session, which needs no keys."""
        return self._opened

    def is_open(self, session: SessionId) -> bool:
        """Return that it is: nothing ends it."""
        return True

    async def contribute(
        self,
        session: SessionId,
        step: int,
        context: bytes,
        vector: NDArray[np.uint64],
        *,
        lanes: int,
        before_reveal: Callable[[], None] | None = None,
    ) -> None:
        """Send the vector as it is."""
        self._node.totals[session.raw, step] = asyncio.get_running_loop().create_future()
        data = laid(vector, lanes=lanes).tobytes()
        sent = pb.SumInput(session_id=session.raw, step=step, context=context, masked=data)
        sent.length, sent.lanes = vector.size, lanes
        self._node.send(pb.NodeFrame(sum_input=sent))

    async def prepare(
        self, session: SessionId, step: int, context: bytes, length: int, *, lanes: int
    ) -> None:
        """Nothing: there are no masks."""

    async def withdraw(self, session: SessionId, code: RefusalCode) -> None:
        """Nothing: a bench's sites stay."""

    async def result(self, session: SessionId, step: int, *, deadline_s: float) -> NDArray[np.uint64]:
        """Return the total that the adder sent."""
        async with asyncio.timeout(deadline_s):
            return await self._node.totals[session.raw, step]


@dataclass
class PlainAdder:
    """The coordinator's part, a listener of the broker: adds what comes in its session, and tells all."""

    broker: Any
    session: bytes = b""
    arrivals: list[float] = field(default_factory=list)
    _inputs: dict[tuple[bytes, int], list[NDArray[np.uint64]]] = field(default_factory=dict)

    def connected(self, node: NodeId, hello: pb.Hello) -> None:
        """Nothing."""

    def lost(self, node: NodeId) -> None:
        """Nothing."""

    def heard(self, node: NodeId, frame: pb.NodeFrame) -> None:
        """Take one input; after the last one, send the total."""
        if frame.WhichOneof("body") != "sum_input" or frame.sum_input.session_id != self.session:
            return
        sent = frame.sum_input
        inputs = self._inputs.setdefault((sent.session_id, sent.step), [])
        inputs.append(np.frombuffer(sent.masked, dtype="<u8"))
        if len(inputs) == SITES:
            total = np.sum(inputs, axis=0, dtype=np.uint64).astype("<u8").tobytes()
            self.arrivals.append(time.perf_counter())
            result = pb.SumResult(session_id=sent.session_id, step=sent.step, total=total, contributors=SITES)
            result.length, result.lanes = sent.length, sent.lanes
            self.broker.send_all(self.broker.connected(), pb.CoordinatorFrame(sum_result=result))
