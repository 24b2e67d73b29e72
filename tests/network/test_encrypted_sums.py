"""A consortium that adds up under encryption: coordinator, key-holder and hospitals over real TLS."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keyholder.memory import StepMemory
from keyholder.serve import RunningKeyHolder
from keyholder.serve import serving as key_holder_serving
from node.key_holder import trust
from node.running import RunningNode
from privacy.errors import ProtocolViolation
from privacy.lattice import NoisePlan
from protocols.clock import FixedClock
from protocols.ids import SessionId
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc
from tests.network.consortium import CLOCK, Consortium, until
from tests.network.test_rounds_over_the_wire import add, plan, propose
from tests.network.totals import numbers_of
from tests.privacy.seeded_bits import SeededBits

SITES = 3
CONTEXT = bytes(range(32))


@contextlib.asynccontextmanager
async def running(
    folder: Path, scheme: str, *, holder: bool = True, sites: int = SITES
) -> AsyncIterator[tuple[Consortium, Any, list[RunningNode]]]:
    consortium = Consortium(folder, sites=sites, secure_sum=scheme)
    consortium.found()
    async with consortium.coordinator() as serving, contextlib.AsyncExitStack() as stack:
        await consortium.enrol_all()
        await consortium.enrol_key_holder()
        if holder:
            await stack.enter_async_context(key_holder_serving(consortium.key_holder, clock=CLOCK))
            await until(lambda: serving.key_holder.connected)
        nodes = await stack.enter_async_context(consortium.nodes())
        await until(lambda: len(serving.broker.connected()) == sites)
        yield consortium, serving, nodes


async def total_of(serving: Any, nodes: list[RunningNode], vectors: list[np.ndarray]) -> np.ndarray:
    """Add up known vectors through one session of the service, as a question does."""
    session = await serving.sums.open(serving.broker.connected(), steps=2, purpose="questions", tolerance=1)
    step = session.take_step()
    for node, vector in zip(nodes, vectors, strict=True):
        await node.sums.opened(session.id)
        await node.sums.contribute(session.id, step, CONTEXT, vector)
    found = await session.step(step, deadline_s=20)
    assert len(found.contributors) == len(vectors)
    session.close()
    return found.total


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
def test_a_count_is_answered_and_charged_as_under_masks(tmp_path: Path, scheme: str) -> None:
    async def story() -> None:
        async with running(tmp_path, scheme) as (consortium, _, _nodes):
            answer = await consortium.ask()
            assert (answer.contributors, answer.participants, answer.releases) == (SITES, SITES, 1)
            assert [consortium.spent(site) for site in range(SITES)] == [1] * SITES
            assert consortium.entries(0) == [("reserved", 1), ("committed", 1), ("revealed", None)]
            with contextlib.closing(StepMemory(consortium.key_holder.steps, clock=CLOCK)) as memory:
                assert memory.counts()[1] == 1  # one sum was opened

    asyncio.run(story())


@pytest.mark.parametrize("scheme", ["masked", "bfv", "ckks"])
def test_the_same_vectors_and_noise_give_the_same_total_under_each_back_end(
    tmp_path: Path, scheme: str
) -> None:
    counts = NoisePlan.for_counts(sigma=9.0, sensitivity=2, participants=SITES, tolerance=1, dimension=64)
    reals = NoisePlan.for_reals(
        sigma=5.0, l2_clip_norm=1.0, sites_per_patient=2, participants=SITES, tolerance=1, dimension=5000,
        largest=500.0,
    )  # fmt: skip
    rng = np.random.default_rng(7)
    inputs = [
        [counts.contribution(rng.integers(0, 9_999, 64), bits=SeededBits(i)) for i in range(SITES)],
        [reals.contribution(rng.normal(0, 50, 5000), bits=SeededBits(i)) for i in range(SITES)],
    ]

    async def story() -> None:
        async with running(tmp_path, scheme) as (_, serving, nodes):
            for vectors in inputs:
                total = await total_of(serving, nodes, vectors)
                assert np.array_equal(total, np.sum(vectors, axis=0, dtype=np.uint64))

    asyncio.run(story())


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
def test_a_round_of_training_gives_every_site_and_the_lead_the_same_totals(
    tmp_path: Path, scheme: str
) -> None:
    async def story() -> None:
        async with running(tmp_path, scheme) as (consortium, _, nodes):
            study = plan()
            for node in nodes:
                node._parts.approvals.approve(study, clock=CLOCK)
            await propose(consortium, study)
            request = pb.OpenRoundRequest(plan_hash=study.plan_hash(), round=1, steps=3)
            async with consortium.channel(consortium.lead) as channel:
                events = aiter(fedtwin_pb2_grpc.ResearchStub(channel).OpenRound(request))
                session = SessionId((await anext(events)).opened.session_id)
                adding = [
                    asyncio.create_task(add(node, study, session, 10**site, values=3000))
                    for site, node in enumerate(nodes)
                ]
                sums = [event async for event in events]
                assert [found.WhichOneof("body") for found in sums] == ["sum"] * 3, sums
                for found in sums:
                    assert found.sum.contributors == SITES
                    assert set(numbers_of(found.sum)) == {111}
                for totals in await asyncio.gather(*adding):
                    assert all(set(total) == {111} for total in totals)

    asyncio.run(story())


def test_a_site_lost_in_a_step_is_a_dropout_and_two_end_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, "bfv", sites=4) as (consortium, serving, nodes):
            session = await serving.sums.open(
                serving.broker.connected(), steps=2, purpose="questions", tolerance=1
            )
            for site, refused in ((3, False), (2, True)):
                step = session.take_step()
                for node in nodes[:site]:
                    await node.sums.contribute(session.id, step, CONTEXT, np.ones(3, np.uint64))
                nodes[site].stream._queue = None  # its frames are lost from here on
                serving.broker._drop(serving.broker._links[consortium.node(site).config().node_id])
                if refused:
                    with pytest.raises(Refused) as found:
                        await session.step(step, deadline_s=5)
                    assert found.value.code is RefusalCode.TOO_MANY_DROPOUTS
                else:
                    assert set((await session.step(step, deadline_s=20)).total) == {3}

    asyncio.run(story())


def test_without_its_key_holder_nothing_is_asked_and_nothing_charged(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, "bfv", holder=False) as (consortium, _, _nodes):
            with pytest.raises(Refused) as refused:
                await consortium.ask()
            assert refused.value.code is RefusalCode.KEY_HOLDER_AWAY
            assert [consortium.spent(site) for site in range(SITES)] == [0] * SITES

    asyncio.run(story())


def test_a_hospital_encrypts_for_nobody_but_whom_its_staff_trusts(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, "bfv") as (consortium, serving, _nodes):
            trust(consortium.node(1).path, "ab" * 32)
            with pytest.raises(Refused) as refused:
                await serving.sums.open(serving.broker.connected(), steps=1, purpose="questions", tolerance=1)
            assert refused.value.code is RefusalCode.NOT_ALLOWED

    asyncio.run(story())


def test_values_that_do_not_fit_are_refused_and_the_node_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, "ckks") as (_, serving, nodes):
            session = await serving.sums.open(
                serving.broker.connected(), steps=2, purpose="questions", tolerance=1
            )
            opened = await nodes[0].sums.opened(session.id)
            assert opened.exchange is not None
            most = opened.exchange.largest_input
            assert most == 2**44 // SITES
            opened.must_hold(values=10, largest=most)
            for values, largest in ((10, most + 1), (2**24, 1)):
                with pytest.raises(Refused) as refused:
                    opened.must_hold(values=values, largest=largest)
                assert refused.value.code is RefusalCode.DOES_NOT_FIT
            with pytest.raises(Refused) as refused:
                await nodes[0].sums.contribute(session.id, 0, CONTEXT, np.full(3, most + 1, np.uint64))
            assert refused.value.code is RefusalCode.DOES_NOT_FIT
            session.close()
            ones = [np.ones(2, np.uint64)] * SITES
            assert set(await total_of(serving, nodes, ones)) == {SITES}

    asyncio.run(story())


def test_a_key_holder_that_was_killed_comes_back_and_opens_nothing_of_before(tmp_path: Path) -> None:
    """As a process of its own, by its command; SIGKILL takes its keys with it."""

    def start(consortium: Consortium) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "fedtwin", "keyholder", "serve", "--home"]
        process = subprocess.Popen(
            [*command, str(consortium.key_holder.path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["serving"] is True
        return process

    async def story() -> None:
        async with running(tmp_path, "bfv", holder=False) as (consortium, serving, nodes):
            process = await asyncio.to_thread(start, consortium)
            try:
                await until(lambda: serving.key_holder.connected)
                session = await serving.sums.open(
                    serving.broker.connected(), steps=2, purpose="questions", tolerance=1
                )
                step = session.take_step()
                for node in nodes:
                    await node.sums.contribute(session.id, step, CONTEXT, np.ones(1, np.uint64))
                process.send_signal(signal.SIGKILL)
                await asyncio.to_thread(process.wait)
                with pytest.raises(Refused) as refused:
                    await session.step(step, deadline_s=20)
                assert refused.value.code in (
                    RefusalCode.KEY_HOLDER_AWAY, RefusalCode.TOO_MANY_DROPOUTS,
                )  # fmt: skip
                process.stdout.close()  # type: ignore[union-attr]
                process = await asyncio.to_thread(start, consortium)
                await until(lambda: serving.key_holder.connected)
                ones = [np.ones(2, np.uint64)] * SITES
                assert set(await total_of(serving, nodes, ones)) == {SITES}
            finally:
                process.terminate()
                await asyncio.to_thread(process.wait)
                process.stdout.close()  # type: ignore[union-attr]
        with contextlib.closing(StepMemory(consortium.key_holder.steps, clock=CLOCK)) as memory:
            assert memory.counts()[1] == 1

    asyncio.run(story())


def test_a_key_holder_renews_its_certificate_over_its_own_stream(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, "bfv", holder=False) as (consortium, serving, _nodes):
            home, before = consortium.key_holder, consortium.key_holder.certificate.read_bytes()
            for days, renewed in ((1, False), (70, True)):
                clock = FixedClock(datetime.now(UTC) + timedelta(days=days))
                async with key_holder_serving(home, clock=clock) as holder:
                    await until(lambda: serving.key_holder.connected)
                    await until(lambda holder=holder: holder.stream.stub is not None)  # type: ignore[misc]
                    assert await holder.renew_if_due(holder.stream.stub) is renewed
                await until(lambda: not serving.key_holder.connected)
                assert (home.certificate.read_bytes() != before) is renewed

    asyncio.run(story())


def test_a_revoked_key_holder_is_cut_and_nothing_is_added_any_more(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, "bfv") as (consortium, serving, _nodes):
            with contextlib.closing(consortium.home.open_state()) as state:
                consortium.home.roster_book(state, clock=CLOCK).revoke_key_holder("holder")
            await until(lambda: not serving.key_holder.connected)
            with pytest.raises(Refused) as refused:
                await serving.sums.open(serving.broker.connected(), steps=1, purpose="questions", tolerance=1)
            assert refused.value.code is RefusalCode.KEY_HOLDER_AWAY

    asyncio.run(story())


def test_nothing_is_paid_for_a_step_whose_key_has_not_come(tmp_path: Path) -> None:
    """Answering waits here before it commits."""

    async def story() -> None:
        async with running(tmp_path, "bfv") as (_, serving, nodes):
            session = await serving.sums.open(
                serving.broker.connected(), steps=8, purpose="questions", tolerance=1
            )
            assert (await nodes[0].sums.opened(session.id, step=0)).participants == SITES
            for step, code in ((7, RefusalCode.DEADLINE), (8, RefusalCode.PROTOCOL_VIOLATION)):
                with pytest.raises((Refused, ProtocolViolation)) as refused:
                    await nodes[0].sums.opened(session.id, step=step, deadline_s=0.5)
                assert refused.value.code is code  # type: ignore[attr-defined]
            for _ in range(8):
                session.take_step()
            await nodes[0].sums.opened(session.id, step=7)

    asyncio.run(story())


def test_keys_that_are_asked_for_at_the_same_moment_are_all_kept(tmp_path: Path) -> None:
    """The first requests of a key-holder come together, each in a thread of its own."""

    async def story() -> None:
        async with running(tmp_path, "bfv", holder=False) as (consortium, _, _nodes):
            memory = StepMemory(consortium.key_holder.steps, clock=CLOCK)
            for _ in range(5):
                holder = RunningKeyHolder(consortium.key_holder, memory=memory, clock=CLOCK)
                found = await asyncio.gather(*(asyncio.to_thread(holder._of, "bfv") for _ in range(8)))
                assert len({id(sums) for sums in found}) == 1
            memory.close()

    asyncio.run(story())
