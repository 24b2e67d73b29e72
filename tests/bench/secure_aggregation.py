"""Secure aggregation of a million parameters from eight sites, beside the same wire without it, in one run.

All sites, the coordinator and the wire (gRPC, mutual TLS, loopback) are in one process, on the same cores:
what eight hospitals would do at the same time is done one after another, so what masks cost in computing is
seen eight times over. `masked` has all of it in its time; `masked_ahead` has masks expanded before, as a
site can while it computes its gradient. Plaintext and masked steps alternate, from each site's vector of
float64 to the total in float64 at every site. "Plaintext" sends float32, unmasked, in the same pieces over
the same streams; the coordinator adds them as they come. Under masks the values cross as integers on the
plan's lattice, as many in a word of 64 bits as the plan's totals leave room for. Noise is
left out: that is what privacy costs.

CKKS is measured without the wire, as in `tests.bench.encrypted`: processor time, and bytes of one site.
"""

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.server import Serving
from node.running import Parts, RunningNode
from privacy.lanes import laid, words_for
from privacy.lattice import NoisePlan
from privacy.long_vectors import ready_for_long_vectors
from protocols.ids import NodeId, SessionId
from protocols.pieces import PIECE_BYTES, pieces
from protocols.wire import fedtwin_pb2 as pb
from tests.bench.encrypted import _encrypted
from tests.bench.figure import Figure
from tests.network.consortium import Consortium, until
from tests.privacy.sum_network import SumNetwork, node

SITES = 8
PARAMETERS = 1_000_000
GOAL_WALL, GOAL_BYTES = 1.5, 2.1  # of the plaintext
LARGE = 100_000_000
LARGE_SITES = 3
MOST = np.uint64(100_003)  # so far the numbers of a long vector go up; six times it fit into 21 bits
PLAIN_BYTES = 4  # float32
CONTEXT = bytes(32)


def plan_for(*, values: int, sites: int, patients: int = 10_000) -> NoisePlan:
    """Return the plan of a step of shared-noise training with a clip norm of 1."""
    return NoisePlan.for_reals(
        sigma=8.0,
        l2_clip_norm=1.0,
        sites_per_patient=2,
        participants=sites,
        tolerance=1,
        dimension=values,
        largest=float(patients),
    )


def figures(*, quick: bool) -> Iterator[Figure]:
    """Yield wall time and bytes under masks against plaintext, CKKS beside them, and a step of 1e8."""
    values, repeats = (200_000, 2) if quick else (PARAMETERS, 7)
    ready_for_long_vectors()  # as hospitals' and coordinators' servers do; plaintext gains by it too
    with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as folder:
        found = asyncio.run(_measured(Path(folder), values=values, repeats=repeats))
    label, plain = f"secure_aggregation.{values}x{SITES}", found["plaintext"]
    goal = f"plaintext float32 on the same wire; goal: up to {GOAL_WALL:g} times"
    yield Figure(f"{label}.plaintext.wall", round(plain.wall_ms, 1), "ms")
    yield Figure(f"{label}.plaintext.cpu", round(plain.cpu_ms, 1), "ms of CPU, all sites and the coordinator")
    for name in ("masked", "masked_ahead"):
        cost = found[name]
        yield Figure(f"{label}.{name}.wall", round(cost.wall_ms, 1), "ms", plain.wall_ms, goal)
        each = [a / b for a, b in zip(cost.walls_s, plain.walls_s, strict=True)]
        yield Figure(
            f"{label}.{name}.wall_ratio", round(statistics.median(each), 2), "median of pairs", GOAL_WALL
        )
        yield Figure(f"{label}.{name}.cpu", round(cost.cpu_ms, 1), "ms of CPU", plain.cpu_ms, "plaintext")
    goal = f"plaintext float32 on the same wire; goal: up to {GOAL_BYTES:g} times"
    yield Figure(f"{label}.plaintext.bytes", plain.bytes_per_value, "bytes a parameter, up and down")
    masked = found["masked"].bytes_per_value
    yield Figure(
        f"{label}.masked.bytes", masked, "bytes a parameter, up and down", plain.bytes_per_value, goal
    )
    yield Figure(
        f"{label}.masked.bytes_against_float64",
        masked,
        "bytes a parameter, up and down",
        2 * plain.bytes_per_value,
        "plaintext float64",
    )
    yield Figure(
        f"{label}.masked.largest_error",
        found["masked"].error,
        "of a sum of values in ±16 that would carry noise of σ 8",
    )
    yield from _ckks(values=values, sites=3 if quick else SITES, plain=plain)
    yield from _large(values=1_000_000 if quick else LARGE)


@dataclass
class Cost:
    """What the steps of one kind took."""

    values: int
    walls_s: list[float] = field(default_factory=list)
    cpus_s: list[float] = field(default_factory=list)
    sent: int = 0  # bytes by all sites, in one step
    received: int = 0
    error: float = 0.0

    @property
    def wall_ms(self) -> float:
        return 1000.0 * statistics.median(self.walls_s)

    @property
    def cpu_ms(self) -> float:
        return 1000.0 * statistics.median(self.cpus_s)

    @property
    def bytes_per_value(self) -> float:
        return round((self.sent + self.received) / (SITES * self.values), 3)


class CountingNode(RunningNode):
    """A node that counts what crosses its stream, and takes totals that were added in the open."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.sent = self.received = 0
        self.counting = True
        self.plain_session = b""
        self.plain_total = np.zeros(0, dtype=np.float64)
        self.plain_left = 0
        self.plain_done = asyncio.Event()
        send, handle = self.stream.send, self.stream._handle

        def counted(frame: pb.NodeFrame) -> None:
            self.sent += frame.ByteSize() if self.counting else 0
            send(frame)

        async def taken(frame: pb.CoordinatorFrame) -> None:
            self.received += frame.ByteSize() if self.counting else 0
            result = frame.sum_result
            if frame.WhichOneof("body") != "sum_result" or result.session_id != self.plain_session:
                await handle(frame)
                return
            part = np.frombuffer(result.total, dtype="<f4")
            self.plain_total[result.offset : result.offset + part.size] = part
            self.plain_left -= part.size
            if not self.plain_left:
                self.plain_done.set()

        self.stream.send, self.stream._handle = counted, taken  # type: ignore[method-assign]  # to count

    async def aggregate_plainly(self, session: bytes, vector: np.ndarray) -> np.ndarray:
        """Send the vector as float32 and return the total."""
        self.plain_session, self.plain_left = session, vector.size
        self.plain_total = np.empty(vector.size)
        self.plain_done.clear()
        data = vector.astype("<f4")
        for piece in _plain_pieces(vector.size):
            await self.stream.room()
            sent = pb.SumInput(session_id=session, context=CONTEXT, masked=data[piece].tobytes())
            sent.offset, sent.length = piece.start, vector.size
            self.send(pb.NodeFrame(sum_input=sent))
        await self.plain_done.wait()
        return self.plain_total


def _plain_pieces(values: int) -> Iterator[slice]:
    """Yield pieces of as many bytes as masked vectors travel in."""
    size = PIECE_BYTES // PLAIN_BYTES
    for start in range(0, values, size):
        yield slice(start, min(start + size, values))


@dataclass
class PlainAdder:
    """The coordinator's part without secrets: adds what comes, and tells everybody."""

    broker: Any
    total: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    session: bytes = b""
    left: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, session: bytes, values: int) -> None:
        self.session, self.left = session, SITES * values
        self.total = np.zeros(values, dtype=np.float32)
        self.done.clear()

    def connected(self, node: NodeId, hello: pb.Hello) -> None:
        """Nothing."""

    def lost(self, node: NodeId) -> None:
        """Nothing."""

    def heard(self, node: NodeId, frame: pb.NodeFrame) -> None:
        sent = frame.sum_input
        if frame.WhichOneof("body") != "sum_input" or sent.session_id != self.session:
            return
        part = np.frombuffer(sent.masked, dtype="<f4")
        self.total[sent.offset : sent.offset + part.size] += part
        self.left -= part.size
        if not self.left:
            self.done.set()

    async def tell(self) -> None:
        """Send the total to all, once it is whole."""
        await self.done.wait()
        nodes = self.broker.connected()
        for piece in _plain_pieces(self.total.size):
            result = pb.SumResult(session_id=self.session, total=self.total[piece].tobytes())
            result.offset, result.length = piece.start, self.total.size
            await self.broker.room(nodes)
            self.broker.send_all(nodes, pb.CoordinatorFrame(sum_result=result))


@contextlib.asynccontextmanager
async def _running(
    folder: Path, *, sites: int = SITES
) -> AsyncIterator[tuple[Serving, list[CountingNode], PlainAdder]]:
    consortium = Consortium(folder, sites=sites)
    consortium.found()
    async with consortium.coordinator() as serving:
        await consortium.enrol_all()
        async with consortium.nodes(make=CountingNode) as nodes:
            await until(lambda: len(serving.broker.connected()) == sites)
            adder = PlainAdder(serving.broker)
            serving.broker.listen(adder)
            yield serving, nodes, adder  # type: ignore[misc]  # CountingNode is what `make` makes


async def _measured(folder: Path, *, values: int, repeats: int) -> dict[str, Cost]:
    plan = plan_for(values=values, sites=SITES)
    rng = np.random.default_rng(1)
    vectors = [rng.uniform(-16.0, 16.0, values) for _ in range(SITES)]
    expected = np.sum(vectors, axis=0)
    found = {name: Cost(values) for name in ("plaintext", "masked", "masked_ahead")}
    async with _running(folder) as (serving, nodes, adder):
        session = await serving.sums.open(
            serving.broker.connected(),
            steps=2 * (repeats + 1),
            purpose="questions",
            tolerance=1,
            most_values=values,
        )
        for each in nodes:
            await each.sums.opened(session.id)

        async def masked(step: int) -> list[np.ndarray]:
            async def one(each: CountingNode, vector: np.ndarray) -> np.ndarray:
                words = await asyncio.to_thread(lambda: plan.to_send(plan.encode(vector)))
                await each.sums.contribute(session.id, step, CONTEXT, words, lanes=plan.lanes)
                total = await each.sums.result(session.id, step)
                return await asyncio.to_thread(plan.decode, total)

            adding = [
                asyncio.create_task(one(each, vector)) for each, vector in zip(nodes, vectors, strict=True)
            ]
            await session.step(step, deadline_s=120, broadcast=True)
            return await asyncio.gather(*adding)

        async def plainly(_: int) -> list[np.ndarray]:
            secret = SessionId.new().raw
            adder.begin(secret, values)
            adding = [each.aggregate_plainly(secret, v) for each, v in zip(nodes, vectors, strict=True)]
            return (await asyncio.gather(adder.tell(), *adding))[1:]

        for repeat in range(repeats + 1):  # the first of each warms up
            kept = repeat > 0
            await _timed(nodes, expected, found["plaintext"], plainly, step=0, kept=kept)
            await _timed(nodes, expected, found["masked"], masked, step=session.take_step(), kept=kept)
            step = session.take_step()
            for each in nodes:
                await each.sums.prepare(session.id, step, CONTEXT, values, lanes=plan.lanes)
            await _timed(nodes, expected, found["masked_ahead"], masked, step=step, kept=kept)
        session.close()
    if found["masked"].error > SITES * 2.0 ** (plan.cut_bits - plan.scale_bits):
        raise AssertionError("the total is not the sum")
    return found


async def _timed(
    nodes: list[CountingNode],
    expected: np.ndarray,
    cost: Cost,
    run: Callable[[int], Any],
    *,
    step: int,
    kept: bool,
) -> None:
    before = [(each.sent, each.received) for each in nodes]
    for each in nodes:
        each.counting = not kept  # it takes time, and a step has the same bytes every time
    began, cpu = time.perf_counter(), time.process_time()
    totals = await run(step)
    taken = time.perf_counter() - began
    if kept:
        cost.walls_s.append(taken)
        cost.cpus_s.append(time.process_time() - cpu)
    else:
        cost.sent += sum(each.sent - was[0] for each, was in zip(nodes, before, strict=True))
        cost.received += sum(each.received - was[1] for each, was in zip(nodes, before, strict=True))
    cost.error = max(cost.error, *(float(np.abs(total - expected).max()) for total in totals))


def _ckks(*, values: int, sites: int, plain: Cost) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as folder:
        cost = _encrypted("ckks", values, sites, Path(folder))
    label = f"secure_aggregation.{values}x{sites}.ckks"
    against = "plaintext float32 on the same wire"
    yield Figure(f"{label}.site_cpu", round(1000 * cost.site_s / sites, 1), "ms of CPU a site")
    yield Figure(
        f"{label}.centre_cpu", round(1000 * cost.centre_s, 1), "ms of CPU, coordinator and key-holder"
    )
    both = (cost.sent + cost.received) / values
    yield Figure(
        f"{label}.bytes", round(both, 1), "bytes a parameter, up and down", plain.bytes_per_value, against
    )
    yield Figure(f"{label}.largest_error", 0.0, "the total is compared bit for bit")


def _large(*, values: int) -> Iterator[Figure]:
    """Yield time and memory of a long sum, in processes of its own whose peaks are their own."""
    found, wired = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", f"from tests.bench import secure_aggregation as b; b.{run}({values})"],
                check=True,
                capture_output=True,
            ).stdout
        )
        for run in ("add_large", "send_large")
    )
    label = f"secure_aggregation.{values}x{LARGE_SITES}.masked"
    yield Figure(f"{label}.wall", found["wall_s"], "s, all parties and the collector in one thread")
    yield Figure(f"{label}.bytes", round(found["bytes"], 2), "bytes a parameter, up", 4, "plaintext float32")
    yield Figure(
        f"{label}.memory",
        found["grown_mb"],
        "MiB that VmHWM grew, collector and parties",
        round(8 * values / 2**20),
        "numbers of 8 bytes a parameter",
    )
    yield Figure(f"{label}.wire.wall", wired["wall_s"], "s, all sites and the coordinator in one process")
    yield Figure(f"{label}.wire.memory", wired["grown_mb"], "MiB, of all of them: each holds its own numbers")


def send_large(values: int) -> None:
    """Add one vector as often as there are sites, over the wire, from encoding to decoding; print JSON."""
    ready_for_long_vectors()
    with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as folder:
        found = asyncio.run(_sent(Path(folder), values=values))
    sys.stdout.write(json.dumps(found))


async def _sent(folder: Path, *, values: int) -> dict[str, float]:
    plan = plan_for(values=values, sites=LARGE_SITES)
    vector = np.random.default_rng(1).uniform(-16.0, 16.0, values)
    async with _running(folder, sites=LARGE_SITES) as (serving, nodes, _):
        session = await serving.sums.open(
            serving.broker.connected(), steps=1, purpose="questions", tolerance=1, most_values=values
        )
        for each in nodes:
            await each.sums.opened(session.id)
            each.counting = False
        step, before, began = session.take_step(), _peak_mb(), time.perf_counter()

        async def one(each: CountingNode) -> float:
            words = await asyncio.to_thread(lambda: plan.to_send(plan.encode(vector)))
            await each.sums.contribute(session.id, step, CONTEXT, words, lanes=plan.lanes)
            del words
            total = await each.sums.result(session.id, step, deadline_s=300)
            found = await asyncio.to_thread(plan.decode, total)
            return float(np.abs(found - LARGE_SITES * vector).max())

        adding = [asyncio.create_task(one(each)) for each in nodes]
        await session.step(step, deadline_s=300, broadcast=True)
        error = max(await asyncio.gather(*adding))
        taken = time.perf_counter() - began
        session.close()
    if error > LARGE_SITES * 2.0 ** (plan.cut_bits - plan.scale_bits):
        raise AssertionError("the total is not the sum")
    return {"wall_s": round(taken, 1), "grown_mb": round(_peak_mb() - before)}


def add_large(values: int) -> None:
    """Add vectors that nobody holds as a whole, a piece at a time from first to last; print JSON."""
    plan = plan_for(values=values, sites=LARGE_SITES)
    network, lanes = SumNetwork(LARGE_SITES, colluders=0).open(), plan.lanes
    words = words_for(values, lanes=lanes)
    before, began = _peak_mb(), time.perf_counter()
    for index in range(LARGE_SITES):
        masking = network.parties[index].masking(step=0, context=CONTEXT, length=words)
        for piece in pieces(words):
            numbers = np.arange(piece.start * lanes, min(piece.stop * lanes, values), dtype=np.uint64)
            part = laid(numbers % MOST * np.uint64(index + 1), lanes=lanes)
            masking.lay_over(part)
            network.collector.piece(
                node(index),
                part.tobytes(),
                step=0,
                context=CONTEXT,
                lanes=lanes,
                offset=piece.start,
                length=values,
            )
        if not network.collector.add(node(index), step=0):
            raise AssertionError("the vector is not in the sum")
    network.open_masks()
    total = network.collector.opened(0)
    taken = time.perf_counter() - began
    grown = round(_peak_mb() - before)
    if not np.array_equal(total.signed(), 6 * (np.arange(values, dtype=np.uint64) % MOST)):
        raise AssertionError("the total is not the sum")
    found = {"wall_s": round(taken, 2), "grown_mb": grown, "bytes": 8 / lanes}
    sys.stdout.write(json.dumps(found))


def _peak_mb() -> float:
    """Return VmHWM, the most memory this process has held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
