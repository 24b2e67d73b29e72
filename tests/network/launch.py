"""Starts a coordinator or a node as a process of its own, without Flower; a node may stop at a named moment.

    python tests/network/launch.py coordinator HOME
    python tests/network/launch.py node HOME [--pause-at accepted|committed|sent|revealed --marker FILE]

A node that was told to pause does nothing more from that moment on: it makes the marker file and waits to be
killed. Production code knows nothing of it.
"""

import argparse
import asyncio
from pathlib import Path

from coordinator.home import CoordinatorHome
from coordinator.server import serve as serve_coordinator
from node.home import NodeHome
from node.running import Parts, RunningNode
from node.serve import serve_until_stopped
from protocols.clock import SystemClock
from protocols.wire import fedtwin_pb2 as pb

FLUSH_S = 0.2  # for the last frame to leave before the marker says so
MOMENTS = {  # frame, and whether it still leaves
    "accepted": ("offer_reply", True),
    "committed": ("sum_input", False),
    "sent": ("sum_input", True),
    "revealed": ("sum_reveal", True),
}


def pausing(moment: str, marker: Path) -> type[RunningNode]:
    """Return a node that stops at `moment`."""
    stops_at, leaves = MOMENTS[moment]

    class PausingNode(RunningNode):
        def __init__(self, parts: Parts) -> None:
            self._paused = False
            super().__init__(parts)

        def send(self, frame: pb.NodeFrame) -> None:
            if self._paused:
                return
            stops = frame.WhichOneof("body") == stops_at
            if leaves or not stops:
                super().send(frame)
            if stops:
                self._paused = True
                asyncio.get_running_loop().call_later(FLUSH_S, marker.touch)

        async def _handle(self, frame: pb.CoordinatorFrame) -> None:
            if self._paused:
                await asyncio.Event().wait()
            await super()._handle(frame)

    return PausingNode


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("coordinator", "node"))
    parser.add_argument("home", type=Path)
    parser.add_argument("--pause-at", choices=sorted(MOMENTS))
    parser.add_argument("--marker", type=Path)
    asked = parser.parse_args()
    clock = SystemClock()
    if asked.role == "coordinator":
        serve_coordinator(CoordinatorHome(asked.home), clock=clock, flower=False)
        return
    make = pausing(asked.pause_at, asked.marker) if asked.pause_at else RunningNode
    asyncio.run(serve_until_stopped(NodeHome(asked.home), clock=clock, flower=False, make=make))


if __name__ == "__main__":
    main()
