"""Lies about answers: replayed, of another form, of another statistic, about data that did not change."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.server import Serving
from node.data_epoch import EPOCH_BYTES
from node.running import RunningNode
from privacy import reading, release
from protocols.question import Question
from protocols.statistic import Breakdown, By
from protocols.wire import fedtwin_pb2 as pb
from tests.network.consortium import Consortium, until
from tests.threats.hostile import HostileCoordinator, hostile
from tests.threats.test_lying_coordinator import charges, told

BY_SEX = Breakdown(By.SEX)
BY_AGE = Breakdown(By.AGE_BAND, edges=(40, 60))  # as many cells


def answer_to(question: Question, totals: list[int], **changes: Any) -> pb.Answer:
    fields: dict[str, Any] = {"contributors": 4, "participants": 4, "tolerance": 1, "releases": 1}
    return pb.Answer(question_id=question.question_id.raw, scaled_totals=totals, **(fields | changes))


def test_an_answer_of_another_form_is_no_answer(tmp_path: Path) -> None:
    """A stored answer to something else, handed to a researcher as the answer to their question."""
    consortium = Consortium(tmp_path)
    asked = consortium.question(statistic=BY_SEX)
    other = consortium.question()
    fits = answer_to(asked, [100, 200, 3])
    assert len(reading.read_answer(asked, fits).estimates) == 3
    once = consortium.question(statistic=BY_SEX, attempts=1)  # the first to ask may have signed for two
    assert reading.read_answer(once, answer_to(once, [1, 2, 3], releases=2, cached=True)).releases == 2
    with pytest.raises(ValueError, match=r".+"):
        reading.read_answer(once, answer_to(once, [1, 2, 3], releases=2))
    lies = [
        answer_to(other, [100, 200, 3], cached=True),  # another question's id
        answer_to(asked, [100], cached=True),  # of another statistic: another number of cells
        answer_to(asked, [100, 200, 3, 4], cached=True),
        answer_to(asked, []),
        answer_to(asked, [100, 200, 3], contributors=2, cached=True),  # fewer than the noise is made for
        answer_to(asked, [100, 200, 3], participants=0),
        answer_to(asked, [100, 200, 3], tolerance=4),
        answer_to(asked, [100, 200, 3], releases=3, cached=True),
        answer_to(asked, [100, 200, 3], releases=0),
    ]
    for lie in lies:
        with pytest.raises(ValueError, match=r".+"):
            reading.read_answer(asked, lie)


def test_a_coordinator_that_does_not_give_the_stored_answer_is_charged_each_time(tmp_path: Path) -> None:
    """What it has stored is its own affair: no hospital takes its word, each charges what it answers."""

    async def story(coordinator: HostileCoordinator) -> None:
        consortium = coordinator.consortium
        for asked in (consortium.question(), consortium.question()):  # the same meaning under two ids
            envelope = consortium.signed(asked)
            for node in coordinator.nodes:
                assert await coordinator.offer(node, asked.question_id, envelope) == ""
            collector = await coordinator.session()
            await coordinator.inputs(asked, collector)
            for node in coordinator.nodes:
                coordinator.survivors(node, collector.parameters.session_id, coordinator.nodes)
                await coordinator.hear(node, "sum_reveal")
        assert charges(consortium) == [2, 2, 2, 2]

    told(tmp_path, story)


def test_a_statistic_swapped_for_some_hospitals_opens_to_nothing(tmp_path: Path) -> None:
    """Two halves answer two questions with as many cells: masks are bound to what was asked, and stay on."""

    async def story(coordinator: HostileCoordinator) -> None:
        consortium = coordinator.consortium
        asked = [consortium.question(statistic=statistic) for statistic in (BY_SEX, BY_AGE)]
        half = {node: asked[place // 2] for place, node in enumerate(coordinator.nodes)}
        for node, one in half.items():
            assert await coordinator.offer(node, one.question_id, consortium.signed(one)) == ""
        collector = await coordinator.session()
        session = collector.parameters.session_id
        for node, one in half.items():
            run = pb.Run(question_id=one.question_id.raw, attempt=1, session_id=session.raw, step=0)
            coordinator.send(node, pb.CoordinatorFrame(run=run))
        inputs = {node: (await coordinator.hear(node, "sum_input")).sum_input for node in half}
        assert len({sent.context for sent in inputs.values()}) == 2
        for node, sent in inputs.items():  # an honest collector would not add them: this one says they fit
            vector = np.frombuffer(sent.masked, dtype="<u8")
            collector.input(node, vector, step=0, context=inputs[coordinator.nodes[0]].context)
        survivors = collector.close(0)
        assert len(survivors) == 4
        for node in survivors:
            coordinator.survivors(node, session, list(survivors))
        for node in survivors:
            reveal = (await coordinator.hear(node, "sum_reveal")).sum_reveal
            shares = {type(node).parse(peer): share for peer, share in reveal.shares.items()}
            collector.reveal(node, shares, step=0)
        total = collector.total(0).view(np.int64)
        plan = release.plan(asked[0], participants=4, tolerance=1)
        most = plan.encode(np.full(3, sum(consortium.counts.values()))).view(np.int64)
        assert np.all(
            np.abs(total) > 2**20 * most
        )  # masks: a chance of 2^-20 or so for each cell to be small

    told(tmp_path, story)


def test_epochs_of_hospitals_with_the_same_data_cannot_be_compared(tmp_path: Path) -> None:
    """A coordinator that hands one hospital's epoch around learns nothing by it, and nobody believes it."""

    async def whole() -> None:
        async with hostile(tmp_path) as coordinator:
            first = {node: hello.data_epoch for node, hello in coordinator.hellos}
            assert all(len(epoch) == EPOCH_BYTES for epoch in first.values())
            assert len({*first.values()}) == 4  # the same load at the same moment, by all four engines
            node, other = coordinator.nodes[:2]
            before = coordinator.connections
            # no frame brings an epoch to a node: sent as nodes send it, it reads as a cancel of nothing
            echoed = pb.NodeFrame(data_epoch=pb.DataEpoch(epoch=first[other]))
            coordinator.send(node, echoed.SerializeToString())
            await coordinator.silence(node)
            coordinator.cut(node)
            await until(lambda: coordinator.connections > before)
            assert coordinator.hellos[-1][1].data_epoch == first[node]
            assert charges(coordinator.consortium) == [0, 0, 0, 0]

    asyncio.run(whole())


class WrongForm(RunningNode):
    """A hospital whose inputs have a cell too few."""

    def send(self, frame: pb.NodeFrame) -> None:
        if frame.WhichOneof("body") == "sum_input":
            frame.sum_input.masked = frame.sum_input.masked[:-8]
        super().send(frame)


@contextlib.asynccontextmanager
async def with_one_of_the_wrong_form(folder: Path) -> AsyncIterator[tuple[Consortium, Serving]]:
    consortium = Consortium(folder)
    consortium.found()
    async with consortium.coordinator() as serving:
        await consortium.enrol_all()
        async with consortium.nodes(0, 1, 2), consortium.nodes(3, make=WrongForm):
            await until(lambda: len(serving.broker.connected()) == 4)
            yield consortium, serving


def test_a_vector_of_another_dimension_costs_its_hospital_its_place_and_nobody_else(tmp_path: Path) -> None:
    async def story() -> None:
        async with with_one_of_the_wrong_form(tmp_path) as (consortium, _):
            for statistic in (BY_SEX, BY_AGE):
                answer = await consortium.ask(consortium.question(statistic=statistic))
                assert (answer.contributors, answer.participants) == (3, 4)
                truth = sum(consortium.counts[site] for site in range(3))
                deviation = answer.standard_deviation * len(answer.estimates) ** 0.5
                assert abs(sum(answer.estimates) - truth) < 6 * deviation
            assert charges(consortium) == [2, 2, 2, 2]

    asyncio.run(story())
