"""Sizes and times of one sum under masks, BFV and CKKS, side by side: 64 counts at ten sites, long vectors.

Everything in one process and one thread: what ten hospitals would do at the same time is done one after
another, and the network is left out. Times are of the processor: what one site, and the coordinator with the
key-holder, have to compute. Bytes are what one site sends and is sent in one step.
"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keyholder.serve import serving as key_holder_serving
from privacy.encryption import SCHEMES
from tests.bench.figure import Figure
from tests.network.consortium import CLOCK, Consortium, until
from tests.privacy.encrypted_network import EncryptedNetwork
from tests.privacy.sum_network import SumNetwork, node

SITES = 10


class Cost:
    """What one step took."""

    def __init__(self) -> None:
        self.site_s = 0.0  # of all sites
        self.centre_s = 0.0
        self.sent = 0  # bytes by one site
        self.received = 0  # bytes by one site


def figures(*, quick: bool) -> Iterator[Figure]:
    """Yield times and sizes by back-end and length; a ratio is to the masked back-end in this run."""
    with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as folder:
        for scheme in SCHEMES:  # what is loaded once is not timed
            _encrypted(scheme, 2, 2, Path(folder))
    lengths = ((64, SITES), (10_000, SITES)) if quick else ((64, SITES), (100_000, SITES), (1_000_000, 3))
    for length, sites in lengths:
        costs = {"masked": _masked(length, sites)}
        with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as folder:
            for scheme in SCHEMES:
                costs[scheme] = _encrypted(scheme, length, sites, Path(folder))
        base = costs["masked"]
        for name, cost in costs.items():
            label = f"encrypted.{name}.{length}x{sites}"
            against = "" if name == "masked" else "the masked back-end in this run"
            for what, unit, factor in (
                ("site_s", "ms of CPU a site", 1000 / sites),
                ("centre_s", "ms of CPU at coordinator and key-holder", 1000),
                ("sent", "bytes sent by a site", 1),
                ("received", "bytes received by a site", 1),
            ):
                value = getattr(cost, what) * factor
                baseline = None if name == "masked" else getattr(base, what) * factor
                yield Figure(f"{label}.{what}", round(value, 3), unit, baseline, against)
    yield from _over_tls(steps=5 if quick else 40)


def _over_tls(*, steps: int) -> Iterator[Figure]:
    """Yield what a hospital waits for: one step of 64 counts over mutual TLS, four sites in this process."""
    base = None
    for scheme in ("masked", *SCHEMES):
        with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as folder:
            median = asyncio.run(_step_ms(Path(folder), scheme, steps=steps))
        against = "the masked back-end in this run" if base else ""
        yield Figure(f"encrypted.{scheme}.64x4.over_tls", round(median, 3), "ms a step", base, against)
        base = base or median


async def _step_ms(folder: Path, scheme: str, *, steps: int) -> float:
    consortium = Consortium(folder, sites=4, secure_sum=scheme)
    consortium.found()
    async with consortium.coordinator() as serving, contextlib.AsyncExitStack() as stack:
        await consortium.enrol_all()
        if scheme in SCHEMES:
            await consortium.enrol_key_holder()
            await stack.enter_async_context(key_holder_serving(consortium.key_holder, clock=CLOCK))
            await until(lambda: serving.key_holder.connected)
        nodes = await stack.enter_async_context(consortium.nodes())
        await until(lambda: len(serving.broker.connected()) == 4)
        session = await serving.sums.open(
            serving.broker.connected(), steps=steps, purpose="questions", tolerance=1
        )
        taken = []
        for _ in range(steps):
            step = session.take_step()
            vectors = _vectors(64, 4)
            await asyncio.sleep(0.1)  # a question's SQL: the next key is there by then
            began = time.perf_counter()
            for node_, vector in zip(nodes, vectors, strict=True):
                await node_.sums.contribute(session.id, step, bytes(32), vector)
            total = await session.step(step, deadline_s=60)
            taken.append(time.perf_counter() - began)
            _checked(total.total, vectors)
        session.close()
    return 1000 * statistics.median(taken)


def _vectors(length: int, sites: int) -> list[np.ndarray]:
    rng = np.random.default_rng(length)
    return [rng.integers(-(2**32), 2**32, length).view(np.uint64) for _ in range(sites)]


def _checked(total: np.ndarray, vectors: list[np.ndarray]) -> None:
    if not np.array_equal(total, np.sum(vectors, axis=0, dtype=np.uint64)):
        raise AssertionError("the total is not the sum")


def _masked(length: int, sites: int) -> Cost:
    """One step of a session that stands: its keys were agreed before."""
    network, vectors, cost = SumNetwork(sites, colluders=1).open(), _vectors(length, sites), Cost()
    context = bytes(32)
    for index in range(sites):
        began = time.process_time()
        masked = network.parties[index].masked(vectors[index], step=0, context=context)
        cost.site_s += time.process_time() - began
        cost.sent += masked.nbytes
        began = time.process_time()
        network.collector.input(node(index), masked, step=0, context=context)
        cost.centre_s += time.process_time() - began
    survivors = network.collector.close(0)
    for index in range(sites):
        began = time.process_time()
        shares = network.parties[index].reveal(step=0, survivors=survivors)
        cost.site_s += time.process_time() - began
        cost.sent += sum(map(len, shares.values()))
        network.collector.reveal(node(index), shares, step=0)
    began = time.process_time()
    total = network.collector.total(0)
    cost.centre_s += time.process_time() - began
    _checked(total, vectors)
    cost.sent //= sites
    cost.received = 16 * sites  # who is in
    return cost


def _encrypted(scheme: str, length: int, sites: int, folder: Path) -> Cost:
    where = folder / f"{scheme}{length}"
    where.mkdir()
    network = EncryptedNetwork(sites, scheme=scheme, folder=where, colluders=1)
    vectors, cost, context = _vectors(length, sites), Cost(), bytes(32)
    began = time.process_time()
    key = network.holder.key(network.parameters, step=0, tolerance=1)
    cost.centre_s += time.process_time() - began
    cost.received += sum(map(len, key))
    for index, party in enumerate(network.parties):
        began = time.process_time()
        party.take_key(0, *key)
        statement = party.seal(vectors[index], step=0, context=context)
        cost.site_s += time.process_time() - began
        network.collector.commit(node(index), statement, step=0)
        cost.sent += len(statement)
    began = time.process_time()
    commitments, fixed = network.fix()
    cost.centre_s += time.process_time() - began
    cost.received += sum(map(len, commitments.values())) + len(fixed)
    shown = {}
    for index, party in enumerate(network.parties):
        began = time.process_time()
        shown[node(index)] = party.release(step=0, commitments=commitments, fixed=fixed)
        cost.site_s += time.process_time() - began
        cost.sent += len(shown[node(index)])
        began = time.process_time()
        network.collector.ciphertext(node(index), shown[node(index)], step=0)
        cost.centre_s += time.process_time() - began
    survivors = network.collector.settle(0)
    network.collector.ciphertexts(0)
    cost.received += (sites - 1) * len(shown[node(0)])
    for index, party in enumerate(network.parties):
        began = time.process_time()
        for other in survivors:
            if other != node(index):
                party.take(other, shown[other], step=0)
        endorsement = party.endorse(step=0, survivors=survivors)
        cost.site_s += time.process_time() - began
        cost.sent += len(endorsement)
        network.collector.endorse(node(index), endorsement, step=0)
    began = time.process_time()
    total = network.total()
    cost.centre_s += time.process_time() - began
    _checked(total, vectors)
    network.close()
    cost.sent //= sites
    return cost
