"""What the coordinator sends behind a roster is judged by that roster, however long it takes to verify."""

import asyncio
import dataclasses
import time
from pathlib import Path

import pytest

from node.running import Parts, RunningNode
from protocols.ids import SessionId
from protocols.wire import fedtwin_pb2 as pb
from tests.network.consortium import Consortium, until

SITES = 3
FRAMES = 5


class Slow(RunningNode):
    """A node whose disk takes its time over a roster."""

    def __init__(self, parts: Parts) -> None:
        self.believed = 0

        def accept(envelope: bytes) -> object:
            time.sleep(0.2)
            found = parts.accept_roster(envelope)
            self.believed += 1
            return found

        super().__init__(dataclasses.replace(parts, accept_roster=accept))


async def judged(consortium: Consortium, *, rosters: int) -> list[tuple[int, int]]:
    """Send rosters and then frames of a sum; return each frame and how many rosters were believed by then."""
    consortium.found()
    async with consortium.coordinator() as serving:
        await consortium.enrol_all()
        async with consortium.nodes(make=Slow) as nodes:
            await until(lambda: len(serving.broker.connected()) == SITES)
            node = nodes[0]
            await until(lambda: node.believed > 0)
            before, seen = node.believed, []
            sessions = [SessionId.new().raw for _ in range(FRAMES)]

            async def handle(frame: pb.CoordinatorFrame) -> None:
                if frame.sum_close.session_id in sessions:  # others are the coordinator's own
                    seen.append((sessions.index(frame.sum_close.session_id), node.believed - before))

            node.sums.handle = handle
            for _ in range(rosters):
                told = pb.CoordinatorFrame()
                told.roster.roster_envelope = serving.broker.roll.envelope
                node.stream._start(told)
            for session in sessions:
                node.stream._start(pb.CoordinatorFrame(sum_close=pb.SumClose(session_id=session)))
            await until(lambda: len(seen) == FRAMES)
            await asyncio.sleep(0)
            return seen


@pytest.mark.parametrize("rosters", [1, 2])
def test_what_follows_a_roster_waits_for_it_and_keeps_its_order(tmp_path: Path, rosters: int) -> None:
    seen = asyncio.run(judged(Consortium(tmp_path, sites=SITES), rosters=rosters))
    assert [place for place, _ in seen] == list(range(FRAMES))
    assert all(believed >= rosters for _, believed in seen)  # the coordinator may send one more by itself
